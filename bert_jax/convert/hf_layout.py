"""How Hugging Face stores what the native tree holds: shared layers, parameters that only its
networks have, and half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder
from bert_jax.convert.hf_families import ALBERT
from bert_jax.convert.hf_name_rules import Family

Tensors = dict[str, np.ndarray]
Half = Literal["bfloat16", "float16"]


def half_precision(tensors: Mapping[str, np.ndarray]) -> Half | None:
    """The type of the tensors, if all that are floating point have the same half precision."""
    names = {x.dtype.name for x in tensors.values() if jnp.issubdtype(x.dtype, jnp.floating)}
    halves: tuple[Half, ...] = ("bfloat16", "float16")
    return next((half for half in halves if names == {half}), None)


def as_imported(tensors: Tensors, dtype: str) -> tuple[Tensors, str]:
    """The tensors in the type that they were imported in, and its name. If that would lose digits,
    because the model was trained further, they stay float32."""
    if dtype == "float32":
        return tensors, dtype
    stored = {name: np.asarray(x, jnp.dtype(dtype)) for name, x in tensors.items()}
    if any((stored[name].astype(np.float32) != x).any() for name, x in tensors.items()):
        return tensors, "float32"
    return stored, dtype


def unshare_layers(family: Family, encoder: Encoder, leaves: Tensors) -> Tensors:
    """Stacked leaves with one entry on axis 0 for each set of parameters in Hugging Face: for
    each of ALBERT's groups, or for every layer."""
    if encoder.share_params == "all" and (family is ALBERT or encoder.num_groups == encoder.layers):
        return leaves
    out = {}
    for name, leaf in leaves.items():
        if name.startswith("encoder/layers/own/"):
            rest = name.removeprefix("encoder/layers/own/")
            part = "mlp" if encoder.share_params == "attention" else "attention"
            name, leaf = f"encoder/layers/{part}/{rest}", leaf.reshape(-1, *leaf.shape[2:])
        elif name.startswith("encoder/layers/"):
            leaf = leaf.repeat(encoder.layers // encoder.num_groups, axis=0)
        out[name] = leaf
    return out


def neutral_params(family: Family, encoder: Encoder) -> Tensors:
    """Parameters that only Hugging Face's networks have, with values that change no output."""
    d, e = encoder.hidden_size, encoder.embedding_width
    types = {"embeddings/type": np.zeros((1, e), np.float32)}
    params: Tensors = types if family.types_table else {}
    if family is ALBERT:
        params["encoder/projection/kernel"] = np.eye(d, dtype=np.float32)
        params["encoder/projection/bias"] = np.zeros(d, np.float32)
    return params
