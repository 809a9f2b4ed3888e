"""Options of fine-tuning: several labels per text."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import config, load, tasks
from bert_jax.tasks import errors_file
from bert_jax.tasks.results import render_results
from bert_jax.training.finetune import finetune
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.utils import pytree
from tests.helpers import toy_tasks


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two tasks."""
    folder = tmp_path_factory.mktemp("options")
    toy_tasks.write_model_dir(folder / "model")
    for kind in ("multilabel", "classification"):
        toy_tasks.write_task_dir(folder / kind, kind)
    return folder


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
@pytest.mark.parametrize(("family", "times"), [("bert", 1), ("electra", 2)])
def test_electra_also_trains_on_swapped_pairs(
    task: str, family: str, times: int, tmp_path: Path
) -> None:
    model = toy_tasks.write_model_dir(tmp_path / "model", family)
    header = {"mrpc": 5, "stsb": 10}[task] * "x\t"
    rows = {
        "mrpc": "{}\t1\t2\tred one\tblue\n",
        "stsb": "0\tg\tf\ty\to\ts\ts\tred one\tblue\t{}\n",
    }[task]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text(f"{header}\n{rows.format(0)}{rows.format(1)}")
    config = toy_tasks.finetune_config_for(model, task, tmp_path, tmp_path / "run")
    encoded: Any = FinetuneTask.of(config).encoded
    texts = {split: [(e.text, e.text_pair) for e in encoded[split].examples] for split in encoded}
    assert texts["dev"] == [("red one", "blue")] * 2
    assert texts["train"] == texts["dev"] + [("blue", "red one")] * 2 * (times - 1)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dev scores that depend on the step alone: the best one is at step 2, and never matched."""
    bests = {1: 0.2, 2: 0.9}

    def compute(*_: object) -> dict[str, float]:
        return {"accuracy": bests.get(next(count), 0.5)}

    count = itertools.count(1)
    monkeypatch.setattr(tasks, "compute_metrics", compute)


@pytest.mark.slow
def test_patience_stops_a_resumed_run_where_it_stops_a_whole_one(
    home: Path, tmp_path: Path, scripted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9 steps the best is 2; with a patience of 3 the fifth is the last, also after a run that
    was ended within an evaluation. The selected checkpoint may change afterwards."""
    where = home / "model", "classification", home / "classification", tmp_path / "run"

    def run(**changes: object) -> dict[str, object]:
        changes = dict(steps=9, eval_every=1, patience=3) | changes
        assert finetune(toy_tasks.finetune_config_for(*where, run=changes)) is None
        return json.loads((tmp_path / "run" / "results.json").read_text())

    def killed(*_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    parts = [run(steps=3)]
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "compute_metrics", killed)  # at the evaluation of step 4
        with pytest.raises(KeyboardInterrupt):
            run()
    parts.append(run())
    assert [p.get("stopped_at") for p in parts] == [None, 5]
    assert (parts[1]["best_step"], load(tmp_path / "run").step) == (2, 2)
    assert "stopped early at step 5" in render_results(parts[1])
    last = run(select="last")
    assert (last["best_step"], last["stopped_at"], load(tmp_path / "run").step) == (5, 5, 5)
    assert "last checkpoint: step 5 of 9" in render_results(last)


@pytest.mark.slow
def test_thresholds_of_dev_are_used_on_test_and_in_predict(home: Path, tmp_path: Path) -> None:
    where = home / "model", "classification", home / "multilabel", tmp_path / "run"
    options = dict(
        objective=dict(class_weights="balanced", label_smoothing=0.1),
        optim=dict(freeze="embeddings,0"),
    )
    assert finetune(toy_tasks.finetune_config_for(*where, **options)) is None
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["task_type"], results["metric"]) == ("multilabel", "f1_micro")
    assert {"f1_micro", "f1_macro", "accuracy"} <= set(results["test"])
    assert set(results["thresholds"]) == set(results["per_label"]["test"]) == {"red", "blue"}
    model = load(tmp_path / "run")
    assert len(model.task.label_weights) == 2
    assert set(errors_file.read_errors(tmp_path / "run")) == {"dev", "test"}
    start, tuned = (pytree.flatten_with_names(m.params) for m in (load(home / "model"), model))
    for name in start.keys() & tuned.keys():
        rows = slice(None) if name.startswith("embeddings/") else slice(1)
        same = bytes(np.asarray(start[name][rows])) == bytes(np.asarray(tuned[name][rows]))
        assert same == (name.startswith("embeddings/") or "/layers/" in name), name
    assert dict(zip(model.task.labels, model.task.thresholds, strict=True)) == results["thresholds"]
    rows = [
        json.loads(line) for line in (home / "multilabel" / "test.jsonl").read_text().splitlines()
    ]
    predictions, gold = model.predict(rows), [set(row["label"]) for row in rows]
    assert [model.predict([row])[0] for row in rows[:3]] == predictions[:3]  # bit for bit
    for p in predictions:
        above = [k for k, v in p["probabilities"].items() if v > results["thresholds"][k]]
        assert p["labels"] == above
    right = np.mean([set(p["labels"]) == g for p, g in zip(predictions, gold, strict=True)])
    assert right == pytest.approx(results["test"]["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pool"),
    [("classification", "mean"), pytest.param("regression", "max", marks=pytest.mark.nightly)],
)
def test_windows_are_trained_on_and_answers_do_not_depend_on_other_rows(
    kind: str, pool: str, home: Path, tmp_path: Path
) -> None:
    """Texts of 3 to 8 words in rows of 8 tokens: most of them need two windows."""
    data = toy_tasks.write_task_dir(tmp_path / "data", kind)
    where = home / "model", kind, data, tmp_path / "run"
    options = dict(objective=dict(long="windows", window_pool=pool), data=dict(length=8))
    assert finetune(toy_tasks.finetune_config_for(*where, **options)) is None
    model = load(tmp_path / "run")
    rows = [{"text": r["text"]} for r in toy_tasks.random_rows(kind, 20, 9)]
    together = model.predict(rows)
    assert [model.predict([r])[0] for r in rows[:3]] == together[:3]
    cut = load(tmp_path / "run")
    cut = dataclasses.replace(
        cut, config=config.replace(cut.config, objective=dict(long="truncate"))
    )
    assert cut.predict(rows) != together  # what is behind the first window counts
