"""One run in a folder at a time: a lock that dies with its owner."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

NAME = ".lock"
WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def run_lock(folder: Path, mine: bool = True) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if it is not there, for as long as the
    block lasts or the process lives; a kill leaves the file, but not the lock. Who only reads
    asks nobody. With `mine` False nothing is held: another process of this run does.

    As good as the file system's own `flock`: local disks and NFS count for all machines,
    others perhaps for one; where there is none, that is said and the run goes on.
    ValueError: another run has the folder, or it cannot be written.
    """
    if not mine:
        yield
        return
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = _acquire(path)
    except OSError as e:
        raise ValueError(
            f"run.dir {folder} cannot be written ({e.strerror}): choose another folder"
        ) from e
    # A forked child has a copy, which must not outlive us. Children that run another program
    # do not: Python's files are closed on exec.
    _held.add(held)
    try:
        yield
    finally:
        if held in _held:  # not in a forked child
            with contextlib.suppress(OSError):
                if _same(path, held):
                    path.unlink()  # while it is still ours: see _acquire
            _held.discard(held)
            os.close(held)


_held: set[int] = set()  # open files of locks in this process


def _forget() -> None:
    for held in _held:
        os.close(held)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _acquire(path: Path) -> int:
    """The open file of a lock that is ours. The one before may remove the file as it ends, and
    a lock on a removed file keeps nobody out: then it is tried again."""
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(held, path)
            if _same(path, held):
                with contextlib.suppress(OSError):  # a full disk: the name is for the message
                    os.ftruncate(held, 0)
                    os.pwrite(held, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return held
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _lock(held: int, path: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOLCK, "no flock on this system")
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(held, 200, 0).decode(errors="replace").strip() or "another process"
        raise ValueError(
            f"run.dir {path.parent} is in use by {holder}: wait until it ends, or choose "
            "another --run.dir"
        ) from None
    except OSError as e:
        if e.errno not in WITHOUT:
            raise
        print(
            f"no lock in {path.parent} ({e.strerror}): nothing keeps a second run out of it",
            file=sys.stderr,
        )


def _same(path: Path, held: int) -> bool:
    """Whether the file at `path` is the open one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(held))
    except FileNotFoundError:
        return False
