"""Run directories on gs://."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoint import run_dir
from bert_jax.checkpoint.manifest import MANIFEST, verify
from bert_jax.cli import main as cli
from bert_jax.config import Experiment, replace
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils import remote
from bert_jax.utils.errors import RunError
from tests.helpers import labeled_rows, tiny_configs
from tests.helpers.paths import ROOT

if TYPE_CHECKING:
    from tests.helpers.fake_gcs import Bucket

STATE = {"x": jnp.arange(1000.0)}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return labeled_rows.trained_tokenizer("wordpiece")


def experiment(path: str = "gs://bucket/run") -> Experiment:
    return replace(tiny_configs.FAMILIES["bert"], run=dict(dir=path))


def save_steps(tokenizer: Tokenizer, *steps: int, path: str = "gs://bucket/run") -> int | None:
    """Resume and save steps, each after a line of metrics; returns the newest step before."""
    config = experiment(path)
    with run_dir.locked_run_dir(config, tokenizer) as checkpoints:
        before = checkpoints.newest()
        for step in steps:
            with (remote.local_cache_path(path) / "metrics.jsonl").open("a") as f:
                f.write(json.dumps({"step": step}) + "\n")
            checkpoints.save(step, {"x": step * STATE["x"]}, config)
    remote.clear_cache()  # as at the end of the process
    return before


def restore_newest(tokenizer: Tokenizer) -> tuple[int, np.ndarray]:
    with run_dir.locked_run_dir(experiment(), tokenizer) as checkpoints:
        step = checkpoints.newest() or 0
        x = np.asarray(checkpoints.restore(step, STATE)["x"])
    remote.clear_cache()
    return step, x


@pytest.fixture(scope="module")
def objects_of_two_steps(gcs_server: Bucket, tokenizer: Tokenizer) -> dict[str, tuple[bytes, int]]:
    gcs_server.objects.clear()
    assert save_steps(tokenizer, 1, 2) is None
    return dict(gcs_server.objects)


@pytest.fixture
def two_steps(objects_of_two_steps: dict[str, tuple[bytes, int]], gs: Bucket) -> Bucket:
    """The bucket of a run that saved steps 1 and 2."""
    gs.objects.update(objects_of_two_steps)
    return gs


def test_a_run_resumes_from_the_bucket_alone(two_steps: Bucket, tokenizer) -> None:
    """The local copy is removed at the end of each run."""
    gs = two_steps
    assert {n.split("/")[0] for n in gs.names("run/")} == {
        "config.json", "tokenizer", "metrics.jsonl", "checkpoints", ".checkpoints.newest",
    }  # fmt: skip
    assert save_steps(tokenizer, 3) == 2
    step, x = restore_newest(tokenizer)
    assert step == 3
    assert np.array_equal(x, 3 * STATE["x"])
    lines = gs.objects["run/metrics.jsonl"][0].splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_metrics_are_uploaded_before_the_manifest(gs, tokenizer, monkeypatch) -> None:
    put, order = gs.put, []
    monkeypatch.setattr(gs, "put", lambda name, *more: order.append(name) or put(name, *more))
    save_steps(tokenizer, 1)
    manifest = order.index(f"run/checkpoints/1/{MANIFEST}")
    assert order.index("run/metrics.jsonl") < manifest
    assert max(i for i, n in enumerate(order) if n.startswith("run/checkpoints/1/")) == manifest
    assert order.index("run/config.json") < min(
        i for i, n in enumerate(order) if n.startswith("run/tokenizer")
    )


DAMAGES = {
    "removed": lambda gs, name: gs.objects.pop(name),
    "cut": lambda gs, name: gs.put(name, gs.objects[name][0][:-1]),
    "overwritten": lambda gs, name: gs.put(name, gs.objects[name][0][::-1] + b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_quarantined_and_the_one_before_used(
    damage: str, two_steps: Bucket, tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    gs = two_steps
    name = max(gs.names("run/checkpoints/2/state/"), key=len)
    DAMAGES[damage](gs, f"run/checkpoints/2/state/{name}")
    step, x = restore_newest(tokenizer)
    assert step == 1
    assert np.array_equal(x, STATE["x"])
    assert f"state/{name}" in gs.names("run/quarantine/2-1/") or damage == "removed"
    assert not gs.names("run/checkpoints/2/")
    assert "checkpoints/2 is damaged: state/" in caplog.text


def test_a_step_without_a_manifest_is_unfinished(two_steps: Bucket, tokenizer) -> None:
    del two_steps.objects[f"run/checkpoints/2/{MANIFEST}"]
    assert verify(remote.storage_path("gs://bucket/run") / "checkpoints" / "2") is not None
    assert restore_newest(tokenizer)[0] == 1


def test_a_bucket_that_cannot_be_written_fails_the_save(two_steps, tokenizer, caplog) -> None:
    """And earlier checkpoints remain."""
    gs = two_steps

    def train() -> None:
        with run_dir.locked_run_dir(experiment(), tokenizer) as checkpoints:
            (remote.local_cache_path("gs://bucket/run") / "metrics.jsonl").write_text("changed")
            upload = checkpoints._upload  # called after Orbax's commit
            checkpoints._upload = lambda: (setattr(gs, "read_only", True), upload())
            checkpoints.save(3, STATE, experiment())

    with pytest.raises(RunError, match="the last save failed: "):
        train()
    remote.clear_cache()
    assert "checkpoint 3 was not saved: " in caplog.text
    gs.read_only = False
    gs.objects.pop("run/.lock")  # it could not be removed either
    assert restore_newest(tokenizer)[0] == 2


# ---- a whole run


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_train_from_a_bucket_into_a_bucket(gs, tmp_path: Path) -> None:
    """And resume there; the losses are those of one process that trains on local files."""
    labeled_rows.trained_tokenizer("wordpiece").save(tmp_path / "tok")
    command = [sys.executable, "-m", "bert_jax"]
    prepare = [
        *command,
        "prepare",
        str(labeled_rows.SAMPLE),
        "--tokenizer",
        "tok",
        "--segments",
        "nsp",
        "--duplicates",
        "1",
    ]
    variables = {"BERT_JAX_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment = os.environ | variables | {"XLA_FLAGS": ""}

    def run(*args: str) -> None:
        done = subprocess.run(
            args, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr

    run(*prepare, "--segments", "nsp", "--length", "32", "--out", "corpus")
    for file in (tmp_path / "corpus").rglob("*"):
        if file.is_file():
            gs.put(f"corpora/{file.relative_to(tmp_path)}", file.read_bytes())
    train = [*command, "pretrain", str(ROOT / "configs/tiny_bert.py"), "--data.batch-size", "8"]
    train += ["--run.log-every", "1", "--run.eval-every", "2", "--run.save-every", "2"]
    train += ["--encoder.layers", "1", "--encoder.hidden-size", "16", "--encoder.heads", "2"]
    train += ["--encoder.mlp-size", "32", "--run.eval-batches", "1"]
    run(*train, "--data.path", "corpus", "--run.dir", "local", "--run.steps", "4")
    remote_paths = [
        "--data.path",
        "gs://bucket/corpora/corpus",
        "--run.dir",
        "gs://bucket/runs/two",
    ]
    for steps in ("2", "4"):
        run(str(ROOT / "launch/local.sh"), "2", *train, *remote_paths, "--run.steps", steps)
    lines = gs.objects["runs/two/metrics.jsonl"][0].decode().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    expected = (tmp_path / "local" / "metrics.jsonl").read_text().splitlines()
    assert losses == pytest.approx([json.loads(line)["loss"] for line in expected], rel=1e-5)
    assert f"checkpoints/4/{MANIFEST}" in gs.names("runs/two/")


# ---- errors


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/run", r"mount the bucket \(S3: mount-s3\) and give the mounted"),
        ("gs://bucket", "names no folder: expected gs://BUCKET/NAME"),
        ("gs://another/run", "another/run cannot be reached: .*check its name, the network"),
        ("gs://bucket/text", "run.dir gs://bucket/text is not empty and is not a run directory"),
    ],
)
def test_paths_that_cannot_be_run_directories_are_refused(path: str, message: str, gs) -> None:
    gs.put("text/a.txt", b"a")
    with pytest.raises(ValueError, match=message):
        remote.local_cache_path(path)


def test_a_bucket_without_access_or_answer_is_an_error_within_a_timeout(gs, monkeypatch) -> None:
    gs.refuses = True
    with pytest.raises(ValueError, match="cannot be reached: OSError: Forbidden"):
        remote.local_cache_path("gs://bucket/run")
    gs.refuses, gs.hangs = False, True
    monkeypatch.setattr(remote, "RESPONSE_TIMEOUT", 0.5)
    with pytest.raises(RunError, match=r"no answer in 0\.5 seconds; check its name"):
        remote.local_cache_path("gs://bucket/run")
    gs.hangs = False


def test_commands_for_local_files_say_how_to_copy_a_bucket(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(["report", "gs://bucket/run", "--out", "x"])
    assert e.value.code == 2
    stderr = capsys.readouterr().err
    assert "gcloud storage cp --recursive gs://bucket/run ." in stderr
    assert len(stderr.splitlines()) == 1
