"""`finetune` and `report` as a user types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_jax import config, optim
from bert_jax.config import Experiment
from bert_jax.training import finetune_config
from tests.helpers import toy_tasks
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT

RECIPES = sorted((ROOT / "configs").glob("finetune*.py"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    toy_tasks.write_model_dir(folder / "model")
    toy_tasks.write_task_dir(folder / "data", "classification")
    return folder


def finetune(home: Path, run: Path, *more: object, data: Path | None = None) -> int:
    where = ["--init", home / "model", "--task", "classification", "--data", data or home / "data"]
    batch = ["--data.batch_size", 16, "--optim.peak_lr", "3e-3", "--optim.decay_steps", 60]
    recipe = ROOT / "configs" / "finetune.py"
    return call("finetune", recipe, *where, *batch, "--run.dir", run, *more)


def test_finetune_writes_results_that_report_shows(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert not finetune(home, run, "--run.epochs", 2, "--run.log-every", 1)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["accuracy", "f1", "precision"]
    assert [line.split()[0] for line in table[1:3]] == ["dev", "test"]
    assert "of 6" in table[3]
    names = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert names == {
        "config.json",
        "tokenizer",
        "checkpoints",
        "metrics.jsonl",
        "timing.jsonl",
        "tensorboard",
        "results.json",
        "errors.json",
        "predictions_dev.jsonl",
        "predictions_test.jsonl",
    }
    again = finetune(home, run, "--run.epochs", 2, "--run.log-every", 1)
    assert not again
    assert capsys.readouterr().out.splitlines() == table

    assert not call("report", run, "--out", tmp_path / "report")
    written = {p.name for p in (tmp_path / "report").iterdir()}
    assert written == {"curves.png", "confusion.png", "calibration.png", "report.html"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert "test accuracy" in page
    assert "Scores of each label: run, test" in page
    assert "Largest losses: run, test" in page


def test_flags_reach_the_config(home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[Experiment] = []
    monkeypatch.setattr("bert_jax.training.finetune.finetune", lambda e, *_: seen.append(e))
    monkeypatch.setattr("bert_jax.training.run_summary.summary", lambda _: "")
    flags = ("--select", "last", "--new-head", "--unknown-labels", "ignore")
    assert not finetune(home, tmp_path / "run", *flags)
    assert not finetune(home, tmp_path / "run")
    values = [(e.run.select, e.objective.new_head, e.objective.unknown_labels) for e in seen]
    assert values == [("last", True, "ignore"), ("best", False, "refuse")]


@pytest.mark.slow
def test_several_seeds_are_reported_together(home: Path, tmp_path: Path) -> None:
    assert not finetune(home, tmp_path / "run", "--run.steps", 2, "--seeds", 2)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [one["run"] for one in results["seeds"]] == ["seed_0", "seed_1"]
    assert not call("report", tmp_path / "run", "--out", tmp_path / "report")
    assert "run/seed_1" in (tmp_path / "report" / "report.html").read_text()
    assert call("predict", tmp_path / "run", "x", "--out", "y") == 2


@pytest.mark.parametrize("eval_every", [30, 5_000])
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_overrides_win_over_every_finetune_config(path: Path, eval_every: int, home: Path) -> None:
    """The heads are the model's family's; shares of a recipe give way to numbers of steps, also to
    the field's default."""

    def change(experiment: Experiment) -> Experiment:
        run = dict(init=str(home / "model"), steps=1000, eval_every=eval_every)
        return config.replace(experiment, optim=dict(warmup_steps=200), run=run)

    resolved = finetune_config.for_model(config.from_python_file(path), change)
    assert resolved.objective.family == "bert"
    assert (resolved.run.epochs, resolved.run.evals_per_epoch) == (None, None)
    assert resolved.run.eval_every == eval_every
    rate = optim.schedule(resolved.optim, resolved.run.steps)
    # of the peak; an ELECTRA's rate falls from the start
    assert rate(100) == pytest.approx(resolved.optim.peak_lr / 2, rel=0.11)


ROW = {"text": "red", "label": "red"}
BAD_DATA: dict[str, tuple[str, list[dict], str]] = {
    "a missing column": ("train", [{"text": "red"}], "no field `label`"),
    "an unknown label in dev": ("dev", [{"text": "red", "label": "green"}], "green"),
    "one class only": ("train", [ROW, ROW], "one class only"),
    "no rows": ("train", [], "is empty"),
}


@pytest.mark.parametrize("name", sorted(BAD_DATA))
def test_bad_data_is_rejected_in_one_line_before_the_run_dir_is_made(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, rows, expected = BAD_DATA[name]
    data = toy_tasks.write_task_dir(tmp_path / "data", "classification")
    toy_tasks.write_jsonl(data / f"{split}.jsonl", rows)
    assert finetune(home, tmp_path / "run", data=data) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert expected in err[0]
    assert not (tmp_path / "run").exists()


BAD_FLAGS: dict[str, tuple[tuple[object, ...], str]] = {
    "an encoder of another size": (("--encoder.heads", 3), "the encoder comes from the model"),
    "more layers than there are": (("--encoder.layers", 3), "has 2: expected at most 2"),
    "rows longer than the model": (("--data.length", 600), "encoder.max_length 48"),
    "steps and epochs": (("--run.steps", 9, "--run.epochs", 2), "run.epochs are both given"),
    "no seeds": (("--seeds", 0), "--seeds is 0"),
    "stages of a corpus": (("--data.stages", "16x8=0.5,32x4=0.5"), "data.stages is '16x8"),
    "a mix of corpora": (("--data.mix", "a=1,b=2"), "data.mix is 'a=1,b=2', and the run is fine"),
    "a misspelt field": (("--run.epoch", 3), "epoch"),
}


@pytest.mark.parametrize("name", sorted(BAD_FLAGS))
def test_bad_flags_are_rejected_before_the_run_dir_is_made(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, expected = BAD_FLAGS[name]
    assert finetune(home, tmp_path / "run", *flags) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_pretraining_config_is_rejected(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--init", home / "model", "--task", "rte", "--data", home / "data"]
    assert call("finetune", ROOT / "configs" / "bert_base.py", *where) == 2
    assert "expected a recipe for fine-tuning" in capsys.readouterr().err
