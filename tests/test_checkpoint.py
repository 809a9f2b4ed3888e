"""A checkpoint is as it was written, or it is not used."""

import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest
import small

from bert_jax.checkpoint import MANIFEST, Checkpoints, fault

CONFIG = small.FAMILIES["bert"]
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


def restored(folder: Path) -> tuple[int | None, np.ndarray]:
    checkpoints = Checkpoints(folder)
    step = checkpoints.newest()
    state = checkpoints.restore(int(step or 0), STATE)
    checkpoints.close()
    return step, np.asarray(state["x"])


def test_every_step_is_vouched_for(saved: Path) -> None:
    assert [fault(p) for p in saved.iterdir()] == [None] * 3


DAMAGES = {
    "removed": lambda p: p.unlink(),
    "emptied": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "a flipped bit": lambda p: p.write_bytes(bytes([p.read_bytes()[0] ^ 4]) + p.read_bytes()[1:]),
    "of an older step": lambda p: p.write_bytes(b"old" + p.read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_one_before_used(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever file it is."""
    files = [p.relative_to(folder) for p in (folder / "3").rglob("*") if p.is_file()]
    rng = np.random.default_rng(0)
    for file in rng.choice(np.array([str(f) for f in files if (folder / f).stat().st_size]), 4):
        fresh = folder.with_name(f"again-{rng.integers(1 << 40)}") / "checkpoints"
        shutil.copytree(folder, fresh)
        DAMAGES[damage](fresh / file)
        step, x = restored(fresh)
        assert step == 2
        assert np.array_equal(x, 2 * STATE["x"])
        assert (fresh.parent / "set_aside").is_dir()
        assert "checkpoints/3 is" in capsys.readouterr().err


def test_a_step_without_a_manifest_is_unfinished(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    assert restored(folder)[0] == 2


def test_the_step_that_was_set_aside_can_be_saved_again(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    checkpoints = Checkpoints(folder)
    checkpoints.save(3, STATE, CONFIG)
    checkpoints.close()
    assert restored(folder)[0] == 3


def test_where_none_can_be_trusted_nothing_is_touched(folder: Path) -> None:
    for manifest in folder.rglob(MANIFEST):
        manifest.write_text("{}")
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"none of the checkpoints in .* can be trusted"):
        Checkpoints(folder)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_run_killed_in_its_first_save_begins_anew(folder: Path) -> None:
    for manifest in folder.rglob(MANIFEST):
        manifest.unlink()
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() is None
    checkpoints.save(1, STATE, CONFIG)
    checkpoints.close()
    assert restored(folder)[0] == 1


def test_an_error_after_a_save_ends_the_process(tmp_path: Path) -> None:
    code = (
        "import jax.numpy as jnp, sys; from bert_jax.checkpoint import Checkpoints; "
        "from bert_jax.config import BERT; from pathlib import Path; "
        "Checkpoints(Path(sys.argv[1])).save(1, {'x': jnp.ones(9)}, BERT); raise RuntimeError"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], timeout=60, check=False)
    assert done.returncode == 1


def test_reading_changes_nothing(folder: Path) -> None:
    (folder / "3" / MANIFEST).unlink()
    before = sorted(folder.parent.rglob("*"))
    assert Checkpoints(folder, read_only=True).newest() == 2
    assert sorted(folder.parent.rglob("*")) == before


def test_the_best_outlives_a_restart(tmp_path: Path) -> None:
    """The newest two are kept, and the lowest validation loss, whoever wrote it."""
    for steps in ((1, 2), (3, 4)):
        checkpoints = Checkpoints(tmp_path, keep=2)
        for step in steps:
            checkpoints.save(step, STATE, CONFIG, {"eval_loss": float(step)})
        checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1, 3, 4]


def test_a_save_that_fails_raises_and_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends: nobody waits for a commit that never comes."""
    checkpoints = Checkpoints(folder)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: None)
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", lambda: None)
    checkpoints.save(4, STATE, CONFIG)
    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.close()
    monkeypatch.undo()
    assert restored(folder)[0] == 3
