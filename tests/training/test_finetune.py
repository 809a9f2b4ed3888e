"""Fine-tuning: tasks are learned, runs go on bit for bit, the best checkpoint counts."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax import load, objectives, tasks
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Mesh, Supervised
from bert_jax.distributed import sharding
from bert_jax.tasks import errors_file, results
from bert_jax.training.evaluation import Evaluator
from bert_jax.training.finetune import finetune
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.step import compile_steps
from bert_jax.utils.errors import RunError
from tests.helpers import toy_tasks
from tests.helpers.compare import metric_lines


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a folder of data for each kind."""
    folder = tmp_path_factory.mktemp("finetune")
    toy_tasks.write_model_dir(folder / "model")
    for kind in toy_tasks.TASK_TYPES:
        toy_tasks.write_task_dir(folder / kind, kind)
    return folder


def tune(home: Path, folder: Path, kind: str = "classification", seeds: int = 1, **changes: Any):
    where = home / "model", kind, home / kind, folder
    return finetune(toy_tasks.finetune_config_for(*where, **changes), seeds)


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, which tests do not change."""
    run = tmp_path_factory.mktemp("finished") / "run"
    tune(home, run)
    return run


def written(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow_unless("tagging")
@pytest.mark.parametrize("kind", toy_tasks.TASK_TYPES)
def test_a_plain_task_is_learned(kind: str, home: Path, tmp_path: Path) -> None:
    steps = dict(steps=60, eval_every=30, log_every=10)
    assert tune(home, tmp_path / "run", kind, run=steps) is None
    metrics = written(tmp_path / "run")
    assert results.read_results(tmp_path / "run") == metrics
    assert errors_file.read_errors(tmp_path / "run")
    best = {"regression": "pearson", "tagging": "f1", "qa": "f1"}.get(kind, "accuracy")
    assert metrics["metric"] == best
    assert metrics["test"][best] >= (95 if kind == "qa" else 0.95)
    assert {"task", "task_type", "model", "metric", "steps", "best_step", "dev", "test"} <= set(
        metrics
    )
    predictions = (tmp_path / "run" / "predictions_test.jsonl").read_text().splitlines()
    assert len(predictions) == 19
    labels = {"tokens_per_second", "loss", "task_loss", "learning_rate", "step"}
    assert labels <= set(
        json.loads((tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[0])
    )
    assert f"eval_{best}" in metric_lines(tmp_path / "run")[-1]


@pytest.mark.slow
def test_six_steps_are_three_and_three(home: Path, finished: Path, tmp_path: Path) -> None:
    whole, parts = finished, tmp_path / "parts"
    tune(home, parts, run=dict(steps=3))
    tune(home, parts)
    assert metric_lines(whole) == metric_lines(parts)
    a, b = (load(run).params for run in (whole, parts))
    same = jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b)
    assert all(jax.tree.leaves(same))
    assert written(whole) == written(parts)
    names = ("predictions_dev.jsonl", "predictions_test.jsonl")
    assert all((whole / n).read_text() == (parts / n).read_text() for n in names)


def test_a_finished_run_is_left_as_it_is(
    home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    monkeypatch.setattr("bert_jax.training.loop.fit", None)
    assert tune(home, finished) is None
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_a_run_goes_on_without_the_model_that_it_began_with(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    where = tmp_path / "model", "classification", home / "classification", tmp_path / "run"
    finetune(toy_tasks.finetune_config_for(*where, run=dict(steps=3)))
    shutil.rmtree(tmp_path / "model")
    finetune(toy_tasks.finetune_config_for(*where))
    assert written(tmp_path / "run")["steps"] == 6


@pytest.mark.slow
def test_the_best_checkpoint_counts_and_is_loaded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equals the latest; it is kept although newer ones came."""
    accuracies = iter([0.2, 0.9, 0.9, 0.8, 0.3, 0.5])
    monkeypatch.setattr(tasks, "compute_metrics", lambda *_: {"accuracy": next(accuracies, 0.7)})
    tune(home, tmp_path / "run", run=dict(steps=12, eval_every=2))
    assert written(tmp_path / "run")["best_step"] == 6 == load(tmp_path / "run").step
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [6, 10, 12]


def test_the_checkpoint_that_is_loaded_is_the_one_of_the_results(
    finished: Path, tmp_path: Path
) -> None:
    """Not the best of those that are left."""
    shutil.copytree(finished, tmp_path / "run")
    written_results = written(tmp_path / "run")
    assert load(tmp_path / "run").step == written_results["best_step"]
    other = 9 - written_results["best_step"]  # 3 and 6 were saved
    results.write_results(tmp_path / "run", written_results | {"best_step": other})
    assert load(tmp_path / "run").step == other
    shutil.rmtree(tmp_path / "run/checkpoints" / str(other))
    with pytest.raises(
        ValueError, match=rf"checkpoint {other}, which is missing \(found \d\): restore"
    ):
        load(tmp_path / "run")


@pytest.mark.slow
def test_seeds_that_were_stopped_are_taken_up(home: Path, tmp_path: Path) -> None:
    tune(home, tmp_path / "whole", seeds=2)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for file in ("results.json", "seed_0/results.json", "seed_1"):
        path = tmp_path / "parts" / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tune(home, tmp_path / "parts", seeds=2)
    whole = written(tmp_path / "whole")
    assert whole == written(tmp_path / "parts")
    assert [one["seed"] for one in whole["seeds"]] == [0, 1]
    assert len({one["dev"]["loss"] for one in whole["seeds"]}) == 2


@pytest.mark.slow
def test_the_threshold_of_no_answer_is_that_of_dev(home: Path, tmp_path: Path) -> None:
    data = toy_tasks.write_task_dir(tmp_path / "data", "qa")
    for file in data.iterdir():
        whole = json.loads(file.read_text())
        for paragraph in whole["data"][0]["paragraphs"][::3]:
            paragraph["context"] = paragraph["context"].replace("red", "five")
            paragraph["qas"][0] |= {"answers": [], "is_impossible": True}
        file.write_text(json.dumps(whole))
    finetune(
        toy_tasks.finetune_config_for(
            home / "model", "qa", data, tmp_path / "run", run=dict(steps=2)
        )
    )
    metrics = written(tmp_path / "run")
    assert metrics["metric"] == "f1"
    assert metrics["dev"]["f1"] == pytest.approx(metrics["dev"]["best_f1"])
    threshold = load(tmp_path / "run").task.no_answer_threshold
    assert threshold == metrics["threshold"] == metrics["dev"]["threshold"]
    chosen_on_test = {"best_f1", "best_exact_match", "threshold"}
    assert not chosen_on_test & metrics["test"].keys()
    assert "f1" in metrics["test"]


@pytest.mark.slow
def test_without_the_last_checkpoint_there_are_no_results_of_an_earlier_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def fail_at_6(self: Checkpoints, step: int, *args: Any, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as failing:
            if step == 6:
                failing.setattr("bert_jax.checkpoint.manager._check_free_space", disk_error)
            save(self, step, *args, **options)

    monkeypatch.setattr(Checkpoints, "save", fail_at_6)
    with pytest.raises(RunError, match="the last save failed: No space left"):
        tune(home, tmp_path / "run", run=dict(select="last"))
    assert not (tmp_path / "run/results.json").exists()
    monkeypatch.undo()
    tune(home, tmp_path / "run", run=dict(select="last"))
    assert written(tmp_path / "run")["best_step"] == 6


def disk_error(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_of_several_seeds_there_is_the_median_and_the_spread(tmp_path: Path) -> None:
    runs = []
    for i, x in enumerate((0.5, 0.9, 0.6)):
        runs.append(tmp_path / f"seed_{i}")
        runs[-1].mkdir()
        common = dict(task="rte", task_type="classification", model="m", metric="accuracy", steps=6)
        counts = dict(labels=["a", "b"], test=[[1, 0], [2, i]])
        scores = dict(dev=dict(accuracy=x), test=dict(accuracy=1 - x, loss=x), confusion=counts)
        results.write_results(runs[-1], dict(**common, seed=i, best_step=3, **scores))
    aggregated = results.aggregate_seeds(tmp_path, runs)
    assert aggregated == results.read_results(tmp_path)
    assert aggregated["dev"] == {"accuracy": 0.6}
    assert aggregated["test"] == {"accuracy": 0.4, "loss": 0.6}
    assert aggregated["spread"]["dev"]["accuracy"] == {
        "sd": pytest.approx(np.std([0.5, 0.9, 0.6], ddof=1)),
        "min": 0.5,
        "max": 0.9,
    }
    assert [one["dev"]["accuracy"] for one in aggregated["seeds"]] == [0.5, 0.9, 0.6]
    assert aggregated["confusion"]["test"] == [[3, 0], [6, 3]]
    assert "0.6000 ± 0.2082" in results.render_results(aggregated)


def test_a_seed_without_a_loss_leaves_the_others_readable(tmp_path: Path) -> None:
    """As of a dev split of questions none of whose answers lies in its context."""
    runs = [tmp_path / f"seed_{i}" for i in range(2)]
    for run, loss in zip(runs, (0.5, math.nan), strict=True):
        run.mkdir()
        common = dict(task="qa", task_type="qa", model="m", metric="f1", steps=6)
        scores = dict(dev=dict(f1=50.0, loss=loss))
        results.write_results(run, dict(**common, seed=0, best_step=3, **scores))
    results.aggregate_seeds(tmp_path, runs)
    read = results.read_results(tmp_path)
    assert read is not None
    assert read["dev"]["f1"] == 50
    assert math.isnan(read["dev"]["loss"])
    assert math.isnan(read["spread"]["dev"]["loss"]["sd"])


def test_epochs_give_steps_and_the_command_beats_them(home: Path, tmp_path: Path) -> None:
    from bert_jax.training.finetune_config import FinetuneTask

    def resolved(**run: Any) -> Any:
        where = home / "model", "classification", home / "classification", tmp_path / "run"
        return FinetuneTask.of(toy_tasks.finetune_config_for(*where, run=run)).config.run

    run = resolved(epochs=2.5, evals_per_epoch=1.0)
    assert (run.steps, run.eval_every) == (7, 3)  # 48 rows in batches of 16: 7.5 of them
    assert resolved(epochs=1.0, evals_per_epoch=3.0).eval_every == 1
    assert resolved(steps=11).steps == 11


@pytest.mark.parametrize(
    ("family", "head"), [("albert", "pooler"), ("roberta", "pooler"), ("electra", "first")]
)
def test_every_family_has_its_own_heads(family: str, head: str, home: Path, tmp_path: Path) -> None:
    toy_tasks.write_model_dir(tmp_path / "model", family)
    where = tmp_path / "model", "stsb", home / "classification", tmp_path / "run"
    objective = toy_tasks.finetune_config_for(*where).objective
    assert isinstance(objective, Supervised)
    assert (objective.family, objective.head) == (family, head)
    assert objective.scale == (1.0 if family == "albert" else 5.0)
    assert (
        toy_tasks.finetune_config_for(*where, objective=dict(head="gelu")).objective.head == "gelu"
    )  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_electra_is_tuned_from_its_discriminator(home: Path, tmp_path: Path) -> None:
    toy_tasks.write_model_dir(tmp_path / "model", "electra")
    where = tmp_path / "model", "classification", home / "classification", tmp_path / "run"
    finetune(toy_tasks.finetune_config_for(*where, optim=dict(peak_lr=0.0, layer_decay=0.8)))
    before, after = load(tmp_path / "model").params, load(tmp_path / "run").params
    same = jax.tree.map(np.array_equal, after["encoder"], before["discriminator"]["encoder"])
    assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_a_fine_tuned_model_begins_another_task(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its encoder and pooler go over, its task's own layer does not."""
    tune(home, tmp_path / "first", run=dict(steps=3))
    caplog.set_level("INFO", "bert_jax")
    caplog.clear()
    where = tmp_path / "first", "regression", home / "regression", tmp_path / "second"
    finetune(toy_tasks.finetune_config_for(*where, run=dict(steps=3)))
    log = caplog.text
    assert "a new one is trained: its task type is classification, here regression" in log
    assert "pooler" not in log
    for split in ("train", "dev"):
        assert f"{split} rows: 0.000% unknown tokens, " in log


@pytest.mark.slow
def test_a_fine_tuned_model_goes_on_with_its_head(
    home: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bert_jax")
    where = finished, "classification", home / "classification", tmp_path / "run"
    finetune(toy_tasks.finetune_config_for(*where, optim=dict(peak_lr=0.0)))
    log = caplog.text
    assert "is kept: same task and labels" in log
    assert "train: 48 rows: " in log
    assert "dev: 21 rows: " in log
    before, after = (load(run).params["label"]["dense"] for run in (finished, tmp_path / "run"))
    assert np.array_equal(before["kernel"], after["kernel"])


def test_another_config_or_other_data_is_refused(
    home: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"optim.peak_lr was 0.003, now 0.1"):
        tune(home, finished, optim=dict(peak_lr=0.1))
    with pytest.raises(ValueError, match="one seed"):
        tune(home, finished, seeds=2)
    with pytest.raises(ValueError, match=r"is at step 6, but run\.steps is 3"):
        tune(home, finished, run=dict(steps=3))
    other = toy_tasks.write_task_dir(tmp_path / "other", "classification", dev=7)
    with pytest.raises(ValueError, match=r"data.corpus was"):
        finetune(toy_tasks.finetune_config_for(home / "model", "classification", other, finished))
    # the same rows elsewhere, or under another spelling of their path, are the same data
    shutil.copytree(home / "classification", tmp_path / "data")
    for data in (tmp_path / "data", f"{home / 'classification'}/"):
        where = home / "model", "classification", data, finished
        assert finetune(toy_tasks.finetune_config_for(*where)) is None  # type: ignore[arg-type]


def test_a_split_is_answered_in_sight_of_the_mesh(home: Path, tmp_path: Path) -> None:
    """Kernels of attention see which rows are theirs: no TPU splits them by itself."""
    where = home / "model", "classification", home / "classification", tmp_path / "run"
    task = FinetuneTask.of(toy_tasks.finetune_config_for(*where, run=dict(attention="flash")))
    mesh = sharding.make_mesh(Mesh(2), jax.devices()[:2])
    objective = objectives.build(task.config)
    steps = compile_steps(task.config, objective, mesh)
    evaluator = Evaluator(task, task.config, objective, steps, mesh)
    batch = steps.to_devices(next(task.batches(task.config, "dev").one_pass()))
    text = evaluator._apply.lower(steps.like.params, batch).as_text()
    assert "sdy.manual_computation" in text
