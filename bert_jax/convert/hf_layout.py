"""How Hugging Face stores what the native tree holds: shared layers, parameters that only its
networks have, written and removed, and half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder, replace
from bert_jax.convert.hf_families import ALBERT
from bert_jax.convert.hf_name_rules import Family, full_names

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


def without_zero_types(
    family: Family, tensors: Tensors, encoder: Encoder
) -> tuple[Tensors, Encoder]:
    """RoBERTa has no token types; Hugging Face keeps a single row of zeros. A row that is not zero
    stays, as a table with one row."""
    name = family.types_table
    table = None if name is None else tensors.get(name)
    if table is None or table.shape != (1, encoder.embedding_width) or table.any():
        return tensors, encoder
    return {k: v for k, v in tensors.items() if k != name}, replace(encoder, token_types=0)


def without_identity(family: Family, tensors: Tensors, encoder: Encoder) -> Tensors:
    """Hugging Face's ALBERT has a projection even between equal widths. It is the identity, as
    `to_hf` writes it, and is removed."""
    if family is not ALBERT or encoder.embedding_width != encoder.hidden_size:
        return tensors
    name = f"{family.prefix}{family.projection}."
    return {k: v for k, v in tensors.items() if not k.startswith(name)}


def refuse_projection(family: Family, tensors: Mapping[str, np.ndarray], encoder: Encoder) -> None:
    """ValueError: an ALBERT with a learned projection between equal widths, which is not built
    here."""
    if family is not ALBERT or encoder.embedding_width != encoder.hidden_size:
        return
    identity = {"weight": np.eye(encoder.hidden_size), "bias": np.zeros(encoder.hidden_size)}
    for original, name in full_names(family, tensors).items():
        part = name.removeprefix(f"{family.prefix}{family.projection}.")
        if part in identity and not np.array_equal(tensors[original], identity[part]):
            raise ValueError(
                f"config.json has embedding_size {encoder.hidden_size}, equal to hidden_size, and "
                f"{name} is not the identity: expected an ALBERT whose projection is between "
                "unequal widths; this one cannot be imported, not even with --drop"
            )
