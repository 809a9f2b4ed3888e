"""Only checkpoints that match their checksums are restored."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.checkpoint.manifest import MANIFEST, verify
from tests.helpers.checkpoints import CONFIG, STATE, restore_newest


def test_every_saved_step_has_a_valid_manifest(saved: Path) -> None:
    assert [verify(p) for p in saved.iterdir()] == [None] * 3


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


def test_read_only_changes_nothing_and_warns_of_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    caplog.set_level(logging.WARNING, "absl")  # Orbax's logger, which commands silence
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.newest() == 3
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
    assert not caplog.messages


def test_read_only_reports_a_damaged_step_and_leaves_it(folder: Path) -> None:
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
