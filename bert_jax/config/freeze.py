"""`optim.freeze`: which parts of a network keep their parameters."""

from __future__ import annotations

import re
from typing import NamedTuple


class Frozen(NamedTuple):
    """The frozen parts."""

    embeddings: bool  # with their projection to the hidden size
    layers: frozenset[int]  # numbers from 0
    encoder: bool  # embeddings, all layers, and the norm after them


def parse_freeze(text: str) -> Frozen:
    """`embeddings,0-5,7` or `encoder` as parts. ValueError: another word, an empty range."""
    embeddings, encoder, layers = False, False, set[int]()
    for part in text.replace(" ", "").split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if last < first:
                raise ValueError(f"optim.freeze has {part!r}: expected a range such as 0-5")
            layers |= set(range(first, last + 1))
        elif part == "embeddings":
            embeddings = True
        elif part == "encoder":
            encoder = True
        else:
            raise ValueError(
                f"optim.freeze has {part!r}: expected embeddings, encoder, or layers from 0 on, "
                "such as embeddings,0-5"
            )
    return Frozen(embeddings or encoder, frozenset(layers), encoder)
