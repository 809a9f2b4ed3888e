"""What fine-tuning came to, as it is written."""

from pathlib import Path

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
