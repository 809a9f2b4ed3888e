"""One run at a time in a run directory; the lock ends with its owner."""

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

from bert_jax.checkpoint import lock, run_dir

OWNER = """
import os, sys, time
from pathlib import Path
from bert_jax.checkpoint import lock
with lock.run_lock(Path(sys.argv[1])):
    child = sys.argv[2] == "child"
    if child and os.fork() == 0:
        print("locked", flush=True)  # by now the child has closed its copy
        os.close(1)
        time.sleep(30)
        os._exit(0)
    if not child:
        print("locked", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def owner(folder: Path, mode: str = "alone") -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_run_is_refused_and_the_owner_named(tmp_path: Path) -> None:
    with (
        owner(tmp_path) as process,
        pytest.raises(ValueError, match=rf"in use by process {process.pid} on \S+: wait"),
        lock.run_lock(tmp_path),
    ):
        pass


def test_one_process_cannot_lock_a_folder_twice(tmp_path: Path) -> None:
    with (
        lock.run_lock(tmp_path),
        pytest.raises(ValueError, match="in use"),
        lock.run_lock(tmp_path),
    ):
        pass


def test_a_killed_owner_releases_the_lock(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / lock.NAME).exists()
        with lock.run_lock(tmp_path):
            pass


def test_a_forked_child_that_outlives_the_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    with owner(tmp_path, "child") as process:
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the child lives
        with lock.run_lock(tmp_path):
            pass


def test_a_normal_end_removes_the_lock_file(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.run_lock(tmp_path / "run"):
            assert [p.name for p in (tmp_path / "run").iterdir()] == [lock.NAME]
        assert not any((tmp_path / "run").iterdir())


def test_other_processes_of_the_run_take_no_lock(tmp_path: Path) -> None:
    for folder in (str(tmp_path / "run"), "gs://bucket/run"):
        with run_dir._locked(folder, 600.0, is_main=False, take_over=False):
            assert not any(tmp_path.iterdir())


def acquire_repeatedly(
    folder: Path, seconds: float, start: Any, inside: Any, max_inside: Any, refused: Any
) -> None:
    start.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end or (refused.value <= 10 and time.monotonic() < end + 60):
        try:
            with lock.run_lock(folder):
                with inside.get_lock():
                    inside.value += 1
                    max_inside.value = max(max_inside.value, inside.value)
                time.sleep(0.0005)
                with inside.get_lock():
                    inside.value -= 1
        except ValueError:
            with refused.get_lock():
                refused.value += 1


def test_never_two_owners_although_each_removes_the_lock_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside, max_inside, refused = (context.Value("i", 0) for _ in range(3))
    args = (tmp_path, 1.0, context.Barrier(3), inside, max_inside, refused)
    processes = [context.Process(target=acquire_repeatedly, args=args) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert max_inside.value == 1
    assert refused.value > 10  # they did compete


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_without_flock_the_run_warns_and_continues(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with lock.run_lock(tmp_path):
        pass
    assert "a second run in it would not be detected" in caplog.text


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", read_only)
    with pytest.raises(ValueError, match="cannot be written"), lock.run_lock(tmp_path):
        pass
