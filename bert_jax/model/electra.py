"""ELECTRA's parameters: two towers, and one copy of the embeddings that they share.

    {"embeddings": shared, "generator": {...}, "discriminator": {...}}

Embeddings that are not shared are in the `embeddings` of each tower.
"""

from __future__ import annotations

from collections.abc import Callable

from bert_jax.utils.types import Params

IS_SHARED: dict[str, Callable[[str], bool]] = {  # ReplacedTokens.tied -> whether a leaf is shared
    "all": lambda name: True,
    "words": lambda name: name == "word",
    "none": lambda name: False,
}


def split_towers(generator: Params, discriminator: Params, tied: str) -> Params:
    """One tree from two complete networks. Shared embeddings are the discriminator's."""
    towers: Params = {"generator": dict(generator), "discriminator": dict(discriminator)}
    is_shared = IS_SHARED[tied]
    shared = {k: v for k, v in discriminator["embeddings"].items() if is_shared(k)}
    for tower in towers.values():
        own = {k: v for k, v in tower.pop("embeddings").items() if not is_shared(k)}
        tower.update({"embeddings": own} if own else {})
    return {"embeddings": shared, **towers} if shared else towers


def merge_tower(params: Params, name: str) -> Params:
    """The complete parameters of one network, `generator` or `discriminator`."""
    tower = params[name]
    shared, own = params.get("embeddings", {}), tower.get("embeddings", {})
    return {**tower, "embeddings": {**shared, **own}}
