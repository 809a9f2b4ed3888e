"""Options of fine-tuning: several labels per text."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax import load
from bert_jax.training.finetune import finetune
from bert_jax.utils import pytree
from tests.helpers import toy_tasks


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a multi-label task."""
    folder = tmp_path_factory.mktemp("options")
    toy_tasks.write_model_dir(folder / "model")
    toy_tasks.write_task_dir(folder / "multilabel", "multilabel")
    return folder


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
    for p in predictions:
        above = [k for k, v in p["probabilities"].items() if v > results["thresholds"][k]]
        assert p["labels"] == above
    right = np.mean([set(p["labels"]) == g for p, g in zip(predictions, gold, strict=True)])
    assert right == pytest.approx(results["test"]["accuracy"])
