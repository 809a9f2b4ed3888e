"""Folders on a bucket, `gs://BUCKET/NAME`: what of them is kept here, and what lies there.

    run.dir    checkpoints/ are written there, by Orbax and all processes; the small files, of which
               some grow by the line, are written here and laid there before a checkpoint counts
    data.path  is copied here once, for records are read from disks alone

An object is there whole or not at all. A folder is no object: nothing renames one at once.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.utils import io
from bert_jax.utils.errors import RunError

logger = logging.getLogger(__name__)

ANSWER = 20.0  # seconds for the first answer
THERE = ("checkpoints", "set_aside", "tensorboard")  # of a run: never brought here

Contents = dict[str, tuple[int, str]]  # file -> bytes, the bucket's own checksum

_copies: dict[str, Path] = {}  # of folders on a bucket, for as long as the process lives
_laid: dict[Path, tuple[int, int]] = {}  # files of them as they lie there: change, bytes


def is_remote(path: object) -> bool:
    return "://" in str(path)


def check_reachable(path: str) -> None:
    """ValueError: a folder of no bucket that can be used, or one that does not answer."""
    bucket, _, name = path.partition("://")[2].strip("/").partition("/")
    if not path.startswith("gs://"):
        raise ValueError(
            f"{path} is on no bucket that Orbax writes to: expected a folder or gs://BUCKET/NAME; "
            "mount the bucket (S3: mount-s3) and give the folder where it is"
        )
    if not bucket or not name:
        raise ValueError(f"{path} names no folder: expected gs://BUCKET/NAME")
    client = _client()
    # Unlike `exists` it asks for no more rights than are needed, and a bucket must be there.
    _first_answer(path, lambda: client.call("GET", "b/{}/o", bucket, prefix=name, maxResults=1))


def refuse_remote(values: dict[str, Any]) -> None:
    """ValueError: one of a command's `values` is on a bucket, where it reads and writes none."""
    for name, value in values.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str) and one.startswith(("gs://", "s3://", "az://")):
                raise ValueError(
                    f"{name} is {one}: only --run.dir and the --data.path of pretrain may be on a "
                    f"bucket; copy it here first (gcloud storage cp --recursive {one} .), or "
                    "mount the bucket (gcsfuse)"
                )


# ---- run folders


def local_cache_path(path: str) -> Path:
    """Where the small files of a run folder are: the folder itself; of one on a bucket a copy,
    brought here when it is first asked for. ValueError: as `check`, or it holds no run."""
    if not is_remote(path):
        return Path(path)
    path = path.rstrip("/")
    if path not in _copies:
        check_reachable(path)
        atexit.register(clear_cache)
        _copies[path] = Path(tempfile.mkdtemp(prefix="bert-jax-"))
        download(path)
    return _copies[path]


def remote_path(path: str) -> Any:
    """The run folder itself, as a path: of pathlib, or of etils for one on a bucket."""
    if not is_remote(path):
        return Path(path)
    from etils import epath

    _client()
    return epath.Path(path.rstrip("/"))


def download(path: str) -> None:
    """Make the copy what lies on the bucket now. ValueError: that is no run."""
    path = path.rstrip("/")
    copy = _copies[path]
    shutil.rmtree(copy)
    copy.mkdir(mode=0o700)
    with _reaching(path):
        names = [n for n in list_files(path) if not n.startswith(".")]
        if names and not any(n.endswith("config.json") for n in names):
            raise ValueError(f"run.dir {path} is not empty and no run: choose another folder")
        for name in names:
            if not set(THERE) & set(name.split("/")):
                file = copy / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(_client().cat_file(f"{path}/{name}"))
                _laid[file] = _state(file)


def upload(path: str) -> None:
    """Lay the small files that changed on the bucket. Failure: it cannot be written."""
    path = path.rstrip("/")
    copy = _copies[path]
    files = [p for p in copy.rglob("*") if p.is_file()]
    # Without a config the next run would not know the folder for a run's.
    for file in sorted(files, key=lambda p: (p.name != "config.json", p)):
        name, state = file.relative_to(copy), _state(file)
        if _laid.get(file) != state and not any(part.startswith(".") for part in name.parts):
            try:
                _client().pipe_file(f"{path}/{name}", file.read_bytes())
            except Exception as e:  # of three libraries
                raise RunError(f"{path}/{name} cannot be written: {_reason(e)}") from e
            _laid[file] = state


def clear_cache() -> None:
    """Remove all copies."""
    for copy in _copies.values():
        shutil.rmtree(copy, ignore_errors=True)
    _copies.clear()


def _state(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_mtime_ns, about.st_size


# ---- objects


def list_files(path: object) -> Contents:
    """Every object under a folder, as the bucket lists it: nothing is read."""
    prefix = str(path).partition("://")[2].rstrip("/") + "/"
    found = _client().find(prefix, detail=True)
    return {
        name.removeprefix(prefix): (int(about["size"]), about["crc32c"])
        for name, about in sorted(found.items())
        if not name.endswith("/")
    }


def create_exclusive(path: str, text: str) -> bool:
    """Write an object that is not there. False: it is."""
    try:
        _client().pipe_file(path, text.encode(), mode="create")
    except FileExistsError:
        return False
    return True


def write(path: str, text: str) -> None:
    _client().pipe_file(path, text.encode())


def read(path: str) -> str | None:
    """None: it is not there."""
    try:
        return _client().cat_file(path).decode(errors="replace")
    except FileNotFoundError:
        return None


def remove(path: str) -> None:
    """An object, or all of a folder; what is not there is gone already."""
    with contextlib.suppress(FileNotFoundError):
        _client().rm(path, recursive=True)


def move(path: str, to: str) -> None:
    """All of a folder, object by object: a kill leaves some here, some there."""
    for name in list_files(path):
        _client().cp_file(f"{path}/{name}", f"{to}/{name}")
    remove(path)


# ---- corpora


def cached_download(path: str) -> Path:
    """A folder here with what a folder on a bucket holds: copied once, and anew when that has
    changed. ValueError: as `check`, or there is no room."""
    if not is_remote(path):
        return Path(path)
    path = path.rstrip("/")
    check_reachable(path)
    with _reaching(path):
        listed = list_files(path)
        if not listed:
            raise ValueError(f"{path} is empty: expected a folder that prepare wrote")
        told = hashlib.sha256(repr((path, sorted(listed.items()))).encode()).hexdigest()
        shelf = io.cache_dir()
        shelf.mkdir(parents=True, exist_ok=True)
        out = shelf / f"{path.rpartition('/')[2]}-{told[:16]}"
        with _alone(shelf / f".{out.name}.lock"):
            if not out.exists():
                _copy(path, listed, out)
    return out


def _copy(path: str, listed: Contents, out: Path) -> None:
    need, free = sum(size for size, _ in listed.values()), shutil.disk_usage(out.parent).free
    if need > free:
        raise ValueError(
            f"{path} has {need:,} bytes, and {out.parent} has room for {free:,}: set "
            f"{io.CACHE} to a folder on a larger disk, or mount the bucket (gcsfuse) and give "
            "the folder where it is"
        )
    logger.info(f"copying {path} ({need:,} bytes) to {out}")
    with io.atomic_dir(out) as new:
        for name, (size, checksum) in listed.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            _client().get_file(f"{path}/{name}", str(file))
            if file.stat().st_size != size or not _holds(file, checksum):
                raise ValueError(f"{path}/{name} changed or was damaged while it was copied: retry")


def _holds(file: Path, checksum: str) -> bool:
    """Whether a file has the CRC32C that the bucket lists."""
    import google_crc32c

    found = google_crc32c.Checksum()
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            found.update(block)
    return base64.b64encode(found.digest()).decode() == checksum


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time, where the file system can say so."""
    with path.open("w") as f:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX)
        yield


# ---- the client


def _client() -> Any:
    """gcsfs, which etils and so Orbax use too. ValueError: it is not installed."""
    try:
        import fsspec
        import gcsfs  # noqa: F401
        from fsspec.config import conf
    except ImportError as e:
        raise ValueError(f'gs:// needs gcsfs ({e}): pip install "bert-jax[gcs]"') from e
    # Arrays are written past it, so what it remembers of listings would be wrong.
    conf.setdefault("gs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gs")


def _first_answer(path: str, ask: Callable[[], Any]) -> None:
    """The client tries for minutes. ValueError: no answer in `ANSWER` seconds, or a refusal."""
    failed: list[BaseException] = []

    def asking() -> None:
        try:
            ask()
        except BaseException as e:
            failed.append(e)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    thread.join(ANSWER)
    if thread.is_alive():
        raise ValueError(
            f"{path} cannot be reached: no answer in {ANSWER:g} seconds; look at its name, the "
            "network, and `gcloud auth application-default login`"
        )
    with _reaching(path):
        if failed:
            raise failed[0]


@contextlib.contextmanager
def _reaching(path: str) -> Iterator[None]:
    """ValueError in the place of what the client says of a folder that cannot be used."""
    try:
        yield
    except ValueError:
        raise
    except Exception as e:  # of three libraries
        raise ValueError(
            f"{path} cannot be reached: {_reason(e)}; look at its name, the network, and "
            "`gcloud auth application-default login`"
        ) from e


def _reason(e: Exception) -> str:
    first = (str(e).strip().splitlines() or [""])[0]
    return f"{type(e).__name__}: {first[:200]}" if first else type(e).__name__
