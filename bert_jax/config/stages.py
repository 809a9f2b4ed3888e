"""Stages of a schedule: batch shapes that change during a run, parsed from `data.stages`.

128x256=0.9,512=0.1     nine tenths of the schedule with 256 rows of 128 tokens per step, then
                        `data.batch_size` rows of 512
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Stage(NamedTuple):
    """Batches of one shape."""

    start: int  # step of the first batch
    length: int | None  # tokens per row; None: the corpus's own length
    batch_size: int


class StageSpec(NamedTuple):
    """A stage as it is written: LENGTH[xROWS]=SHARE."""

    length: int
    rows: int | None
    share: float


def parse_stages(text: str) -> list[StageSpec]:
    """The stages that `data.stages` lists. ValueError: quotes the one that is invalid."""
    return [_parse_stage(part) for part in text.split(",")]


def _parse_stage(text: str) -> StageSpec:
    shape, _, share = text.partition("=")
    length, times, rows = shape.partition("x")
    try:
        spec = StageSpec(int(length), int(rows) if times else None, float(share))
    except ValueError:
        spec = StageSpec(0, None, 0.0)
    if spec.length < 8 or spec.rows == 0 or (spec.rows or 1) < 0 or not 0 < spec.share < 1e9:
        raise ValueError(
            f"data.stages has {text!r}: expected LENGTH[xROWS]=SHARE,... such as "
            "128x256=0.9,512x256=0.1, with LENGTH at least 8, ROWS at least 1, SHARE above 0"
        )
    return spec


def build_stages(
    text: str | None, steps: int, length: int | None, batch_size: int
) -> tuple[Stage, ...]:
    """The stages of a schedule of `steps`; a single one if `text` is None. Shares are relative to
    their sum. A stage whose share rounds to no step starts where the next one does."""
    if text is None:
        return (Stage(0, length, batch_size),)
    specs = parse_stages(text)
    total = sum(spec.share for spec in specs)
    starts = itertools.accumulate((spec.share for spec in specs), initial=0.0)
    return tuple(
        Stage(round(start / total * steps), spec.length, spec.rows or batch_size)
        for spec, start in zip(specs, starts, strict=False)
    )


def moved_stage(
    before: Sequence[Stage], after: Sequence[Stage], steps: int
) -> tuple[Stage, Stage] | None:
    """The first stage, before and after, whose beginning is another one among the first `steps` of
    a run; None if the batches of these steps stay the same."""
    for old, new in zip(before, after, strict=True):
        if min(old.start, steps) != min(new.start, steps):
            return old, new
    return None
