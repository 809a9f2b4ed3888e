"""A corpus on a bucket, downloaded to the cache: ArrayRecord reads local files only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from pathlib import Path

from filelock import FileLock

from bert_jax.utils import io, remote

logger = logging.getLogger(__name__)


def cached_download(path: str) -> Path:
    """A local folder with the files of a remote one: downloaded once, and again when they change.
    ValueError: as `remote.check_reachable`, or the disk is too small. OSError: the cache cannot be
    written."""
    if not remote.is_remote(path):
        return Path(path)
    path = path.rstrip("/")
    remote.check_reachable(path)
    with remote.client_errors(path):
        files = remote.list_files(path)
    if not files:
        raise ValueError(f"{path} is empty: expected a folder that prepare wrote")
    digest = hashlib.sha256(repr((path, sorted(files.items()))).encode()).hexdigest()
    out = io.cache_dir() / f"{path.rpartition('/')[2]}-{digest[:16]}"
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.parent / f".{out.name}.lock")
    with contextlib.suppress(OSError):  # no flock: two processes may both download
        lock.acquire()
    try:
        if not out.exists():
            _download(path, files, out)
    finally:
        lock.release()
    return out


def _download(path: str, files: dict[str, tuple[int, str]], out: Path) -> None:
    need, free = sum(size for size, _ in files.values()), io.free_bytes(out.parent)
    if free is not None and need > free:
        raise ValueError(
            f"{path} has {need:,} bytes, and {out.parent} has {free:,} bytes free: set {io.CACHE} "
            "to a folder on a larger disk, or mount the bucket (gcsfuse) and give the mounted "
            "folder, with --data.threads 64"
        )
    logger.info("copying %s (%s bytes) to %s", path, f"{need:,}", out)
    with io.atomic_dir(out) as new:
        with remote.client_errors(path):
            remote.get_files(path, list(files), new)
        for name, (size, checksum) in files.items():
            if (new / name).stat().st_size != size or _crc32c(new / name) != checksum:
                raise ValueError(f"{path}/{name} changed or was damaged during the copy: try again")


def _crc32c(file: Path) -> str:
    """CRC32C as the bucket lists it."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
