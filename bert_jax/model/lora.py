"""Low-rank adapters as a second tree beside the parameters of a network (Hu et al. 2021).

An adapter of a kernel is two leaves next to it, with the kernel's leading axes:

    encoder/layers/mlp/up/kernel  [g d f]    frozen
    encoder/layers/mlp/up/lora_a  [g d r]    random at the start
    encoder/layers/mlp/up/lora_b  [g r f]    zero at the start, so that nothing changes

The layer adds  alpha/rank dropout(x) a b  to  x kernel  (`layers.Dense`). Layers that share a
kernel share its adapter. A run trains the tree of adapters and heads; `join` puts it beside the
frozen base where a network is applied, which copies nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bert_jax.config import Lora
from bert_jax.utils.pytree import Tree, flatten_with_names, is_embedding_table, is_stacked

A, B = "lora_a", "lora_b"


def is_adapter(name: str) -> bool:
    """Whether a leaf belongs to an adapter."""
    return name.endswith((f"/{A}", f"/{B}"))


def is_base(name: str) -> bool:
    """Whether a leaf is frozen while adapters are trained: everything but adapters and heads."""
    return re.search(r"(^|/)(embeddings|encoder)/", name) is not None and not is_adapter(name)


def adapter_shapes(lora: Lora, params: Tree) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the adapters of a network's parameters.

    ValueError: a target that no layer has, or a rank above the smaller side of a kernel.
    """
    assert lora.rank is not None
    kernels = {
        name.removesuffix("/kernel"): leaf.shape
        for name, leaf in flatten_with_names(params).items()
        if is_stacked(name) and name.endswith("/kernel")
    }
    existing = {name.rpartition("/")[2] for name in kernels}
    missing = [name for name in lora.named if name not in existing]
    if missing or not existing & set(lora.kernels):
        raise ValueError(
            f"lora.targets is {lora.targets}, and the layers have no kernel "
            f"{(missing or lora.kernels)[0]}: expected some of {', '.join(sorted(existing))}"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (*lead, width_in, width_out) in kernels.items():
        if name.rpartition("/")[2] not in lora.kernels:
            continue
        if lora.rank > min(width_in, width_out):
            raise ValueError(
                f"lora.rank is {lora.rank}: expected at most {min(width_in, width_out)}, the "
                f"smaller side of {name}/kernel {[width_in, width_out]}"
            )
        shapes[f"{name}/{A}"] = (*lead, width_in, lora.rank)
        shapes[f"{name}/{B}"] = (*lead, lora.rank, width_out)
    return shapes


def init_adapters(lora: Lora, params: Tree, key: jax.Array) -> Tree:
    """New adapters for a network's parameters, float32: `a` uniform in +-1/sqrt(inputs), `b` zero,
    as in peft (`reset_lora_parameters`). ValueError: as `adapter_shapes`."""

    def leaf(name: str, shape: tuple[int, ...]) -> jax.Array:
        if name.endswith(B):
            return jnp.zeros(shape)
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        bound = 1 / math.sqrt(shape[-2])
        return jax.random.uniform(own, shape, minval=-bound, maxval=bound)

    flat = {name: leaf(name, shape) for name, shape in adapter_shapes(lora, params).items()}
    return unflatten(flat)


def trained_shapes(lora: Lora, params: Tree) -> Tree:
    """Shapes of what a run with adapters trains, from those of a network's parameters."""
    adapters = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in adapter_shapes(lora, params).items()
    }
    return join(unflatten(adapters), split_base(params)[0])


def split_base(params: Tree) -> tuple[Tree, Tree]:
    """The part that is trained, and the frozen base."""
    flat = flatten_with_names(params)
    base = {name: leaf for name, leaf in flat.items() if is_base(name)}
    return unflatten({k: v for k, v in flat.items() if k not in base}), unflatten(base)


def join(params: Tree, base: Tree) -> Tree:
    """The leaves of both trees in one; `params` itself if there is no base."""
    if not base:
        return params
    return unflatten(flatten_with_names(base) | flatten_with_names(params))


def merge(params: Tree, lora: Lora) -> Tree:
    """The parameters (NumPy, float32) without adapters: each kernel plus alpha/rank a b, which is
    summed in float64 and rounded once."""
    flat = {name: np.asarray(leaf) for name, leaf in flatten_with_names(params).items()}
    merged = {name: leaf for name, leaf in flat.items() if not is_adapter(name)}
    for name in flat:
        if name.endswith(f"/{A}"):
            module = name.removesuffix(A)
            a, b = (np.asarray(flat[module + x], np.float64) for x in (A, B))
            kernel = flat[f"{module}kernel"].astype(np.float64)
            merged[f"{module}kernel"] = (kernel + lora.scale * (a @ b)).astype(np.float32)
    return unflatten(merged)


def base_hash(base: Tree, vocab_size: int) -> str:
    """SHA-256 of the names, shapes and float32 values of a base. Padding rows of its tables
    (`sharding.pad_vocab`) do not count."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten_with_names(base).items()):
        rows = leaf[:vocab_size] if is_embedding_table(name) else leaf
        array = np.ascontiguousarray(rows, np.float32)
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def check_base(base: Tree, vocab_size: int, recorded: str | None, path: str | Path) -> str:
    """The `base_hash` of the model at `path`. ValueError: another one was recorded with the
    adapters; None: none was."""
    found = base_hash(base, vocab_size)
    if recorded is not None and recorded != found:
        raise ValueError(
            f"{path} is not the base that the adapters were trained on: its parameters have the "
            f"hash {found[:12]}, expected {recorded[:12]}; restore that model, or give its path"
        )
    return found


def unflatten(flat: dict[str, Any]) -> Tree:
    """The tree of leaves by name; the inverse of `flatten_with_names` for nested dicts."""
    return traverse_util.unflatten_dict(flat, sep="/")
