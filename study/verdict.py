"""Whether a difference is one: against what chance alone may make of it.

    confirmed            the difference is in the claim's direction and exceeds chance
    contradicted         it is in the other direction and exceeds chance
    too small to judge   it does not, or there is no spread to compare it with
    not judged           a value is not a number, or an arm's runs never did better than answers
                         that follow frequencies alone
    not run              an arm or a measure is missing

The spread of a measure is its standard deviation over seeds, pooled over all arms of the study
that were run with several, with f degrees of freedom. The standard error of one run is that which
its number of scored rows leaves (measures.py). Chance is the larger of t(f) times the one and
1.96 times the other, times sqrt(1/n + 1/m), for n and m seeds on the two sides: t and 1.96 leave
2.5 % on either side. Seeds that differ by nothing, where rows are not counted, show no spread.

A statement about most seeds is judged by their count alone, from three on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from study.hypothesis import Hypothesis, Statement
from study.metrics import METRICS, Record

CONFIRMED, CONTRADICTED = "confirmed", "contradicted"
TOO_SMALL, NOT_JUDGED, NOT_RUN = "too small to judge", "not judged", "not run"
LEVEL = 0.975
BEGUN = 0.02  # nat below the loss of frequencies; where `log.trivial` warns of masked words
NORMAL = float(stats.norm.ppf(LEVEL))


@dataclass(frozen=True)
class Judgment:
    says: Statement
    verdict: str
    difference: float | None = None  # in the direction of the statement; the margin not counted
    limit: float | None = None  # what it must exceed
    wins: tuple[int, int] | None = None  # seeds in which it points that way, of how many
    idle: tuple[str, ...] = ()  # arms that never began to learn: nothing follows from them


def values(records: Iterable[Record], arm: str, measure: str) -> dict[int, float]:
    """Seed -> value, of the arm's runs that have it."""
    of = METRICS[measure].of
    found = {r["seed"]: of(r) for r in records if r["arm"] == arm}
    return {seed: v for seed, v in sorted(found.items()) if v is not None}


def deviation(records: Sequence[Record], measure: str) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over arms, and its degrees of freedom; 0 of them
    where no arm has several seeds."""
    squares, freedom = 0.0, 0
    for arm in sorted({r["arm"] for r in records}):
        seeds = [v for v in values(records, arm, measure).values() if math.isfinite(v)]
        if len(seeds) > 1:
            squares += statistics.variance(seeds) * (len(seeds) - 1)
            freedom += len(seeds) - 1
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom


def chance(says: Statement, records: Sequence[Record], seeds: Sequence[int]) -> float | None:
    """What a difference must exceed, between sides of so many seeds each. None: no spread."""
    spreads, errors = [], []
    for measure, side in zip(_measures(says), (says.better, says.worse), strict=True):
        sd, freedom = deviation(records, measure)
        if freedom:
            spreads.append(float(stats.t.ppf(LEVEL, freedom)) * sd)
        of = METRICS[measure]
        scored = [r for r in records if r["arm"] == side and of.of(r) is not None]
        errors += [NORMAL * of.error(r) for r in scored]
    most = max([*spreads, *errors]) if spreads else 0.0
    return most * math.sqrt(sum(1 / n for n in seeds)) if most > 0 else None


def judge(says: Statement, records: Sequence[Record]) -> Judgment:
    over, under = _measures(says)
    better, worse = _side(records, says.better, over), _side(records, says.worse, under)
    if not better or not worse:
        return Judgment(says, NOT_RUN)
    if not all(map(math.isfinite, [*better.values(), *worse.values()])):
        return Judgment(says, NOT_JUDGED)
    sign = -1.0 if METRICS[over].higher is False else 1.0
    difference = sign * (_mean(better) - _mean(worse))
    both = sorted(set(better) & set(worse) - {CONSTANT})
    wins = sum(sign * (better[s] - worse[s]) > says.margin for s in both)
    counted = (wins, len(both)) if len(both) > 1 else None
    arms = [side for side in (says.better, says.worse) if isinstance(side, str)]
    if idle := tuple(a for a in arms if not all(begun(records, a, need) for need in says.needs)):
        return Judgment(says, NOT_JUDGED, difference, None, counted, idle)
    if says.most:
        return Judgment(says, _by_count(counted), difference, None, counted)
    limit = chance(says, records, [len(s) for s in (better, worse) if CONSTANT not in s])
    if limit is None or abs(difference - says.margin) <= limit:
        return Judgment(says, TOO_SMALL, difference, limit, counted)
    found = CONFIRMED if difference > says.margin else CONTRADICTED
    return Judgment(says, found, difference, limit, counted)


def begun(records: Iterable[Record], arm: str, need: str) -> bool:
    """Whether an arm's runs, in the mean, do better than frequencies (collect.gain). What models
    that do not score on tasks is about the recipe alone."""
    gains = values(records, arm, need).values()
    return not gains or statistics.mean(gains) > BEGUN


def _by_count(wins: tuple[int, int] | None) -> str:
    if wins is None or wins[1] < 3 or 2 * wins[0] == wins[1]:
        return TOO_SMALL
    return CONFIRMED if 2 * wins[0] > wins[1] else CONTRADICTED


def verdict(claim: Hypothesis, records: Sequence[Record]) -> tuple[str, list[Judgment]]:
    """Of a claim, by its main statements: contradicted if one of them is, confirmed if all are,
    not judged or not run if none was; else too small to judge."""
    judged = [judge(says, records) for says in claim.statements]
    found = [j.verdict for j in judged if j.says.main]
    if CONTRADICTED in found:
        return CONTRADICTED, judged
    for one in (CONFIRMED, NOT_JUDGED, NOT_RUN):
        if all(v == one for v in found):
            return one, judged
    return TOO_SMALL, judged


CONSTANT = -1  # stands for the seed of a number to beat


def _measures(says: Statement) -> tuple[str, str]:
    """Of both sides; `a>b` where they differ."""
    over, _, under = says.measure.partition(">")
    return over, under or over


def _side(records: Sequence[Record], side: str | float, measure: str) -> dict[int, float]:
    """Seed -> value."""
    return values(records, side, measure) if isinstance(side, str) else {CONSTANT: float(side)}


def _mean(side: dict[int, float]) -> float:
    return statistics.mean(side.values())
