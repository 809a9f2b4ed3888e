"""ELECTRA's parameters: two towers, and between them one leaf of each embedding they share.

    {"embeddings": shared, "generator": {...}, "discriminator": {...}}

What is not shared lies in each tower's own `embeddings`.
"""

from __future__ import annotations

from collections.abc import Callable

from bert_jax.utils.types import Params

SHARED: dict[str, Callable[[str], bool]] = {  # ReplacedTokens.tied -> is this leaf one for both
    "all": lambda name: True,
    "words": lambda name: name == "word",
    "none": lambda name: False,
}


def split_towers(generator: Params, discriminator: Params, tied: str) -> Params:
    """Two whole networks as one tree; of what they share, the discriminator's stays."""
    towers: Params = {"generator": dict(generator), "discriminator": dict(discriminator)}
    shared = SHARED[tied]
    one = {k: v for k, v in discriminator["embeddings"].items() if shared(k)}
    for tower in towers.values():
        own = {k: v for k, v in tower.pop("embeddings").items() if not shared(k)}
        tower.update({"embeddings": own} if own else {})
    return {"embeddings": one, **towers} if one else towers


def merge_tower(params: Params, name: str) -> Params:
    """One network of the tree, the shared embeddings put back."""
    tower = params[name]
    shared, own = params.get("embeddings", {}), tower.get("embeddings", {})
    return {**tower, "embeddings": {**shared, **own}}
