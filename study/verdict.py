"""Decide whether a difference between variants exceeds the noise.

    confirmed            the difference has the stated direction and exceeds the noise
    contradicted         it has the other direction and exceeds the noise
    too small to judge   it does not exceed the noise
    not judged           a value is not finite, no spread is known, there are too few seeds to
                         count, or a variant has not learned enough (has_learned)
    not run              a variant or a metric is missing

The spread of a metric is its standard deviation over seeds, pooled over all variants with several
seeds, with f degrees of freedom. The standard error of one run follows from its number of scored
rows (metrics.py). The noise limit is the larger of t(f) x spread and 1.96 x standard error, times
sqrt(1/n + 1/m) for n and m seeds on the two sides; t and 1.96 leave 2.5 % on either side. Equal
seeds without counted rows show no spread.

A statement with `by_seed_count` is decided by the number of seeds alone, from three seeds on.
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
NORMAL = float(stats.norm.ppf(LEVEL))
MIN_DELTA = 0.02  # nat or AUC above what needs no context; pre-training warns at the same value
CONSTANT = -1  # in place of the seed, for a constant to beat


@dataclass(frozen=True)
class Judgment:
    """A statement with its verdict."""

    statement: Statement
    verdict: str
    difference: float | None = None  # in the statement's direction, without the margin
    limit: float | None = None  # the noise that it must exceed
    wins: tuple[int, int] | None = None  # seeds in which the statement holds, of how many
    seeds_needed: int | None = None  # on each side, to decide a difference of this size
    unlearned: tuple[str, ...] = ()  # variants that have not learned what the statement needs


def values_by_seed(records: Iterable[Record], variant: str, metric: str) -> dict[int, float]:
    """Seed -> value, for the variant's runs that have the metric."""
    value = METRICS[metric].value
    values = {r["seed"]: value(r) for r in records if r["variant"] == variant}
    return {seed: v for seed, v in sorted(values.items()) if v is not None}


def pooled_deviation(records: Sequence[Record], metric: str) -> tuple[float, int]:
    """The standard deviation over seeds, pooled over variants, and its degrees of freedom: 0 if
    no variant has several seeds."""
    squares, freedom = 0.0, 0
    for variant in sorted({r["variant"] for r in records}):
        values = [v for v in values_by_seed(records, variant, metric).values() if math.isfinite(v)]
        if len(values) > 1:
            squares += statistics.variance(values) * (len(values) - 1)
            freedom += len(values) - 1
    return (math.sqrt(squares / freedom) if freedom else 0.0), freedom


def noise_limit(
    statement: Statement, records: Sequence[Record], seeds: Sequence[int]
) -> float | None:
    """What a difference must exceed, for `seeds` seeds on each side. None: no spread is known."""
    spreads, errors = [], []
    for name, side in zip(statement.metrics, (statement.better, statement.worse), strict=True):
        deviation, freedom = pooled_deviation(records, name)
        if freedom:
            spreads.append(float(stats.t.ppf(LEVEL, freedom)) * deviation)
        metric = METRICS[name]
        scored = [r for r in records if r["variant"] == side and metric.value(r) is not None]
        errors += [NORMAL * metric.error(r) for r in scored]
    largest = max([*spreads, *errors]) if spreads else 0.0
    return largest * math.sqrt(sum(1 / n for n in seeds)) if largest > 0 else None


def judge_statement(statement: Statement, records: Sequence[Record]) -> Judgment:
    better, worse = (
        values_by_seed(records, side, metric) if isinstance(side, str) else {CONSTANT: float(side)}
        for side, metric in zip((statement.better, statement.worse), statement.metrics, strict=True)
    )
    if not better or not worse:
        return Judgment(statement, NOT_RUN)
    if not all(map(math.isfinite, [*better.values(), *worse.values()])):
        return Judgment(statement, NOT_JUDGED)
    sign = -1.0 if METRICS[statement.metrics[0]].higher_is_better is False else 1.0
    difference = sign * (statistics.mean(better.values()) - statistics.mean(worse.values()))
    common = sorted(set(better) & set(worse) - {CONSTANT})
    won = sum(sign * (better[s] - worse[s]) > statement.margin for s in common)
    wins = (won, len(common)) if len(common) > 1 else None
    unlearned = tuple(
        variant
        for variant in statement.variants
        if not has_learned(statement, variant, records, ahead=difference > 0)
    )
    if unlearned:
        return Judgment(statement, NOT_JUDGED, difference, None, wins, unlearned=unlearned)
    if statement.by_seed_count:
        return Judgment(statement, _verdict_by_count(wins), difference, None, wins)
    seeds = [len(side) for side in (better, worse) if CONSTANT not in side]
    limit, distance = noise_limit(statement, records, seeds), abs(difference - statement.margin)
    if limit is not None and distance > limit:
        verdict = CONFIRMED if difference > statement.margin else CONTRADICTED
        return Judgment(statement, verdict, difference, limit, wins)
    if limit is None:
        return Judgment(statement, NOT_JUDGED, difference, None, wins)
    needed = None
    if distance:  # the limit falls with the square root of the seeds
        one_seed = noise_limit(statement, records, [1] * len(seeds))
        assert one_seed is not None
        needed = math.ceil((one_seed / distance) ** 2)
    return Judgment(statement, TOO_SMALL, difference, limit, wins, needed)


def has_learned(statement: Statement, variant: str, records: Sequence[Record], ahead: bool) -> bool:
    """Whether a variant's runs have learned, on average over seeds, what the statement needs;
    `ahead`: the better side has the better value. A run that was not scored has not learned."""
    needed: dict[str, float] = {}
    if statement.needs == "both" or (statement.needs == "better" and variant == statement.better):
        needed["over_counts"] = 0.0
    if statement.needs == "start" and variant == (statement.better if ahead else statement.worse):
        needed["over_frequencies"] = MIN_DELTA
    if statement.needs_pairs:
        needed["pair_delta"] = MIN_DELTA
    for metric, least in needed.items():
        values = values_by_seed(records, variant, metric).values()
        if not values or not statistics.mean(values) > least:
            return False
    return True


def _verdict_by_count(wins: tuple[int, int] | None) -> str:
    if wins is None or wins[1] < 3:
        return NOT_JUDGED
    if 2 * wins[0] == wins[1]:
        return TOO_SMALL
    return CONFIRMED if 2 * wins[0] > wins[1] else CONTRADICTED


def judge_hypothesis(
    hypothesis: Hypothesis, records: Sequence[Record]
) -> tuple[str, list[Judgment]]:
    """The verdict, and the judgments of all statements. Contradicted if one of the deciding
    statements is; confirmed, not judged or not run if all are; else too small to judge."""
    deciding, secondary = (
        [judge_statement(statement, records) for statement in statements]
        for statements in (hypothesis.statements, hypothesis.secondary)
    )
    verdicts = {j.verdict for j in deciding}
    if CONTRADICTED in verdicts:
        verdict = CONTRADICTED
    else:
        verdict = verdicts.pop() if len(verdicts) == 1 else TOO_SMALL
    return verdict, deciding + secondary
