"""One run at a time in a run directory on gs://."""

from __future__ import annotations

import json
import math
import os
import time

import jax.numpy as jnp
import pytest

from bert_jax.checkpoint import remote_lock, run_dir
from bert_jax.checkpoint.manifest import MANIFEST
from bert_jax.config import Experiment, replace
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils.errors import RunError
from tests.helpers import labeled_rows, tiny_configs
from tests.helpers.clock import Clock

STATE = {"x": jnp.arange(1000.0)}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return labeled_rows.trained_tokenizer("wordpiece")


def experiment(path: str = "gs://bucket/run") -> Experiment:
    return replace(tiny_configs.FAMILIES["bert"], run=dict(dir=path))


def other_lock(age: float, now: float | None = None) -> bytes:
    written = (time.time() if now is None else now) - age
    fields = {"id": "7", "owner": "process 7 on far", "time": written}
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
        (5, 6, False, "waiting up to 1 s for the lock to expire"),
        (-1000, 1, False, "waiting up to 1 s for the lock to expire"),  # the owner's clock is ahead
    ],
    ids=["expired", "take_over", "expires soon", "other clock"],
)
def test_the_lock_of_a_killed_run_is_taken_over(
    age: float, timeout: float, take_over: bool, message: str, gs, caplog, monkeypatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(remote_lock, "time", clock)
    gs.put("run/.lock", other_lock(age, clock.now))
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
    with pytest.raises(RunError, match=f"was taken over by {owner}: this run stops saving"):
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
    # The new owner may have saved this very step since: nothing is removed.
    assert any(name.startswith("1/") for name in gs.names("run/checkpoints/"))
