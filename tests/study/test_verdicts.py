"""Which differences are judged to be ones."""

import math
from typing import Any

import pytest

from bert_jax.training import metrics_writer
from study import page
from study import results as collect
from study import verdict as judge
from study.hypothesis import Hypothesis, ResultRow, Statement
from study.metrics import METRICS
from study.variants import Variant
from tests.helpers.study_samples import record, seeds


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "verdict"),
    [
        ((60, 61, 62), (50, 51, 52), 0.0, judge.CONFIRMED),
        ((50, 51, 52), (60, 61, 62), 0.0, judge.CONTRADICTED),
        ((50, 51, 52), (50.5, 51, 52), 0.0, judge.TOO_SMALL),
        ((50, 51, 52), (53, 54, 55), -8.0, judge.CONFIRMED),
        ((50, 51, 52), (60, 61, 62), -3.0, judge.CONTRADICTED),
        ((60,), (50,), 0.0, judge.TOO_SMALL),
        ((60, 60, math.nan), (50, 51, 52), 0.0, judge.NOT_JUDGED),
        ((), (50, 51), 0.0, judge.NOT_RUN),
    ],
)
def test_a_difference_counts_where_it_exceeds_the_spread_over_seeds(
    ours: tuple[float, ...], theirs: tuple[float, ...], margin: float, verdict: str
) -> None:
    says = Statement("a beats b", "a", "b", "tasks", margin)
    assert judge.judge(says, seeds("a", *ours) + seeds("b", *theirs)).verdict == verdict


def test_one_seed_is_judged_by_the_spread_of_other_arms() -> None:
    runs = seeds("a", 60) + seeds("b", 50) + seeds("c", 70, 71, 72)
    found = judge.judge(Statement("", "a", "b", "tasks"), runs)
    assert found.verdict == judge.CONFIRMED
    # sd of c is 1, with 2 degrees of freedom; one seed on each side
    assert found.limit == pytest.approx(4.302653 * 1.0 * 2**0.5)


def test_a_value_that_is_no_number_spoils_no_other_statement() -> None:
    runs = seeds("a", 60, 61, 62) + seeds("b", 50, 51, 52) + seeds("c", math.nan, 50, 51)
    assert judge.judge(Statement("", "a", "b", "tasks"), runs).verdict == judge.CONFIRMED


def few(arm: str, *values: float) -> list[dict[str, Any]]:
    """Runs whose task has 100 rows."""
    runs = seeds(arm, *values)
    for run in runs:
        run["tasks"]["t"]["rows"] = 100
    return runs


def test_equal_seeds_are_no_certainty() -> None:
    """Of 100 rows half is right, give or take 5: two means of three seeds differ by 8 at least."""
    says = Statement("", "a", "b", "tasks")
    near, far = (judge.judge(says, few("a", v, v, v) + few("b", 50, 50, 50)) for v in (57, 59))
    assert (near.verdict, far.verdict) == (judge.TOO_SMALL, judge.CONFIRMED)
    assert far.limit == pytest.approx(1.96 * 5 * (2 / 3) ** 0.5, rel=0.02)


def test_without_rows_to_count_equal_seeds_judge_nothing() -> None:
    runs = [record("a", s, 50, held_out={"mlm_loss": 4.0}) for s in range(3)]
    runs += [record("b", s, 50, held_out={"mlm_loss": 5.0}) for s in range(3)]
    assert judge.judge(Statement("", "a", "b", "mlm"), runs).verdict == judge.TOO_SMALL


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [((51, 51, 0), judge.CONFIRMED), ((51, 0, 0), judge.CONTRADICTED), ((51, 51), judge.TOO_SMALL)],
)
def test_most_seeds_are_counted_whatever_the_differences(
    ours: tuple[float, ...], verdict: str
) -> None:
    says = Statement("", "a", "b", "tasks", most=True)
    assert judge.judge(says, seeds("a", *ours) + seeds("b", 50, 50, 50)).verdict == verdict


@pytest.mark.parametrize("most", [False, True])
def test_nothing_follows_from_models_that_did_not_begin_to_learn(most: bool) -> None:
    idle = [run | {"gain": 0.01} for run in seeds("b", 50, 51, 52)]
    runs, says = seeds("a", 60, 61, 62) + idle, Statement("", "a", "b", "tasks", most=most)
    found = judge.judge(says, runs)
    assert (found.verdict, found.idle) == (judge.NOT_JUDGED, ("b",))
    assert "`b` had not begun to learn" in page.sentence(found)


@pytest.mark.parametrize(("pairs", "verdict"), [(True, judge.NOT_JUDGED), (False, judge.CONFIRMED)])
def test_what_pairs_teach_is_not_judged_by_models_that_cannot_tell_them(
    pairs: bool, verdict: str
) -> None:
    idle = [run | {"pair_gain": -0.01} for run in seeds("b", 50, 51, 52)]
    says = Statement("", "a", "b", "tasks", pairs=pairs)
    assert judge.judge(says, seeds("a", 60, 61, 62) + idle).verdict == verdict


@pytest.mark.parametrize(
    ("held", "seen", "gain"),
    [((6.9, 6.2), (8.0, 6.5), 0.3), ((6.6, 7.1), (8.0, 4.0), 2.5), ((6.6, 6.6), (8.0, 6.6), -0.1)],
)
def test_what_was_learned_shows_on_held_out_or_on_training_text(
    held: tuple[float, ...], seen: tuple[float, ...], gain: float
) -> None:
    lines = [{"step": i, "mlm_loss": v} for i, v in enumerate(seen)]
    lines += [{"eval_loss": 1.0, "eval_mlm_loss": v, "eval_unigram_loss": 6.5} for v in held]
    assert collect.gain(lines) == pytest.approx(gain)
    assert collect.gain(lines[:2]) is None


@pytest.mark.parametrize("found", [0, 5, 10])
def test_a_discriminator_that_knows_the_share_of_replaced_tokens_alone_gains_nothing(
    found: int,
) -> None:
    """Of 100 tokens 10 are replaced; so many are found, and as many others suspected."""
    line = {
        "eval_loss": 1.0,
        "eval_mlm_loss": 3.0,
        "eval_unigram_loss": 6.0,  # the generator learns: tasks do not take it over
        "eval_rtd_accuracy": 1 - (10 - found + found) / 100,
        "eval_rtd_recall": found / 10,
        "eval_rtd_precision": 0.5 if found else 0.0,
        "eval_rtd_loss": metrics_writer.entropy(0.1) - 0.01,
    }
    assert collect.gain([line]) == pytest.approx(0.01)


def test_a_pair_head_that_knows_the_share_of_classes_alone_gains_nothing() -> None:
    losses = (metrics_writer.entropy(0.7) + 0.1, metrics_writer.entropy(0.7))
    lines = [{"eval_pair_loss": loss, "eval_pair_share": 0.7} for loss in losses]
    assert collect.pair_gain(lines) == pytest.approx(0, abs=1e-6)
    assert collect.pair_gain([{"eval_loss": 1.0}]) is None


def test_the_middle_layer_is_one_layer_whatever_the_scores() -> None:
    run = record("a", 0, 50, layers={"tagging": [0.1, 0.9, 0.4, 0.8, 0.5]})
    assert METRICS["tagging_middle"].of(run) == pytest.approx(40)
    assert METRICS["tagging_last"].of(run) == pytest.approx(50)


def test_less_loss_is_better() -> None:
    runs = [record("a", s, 50, held_out={"mlm_loss": 4.0 + s / 100}) for s in range(2)]
    runs += [record("b", s, 50, held_out={"mlm_loss": 5.0 + s / 100}) for s in range(2)]
    found = judge.judge(Statement("", "a", "b", "mlm"), runs)
    assert (found.verdict, found.wins) == (judge.CONFIRMED, (2, 2))
    assert found.difference == pytest.approx(1.0)


def test_a_run_that_lacks_a_task_has_no_mean() -> None:
    assert METRICS["tasks"].of(record("a", 0, 50) | {"wanted": ["t", "u"]}) is None


def test_a_claim_is_contradicted_by_one_statement_and_confirmed_by_all() -> None:
    rows = tuple(ResultRow(Variant(name, "bert"), name) for name in "ab")
    yes, no = Statement("", "a", "b", "tasks"), Statement("", "b", "a", "tasks")
    runs = seeds("a", 60, 61, 62) + seeds("b", 50, 51, 52)

    def verdict(*says: Statement) -> str:
        return judge.verdict(Hypothesis("x", "", "", "", rows, ("tasks",), says), runs)[0]

    assert verdict(yes, yes) == judge.CONFIRMED
    assert verdict(yes, no) == judge.CONTRADICTED
    assert verdict(yes, Statement("", "a", "none", "tasks")) == judge.TOO_SMALL
