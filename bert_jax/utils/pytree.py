"""Names of pytree leaves, and rules over names that must cover every leaf.

A leaf's name is its path joined by slashes: `encoder/layers/attention/query/kernel`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

T = TypeVar("T")
Tree = Any  # a nested dict of arrays


def path_str(path: tuple[Any, ...]) -> str:
    """The name of a leaf, from its jax key path."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def flatten_with_names(tree: Tree) -> dict[str, Any]:
    """Name -> leaf, in tree order."""
    return {path_str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_names(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` of a function that takes the leaf's name as its first argument."""
    return jax.tree_util.tree_map_with_path(lambda p, *xs: f(path_str(p), *xs), tree, *rest)


def first_match(rules: Sequence[tuple[str, T]], name: str) -> T:
    """The value of the first rule whose pattern occurs in the name. ValueError: no rule does."""
    for pattern, value in rules:
        if re.search(pattern, name):
            return value
    raise ValueError(f"no rule covers the parameter {name}: add one")


def is_stacked(name: str) -> bool:
    """Whether axis 0 of the leaf is the parameter group (the encoder's stacked layers)."""
    return "/layers/" in f"/{name}"


def is_embedding_table(name: str) -> bool:
    """Whether axis 0 of the leaf is the vocabulary."""
    return re.search(r"(embeddings/word(_difference)?|(mlm|sbo)/bias)$", name) is not None


def abstract(tree: Tree, shardings: Tree) -> Tree:
    """A tree of `jax.ShapeDtypeStruct`: shapes and types of `tree`, with `shardings`."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )


def split_rows(tree: Tree, n: int) -> Tree:
    """Arrays [b ...] as [n b/n ...]. A part takes every n-th row, so that each device has its share
    of each part."""
    return jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), tree)


def join_rows(parts: Tree) -> Tree:
    """The inverse of `split_rows`: arrays [n b/n ...] as [b ...], in the order of the rows."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)


def count(tree: Tree) -> int:
    """Total number of elements in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
