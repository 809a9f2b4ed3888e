"""ELECTRA's parameters: two towers, and one copy of the embeddings that they share.

    {"embeddings": shared, "generator": {...}, "discriminator": {...}}

Embeddings that are not shared are in the `embeddings` of each tower.

`gradient_disentangled` (He et al. 2021, DeBERTa-v3, section 3.3) shares the generator's tables. The
discriminator's own are sums, in which its loss changes the differences alone:

    word            embeddings/word                                       the generator's
    word            stop_gradient(embeddings/word)                        the discriminator's
                    + discriminator/embeddings/word_difference

and so are those of positions and types, where a family has them. Each tower has its own norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from bert_jax.utils.types import Params

TABLES = ("word", "position", "type")
DIFFERENCE = "_difference"

IS_SHARED: dict[str, Callable[[str], bool]] = {  # ReplacedTokens.tied -> whether a leaf is shared
    "all": lambda name: True,
    "words": lambda name: name == "word",
    "none": lambda name: False,
    "gradient_disentangled": lambda name: name in TABLES,
}


def split_towers(generator: Params, discriminator: Params, tied: str) -> Params:
    """One tree from two complete networks. Shared embeddings are the discriminator's; those of
    `gradient_disentangled` are the generator's, and the discriminator keeps its differences."""
    towers: Params = {"generator": dict(generator), "discriminator": dict(discriminator)}
    is_shared, is_disentangled = IS_SHARED[tied], tied == "gradient_disentangled"
    owner = generator if is_disentangled else discriminator
    shared = {k: v for k, v in owner["embeddings"].items() if is_shared(k)}
    for tower in towers.values():
        own = {k: v for k, v in tower.pop("embeddings").items() if not is_shared(k)}
        tower.update({"embeddings": own} if own else {})
    if is_disentangled:
        towers["discriminator"]["embeddings"] |= {
            k + DIFFERENCE: discriminator["embeddings"][k] - v for k, v in shared.items()
        }
    return {"embeddings": shared, **towers} if shared else towers


def merge_tower(params: Params, name: str) -> Params:
    """The complete parameters of one network, `generator` or `discriminator`."""
    tower = params[name]
    shared, own = params.get("embeddings", {}), tower.get("embeddings", {})
    merged = {**shared, **own}
    for k, table in shared.items():
        if (difference := merged.pop(k + DIFFERENCE, None)) is not None:
            merged[k] = _without_gradient(table) + difference
    return {**tower, "embeddings": merged}


def is_disentangled(params: Mapping[str, Any]) -> bool:
    """Whether the discriminator's tables are the generator's and differences."""
    return any(k.endswith(DIFFERENCE) for k in params["discriminator"].get("embeddings", {}))


def tables(network: Params) -> Params:
    """The embedding tables of a complete network."""
    return {k: v for k, v in network["embeddings"].items() if k in TABLES}


def _without_gradient(table: Any) -> Any:
    return table if isinstance(table, np.ndarray) else jax.lax.stop_gradient(table)
