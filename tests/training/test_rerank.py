"""A reranker is trained, resumed and loaded like any other fine-tuned model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.tasks import errors_file
from bert_jax.training.finetune import finetune
from tests.helpers import toy_tasks
from tests.helpers.compare import same_bits
from tests.helpers.marks import NIGHTLY


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relevant documents are red; each query has three candidates."""
    path = tmp_path_factory.mktemp("rerank")
    toy_tasks.write_model_dir(path / "model")
    rng = np.random.default_rng(0)
    (path / "data").mkdir()
    for split, n in {"train": 48, "dev": 12}.items():
        rows = []
        for _ in range(n):
            texts = [
                r["text"] for r in toy_tasks.random_rows("classification", 3, int(rng.integers(99)))
            ]
            labels = [2 * int("red" in text) for text in texts]
            missing = {} if any(labels) else {"missing": [1]}
            rows.append({"text": "which ?", "documents": texts, "labels": labels, **missing})
        toy_tasks.write_jsonl(path / "data" / f"{split}.jsonl", rows)
    return path


def run(workspace: Path, folder: str, **changes: Any) -> Any:
    options = dict(task="rerank", rank_loss="listwise", max_documents=3)
    config = toy_tasks.finetune_config_for(
        workspace / "model",
        "rerank",
        workspace / "data",
        workspace / folder,
        **dict(objective=options) | changes,
    )
    assert finetune(config) is None
    return config


@pytest.fixture(scope="module")
def whole(workspace: Path) -> Any:
    """The config of six steps; their run is `workspace / "whole"`."""
    return run(workspace, "whole")


@pytest.mark.slow
def test_a_run_orders_candidates_and_six_steps_are_three_and_three(
    workspace: Path, whole: Any
) -> None:
    from bert_jax.checkpoint.manager import Checkpoints
    from bert_jax.training.assemble import assemble

    run(workspace, "parts", run=dict(steps=3))
    (workspace / "parts/results.json").unlink()
    run(workspace, "parts")
    like = assemble(whole).steps.like
    states = [
        Checkpoints(workspace / name / "checkpoints").restore(6, like)
        for name in ("whole", "parts")
    ]
    assert same_bits(*states)

    model = bert_jax.load(workspace / "whole")
    assert (model.task.task, model.task.max_grade) == ("rerank", 2.0)
    results = json.loads((workspace / "whole/results.json").read_text())
    assert results["metric"] == "ndcg@10"
    dev = results["dev"]
    assert dev["ndcg@10"] <= dev["best_ndcg@10"] < 1  # some queries have a missing document
    assert any("all missing, left out" in note for note in results["notes"])
    rows = [json.loads(line) for line in (workspace / "data/dev.jsonl").read_text().splitlines()]
    saved = (workspace / "whole/predictions_dev.jsonl").read_text().splitlines()
    for row, one in zip(model.predict(rows), map(json.loads, saved), strict=True):
        assert row["scores"] == pytest.approx(one["scores"], abs=1e-5)
        assert sorted(row["ranks"]) == [1, 2, 3]
    assert [model.predict([row])[0] for row in rows[:3]] == model.predict(rows)[:3]  # bit for bit
    assert set(errors_file.read_errors(workspace / "whole")) == {"dev"}


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_mesh_of_four_devices_learns_as_one_does(workspace: Path) -> None:
    """Candidates are a second axis of rows; dropout is on."""
    run(workspace, "four", mesh=dict(data=2, tensor=2))
    lines = [
        [json.loads(line) for line in (workspace / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "four")
    ]
    losses = [
        [x[name] for x in lines for name in ("loss", "eval_loss") if name in x] for lines in lines
    ]
    assert len(losses[0]) > 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [pytest.param("pointwise", marks=NIGHTLY), "listwise"])
def test_a_reranker_learns_what_is_relevant(loss: str, workspace: Path) -> None:
    """The first stage has random order. Queries without a relevant candidate stay at 0."""
    options = dict(task="rerank", rank_loss=loss, max_documents=5)
    length = dict(steps=100, eval_every=25)
    run(workspace, loss, objective=options, optim=dict(decay_steps=None), run=length)
    dev = json.loads((workspace / loss / "results.json").read_text())["dev"]
    assert dev["first_stage_ndcg@10"] < dev["best_ndcg@10"] - 0.05
    assert dev["ndcg@10"] > dev["best_ndcg@10"] - 0.01
