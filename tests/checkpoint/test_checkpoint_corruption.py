"""A damaged checkpoint is detected or harmless: a few of the cases of `make chaos`."""

import json
import random
import shutil
from pathlib import Path

import pytest

from bert_jax.checkpoint import manifest
from bert_jax.checkpoint.manager import Checkpoints
from tests.chaos import damage


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.save_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("name", damage.DAMAGES)
def test_damage_is_detected_or_harmless(name: str, clean: Path) -> None:
    rng = random.Random(name)
    assert "detected" in {damage.run_case(clean, name, rng)[0] for _ in range(3)}


def test_a_manifest_is_valid_for_its_own_step_only(folder: Path) -> None:
    """Neither another manifest in its folder nor another step under its name passes."""
    shutil.copyfile(folder / "10/manifest.json", folder / "15/manifest.json")
    assert manifest.verify(folder / "15") == "damaged: its manifest is that of step 10"
    shutil.rmtree(folder / "15")
    shutil.copytree(folder / "10", folder / "15")
    assert manifest.verify(folder / "15") == "damaged: its manifest is that of step 10"


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"files": 3}', "\x00", '{"step": 15}'])
def test_an_invalid_manifest_is_damage(content: str, folder: Path) -> None:
    (folder / "15/manifest.json").write_text(content)
    assert str(manifest.verify(folder / "15")).startswith("damaged")


def test_a_manifest_of_version_0_1_0_is_valid(folder: Path) -> None:
    """It lists the files without the step."""
    path = folder / "15/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())["files"]))
    assert manifest.verify(folder / "15") is None


LOSSES = {
    "removed": shutil.rmtree,
    "emptied": lambda p: [shutil.rmtree(q) for q in p.iterdir()],
    "renamed": lambda p: p.rename(p.with_name("old")),
    "moved to quarantine by hand": lambda p: [
        shutil.move(q, p.with_name("quarantine") / q.name) for q in sorted(p.iterdir())
    ],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_whose_checkpoints_were_lost_does_not_start_anew(loss: str, folder: Path) -> None:
    folder.with_name("quarantine").mkdir()
    LOSSES[loss](folder)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"step 15 was saved in .* restore it from a backup"):
        Checkpoints(folder)
    assert sorted(folder.parent.rglob("*")) == before


def test_nor_if_the_last_one_is_unfinished_and_the_others_are_lost(
    folder: Path,
) -> None:
    for step in (5, 10):
        shutil.rmtree(folder / str(step))
    (folder / "15" / manifest.MANIFEST).unlink()
    with pytest.raises(ValueError, match="no complete checkpoint"):
        Checkpoints(folder)


def test_a_missing_newest_step_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(folder / "15")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest() == 10
    assert "step 15 was saved" in caplog.text


def test_other_folders_beside_the_steps_are_ignored(folder: Path) -> None:
    for name in ("015", "²", "old", "15.bak"):
        (folder / name).mkdir()
    assert manifest.steps(folder) == [5, 10, 15]
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.newest() == 15


@pytest.mark.parametrize("read_only", [False, True])
def test_damage_to_an_older_step_stops_no_run(read_only: bool, folder: Path) -> None:
    """Orbax reads the metrics of all steps."""
    for file in (folder / "10/metrics").rglob("*"):
        file.write_text("{")
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        assert checkpoints.newest() == 15
        if not read_only:
            assert checkpoints.best() == 15
    assert folder.with_name("quarantine").exists() is not read_only


def test_an_older_step_is_verified_before_it_is_read(folder: Path) -> None:
    damage.flip(folder, random.Random(0))
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.newest() == 10
        with pytest.raises(ValueError, match=r"15 is damaged: .* newest valid one is 10"):
            checkpoints.restore(15, damage.state(15))


def test_what_orbax_cannot_read_is_reported_in_one_line(folder: Path) -> None:
    """Although every file passes its checksum."""
    for file in sorted((folder / "15/state").rglob("*")):
        if file.is_file():
            file.write_bytes(b"nonsense")
    manifest.write_manifest(folder / "15")
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(ValueError, match=r"15 passes its checksums but cannot be restored"),
    ):
        checkpoints.restore(15, damage.state(15))
