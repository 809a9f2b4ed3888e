"""Checksum manifest of a checkpoint: the size and SHA-256 of every file, and the step's number.

Orbax commits a step by one rename, so a kill never leaves half of a step under its name. But Orbax
does not notice later damage: of 2,331 flipped bits 1,833 were restored as wrong numbers. So a
manifest is written after the commit, and verified before anything is read. A step without one is
unfinished. The number of the newest complete step is also kept beside the folder, so that a run
whose checkpoints were lost is not taken for a new one.

On a bucket the manifest holds sizes and the CRC32C that the bucket lists, so that no object is read
back: it detects lost, cut and overwritten objects, and the bucket itself detects flipped bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

from bert_jax.utils import io, remote

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
QUARANTINE = "quarantine"  # folder beside `checkpoints`
UNFINISHED = "unfinished: it has no manifest"

StoragePath = Any  # pathlib.Path or epath.Path


def write_manifest(step: StoragePath) -> None:
    """Write the manifest of a step's folder as it is now. OSError: a file cannot be read, or the
    manifest cannot be written."""
    manifest = {"step": int(step.name), "files": _checksums(step)}
    io.write_text(step / MANIFEST, json.dumps(manifest, indent=1))
    with contextlib.suppress(Exception):  # of a bucket, too; needed only if all steps are lost
        io.write_text(_newest_file(step.parent), step.name)


def verify(step: StoragePath) -> str | None:
    """Compare a step's folder with its manifest; returns the problem, or None."""
    try:
        manifest = json.loads((step / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return UNFINISHED
    except (OSError, ValueError, RecursionError) as e:
        return f"damaged: its manifest cannot be read ({e})"
    if not isinstance(manifest, dict):
        return f"damaged: its manifest is a {type(manifest).__name__}, not an object"
    expected = manifest.get("files", manifest)  # version 0.1.0 wrote the files alone
    if not isinstance(expected, dict):
        return "damaged: its manifest lists no files"
    if "files" in manifest and manifest.get("step") != int(step.name):
        return f"damaged: its manifest is that of step {manifest.get('step')}"
    try:
        actual = _checksums(step)
    except OSError as e:
        return f"damaged: {e.filename} cannot be read ({e.strerror})"
    changed = sorted(k for k in expected | actual if expected.get(k) != actual.get(k))
    return f"damaged: {changed[0]} does not have the size and checksum saved" if changed else None


def steps(folder: StoragePath) -> list[int]:
    """All steps of a `checkpoints` folder in order, valid or not."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(n) for n in names if n.isascii() and n.isdigit() and str(int(n)) == n)


def latest_valid_step(folder: StoragePath, repair: bool) -> int | None:
    """The newest step of a `checkpoints` folder that passes `verify`; None: start at step 0.

    With `repair` the invalid steps above it are moved to quarantine. If every step is unfinished,
    because the run was killed during its first save, all are moved and the run starts anew.
    ValueError: there are or were steps, and none is valid.
    """
    existing = steps(folder)
    problems: dict[int, str] = {}
    for step in reversed(existing):
        problem = verify(folder / str(step))
        if problem is None:
            break
        problems[step] = problem
        logger.warning("checkpoint %s is %s", folder / str(step), problem)
    none_valid, recorded = len(problems) == len(existing), _recorded_newest(folder)
    if none_valid and any(problem != UNFINISHED for problem in problems.values()):
        raise ValueError(
            f"no checkpoint in {folder} is valid: restore one from a backup, or start again in "
            "another --run.dir"
        )
    if none_valid and recorded is not None:
        raise ValueError(
            f"step {recorded} was saved in {folder}, which has no complete checkpoint now: "
            "move it back or restore it from a backup, or start again in another --run.dir"
        )
    newest = None if none_valid else existing[-1 - len(problems)]
    if repair:
        for step, problem in problems.items():
            quarantine(folder / str(step), problem)
        if newest is not None and recorded is not None and recorded > existing[-1]:
            logger.warning(
                "step %d was saved in %s and is missing: resuming from step %d",
                *(recorded, folder, newest),
            )
    return newest


def quarantine(step: StoragePath, problem: str) -> None:
    """Move a step to the folder `quarantine`, with the problem in a text file beside it.
    ValueError: it cannot be moved."""
    folder = step.parent.parent / QUARANTINE
    names = (f"{step.name}-{n}" for n in itertools.count(1))
    target = next(folder / name for name in names if not (folder / name).exists())
    try:
        folder.mkdir(exist_ok=True)
        # On a bucket this also creates the folder, which is only a prefix.
        (folder / f"{target.name}.txt").write_text(f"step {step.name} is {problem}\n")
        step.rename(target)
    except OSError as e:
        raise ValueError(
            f"{step} cannot be moved to {folder} ({e.strerror}): make {folder.parent} writable"
        ) from e
    logger.warning("moved %s to %s", step, target)


def _newest_file(folder: StoragePath) -> StoragePath:
    """The file with the newest step's number: outside the folder, which may be lost."""
    return folder.parent / f".{folder.name}.newest"


def _recorded_newest(folder: StoragePath) -> int | None:
    try:
        return int(_newest_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _checksums(step: StoragePath) -> dict[str, list[Any]]:
    """File -> [bytes, checksum] of every file of a step but the manifest."""
    if remote.is_remote(step):
        return {k: list(v) for k, v in remote.list_files(step).items() if k != MANIFEST}
    files = sorted(p for p in Path(step).rglob("*") if p.is_file() and p != Path(step) / MANIFEST)
    return {str(p.relative_to(step)): [p.stat().st_size, _sha256(p)] for p in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
