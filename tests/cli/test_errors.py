"""How errors that are no defects end a command: one line and a status."""

import errno
import os

import pytest

from tests.helpers.cli_runner import call

TEXTS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}


def fail_with(e: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """The status of a command that raises this error."""

    def run(*_: object) -> int:
        raise e

    monkeypatch.setattr("bert_jax.cli.model_commands.Inspect.run", run)
    return call("inspect", "bert_base")


@pytest.mark.parametrize("number", TEXTS)
@pytest.mark.parametrize("kind", [OSError, RuntimeError, ValueError, Exception])
def test_a_full_disk_ends_with_status_1_whatever_library_says_so(
    kind: type[Exception],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = f"I/O error: {TEXTS[number]} (os error {number})\nin a file of C++"
    e = OSError(number, TEXTS[number], "out/x.npy") if kind is OSError else of_a_library(kind, text)
    assert fail_with(e, monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bert-jax: out/x.npy: " if kind is OSError else "bert-jax: output: ")
    assert line.endswith(": make room, then try again")


def of_a_library(kind: type[Exception], text: str) -> Exception:
    """An error that is not raised in bert_jax's code."""
    return kind(text)


@pytest.mark.parametrize(
    "number",
    [errno.EROFS, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EBUSY, errno.ELOOP, errno.EXDEV],
)
def test_a_path_that_cannot_be_ends_with_status_2_and_names_it(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(OSError(number, os.strerror(number), "out/x"), monkeypatch) == 2
    assert capsys.readouterr().err == (
        f"bert-jax: out/x: {os.strerror(number)}: choose another path\n"
    )


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        fail_with(OSError(errno.EBADF, os.strerror(errno.EBADF), "out/x"), monkeypatch)
