"""Decide whether a difference between variants exceeds the noise.

    confirmed            the difference has the stated direction and exceeds the noise
    contradicted         it has the other direction and exceeds the noise
    too small to judge   it does not exceed the noise
    not judged           a value is not finite, no spread is known, or a variant has not learned
                         enough (has_learned)
    not run              a variant or a metric is missing
    not run in part      of a hypothesis: that holds for some of its deciding statements

The spread of a metric is its standard deviation over seeds, pooled over all variants with several
seeds, with f degrees of freedom. The standard error of one run follows from its number of scored
rows (metrics.py). The noise limit is the larger of t(f) x spread x sqrt(1/n + 1/m), for n and m
seeds on the two sides, and 1.96 x the standard error of both sides together; t and 1.96 leave 2.5 %
on either side. All seeds are scored on the same rows, so more seeds do not lower the latter; that
both sides have these rows lowers it, which is not known from their scores. Equal seeds without
counted rows show no spread.
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
NOT_RUN_IN_PART = "not run in part"
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
    rows_factor: float | None = None  # times as many scored rows to decide it, whatever the seeds
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


def spread_limit(
    statement: Statement, records: Sequence[Record], seeds: Sequence[int]
) -> float | None:
    """What a difference must exceed by the spread over seeds, for `seeds` seeds on each side. None:
    no spread is known."""
    deviations = [pooled_deviation(records, metric) for metric in statement.metrics]
    spreads = [float(stats.t.ppf(LEVEL, freedom)) * s for s, freedom in deviations if freedom]
    return max(spreads) * math.sqrt(sum(1 / n for n in seeds)) if spreads else None


def row_limit(statement: Statement, records: Sequence[Record]) -> float:
    """What a difference must exceed by the number of scored rows, however many seeds there are."""
    errors = []
    for name, side in zip(statement.metrics, (statement.better, statement.worse), strict=True):
        metric = METRICS[name]
        scored = [r for r in records if r["variant"] == side and metric.value(r) is not None]
        errors.append(max((metric.error(r) for r in scored), default=0.0))
    return NORMAL * math.hypot(*errors)


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
    seeds = [len(side) for side in (better, worse) if CONSTANT not in side]
    spread, rows = spread_limit(statement, records, seeds), row_limit(statement, records)
    limit, distance = max(spread or 0.0, rows), abs(difference - statement.margin)
    if spread is None or limit == 0:
        return Judgment(statement, NOT_JUDGED, difference, None, wins)
    if distance > limit:
        verdict = CONFIRMED if difference > statement.margin else CONTRADICTED
        return Judgment(statement, verdict, difference, limit, wins)
    needed = factor = None
    if distance > rows:  # the spread falls with the root of the number of seeds
        one_seed = spread_limit(statement, records, [1] * len(seeds))
        assert one_seed is not None
        needed = math.ceil((one_seed / distance) ** 2)
    elif distance > 0:  # the error of the rows falls with the root of their number
        factor = (rows / distance) ** 2
    return Judgment(statement, TOO_SMALL, difference, limit, wins, needed, factor)


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


def judge_hypothesis(
    hypothesis: Hypothesis, records: Sequence[Record]
) -> tuple[str, list[Judgment]]:
    """The verdict, and the judgments of all statements. Contradicted if one of the deciding
    statements is; confirmed, not judged or not run if all are; not run in part if some were not
    run; else too small to judge. A secondary statement about early learning is left out where a
    deciding one compares the same and could be judged."""
    deciding, secondary = (
        [judge_statement(statement, records) for statement in statements]
        for statements in (hypothesis.statements, hypothesis.secondary)
    )
    verdicts = {j.verdict for j in deciding}
    if CONTRADICTED in verdicts:
        verdict = CONTRADICTED
    elif len(verdicts) == 1:
        verdict = verdicts.pop()
    else:
        verdict = NOT_RUN_IN_PART if NOT_RUN in verdicts else TOO_SMALL
    judged = {_compared(j.statement) for j in deciding if j.limit is not None}
    return verdict, deciding + [
        j for j in secondary if j.statement.needs != "start" or _compared(j.statement) not in judged
    ]


def _compared(statement: Statement) -> tuple[str | float, ...]:
    s = statement
    return s.better, s.worse, s.metric, s.margin
