"""When a difference between variants counts."""

import math
from typing import Any

import pytest

from study import results
from study.hypotheses import BY_LETTER
from study.hypothesis import Hypothesis, ResultRow, Statement
from study.hypothesis_section import (
    format_judgment,
    opposite_tasks,
    still_learning,
    task_differences,
)
from study.metrics import METRICS
from study.variants import Variant
from study.verdict import (
    CONFIRMED,
    CONTRADICTED,
    NOT_JUDGED,
    NOT_RUN,
    NOT_RUN_IN_PART,
    TOO_SMALL,
    Judgment,
    judge_hypothesis,
    judge_statement,
)
from tests.helpers.study_samples import mask_scores, run_record, seed_records

A_BEATS_B = Statement("a beats b", "a", "b", "tasks")


@pytest.mark.parametrize(
    ("a", "b", "margin", "verdict"),
    [
        ((60, 61, 62), (50, 51, 52), 0.0, CONFIRMED),
        ((50, 51, 52), (60, 61, 62), 0.0, CONTRADICTED),
        ((50, 51, 52), (50.5, 51, 52), 0.0, TOO_SMALL),
        ((50, 51, 52), (53, 54, 55), -8.0, CONFIRMED),
        ((50, 51, 52), (60, 61, 62), -3.0, CONTRADICTED),
        ((60,), (50,), 0.0, NOT_JUDGED),
        ((60, 60, math.nan), (50, 51, 52), 0.0, NOT_JUDGED),
        ((), (50, 51), 0.0, NOT_RUN),
    ],
)
def test_a_difference_counts_if_it_exceeds_the_spread_over_seeds(
    a: tuple[float, ...], b: tuple[float, ...], margin: float, verdict: str
) -> None:
    statement = Statement("a beats b", "a", "b", "tasks", margin)
    records = seed_records("a", *a) + seed_records("b", *b)
    assert judge_statement(statement, records).verdict == verdict


def test_one_seed_is_judged_by_the_spread_of_other_variants() -> None:
    records = seed_records("a", 60) + seed_records("b", 50) + seed_records("c", 70, 71, 72)
    judgment = judge_statement(A_BEATS_B, records)
    assert judgment.verdict == CONFIRMED
    # the deviation of c is 1, with 2 degrees of freedom; each side has one seed
    assert judgment.limit == pytest.approx(4.302653 * 1.0 * 2**0.5)


def test_a_value_that_is_not_finite_does_not_affect_other_statements() -> None:
    records = seed_records("a", 60, 61, 62) + seed_records("b", 50, 51, 52)
    records += seed_records("c", math.nan, 50, 51)
    assert judge_statement(A_BEATS_B, records).verdict == CONFIRMED


def records_of_100_rows(variant: str, *values: float) -> list[dict[str, Any]]:
    records = seed_records(variant, *values)
    for record in records:
        record["tasks"]["t"]["rows"] = 100
    return records


def test_equal_seeds_have_the_standard_error_of_the_scored_rows() -> None:
    """Half of 100 rows is correct, give or take 5: two sides differ by 14 at least. All seeds have
    the same rows, so that more of them do not help."""
    near, far = (
        judge_statement(
            A_BEATS_B, records_of_100_rows("a", v, v, v) + records_of_100_rows("b", 50, 50, 50)
        )
        for v in (63, 65)
    )
    assert (near.verdict, far.verdict) == (TOO_SMALL, CONFIRMED)
    assert far.limit == pytest.approx(1.96 * 5 * 2**0.5, rel=0.03)
    assert near.seeds_needed is None
    assert near.rows_factor == pytest.approx((near.limit / near.difference) ** 2)
    assert "1.1 times as many scored rows would decide" in format_judgment(near)


def test_the_error_of_a_correlation_is_not_that_of_a_share() -> None:
    """(1 - r^2) / sqrt(n - 1), .092 for r = .3 of 99 rows; a share of .3 would have .046."""
    a, b = (records_of_100_rows(variant, v, v, v) for variant, v in (("a", 40), ("b", 30)))
    for record in (*a, *b):
        record["tasks"]["t"] |= {"metric": "pearson", "rows": 99}
    judgment = judge_statement(A_BEATS_B, a + b)
    errors = [100 * (1 - r * r) / 98**0.5 for r in (0.4, 0.3)]
    assert judgment.limit == pytest.approx(1.96 * math.hypot(*errors), rel=0.01)


def test_a_mean_over_tasks_does_not_hide_that_they_differ_in_opposite_directions() -> None:
    def record(variant: str, seed: int, **tasks: float) -> dict[str, Any]:
        values = {task: {"value": value, "rows": 100} for task, value in tasks.items()}
        values["qa"] = {"value": 40.0 * (variant == "a"), "rows": 100}  # not part of the mean
        expected = sorted(tasks)
        return {"variant": variant, "seed": seed, "tasks": values, "expected_tasks": expected}

    a = [record("a", seed, x=0.9, y=0.5, z=0.7) for seed in (0, 1)]
    b = [record("b", 0, x=0.7, y=0.6, z=0.6), record("b", 1, x=0.8, y=0.8, z=0.8)]
    judgment = Judgment(A_BEATS_B, TOO_SMALL, 0.0)
    agreed = task_differences(judgment, a + b)
    assert agreed == pytest.approx({"x": 15, "y": -20})  # z: once above, once below
    assert task_differences(judgment, a[:1] + b[:1]) == {}  # one seed shows no agreement
    said = opposite_tasks(judgment, a + b)
    assert said is not None
    assert "`x` +15.0, `y` -20.0 points" in said
    same = [record("b", seed, x=0.7, y=0.4, z=0.6) for seed in (0, 1)]
    assert opposite_tasks(judgment, a + same) is None
    assert opposite_tasks(Judgment(A_BEATS_B, NOT_RUN), a + b) is None


def test_a_loss_that_still_fell_at_the_end_is_said() -> None:
    mlm, rtd = BY_LETTER["h"].variants[0].name, BY_LETTER["h"].variants[1].name
    falling = [[80, 4.0 + 0.5], [100, 4.0]], [[81, 4.0 + 0.25], [101, 4.0], [102, 4.0]]
    runs = [{"variant": mlm, "curves": {"eval_mask_loss": curve}} for curve in falling]
    flat = {"variant": rtd, "curves": {"eval_mask_loss": [[80, 4.0], [100, 3.99]]}}
    said = still_learning(BY_LETTER["h"], [*runs, flat])
    assert said is not None
    assert f"`{mlm}` 0.38, `{rtd}` 0.01" in said
    assert still_learning(BY_LETTER["h"], [flat]) is None


def loss_records(variant: str, *losses: float) -> list[dict[str, Any]]:
    return [
        run_record(variant, seed, 50, held_out=mask_scores(loss))
        for seed, loss in enumerate(losses)
    ]


def test_equal_seeds_without_counted_rows_decide_nothing() -> None:
    records = loss_records("a", 3.0, 3.0, 3.0) + loss_records("b", 3.5, 3.5, 3.5)
    assert judge_statement(Statement("", "a", "b", "mask"), records).verdict == NOT_JUDGED


@pytest.mark.parametrize(("loss_b", "said"), [(3.5, 1), (4.5, 2)])
def test_what_was_judged_is_not_judged_again_as_early_learning(loss_b: float, said: int) -> None:
    """At 4.5 nat b has not learned, so that only the statement about early learning is judged."""
    records = seed_records("a", 60, 61, 62)
    records += seed_records("b", 50, 51, 52, held_out=mask_scores(loss_b))
    early = Statement("early", "a", "b", "tasks", needs="start")
    rows = tuple(ResultRow(Variant(name, "bert"), name) for name in "ab")
    hypothesis = Hypothesis("x", "", "", "", rows, ("tasks",), (A_BEATS_B,), (early,))
    assert len(judge_hypothesis(hypothesis, records)[1]) == said


@pytest.mark.parametrize(
    ("needs", "loss_a", "loss_b", "unlearned"),
    [
        ("both", 3.9, 3.9, ()),
        ("both", 3.9, 4.1, ("b",)),  # 4 nat are those of the counts
        ("both", 4.1, 3.9, ("a",)),
        ("better", 3.9, 6.1, ()),
        ("better", 4.1, 3.9, ("a",)),
        ("start", 5.9, 6.1, ()),
        ("start", 5.99, 3.9, ("a",)),  # 6 nat are those of word frequencies
    ],
)
def test_a_statement_is_judged_only_if_the_runs_learned_what_it_needs(
    needs: Any, loss_a: float, loss_b: float, unlearned: tuple[str, ...]
) -> None:
    """`a` is ahead on the tasks."""
    records = seed_records("a", 60, 61, 62, held_out=mask_scores(loss_a))
    records += seed_records("b", 50, 51, 52, held_out=mask_scores(loss_b))
    statement = Statement("", "a", "b", "tasks", needs=needs)
    judgment = judge_statement(statement, records)
    assert judgment.verdict == (NOT_JUDGED if unlearned else CONFIRMED)
    assert judgment.unlearned == unlearned
    assert f"`{unlearned[0]}`: not better than" in format_judgment(judgment) if unlearned else True


def test_the_variant_that_is_ahead_early_is_the_one_that_must_have_learned() -> None:
    behind, ahead = mask_scores(6.0), mask_scores(5.0)
    records = seed_records("a", 50, 51, 52, held_out=behind)
    records += seed_records("b", 60, 61, 62, held_out=ahead)
    statement = Statement("", "a", "b", "tasks", needs="start")
    assert judge_statement(statement, records).verdict == CONTRADICTED


def test_a_run_that_was_not_scored_at_masks_decides_nothing() -> None:
    records = seed_records("a", 60, 61, 62) + seed_records("b", 50, 51, 52, held_out={})
    assert judge_statement(A_BEATS_B, records).unlearned == ("b",)


def test_a_discriminator_is_compared_with_the_counts_by_auc() -> None:
    """Its generator's loss does not matter: the tasks use the discriminator."""
    aucs = {"rtd_auc": 0.7, "bigram_auc": 0.74, "rtd_shuffled_auc": 0.5}
    record = run_record("a", 0, 50, held_out=mask_scores(3.0, **aucs))
    assert METRICS["over_counts"].value(record) == pytest.approx(-0.04)
    assert METRICS["over_frequencies"].value(record) == pytest.approx(0.2)


@pytest.mark.parametrize(("needs_pairs", "verdict"), [(True, NOT_JUDGED), (False, CONFIRMED)])
def test_a_statement_about_pairs_needs_variants_that_learned_pairs(
    needs_pairs: bool, verdict: str
) -> None:
    at_baseline = [r | {"pair_delta": -0.01} for r in seed_records("b", 50, 51, 52)]
    statement = Statement("", "a", "b", "tasks", needs_pairs=needs_pairs)
    records = seed_records("a", 60, 61, 62) + at_baseline
    assert judge_statement(statement, records).verdict == verdict


def test_a_pair_head_that_knows_only_the_share_of_classes_has_no_delta() -> None:
    lines = [{"eval_pair_loss": loss, "eval_pair_baseline_loss": 0.6} for loss in (0.7, 0.6)]
    assert results.pair_delta(lines) == pytest.approx(0, abs=1e-6)
    assert results.pair_delta([{"eval_loss": 1.0}]) is None


def test_the_middle_layer_is_one_layer_whatever_the_scores() -> None:
    layers = {"ner": [0.1, 0.9, 0.4, 0.8, 0.5], "topic": [0.1, 0.2, 0.6, 0.9, 0.7]}
    types = {"ner": "tagging", "topic": "classification"}
    record = run_record("a", 0, 50, layers=layers, layer_types=types)
    assert METRICS["tagging_middle"].value(record) == pytest.approx(40)
    assert METRICS["tagging_last"].value(record) == pytest.approx(50)
    assert METRICS["probes_middle"].value(record) == pytest.approx(50)
    assert METRICS["probes_middle"].value(record | {"expected_probes": ["qnli"]}) is None


def test_an_undecided_difference_says_how_many_seeds_would_decide_it() -> None:
    """The deviation of a and b is 2, with 4 degrees of freedom, and they differ by 1."""
    records = seed_records("a", 49, 51, 53) + seed_records("b", 48, 50, 52)
    judgment = judge_statement(A_BEATS_B, records)
    needed = 2 * (2.776 * 2) ** 2  # n with t s sqrt(2 / n) = 1
    assert judgment.seeds_needed == math.ceil(needed) == 62
    assert "about 62 seeds on each side would decide" in format_judgment(judgment)
    near = seed_records("b", 48.8, 50.8, 52.8)
    assert "more than 100 seeds" in format_judgment(
        judge_statement(A_BEATS_B, seed_records("a", 49, 51, 53) + near)
    )


def test_a_lower_loss_is_better() -> None:
    records = loss_records("a", 2.0, 2.01) + loss_records("b", 3.0, 3.01)
    judgment = judge_statement(Statement("", "a", "b", "mask"), records)
    assert (judgment.verdict, judgment.wins) == (CONFIRMED, (2, 2))
    assert judgment.difference == pytest.approx(1.0)


def test_a_run_that_lacks_a_task_has_no_mean() -> None:
    record = run_record("a", 0, 50) | {"expected_tasks": ["t", "u"]}
    assert METRICS["tasks"].value(record) is None


def test_a_hypothesis_is_contradicted_by_one_statement_and_confirmed_by_all() -> None:
    rows = tuple(ResultRow(Variant(name, "bert"), name) for name in "ab")
    b_beats_a = Statement("", "b", "a", "tasks")
    records = seed_records("a", 60, 61, 62) + seed_records("b", 50, 51, 52)

    def verdict(*statements: Statement, secondary: tuple[Statement, ...] = ()) -> str:
        hypothesis = Hypothesis("x", "", "", "", rows, ("tasks",), statements, secondary)
        return judge_hypothesis(hypothesis, records)[0]

    assert verdict(A_BEATS_B, A_BEATS_B) == CONFIRMED
    assert verdict(A_BEATS_B, secondary=(b_beats_a,)) == CONFIRMED
    assert verdict(A_BEATS_B, b_beats_a) == CONTRADICTED
    assert verdict(A_BEATS_B, Statement("", "a", "b", "tasks", 10.0)) == TOO_SMALL


def test_a_hypothesis_with_a_statement_that_was_not_run_is_not_run_in_part() -> None:
    """No number of scored rows would decide it."""
    not_run = Statement("", "a", "none", "tasks")
    records = seed_records("a", 60, 61, 62) + seed_records("b", 50, 51, 52)
    verdicts = [
        judge_hypothesis(Hypothesis("x", "", "", "", (), ("tasks",), statements), records)[0]
        for statements in ((A_BEATS_B, not_run), (not_run, not_run))
    ]
    assert verdicts == [NOT_RUN_IN_PART, NOT_RUN]
