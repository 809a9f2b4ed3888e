"""What fine-tuning came to, as it is written."""

import json
import math
from pathlib import Path

import pytest

from bert_jax.tasks import results


def test_results_json_round_trips_with_confusion_rows_on_one_line(tmp_path: Path) -> None:
    written = dict(
        task="rte", task_type="classification", model="runs/sweep[01]", metric="accuracy"
    )
    written |= dict(
        seed=0, steps=6, best_step=3, dev=dict(accuracy=0.5), notes=["[ 3 ]", "[1,2]\n"]
    )
    written |= dict(confusion=dict(labels=["[1,2]", "3, 4]"], dev=[[1, 0], [12, 3]]))
    results.write_results(tmp_path, written)
    assert results.read_results(tmp_path) == written
    assert "[12, 3]" in (tmp_path / results.RESULTS_FILE).read_text()


def test_numbers_that_are_not_finite_are_strict_json_and_read_as_nan(tmp_path: Path) -> None:
    values = dict(task="stsb", task_type="regression", model="m", metric="pearson", seed=0)
    values |= dict(steps=6, best_step=3, dev=dict(pearson=0.5, loss=math.inf, other=math.nan))
    results.write_results(tmp_path, values)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert written["dev"] == {"pearson": 0.5, "loss": None, "other": None}
    read = results.read_results(tmp_path)
    assert read is not None
    assert math.isnan(read["dev"]["loss"])
    assert "nan" in results.render_results(read)
    results.write_results(tmp_path, read)


def test_results_that_their_reader_refuses_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="their own reader refuses"):
        results.write_results(tmp_path, dict(task="qa", metric="f1", steps=6, best_step=3))
