"""A save that fails loses no checkpoint, be it for an error, a full disk or a read-only one."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoint import manager, manifest
from bert_jax.checkpoint.manager import MAX_FAILED_SAVES, Checkpoints
from bert_jax.checkpoint.manifest import verify
from bert_jax.utils.errors import RunError
from tests.helpers.checkpoints import CONFIG, STATE, restore_newest


def valid_steps(folder: Path) -> list[int]:
    return [int(p.name) for p in sorted(folder.iterdir()) if verify(p) is None]


def disk_error(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# Where a save fails: before, in and after the call of Orbax. In its threads: see the full disk.
FAILURES = (
    "bert_jax.checkpoint.manager._check_free_space",
    "orbax.checkpoint.AsyncCheckpointer.save",
    "bert_jax.checkpoint.manifest.write_manifest",
)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_save_that_fails_is_reported_and_the_next_one_tried(
    failure: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(failure, disk_error)
        checkpoints.save(4, STATE, CONFIG)
        assert checkpoints.newest() == 3
        message = caplog.text
        assert "checkpoint 4 was not saved: No space left on device (failure 1 of 3" in message
        assert {p.name for p in folder.iterdir()} - {"1"} == {"2", "3"}  # nothing is left of 4
        monkeypatch.undo()
        checkpoints.save(5, STATE, CONFIG)
    assert valid_steps(folder) == [2, 3, 5]


def test_several_failed_saves_in_a_row_stop_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leave earlier checkpoints unchanged."""
    monkeypatch.setattr("bert_jax.checkpoint.manifest.write_manifest", disk_error)
    checkpoints = Checkpoints(folder)
    for step in range(4, 4 + MAX_FAILED_SAVES):
        checkpoints.save(step, STATE, CONFIG)
    with pytest.raises(
        RunError, match=r"last 3 saves failed: No space left .* the newest checkpoint is 3"
    ):
        checkpoints.save(9, STATE, CONFIG)
    with pytest.raises(RunError):
        checkpoints.close()
    assert valid_steps(folder)[-2:] == [2, 3]
    assert restore_newest(folder)[0] == 3


def test_a_failed_last_save_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_jax.checkpoint.manifest.write_manifest", disk_error)
    with (
        pytest.raises(RunError, match="the last save failed: No space left"),
        Checkpoints(folder) as checkpoints,
    ):
        checkpoints.save(4, STATE, CONFIG)


def test_the_last_checkpoint_may_be_required(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of a run are not those of the checkpoint before."""
    checkpoints = Checkpoints(folder)
    checkpoints.require_saved()
    monkeypatch.setattr("bert_jax.checkpoint.manifest.write_manifest", disk_error)
    checkpoints.save(4, STATE, CONFIG)
    with pytest.raises(RunError, match="the last save failed"):
        checkpoints.require_saved()


def test_what_follows_the_commit_is_tried_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax has removed an older step for the one that would be lost."""
    write, calls = manifest.write_manifest, []

    def fail_once(step: Any) -> None:
        calls.append(step)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        write(step)

    monkeypatch.setattr(manifest, "write_manifest", fail_once)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, STATE, CONFIG)
    assert len(calls) == 2
    assert valid_steps(folder)[-1] == 4


def test_metrics_that_cannot_be_written_are_a_failed_save(folder: Path) -> None:
    """Early stopping reads them when the run resumes."""
    with (
        pytest.raises(RunError, match="the last save failed: No space left"),
        Checkpoints(folder) as checkpoints,
    ):
        checkpoints.save(4, STATE, CONFIG, before=disk_error)
    assert valid_steps(folder)[-1] == 3


@pytest.mark.parametrize("main", [True, False])
def test_of_several_processes_one_that_cannot_save_ends(
    main: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others wait for it in the save, and jax ends them. What all find before the save ends
    nobody: there is another try. A process that logs only errors says why it alone failed."""
    checkpoints = Checkpoints(folder)
    monkeypatch.setattr(checkpoints, "_main", main)
    with monkeypatch.context() as several:
        several.setattr("jax.process_count", lambda: 2)
        several.setattr(manager, "_check_free_space", disk_error)
        checkpoints.save(4, STATE, CONFIG)
        several.setattr(manager, "_check_free_space", lambda *_: None)
        several.setattr("orbax.checkpoint.CheckpointManager.save", disk_error)
        with pytest.raises(RunError, match=r"checkpoint 5 was not saved: No space .* same command"):
            checkpoints.save(5, STATE, CONFIG)
    levels = [record.levelname for record in caplog.records if "not saved" in record.message]
    assert levels == ["WARNING", "WARNING" if main else "ERROR"]


def test_the_error_of_the_block_hides_a_failed_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert_jax.checkpoint.manifest.write_manifest", disk_error)

    def run() -> None:
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(4, STATE, CONFIG)
            raise KeyError

    with pytest.raises(KeyError):
        run()


def test_a_removed_folder_is_not_created_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(folder)
    shutil.rmtree(folder)
    checkpoints.save(4, STATE, CONFIG)
    checkpoints.save(5, STATE, CONFIG)
    with pytest.raises(RunError, match="the folder was removed"):
        checkpoints.save(6, STATE, CONFIG)
    assert not folder.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a tmpfs here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


LARGE = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(500, 1000)), jnp.float32)}


@pytest.mark.parametrize("detected", ["before the save", "during the save"])
def test_a_full_disk_loses_no_checkpoint_and_a_later_save_succeeds(
    detected: str,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if detected == "during the save":  # another program uses the space meanwhile
        monkeypatch.setattr("bert_jax.checkpoint.manager._check_free_space", lambda *_: None)
    folder = small_disk / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, LARGE, CONFIG)
        (small_disk / "other").write_bytes(bytes(3 << 20))
        checkpoints.save(3, LARGE, CONFIG)
        assert checkpoints.newest() == 2
        message = caplog.text
        assert "checkpoint 3 was not saved: " in message
        assert (
            "bytes are free" if detected == "before the save" else "No space left on device"
        ) in message
        assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]
        (small_disk / "other").unlink()
        checkpoints.save(4, LARGE, CONFIG)
    assert valid_steps(folder) == [1, 2, 4]


def test_a_disk_that_becomes_read_only_loses_no_checkpoint(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, LARGE, CONFIG)
    assert checkpoints.newest() == 1
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    checkpoints.save(2, LARGE, CONFIG)
    with pytest.raises(RunError, match="Read-only file system"):
        checkpoints.close()
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.newest() == 1
