"""Folders that are written atomically: what is replaced, and what is kept after an error."""

import errno
import os
from pathlib import Path

import pytest

from bert_jax.utils import io
from bert_jax.utils.errors import RunError


def write(out: Path) -> None:
    with io.atomic_dir(out) as new:
        (new / "file").write_text("content")


def test_a_link_to_an_empty_folder_stays_a_link_and_the_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/file").read_text() == "content"


@pytest.mark.parametrize("check", [io.require_new, write])
def test_the_current_folder_is_refused_before_the_work(
    check: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is the current folder.*a new folder inside it"):
        check(Path("."))  # type: ignore[operator]
    assert Path.cwd() == tmp_path


def test_a_mount_point_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(os, "rmdir", busy)
    with pytest.raises(ValueError, match=r"is a mount point or in use.*\(Device or resource busy"):
        io.require_new(tmp_path)
    assert tmp_path.is_dir()


def test_a_finished_folder_that_cannot_be_renamed_is_kept_and_named(tmp_path: Path) -> None:
    out, folders = tmp_path / "out", []

    def work() -> None:
        with io.atomic_dir(out) as new:
            folders.append(new)
            (out / "of another").mkdir(parents=True)

    with pytest.raises(RunError, match=r"out cannot be made .* is complete: move ") as e:
        work()
    assert str(folders[0]) in str(e.value)
    assert folders[0].is_dir()


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), io.atomic_dir(tmp_path / "out"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_killed_command_left_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".out.abcd1234").mkdir()
    (tmp_path / ".other.abcd1234").mkdir()
    with io.atomic_dir(tmp_path / "out"):
        pass
    assert f"{tmp_path / '.out.abcd1234'}: unfinished, of commands that were killed" in caplog.text
    assert ".other" not in caplog.text
