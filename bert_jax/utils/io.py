"""Files and folders that are whole or not there, and never written over in silence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CACHE = "BERT_JAX_CACHE"  # the variable: where what can be made again is kept


def cache_dir() -> Path:
    """Compiled programs and copied corpora: in `BERT_JAX_CACHE`, else with the user's other
    caches."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or os.path.join(home, "bert_jax"))


def require_new(out: Path) -> None:
    """ValueError unless `out` is missing or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty: choose another folder, or remove it")


@contextlib.contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """A hidden sibling of `out` that becomes `out` when the block ends well, and goes away
    otherwise, Ctrl-C and SIGTERM included. ValueError: `out` is there and not empty."""
    require_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with _sigterm_raises():
            yield folder
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)  # mkdtemp's is private
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path | Any, text: str) -> None:
    """Replace a file at once: a reader, or a restart after a kill, sees the old or the new.
    OSError: it cannot be written, and the old one is still there. A path of etils is an object
    on a bucket."""
    if not isinstance(path, Path):
        path.write_text(text)  # whole or not at all, as objects are
        return
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()  # what is left of it takes room on a full disk
        raise


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM as an exception, unless somebody else handles it already."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if mine:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
