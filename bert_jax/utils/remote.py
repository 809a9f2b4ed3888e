"""Run directories and corpora on Google Cloud Storage, `gs://BUCKET/NAME`.

    run.dir    Orbax and all processes write checkpoints/ there. The small files are written to a
               local copy, because objects cannot grow by a line as metrics.jsonl does, and are
               uploaded before a checkpoint counts
    data.path  is downloaded once (data/corpus_cache.py)

Paths are those of `etils.epath`, which reads and writes through gcsfs. An object is written whole
or not at all. A folder is only a prefix: renaming it moves its objects one by one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.utils import extras
from bert_jax.utils.errors import RunError, with_type

RESPONSE_TIMEOUT = 20.0  # seconds for the first response
NOT_COPIED = {"checkpoints", "quarantine", "tensorboard"}  # folders of a run that stay remote

_local_copies: dict[str, Path] = {}  # remote folder -> its local copy, until the process ends
_uploaded: dict[Path, tuple[int, int]] = {}  # file of a copy -> (mtime, size) of what is remote


def is_remote(path: object) -> bool:
    return "://" in str(path)


def storage_path(path: str | Path) -> Any:
    """`epath.Path`, absolute: one type for local folders and gs://."""
    from etils import epath

    if not is_remote(path):
        return epath.Path(os.path.abspath(path))
    _client()
    return epath.Path(str(path).rstrip("/"))


def check_reachable(path: str) -> None:
    """ValueError: `path` is not gs://BUCKET/NAME, or the bucket does not respond."""
    bucket, _, name = path.partition("://")[2].strip("/").partition("/")
    if not path.startswith("gs://"):
        raise ValueError(
            f"{path} is on unsupported storage: expected a local folder or gs://BUCKET/NAME; "
            "mount the bucket (S3: mount-s3) and give the mounted folder"
        )
    if not bucket or not name:
        raise ValueError(f"{path} names no folder: expected gs://BUCKET/NAME")
    with client_errors(path):
        # Unlike `exists` this needs no further permission, and fails if there is no bucket.
        listing = {"prefix": name, "maxResults": 1}
        _client().call("GET", "b/{}/o", bucket, **listing, timeout=RESPONSE_TIMEOUT)


def refuse_remote(values: dict[str, Any]) -> None:
    """ValueError: an option of a command that works on local files is a bucket's path."""
    for name, value in values.items():
        for path in value if isinstance(value, list | tuple) else [value]:
            if isinstance(path, str) and path.startswith(("gs://", "s3://", "az://")):
                raise ValueError(
                    f"{name} is {path}: only --run.dir and the --data.path of pretrain may be on "
                    f"a bucket; copy it first (gcloud storage cp --recursive {path} .), or mount "
                    "the bucket (gcsfuse)"
                )


# ---- run directories


def local_cache_path(path: str) -> Path:
    """The folder of a run's small files: the run directory itself, or the local copy of a remote
    one, downloaded on the first call. ValueError: as `check_reachable` and `download`. RunError:
    the network does not answer."""
    if not is_remote(path):
        return Path(path)
    path = path.rstrip("/")
    if path not in _local_copies:
        check_reachable(path)
        atexit.register(clear_cache)
        _local_copies[path] = Path(tempfile.mkdtemp(prefix="bert-jax-"))
        download(path)
    return _local_copies[path]


def download(path: str) -> None:
    """Replace the local copy by what is remote now. ValueError: that is not a run directory."""
    path = path.rstrip("/")
    copy = _local_copies[path]
    shutil.rmtree(copy)
    copy.mkdir(mode=0o700)
    with client_errors(path):
        names = [n for n in list_files(path) if not n.startswith(".")]
        if names and not any(n.endswith("config.json") for n in names):
            raise ValueError(
                f"run.dir {path} is not empty and is not a run directory: choose another --run.dir"
            )
        names = [n for n in names if not NOT_COPIED & set(n.split("/"))]
        get_files(path, names, copy)
        _uploaded.update({copy / n: _mtime_and_size(copy / n) for n in names})


def upload(path: str) -> None:
    """Upload the small files that changed; a local run directory has none to upload. RunError: an
    object cannot be written."""
    path = path.rstrip("/")
    copy = _local_copies.get(path)
    files = [p for p in copy.rglob("*") if p.is_file()] if copy else []
    # config.json first: without it the next run would not recognize a run directory.
    for file in sorted(files, key=lambda p: (p.name != "config.json", p)):
        name = file.relative_to(copy or file)
        if any(part.startswith(".") for part in name.parts):
            continue
        try:
            state, content = _mtime_and_size(file), file.read_bytes()
        except FileNotFoundError:  # a tracker removes its own files meanwhile
            continue
        if _uploaded.get(file) != state:
            try:
                _client().pipe_file(f"{path}/{name}", content)
            except Exception as e:  # of gcsfs, aiohttp or google-auth
                raise RunError(f"{path}/{name} cannot be written: {with_type(e)}") from e
            _uploaded[file] = state


def clear_cache() -> None:
    """Remove all local copies."""
    for copy in _local_copies.values():
        shutil.rmtree(copy, ignore_errors=True)
    _local_copies.clear()


def _mtime_and_size(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


# ---- objects


def list_files(path: object) -> dict[str, tuple[int, str]]:
    """File -> (bytes, CRC32C) of every object in a folder, as the bucket lists it: no object is
    read."""
    prefix = str(path).partition("://")[2].rstrip("/") + "/"
    objects = _client().find(prefix, detail=True)
    return {
        name.removeprefix(prefix): (int(info["size"]), info["crc32c"])
        for name, info in sorted(objects.items())
        if not name.endswith("/")
    }


def create_exclusive(path: object, text: str) -> bool:
    """Create an object; False if it exists. epath has no exclusive mode."""
    try:
        _client().pipe_file(str(path), text.encode(), mode="create")
    except FileExistsError:
        return False
    return True


def get_files(path: str, names: list[str], folder: Path) -> None:
    """Download files, several at a time."""
    if names:
        _client().get([f"{path}/{n}" for n in names], [str(folder / n) for n in names])


def _client() -> Any:
    """gcsfs, which etils and Orbax use too. ValueError: it is not installed."""
    try:
        import fsspec
        import gcsfs  # noqa: F401
        from fsspec.config import conf
    except ImportError as e:
        raise extras.missing("gs://", f"gcsfs ({e})", "gcs") from e
    # TensorStore writes arrays without gcsfs, whose cached listings would then be wrong.
    conf.setdefault("gs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gs")


@contextlib.contextmanager
def client_errors(path: str) -> Iterator[None]:
    """Raise ValueError for an error of the client; RunError where the network does not answer, so
    that a job that starts again by itself does."""
    try:
        yield
    except ValueError:
        raise
    except Exception as e:  # of gcsfs, aiohttp or google-auth
        timeout = f"no answer in {RESPONSE_TIMEOUT:g} seconds"
        reason = timeout if isinstance(e, TimeoutError) else with_type(e)
        error = RunError if _is_network(e) else ValueError
        raise error(
            f"{path} cannot be reached: {reason}; "
            "check its name, the network, and `gcloud auth application-default login`"
        ) from e


def _is_network(e: Exception) -> bool:
    """Whether nobody answered: errors of Python, aiohttp and google-auth."""
    names = {"ClientConnectionError", "TransportError"}
    named = any(kind.__name__ in names for kind in type(e).__mro__)
    return named or isinstance(e, TimeoutError | ConnectionError)
