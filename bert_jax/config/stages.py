"""Which rows a run reads from which step on, out of one line of text.

128x256=0.9,512=0.1     nine tenths of the schedule with 256 rows of 128 tokens a step, then
                        `data.batch_size` rows of 512
"""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Stage(NamedTuple):
    """Batches of one shape."""

    start: int  # the step before its first batch
    length: int | None  # tokens of a row; None: the corpus's own
    batch_size: int


class Part(NamedTuple):
    """A stage as it is written: LENGTH[xROWS]=SHARE."""

    length: int
    rows: int | None
    share: float


def parse_stages(text: str) -> list[Part]:
    """The parts of `data.stages`; ValueError names the one that cannot be read."""
    return [_part(part) for part in text.split(",")]


def _part(text: str) -> Part:
    shape, _, share = text.partition("=")
    length, times, rows = shape.partition("x")
    try:
        part = Part(int(length), int(rows) if times else None, float(share))
    except ValueError:
        part = Part(0, None, 0.0)
    if part.length < 8 or part.rows == 0 or (part.rows or 1) < 0 or not 0 < part.share < 1e9:
        raise ValueError(
            f"data.stages has {text!r}: expected LENGTH[xROWS]=SHARE,... such as "
            "128x256=0.9,512x256=0.1, lengths from 8, rows from 1, shares above 0"
        )
    return part


def stages_of(
    text: str | None, steps: int, length: int | None, batch_size: int
) -> tuple[Stage, ...]:
    """The stages of a schedule of `steps`; without a text it has one. Shares count against
    their sum; a share too small for a step gives a stage that begins where the next one does."""
    if text is None:
        return (Stage(0, length, batch_size),)
    parts = parse_stages(text)
    total = sum(p.share for p in parts)
    before = itertools.accumulate((p.share for p in parts), initial=0.0)
    return tuple(
        Stage(round(share / total * steps), part.length, part.rows or batch_size)
        for part, share in zip(parts, before, strict=False)
    )
