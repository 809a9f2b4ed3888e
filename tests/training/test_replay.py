"""A step done again is the step that was done."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.config import BERT, Experiment
from bert_jax.training import replay
from bert_jax.training.unused_fields import refuse_unused_fields
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps, saved after the third and the last."""
    root = tmp_path_factory.mktemp("replay")
    text, tok, corpus = root / "text.txt", root / "tok", root / "corpus"
    text.write_text(SAMPLE.read_text()[:300_000].rsplit("\n\n", 1)[0] + "\n")
    kind = ("--kind", "wordpiece", "--vocab-size", 800)
    assert not call("tokenizer", text, *kind, "--out", tok)
    rows = ("--segments", "nsp", "--length", 32, "--duplicates", 1)
    assert not call("prepare", text, "--tokenizer", tok, *rows, "--out", corpus)
    values = {
        "data.path": corpus,
        "run.dir": root / "run",
        "run.steps": 5,
        "run.save_every": 3,
        "run.log_every": 1,
    }
    flags = [str(x) for k, v in values.items() for x in (f"--{k}", v)]
    assert not call("pretrain", ROOT / "configs/tiny_bert.py", *flags)
    return root / "run"


def contents(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_any_step_is_done_again_bit_for_bit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint before it or from the start, and nothing is written."""
    before = contents(run)
    for step, start in ((2, "the start"), (5, "checkpoint 3")):
        assert not call("replay", run, step)
        out = capsys.readouterr().out
        assert f"step {step} of {run}, from {start}:" in out
        assert "equal to the metrics that the run logged" in out
        assert "differs" not in out
        assert "encoder/layers/attention/query" in out
    assert contents(run) == before


def test_a_run_of_many_devices_is_done_again_on_those_that_are_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = len(jax.devices())
    own = config.replace(BERT, mesh=dict(data=1, fsdp=found))
    assert replay._on_these_devices(own) is own
    many = config.replace(BERT, mesh=dict(data=16, tensor=4), run=dict(seed=3))
    here = replay._on_these_devices(many)
    assert here == config.replace(many, mesh=dict(data=-1, tensor=1))
    assert f"has 64 devices, and this machine {found}" in caplog.text


@pytest.mark.slow
def test_what_cannot_be_done_again_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("replay", run, 6) == 2
    assert "step 6: the run has steps 1 to 5" in capsys.readouterr().err
    assert call("replay", tmp_path, 1) == 2
    assert "holds no config.json: expected a run folder" in capsys.readouterr().err
    values = json.loads((run / "config.json").read_text())
    values["data"]["corpus"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert call("replay", tmp_path, 1) == 2
    assert "the data of the run has changed (data.corpus)" in capsys.readouterr().err


def test_what_is_bad_is_named() -> None:
    names = ("embeddings/word", "encoder/layers/mlp/up/bias", "encoder/layers/mlp/up/kernel")
    bad = dict(zip(names, (np.int32(0), np.array([0, 3, 1]), np.array([0, 0, 1])), strict=True))
    norms = dict(zip(names, (1.0, 3.0, 4.0), strict=True))
    terms = {"mlm_loss": 2.0, "pair_accuracy": 0.5, "pair_loss": float("nan")}
    gradient_report = {"terms": terms, "nonfinite": bad, "gradient": norms, "parameter": norms}
    metrics = {"loss": float("nan"), "mlm_loss": 2.0}
    done = replay.Replay(3, 2, metrics, {"loss": float("nan"), "mlm_loss": 2.5}, gradient_report)
    text = replay.render_replay(done, Path("run"))
    assert "differs from the metrics that the run logged: mlm_loss" in text
    assert "pair_loss is nan" in text
    assert done.cause is not None
    assert done.cause.startswith("this machine, the number of its devices or a library version")
    assert "is that of encoder/layers/mlp/up/bias[1]" in text
    assert replay.norms_by_module(norms) == {"embeddings": 1.0, "encoder/layers/mlp/up": 5.0}


def test_a_schedule_of_another_length_is_named_as_the_cause() -> None:
    logged, now = {"loss": 2.0, "learning_rate": 0.1}, {"loss": 2.5, "learning_rate": 0.2}
    cause = replay.Replay(3, 0, now, logged, {}).cause
    assert cause is not None
    assert "run.steps was changed after this step" in cause
    assert replay.Replay(3, 0, now, now, {}).cause is None


@pytest.mark.parametrize("counts", [{"skipped": 1, "spikes": 1}, {"skipped": 0, "spikes": 1}])
def test_another_treatment_of_spikes_is_named_as_the_cause(counts: dict[str, float]) -> None:
    """A step follows the updates made, and so does the learning rate."""
    now = {"loss": 2.0, "learning_rate": 0.2, "skipped": 0, "spikes": 0}
    cause = replay.Replay(3, 0, now, {"loss": 2.5, "learning_rate": 0.1, **counts}, {}).cause
    assert cause is not None
    assert "guard.spike or guard.spike_factor was changed" in cause


def test_a_run_that_was_moved_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that only a new run refuses do not keep it from being replayed."""
    epochs = dict(run=dict(dir=str(tmp_path / "before"), epochs=3.0))
    config.save_config(config.replace(BERT, **epochs), tmp_path / "config.json")

    def open_data(saved: Experiment, *_: object) -> None:
        refuse_unused_fields(saved)
        raise InterruptedError

    monkeypatch.setattr(replay, "open_data", open_data)
    with pytest.raises(InterruptedError):
        replay.replay(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
