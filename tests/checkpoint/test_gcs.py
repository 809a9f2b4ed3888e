"""Run directories and corpora on gs://: gcsfs and TensorStore talk to a fake server in memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import labeled_rows, tiny_configs
from tests.helpers.paths import ROOT

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # asks by gRPC; read on import
pytest.importorskip("gcsfs", reason='pip install "bert-jax[gcs]"')

import fsspec.config

from bert_jax.checkpoint import remote_lock, run_dir
from bert_jax.checkpoint.manifest import MANIFEST, verify
from bert_jax.cli import main as cli
from bert_jax.config import Experiment, replace
from bert_jax.data.corpus_cache import cached_download
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils import io, remote
from bert_jax.utils.errors import RunError
from tests.helpers import fake_gcs as fake

STATE = {"x": jnp.arange(1000.0)}


@pytest.fixture(scope="module")
def server() -> Iterator[fake.Bucket]:
    bucket = fake.Bucket()
    with pytest.MonkeyPatch.context() as patch, fake.served(bucket) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        yield bucket


@pytest.fixture
def gs(server: fake.Bucket) -> Iterator[fake.Bucket]:
    server.objects.clear()
    server.downloads.clear()
    server.refuses = server.hangs = server.read_only = False
    yield server
    remote.clear_cache()


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
def objects_of_two_steps(server: fake.Bucket, tokenizer: Tokenizer) -> dict[str, tuple[bytes, int]]:
    assert save_steps(tokenizer, 1, 2) is None
    return dict(server.objects)


@pytest.fixture
def two_steps(objects_of_two_steps: dict[str, tuple[bytes, int]], gs: fake.Bucket) -> fake.Bucket:
    """The bucket of a run that saved steps 1 and 2."""
    gs.objects.update(objects_of_two_steps)
    return gs


def test_a_run_resumes_from_the_bucket_alone(two_steps: fake.Bucket, tokenizer) -> None:
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
    damage: str, two_steps: fake.Bucket, tokenizer, caplog: pytest.LogCaptureFixture
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


def test_a_step_without_a_manifest_is_unfinished(two_steps: fake.Bucket, tokenizer) -> None:
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


# ---- one run at a time


def other_lock(age: float) -> bytes:
    fields = {"id": "7", "owner": "process 7 on far", "time": time.time() - age}
    return json.dumps(fields).encode()


def test_a_lock_that_is_renewed_refuses_a_second_run(gs, monkeypatch) -> None:
    monkeypatch.setattr(remote_lock, "POLL", 0.05)
    first = remote_lock.RemoteLock("gs://bucket/run", 600)
    second = remote_lock.RemoteLock("gs://bucket/run", 600)
    sleep = time.sleep

    def renew_meanwhile(seconds: float) -> None:
        first._renewed = -math.inf
        first.refresh()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", renew_meanwhile)
    with first.hold():
        with (
            pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on \S+: wait"),
            second.hold(),
        ):
            pass
        assert gs.names("run/") == [".lock"]
    assert not gs.objects
    with second.hold():
        assert gs.names("run/") == [".lock"]


@pytest.mark.parametrize(
    ("age", "timeout", "take_over", "message"),
    [
        (700, 600, False, "taking over the lock"),
        (5, 600, True, "taking over the lock"),
        (5, 6, False, "waiting up to 1 s until it expires"),
        (-1000, 1, False, "waiting up to 1 s until it expires"),  # the owner's clock is ahead
    ],
    ids=["expired", "take_over", "expires soon", "other clock"],
)
def test_the_lock_of_a_killed_run_is_taken_over(
    age: float, timeout: float, take_over: bool, message: str, gs, caplog
) -> None:
    gs.put("run/.lock", other_lock(age))
    with remote_lock.RemoteLock("gs://bucket/run", timeout).hold(take_over):
        owner = json.loads(gs.objects["run/.lock"][0])["owner"]
        assert owner.startswith(f"process {os.getpid()} on")
    assert f"locked by process 7 on far, renewed {max(age, 0)} s ago: {message}" in caplog.text
    assert caplog.text.splitlines()[-1].endswith("taking over the lock")


def test_refresh_renews_the_lock_after_a_tenth_of_the_timeout(gs, monkeypatch) -> None:
    lock = remote_lock.RemoteLock("gs://bucket/run", 600)
    with lock.hold():
        before = gs.objects["run/.lock"]
        lock.refresh()
        assert gs.objects["run/.lock"] == before
        lock._renewed -= 61
        lock.refresh()
        assert gs.objects["run/.lock"] != before


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_whose_lock_was_taken_over_saves_no_more(ended: bool, gs, tokenizer) -> None:
    """Also if the other run has ended since."""
    other = other_lock(0)

    def train() -> None:
        with run_dir.locked_run_dir(experiment(), tokenizer) as checkpoints:
            checkpoints.save(1, STATE, experiment())
            assert checkpoints.newest() == 1
            gs.objects.pop("run/.lock") if ended else gs.put("run/.lock", other)
            checkpoints.refresh_lock.__self__._renewed = -math.inf
            checkpoints.save(2, STATE, experiment())

    owner = "another run, which has ended" if ended else "process 7 on far"
    with pytest.raises(RunError, match=f"was taken over by {owner}: this run saves no more"):
        train()
    assert gs.names("run/checkpoints/2/") == []
    assert ended or gs.objects["run/.lock"][0] == other  # the other run keeps it


def test_a_refresh_that_fails_is_tried_again_later(gs, caplog) -> None:
    lock = remote_lock.RemoteLock("gs://bucket/run", 600)
    with lock.hold():
        gs.read_only = True
        lock._renewed -= 61
        lock.refresh()
        lock.refresh()
        assert caplog.text.count("run/.lock was not renewed (") == 1
        gs.read_only = False


def test_a_takeover_during_a_save_leaves_the_step_unfinished(gs, tokenizer) -> None:
    def train() -> None:
        with run_dir.locked_run_dir(experiment(), tokenizer) as checkpoints:
            gs.put("run/.lock", other_lock(0))  # too soon after the start for a refresh
            checkpoints.save(1, STATE, experiment())

    with pytest.raises(RunError, match=r"the last save failed: .* was taken over by process 7"):
        train()
    assert f"1/{MANIFEST}" not in gs.names("run/checkpoints/")


# ---- corpora


def with_fields(listing: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """A listing whose objects have other fields."""
    return listing | {"items": [item | fields for item in listing["items"]]}


def test_a_corpus_is_downloaded_once_and_again_after_a_change(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    gs.put("corpora/c/tokenizer/vocab.txt", b"a\n" * 1000)
    first = cached_download("gs://bucket/corpora/c")
    assert (first / "tokenizer/vocab.txt").read_bytes() == b"a\n" * 1000
    assert cached_download("gs://bucket/corpora/c/") == first
    assert len(gs.downloads) == 2
    gs.put("corpora/c/corpus.json", b"{ }")
    second = cached_download("gs://bucket/corpora/c")
    assert second != first
    assert (second / "corpus.json").read_bytes() == b"{ }"
    assert cached_download("local") == Path("local")


def test_a_download_with_another_checksum_is_discarded(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    list_objects = gs.list_objects
    wrong = {"crc32c": "AAAAAA=="}
    monkeypatch.setattr(gs, "list_objects", lambda q: with_fields(list_objects(q), wrong))
    with pytest.raises(ValueError, match=r"corpus\.json changed or was damaged during"):
        cached_download("gs://bucket/corpora/c")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_a_corpus_larger_than_the_disk_is_refused(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    list_objects = gs.list_objects
    large = {"size": str(1 << 60)}
    monkeypatch.setattr(gs, "list_objects", lambda q: with_fields(list_objects(q), large))
    with pytest.raises(ValueError, match=r"bytes free: set BERT_JAX_CACHE to a folder"):
        cached_download("gs://bucket/corpora/c")


# ---- a whole run


@pytest.mark.slow
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
    with pytest.raises(ValueError, match=r"no answer in 0\.5 seconds; check its name"):
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
