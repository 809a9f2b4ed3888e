"""Files and folders that are written atomically, and never overwritten by mistake."""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_jax.utils.errors import RunError
from bert_jax.utils.remote import is_remote
from bert_jax.utils.text_lines import COMPRESSED

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # the file system's answer
# Names of files of rows that are no plain JSONL: those of `tasks.tables.SUFFIXES`, and others.
NOT_JSONL = {".csv", ".tsv", ".conll", ".conllu", ".parquet", *COMPRESSED}
CACHE = "BERT_JAX_CACHE"  # environment variable with the cache folder


def cache_dir() -> Path:
    """Folder for compiled programs and downloaded corpora: `BERT_JAX_CACHE`, or `bert_jax` in
    the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or os.path.join(home, "bert_jax"))


def require_new(out: Path) -> None:
    """Refuse to overwrite: ValueError unless `out` is missing or an empty folder that can be
    replaced."""
    if not out.exists():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty: choose another folder, or remove it")
    advice = "give a new folder inside it"
    if out.samefile(Path.cwd()):  # paths that the user gave begin there
        raise ValueError(f"{out} is the current folder, which cannot be replaced: {advice}")
    real = os.path.realpath(out)
    try:  # the work may take hours, and its folder then replaces this one
        os.rmdir(real)
        os.mkdir(real)
    except OSError as e:
        raise ValueError(
            f"{out} is a mount point or in use, and cannot be replaced ({e.strerror}): {advice}"
        ) from None


def require_new_jsonl(out: Path) -> None:
    """ValueError: `out` exists, or its name says that it is no plain JSONL."""
    if out.exists():
        raise ValueError(f"--out is {out}, which exists: expected the name of a new file")
    if out.suffix.lower() in NOT_JSONL:
        raise ValueError(f"--out is {out}, but rows are written as JSONL: name it .jsonl")


@contextlib.contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` that is renamed to `out` at the end of the block, or removed after
    an error, Ctrl-C or SIGTERM.

    ValueError: `out` exists and is not an empty folder that can be replaced. RunError: the folder
    is finished and cannot be renamed; it is kept, and the message says where.
    """
    require_new(out)
    real = Path(os.path.realpath(out))  # a link to a folder stays, and its target is replaced
    real.parent.mkdir(parents=True, exist_ok=True)
    old = [p for p in real.parent.glob(f".{glob.escape(real.name)}.????????") if p.is_dir()]
    if old:
        logger.warning(
            "%s: unfinished, of commands that were killed or still run; remove them if none runs",
            ", ".join(map(str, old)),
        )
    folder = Path(tempfile.mkdtemp(prefix=f".{real.name}.", dir=real.parent))
    try:
        with sigterm_raises():
            yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)  # mkdtemp's is private
        folder.rename(real)
    except OSError as e:
        raise RunError(
            f"{out} cannot be made ({e.strerror}), but its content is complete: move {folder} to "
            "where you want it"
        ) from e


def write_text(path: Path | Any, text: str) -> None:
    """Replace a file atomically: a reader, or a restart after a kill, sees the old or the new text.
    `path` may be an `epath.Path`. OSError: it cannot be written, and the old file is unchanged."""
    if is_remote(path):
        path.write_text(text)  # objects on a bucket are always replaced atomically
        return
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()  # it takes space on a full disk
        raise


def new_npy(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory map of a new .npy file of float32, for which disk space is reserved. Without that
    the file is sparse, and a full disk kills the process (SIGBUS).

    OSError: the disk is full.
    """
    from numpy.lib import format as npy  # not where nothing is written

    array = npy.open_memmap(path, "w+", "float32", shape)
    if not hasattr(os, "posix_fallocate"):
        return array
    with path.open("r+b") as f:
        try:
            os.posix_fallocate(f.fileno(), 0, path.stat().st_size)
        except OSError as e:
            if e.errno not in CANNOT_RESERVE:
                raise OSError(e.errno, e.strerror, str(path)) from None
    return array


def free_bytes(folder: Path | Any) -> int | None:
    """Free bytes on the disk of `folder`, None if the folder is missing. A bucket has no limit,
    and its folders need not exist."""
    if is_remote(folder):
        return sys.maxsize
    if not folder.is_dir():
        return None
    disk = shutil.disk_usage(folder)
    return disk.free if disk.total else sys.maxsize  # some network file systems report zeros


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that unfinished files are removed, unless it has another
    handler."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    install = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if install:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if install:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
