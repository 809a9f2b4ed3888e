"""Whether a difference is one: against the spread of its measure over seeds.

    confirmed            the difference is in the claim's direction and exceeds the spread
    contradicted         it is in the other direction and exceeds the spread
    too small to judge   it does not, or there is no spread to compare it with
    not run              an arm or a measure is missing

The spread of a measure is its standard deviation over seeds, pooled over all arms of the study
that were run with several; a difference of means exceeds it where it is more than twice
sd * sqrt(1/n + 1/m), for n and m seeds on its sides.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from study.claim import Claim, Says
from study.measures import MEASURES, Record

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"
TOO_SMALL, NOT_RUN = "too small to judge", "not run"
FACTOR = 2.0


@dataclass(frozen=True)
class Judged:
    says: Says
    verdict: str
    difference: float | None = None  # in the direction of the statement; the margin not counted
    limit: float | None = None  # what it must exceed
    wins: tuple[int, int] | None = None  # seeds in which it points that way, of how many


def values(records: Iterable[Record], arm: str, measure: str) -> dict[int, float]:
    """Seed -> value, of the arm's runs that have it."""
    of = MEASURES[measure].of
    found = {r["seed"]: of(r) for r in records if r["arm"] == arm}
    return {seed: v for seed, v in sorted(found.items()) if v is not None}


def deviation(records: Sequence[Record], measure: str) -> float | None:
    """Standard deviation over seeds, pooled over arms; None where no arm has several."""
    squares, freedom = 0.0, 0
    for arm in sorted({r["arm"] for r in records}):
        seeds = list(values(records, arm, measure).values())
        if len(seeds) > 1:
            squares += statistics.variance(seeds) * (len(seeds) - 1)
            freedom += len(seeds) - 1
    return math.sqrt(squares / freedom) if freedom else None


def judge(says: Says, records: Sequence[Record]) -> Judged:
    over, _, under = says.measure.partition(">")
    under = under or over
    sides = [_side(records, s, m) for s, m in ((says.better, over), (says.worse, under))]
    if not all(sides):
        return Judged(says, NOT_RUN)
    sign = -1.0 if MEASURES[over].higher is False else 1.0
    better, worse = sides
    difference = sign * (_mean(better) - _mean(worse))
    both = sorted(set(better) & set(worse)) if -1 not in {*better, *worse} else []
    wins = sum(sign * (better[s] - worse[s]) > says.margin for s in both)
    sds = [deviation(records, m) for m in {over, under}]
    known = [sd for sd in sds if sd is not None]
    counted = sum(1 / len(s) for s in sides if -1 not in s)
    limit = FACTOR * max(known) * math.sqrt(counted) if known else None
    told = (difference, limit, (wins, len(both)) if len(both) > 1 else None)
    if limit is None or abs(difference - says.margin) <= limit:
        return Judged(says, TOO_SMALL, *told)
    return Judged(says, CONFIRMED if difference > says.margin else CONTRADICTED, *told)


def verdict(claim: Claim, records: Sequence[Record]) -> tuple[str, list[Judged]]:
    """Of a claim, by its main statements: contradicted if one of them is, confirmed if all are,
    not run if none was; else too small to judge."""
    judged = [judge(says, records) for says in claim.statements]
    found = [j.verdict for j in judged if j.says.main]
    if CONTRADICTED in found:
        return CONTRADICTED, judged
    for one in (CONFIRMED, NOT_RUN):
        if all(v == one for v in found):
            return one, judged
    return TOO_SMALL, judged


def _side(records: Sequence[Record], side: str | float, measure: str) -> dict[int, float]:
    """Seed -> value; a constant stands under -1."""
    return values(records, side, measure) if isinstance(side, str) else {-1: float(side)}


def _mean(side: dict[int, float]) -> float:
    return statistics.mean(side.values())
