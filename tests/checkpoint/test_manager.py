"""Only checkpoints that match their checksums are restored; failed saves lose none of them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoint.manager import MAX_FAILED_SAVES, Checkpoints
from bert_jax.checkpoint.manifest import MANIFEST, verify
from bert_jax.utils.errors import RunError
from tests.helpers import tiny_configs

CONFIG = tiny_configs.FAMILIES["bert"]
STATE = {"x": jnp.arange(1000.0)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": step * STATE["x"]}, CONFIG)
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def restore_newest(folder: Path) -> tuple[int | None, np.ndarray]:
    checkpoints = Checkpoints(folder)
    step = checkpoints.newest()
    state = checkpoints.restore(int(step or 0), STATE)
    checkpoints.close()
    return step, np.asarray(state["x"])


def test_every_saved_step_has_a_valid_manifest(saved: Path) -> None:
    assert [verify(p) for p in saved.iterdir()] == [None] * 3


DAMAGES = {
    "removed": lambda p: p.unlink(),
    "emptied": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "a flipped bit": lambda p: p.write_bytes(bytes([p.read_bytes()[0] ^ 4]) + p.read_bytes()[1:]),
    "of an older step": lambda p: p.write_bytes(b"old" + p.read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_step_is_quarantined_and_the_one_before_used(
    damage: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever file is damaged."""
    files = [p.relative_to(folder) for p in (folder / "3").rglob("*") if p.is_file()]
    rng = np.random.default_rng(0)
    for file in rng.choice(np.array([str(f) for f in files if (folder / f).stat().st_size]), 4):
        fresh = folder.with_name(f"again-{rng.integers(1 << 40)}") / "checkpoints"
        shutil.copytree(folder, fresh)
        DAMAGES[damage](fresh / file)
        step, x = restore_newest(fresh)
        assert step == 2
        assert np.array_equal(x, 2 * STATE["x"])
        assert (fresh.parent / "quarantine").is_dir()
        assert "checkpoints/3 is" in caplog.text
        caplog.clear()


def test_a_step_without_a_manifest_is_unfinished(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    assert restore_newest(folder)[0] == 2


def test_a_quarantined_step_can_be_saved_again(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    checkpoints = Checkpoints(folder)
    checkpoints.save(3, STATE, CONFIG)
    checkpoints.close()
    assert restore_newest(folder)[0] == 3


def test_without_a_valid_step_nothing_is_moved(folder: Path) -> None:
    for manifest in folder.rglob(MANIFEST):
        manifest.write_text("{}")
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"no checkpoint in .* is valid"):
        Checkpoints(folder)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_run_killed_in_its_first_save_starts_anew(folder: Path) -> None:
    for manifest in folder.rglob(MANIFEST):
        manifest.unlink()
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() is None
    checkpoints.save(1, STATE, CONFIG)
    checkpoints.close()
    assert restore_newest(folder)[0] == 1


def test_an_error_during_a_save_ends_the_process(tmp_path: Path) -> None:
    """And the save is complete."""
    code = """
import sys
from pathlib import Path
import jax.numpy as jnp
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import BERT
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    checkpoints.save(1, {"x": jnp.ones(9)}, BERT)
    raise RuntimeError
"""
    command = [sys.executable, "-c", code, tmp_path / "checkpoints"]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True)
    assert done.returncode == 1
    assert verify(tmp_path / "checkpoints" / "1") is None


def test_read_only_changes_nothing(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    before = sorted(folder.parent.rglob("*"))
    assert Checkpoints(folder, read_only=True).newest() == 2
    assert sorted(folder.parent.rglob("*")) == before


def test_retention_keeps_the_best_step_across_a_restart(tmp_path: Path) -> None:
    """The newest two are kept, and the lowest validation loss, whichever run wrote it."""
    for steps in ((1, 2), (3, 4)):
        checkpoints = Checkpoints(tmp_path, keep=2)
        for step in steps:
            checkpoints.save(step, STATE, CONFIG, {"eval_loss": float(step)})
        checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1, 3, 4]


def valid_steps(folder: Path) -> list[int]:
    return [int(p.name) for p in sorted(folder.iterdir()) if verify(p) is None]


def disk_error(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


# Where a save fails: before, in and after the call of Orbax. In its threads: see the full disk.
FAILURES = {
    "bert_jax.checkpoint.manager._check_free_space": disk_error,
    "orbax.checkpoint.AsyncCheckpointer.save": disk_error,
    "bert_jax.checkpoint.manifest.write_manifest": disk_error,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_save_that_fails_is_reported_and_the_next_one_tried(
    failure: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(failure, FAILURES[failure])
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


def test_clock_jumps_change_nothing(tmp_path: Path) -> None:
    """The newest is the one of the most steps, not the latest by the clock."""
    code = """
import time
real, jumps = time.time, iter([0, -10**9, 10**9, -10**8])
shift = 0
time.time = lambda: real() + shift
time.time_ns = lambda: int((real() + shift) * 1e9)
import sys
from collections.abc import Iterator
from pathlib import Path
import jax.numpy as jnp
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import BERT
for step in (1, 2, 3, 4):
    shift = next(jumps)
    with Checkpoints(Path(sys.argv[1]), keep=2) as checkpoints:
        assert checkpoints.newest() == (step - 1 or None), checkpoints.newest()
        checkpoints.save(step, {"x": jnp.full(9, step)}, BERT)
print(Checkpoints(Path(sys.argv[1]), read_only=True).steps())
"""
    command = [sys.executable, "-c", code, tmp_path / "checkpoints"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[3, 4]\n"
