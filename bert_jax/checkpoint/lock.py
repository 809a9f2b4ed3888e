"""One run at a time in a local run directory: an operating-system lock on `.lock`."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

NAME = ".lock"
# Errors of `flock` that mean that the file system has no locks.
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock `folder`, which is created if missing, until the block or the process ends.

    The kernel releases the lock when the process is killed; a forked child does not keep it.
    Readers take no lock. The lock is as good as the file system's `flock`: local disks and NFS
    lock across machines, other file systems perhaps within one. Without `flock` the run prints a
    warning and continues.
    ValueError: another run holds the lock, or the folder cannot be written.
    """
    path = folder / NAME
    inode: list[os.stat_result] = []

    def write_owner(file: int) -> None:
        inode.append(os.fstat(file))
        with contextlib.suppress(OSError):  # a full disk: only the error message needs the name
            os.ftruncate(file, 0)
            os.pwrite(file, owner_name().encode(), 0)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=write_owner)
        _acquire(lock, path)
    except OSError as e:
        raise ValueError(
            f"run.dir {folder} cannot be written ({e.strerror}): choose another --run.dir"
        ) from e
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # Remove the file while it is locked; filelock never accepts a lock on a removed file.
            if lock.is_locked and os.path.samestat(path.stat(), inode[-1]):
                path.unlink()
        lock.release()


def owner_name() -> str:
    """This process, as a lock names its owner."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire()
    except Timeout:
        try:
            owner = path.read_text(encoding="utf-8", errors="replace")[:200].strip()
        except OSError:  # released a moment ago
            owner = ""
        raise ValueError(
            f"run.dir {path.parent} is in use by {owner or 'another process'}: wait until it "
            "ends, or choose another --run.dir"
        ) from None
    except OSError as e:
        if e.errno not in UNSUPPORTED:
            raise
        logger.warning(
            "%s does not support file locks (%s): a second run in it would not be detected",
            path.parent,
            e.strerror,
        )
