"""Run folders and corpora on a bucket: one in memory, which gcsfs and tensorstore take for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils import io, remote
from bert_jax.utils.errors import RunError
from tests.helpers import fake_gcs as fake

STATE = {"x": jnp.arange(1000.0)}


@pytest.fixture(scope="module")
def serving() -> Iterator[fake.Bucket]:
    made = fake.Bucket()
    with pytest.MonkeyPatch.context() as patch, fake.served(made) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        yield made


@pytest.fixture
def gs(serving: fake.Bucket) -> Iterator[fake.Bucket]:
    serving.objects.clear()
    serving.downloads.clear()
    serving.refuses = serving.hangs = serving.read_only = False
    yield serving
    remote.clear_cache()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return labeled_rows.trained_tokenizer("wordpiece")


def asked(path: str = "gs://bucket/run") -> Experiment:
    return replace(tiny_configs.FAMILIES["bert"], run=dict(dir=path))


def run(tokenizer: Tokenizer, *steps: int, path: str = "gs://bucket/run") -> int | None:
    """Saves steps, each after a line of the log; what was the newest before."""
    config = asked(path)
    with run_dir.locked_run_dir(config, tokenizer) as checkpoints:
        before = checkpoints.newest()
        for step in steps:
            with (remote.local_cache_path(path) / "metrics.jsonl").open("a") as f:
                f.write(json.dumps({"step": step}) + "\n")
            checkpoints.save(step, {"x": step * STATE["x"]}, config)
    remote.clear_cache()  # as the process ends
    return before


def restored(tokenizer: Tokenizer) -> tuple[int, np.ndarray]:
    with run_dir.locked_run_dir(asked(), tokenizer) as checkpoints:
        step = checkpoints.newest() or 0
        x = np.asarray(checkpoints.restore(step, STATE)["x"])
    remote.clear_cache()
    return step, x


def test_a_run_goes_on_from_what_lies_there_and_from_nothing_else(gs, tokenizer) -> None:
    """Nothing of it stays on this machine."""
    assert run(tokenizer, 1, 2) is None
    assert {n.split("/")[0] for n in gs.names("run/")} == {
        "config.json", "tokenizer", "metrics.jsonl", "checkpoints", ".checkpoints.newest",
    }  # fmt: skip
    assert run(tokenizer, 3) == 2
    step, x = restored(tokenizer)
    assert step == 3
    assert np.array_equal(x, 3 * STATE["x"])
    lines = gs.objects["run/metrics.jsonl"][0].splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_the_log_lies_there_before_a_step_counts(gs, tokenizer, monkeypatch) -> None:
    put, order = gs.put, []
    monkeypatch.setattr(gs, "put", lambda name, *more: order.append(name) or put(name, *more))
    run(tokenizer, 1)
    manifest = order.index(f"run/checkpoints/1/{MANIFEST}")
    assert order.index("run/metrics.jsonl") < manifest
    assert max(i for i, n in enumerate(order) if n.startswith("run/checkpoints/1/")) == manifest
    assert order.index("run/config.json") < min(
        i for i, n in enumerate(order) if n.startswith("run/tokenizer")
    )


DAMAGES = {
    "removed": lambda gs, name: gs.objects.pop(name),
    "cut": lambda gs, name: gs.put(name, gs.objects[name][0][:-1]),
    "written over": lambda gs, name: gs.put(name, gs.objects[name][0][::-1] + b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_set_aside_and_the_one_before_used(
    damage: str, gs, tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    run(tokenizer, 1, 2)
    name = max(gs.names("run/checkpoints/2/state/"), key=len)
    DAMAGES[damage](gs, f"run/checkpoints/2/state/{name}")
    step, x = restored(tokenizer)
    assert step == 1
    assert np.array_equal(x, STATE["x"])
    assert gs.names("run/set_aside/2-1/")
    assert "checkpoints/2 is damaged: state/" in caplog.text


def test_a_step_that_was_never_vouched_for_is_unfinished(gs, tokenizer) -> None:
    run(tokenizer, 1, 2)
    del gs.objects[f"run/checkpoints/2/{MANIFEST}"]
    assert verify(remote.remote_path("gs://bucket/run") / "checkpoints" / "2") is not None
    assert restored(tokenizer)[0] == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_lock, "BEAT", 0.2)
    monkeypatch.setattr(remote_lock, "LONG", 1.0)


@pytest.mark.usefixtures("quick")  # the lock cannot be removed either
def test_a_bucket_that_cannot_be_written_fails_the_save(gs, tokenizer, caplog) -> None:
    """And keeps what was saved before."""

    def refused() -> None:
        with run_dir.locked_run_dir(asked(), tokenizer) as checkpoints:
            (remote.local_cache_path("gs://bucket/run") / "metrics.jsonl").write_text("changed")
            lay = checkpoints._beside  # Orbax is done by then
            checkpoints._beside = lambda: (setattr(gs, "read_only", True), lay())
            checkpoints.save(2, STATE, asked())

    run(tokenizer, 1)
    with pytest.raises(RunError, match="the last save failed: "):
        refused()
    remote.clear_cache()
    assert "checkpoint 2 was not saved: " in caplog.text
    gs.read_only = False
    assert restored(tokenizer)[0] == 1


# ---- one at a time


@pytest.mark.usefixtures("quick")
def test_a_second_run_is_refused_while_the_first_lives(gs) -> None:
    with (
        remote_lock.hold("gs://bucket/run"),
        pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on \S+: wait"),
        remote_lock.hold("gs://bucket/run"),
    ):
        pass
    assert not gs.objects
    with remote_lock.hold("gs://bucket/run"):
        assert gs.names("run/") == [".lock"]


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_keeps_nobody_out(gs, caplog: pytest.LogCaptureFixture) -> None:
    gs.put("run/.lock", b"process 7 on far (0) 3")
    with remote_lock.hold("gs://bucket/run"):
        assert gs.objects["run/.lock"][0].startswith(b"process %d on" % os.getpid())
    assert "process 7 on far gives none: the folder is taken over" in caplog.text


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_taken_for_dead_notices_and_saves_no_more(gs) -> None:
    with remote_lock.hold("gs://bucket/run") as mine:
        mine.check()
        gs.put("run/.lock", b"process 7 on far (0) 3")
        mine._beating.join(20)
        with pytest.raises(RunError, match="was taken over by process 7 on far"):
            mine.check()
    assert gs.names("run/") == [".lock"]  # the other's


# ---- corpora


def test_a_corpus_is_copied_once_and_anew_when_it_changes(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    gs.put("corpora/c/tokenizer/vocab.txt", b"a\n" * 1000)
    first = remote.cached_download("gs://bucket/corpora/c")
    assert (first / "tokenizer/vocab.txt").read_bytes() == b"a\n" * 1000
    assert remote.cached_download("gs://bucket/corpora/c/") == first
    assert len(gs.downloads) == 2
    gs.put("corpora/c/corpus.json", b"{ }")
    second = remote.cached_download("gs://bucket/corpora/c")
    assert second != first
    assert (second / "corpus.json").read_bytes() == b"{ }"
    assert remote.cached_download("here") == Path("here")


def test_a_copy_that_is_not_what_was_listed_is_not_kept(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    listed = gs.listed
    wrong = {"crc32c": "AAAAAA=="}
    monkeypatch.setattr(
        gs, "listed", lambda a: {**listed(a), "items": [i | wrong for i in listed(a)["items"]]}
    )
    with pytest.raises(ValueError, match=r"corpus\.json changed or was damaged while"):
        remote.cached_download("gs://bucket/corpora/c")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_a_corpus_without_room_is_refused(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    listed = gs.listed
    large = {"size": str(1 << 60)}
    monkeypatch.setattr(
        gs, "listed", lambda a: {**listed(a), "items": [i | large for i in listed(a)["items"]]}
    )
    with pytest.raises(ValueError, match=r"has room for .*: set BERT_JAX_CACHE to a folder"):
        remote.cached_download("gs://bucket/corpora/c")


# ---- all of it


@pytest.mark.slow
def test_two_processes_train_from_a_bucket_into_a_bucket(gs, serving, tmp_path: Path) -> None:
    """For real, and go on there; what one process makes of the same on a disk is the same."""
    labeled_rows.trained_tokenizer("wordpiece").save(tmp_path / "tok")
    call = [sys.executable, "-m", "bert_jax"]
    words = [*call, "prepare", str(labeled_rows.SAMPLE), "--tokenizer", "tok", "--segments", "nsp"]
    places = {"BERT_JAX_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment = os.environ | places | {"XLA_FLAGS": ""}

    def run(*command: str) -> None:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr

    run(*words, "--length", "32", "--out", "corpus")
    for file in (tmp_path / "corpus").rglob("*"):
        if file.is_file():
            gs.put(f"corpora/{file.relative_to(tmp_path)}", file.read_bytes())
    train = [*call, "pretrain", str(ROOT / "configs/tiny_bert.py"), "--data.batch-size", "8"]
    train += ["--run.log-every", "1", "--run.eval-every", "2", "--run.save-every", "2"]
    train += ["--encoder.layers", "1", "--encoder.hidden-size", "16", "--encoder.heads", "2"]
    train += ["--encoder.mlp-size", "32", "--run.eval-batches", "1"]
    run(*train, "--data.path", "corpus", "--run.dir", "here", "--run.steps", "4")
    there = ["--data.path", "gs://bucket/corpora/corpus", "--run.dir", "gs://bucket/runs/two"]
    for steps in ("2", "4"):
        run(str(ROOT / "launch/local.sh"), "2", *train, *there, "--run.steps", steps)
    lines = gs.objects["runs/two/metrics.jsonl"][0].decode().splitlines()
    found = [json.loads(line)["loss"] for line in lines]
    expected = (tmp_path / "here" / "metrics.jsonl").read_text().splitlines()
    assert found == pytest.approx([json.loads(line)["loss"] for line in expected], rel=1e-5)
    assert f"checkpoints/4/{MANIFEST}" in gs.names("runs/two/")


# ---- what is refused


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("s3://bucket/run", r"mount the bucket \(S3: mount-s3\) and give the folder"),
        ("gs://bucket", "names no folder: expected gs://BUCKET/NAME"),
        ("gs://another/run", "another/run cannot be reached: .*look at its name, the network"),
        ("gs://bucket/text", "run.dir gs://bucket/text is not empty and no run"),
    ],
)
def test_what_can_be_no_run_folder_is_refused(path: str, says: str, gs) -> None:
    gs.put("text/a.txt", b"a")
    with pytest.raises(ValueError, match=says):
        remote.local_cache_path(path)


def test_a_bucket_without_access_or_answer_is_refused_soon(gs, monkeypatch) -> None:
    gs.refuses = True
    with pytest.raises(ValueError, match="cannot be reached: OSError: Forbidden"):
        remote.local_cache_path("gs://bucket/run")
    gs.refuses, gs.hangs = False, True
    monkeypatch.setattr(remote, "ANSWER", 0.5)
    with pytest.raises(ValueError, match=r"no answer in 0\.5 seconds; look at its name"):
        remote.local_cache_path("gs://bucket/run")
    gs.hangs = False


def test_what_reads_folders_here_says_how_to_bring_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(["report", "gs://bucket/run", "--out", "x"])
    assert e.value.code == 2
    said = capsys.readouterr().err
    assert "gcloud storage cp --recursive gs://bucket/run ." in said
    assert len(said.splitlines()) == 1
