"""One run in a folder at a time, and the lock dies with its owner."""

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bert_jax.checkpoint import lock

HOLDER = """
import os, sys, time
from pathlib import Path
from bert_jax import lock
with lock.hold(Path(sys.argv[1])):
    child = sys.argv[2] == "child"
    if child and os.fork() == 0:
        print("held", flush=True)  # only now is the child's copy closed
        os.close(1)
        time.sleep(30)
        os._exit(0)
    if not child:
        print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder: Path, how: str = "alone") -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_run_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    with (
        holder(tmp_path) as process,
        pytest.raises(ValueError, match=rf"in use by process {process.pid} on \S+: wait"),
        lock.run_lock(tmp_path),
    ):
        pass


def test_one_process_does_not_hold_a_folder_twice(tmp_path: Path) -> None:
    with (
        lock.run_lock(tmp_path),
        pytest.raises(ValueError, match="in use"),
        lock.run_lock(tmp_path),
    ):
        pass


def test_the_lock_dies_with_its_owner(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / lock.NAME).exists()
        with lock.run_lock(tmp_path):
            pass


def test_a_child_that_outlives_the_owner_does_not_hold_it(tmp_path: Path) -> None:
    with holder(tmp_path, "child") as process:
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the child lives
        with lock.run_lock(tmp_path):
            pass


def test_nothing_is_left_after_a_good_end(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.run_lock(tmp_path / "run"):
            assert [p.name for p in (tmp_path / "run").iterdir()] == [lock.NAME]
        assert not any((tmp_path / "run").iterdir())


def test_who_does_not_own_it_holds_nothing(tmp_path: Path) -> None:
    """Other processes of the same run."""
    with lock.run_lock(tmp_path), lock.run_lock(tmp_path, mine=False):
        pass


def enter(folder: Path, seconds: float, begin: Any, inside: Any, most: Any, kept_out: Any) -> None:
    begin.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with lock.run_lock(folder):
                with inside.get_lock():
                    inside.value += 1
                    most.value = max(most.value, inside.value)
                time.sleep(0.0005)
                with inside.get_lock():
                    inside.value -= 1
        except ValueError:
            with kept_out.get_lock():
                kept_out.value += 1


def test_there_are_never_two_inside_though_each_removes_the_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside, most, kept_out = (context.Value("i", 0) for _ in range(3))
    args = (tmp_path, 1.0, context.Barrier(3), inside, most, kept_out)
    many = [context.Process(target=enter, args=args) for _ in range(3)]
    for process in many:
        process.start()
    for process in many:
        process.join()
    assert [p.exitcode for p in many] == [0, 0, 0]
    assert most.value == 1
    assert kept_out.value > 10  # they did get in each other's way


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_where_there_are_no_locks_that_is_said_and_the_run_goes_on(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with lock.run_lock(tmp_path):
        pass
    assert "nothing keeps a second run out" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    with pytest.raises(ValueError, match="cannot be written"), lock.run_lock(tmp_path):
        pass
