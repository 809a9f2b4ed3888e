"""What vouches for a checkpoint: the size and SHA-256 of every file, and the step's number.

Orbax commits a step at once, so a kill never leaves half of one under its name; but what
happens to the files later it does not notice (of 2,331 flipped bits 1,833 came back as wrong
numbers). So each step carries a manifest, written after the commit and verified before anything
is read. A step without one is unfinished. The number of the newest step that has one is kept
beside the folder as well, so that nobody takes a folder whose checkpoints were lost for a new
one.

On a bucket a manifest holds sizes and the CRC32C that the bucket lists, so that nothing is read
twice: what was lost, cut or written over is found; bits that flip there are the bucket's to find.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from bert_jax.utils import io, remote

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = "unfinished: it has no manifest"


Folder = Path | Any  # a path of pathlib, or of etils on a bucket


def write_manifest(step: Folder) -> None:
    """Vouch for a step's folder as it is now. OSError: it cannot be read or written."""
    manifest = {"step": int(step.name), "files": _files(step)}
    io.write_text(step / MANIFEST, json.dumps(manifest, indent=1))
    with contextlib.suppress(OSError):  # only who loses every checkpoint will miss it
        io.write_text(_memory(step.parent), step.name)


def verify(step: Folder) -> str | None:
    """What is wrong with a step's folder, if anything."""
    try:
        manifest = json.loads((step / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return UNFINISHED
    except (OSError, ValueError, RecursionError) as e:
        return f"damaged: its manifest cannot be read ({e})"
    if not isinstance(manifest, dict):
        return f"damaged: its manifest is no object but {type(manifest).__name__}"
    expected = manifest.get("files", manifest)  # those of version 0.1.0 hold the files alone
    if not isinstance(expected, dict):
        return "damaged: its manifest lists no files"
    if "files" in manifest and manifest.get("step") != int(step.name):
        return f"damaged: its manifest is that of step {manifest.get('step')}"
    try:
        found = _files(step)
    except OSError as e:
        return f"damaged: {e.filename} cannot be read ({e.strerror})"
    if found == expected:
        return None
    differ = sorted(k for k in expected | found if expected.get(k) != found.get(k))
    return f"damaged: {differ[0]} is not as it was written"


def steps(folder: Folder) -> list[int]:
    """The steps of a `checkpoints` folder, whatever their state, in order."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(n) for n in names if n.isascii() and n.isdigit() and str(int(n)) == n)


def latest_valid_step(folder: Folder, repair: bool) -> int | None:
    """The newest step of a `checkpoints` folder that is as it was written; None where a run may
    begin. With `repair` the unsound ones above it are moved to `set_aside` beside the folder,
    and so are all where each is merely unfinished: a run that was killed in its first save
    begins anew. ValueError: there are or were steps, and none is sound."""
    found = steps(folder)[::-1]
    unsound: dict[int, str] = {}
    for step in found:
        wrong = verify(folder / str(step))
        if wrong is None:
            break
        unsound[step] = wrong
    for step, wrong in unsound.items():
        logger.warning("checkpoint %s is %s", folder / str(step), wrong)
    lost, before = len(unsound) == len(found), _remembered(folder)
    if lost and any(wrong != UNFINISHED for wrong in unsound.values()):
        raise ValueError(
            f"none of the checkpoints in {folder} can be trusted: bring one back from a "
            "copy, or begin anew in another --run.dir"
        )
    if lost and before is not None:
        raise ValueError(
            f"step {before} was saved in {folder}, and no finished checkpoint is there now: "
            "bring one back from where it was moved, or begin anew in another --run.dir"
        )
    newest = None if lost else found[len(unsound)]
    if repair:
        for step in unsound:
            quarantine(folder / str(step))
        if newest is not None and before is not None and before > max(found):
            logger.warning(
                "step %d was saved in %s and is not there now: step %d is used",
                *(before, folder, newest),
            )
    return newest


def quarantine(step: Folder) -> None:
    """Move a step to `set_aside` beside its folder. ValueError: it cannot be moved."""
    shelf = step.parent.parent / "set_aside"
    number = 1
    while (shelf / f"{step.name}-{number}").exists():
        number += 1
    try:
        if remote.is_remote(step):
            remote.move(str(step), str(shelf / f"{step.name}-{number}"))
        else:
            shelf.mkdir(exist_ok=True)
            step.rename(shelf / f"{step.name}-{number}")
    except OSError as e:
        raise ValueError(
            f"{step} cannot be moved to {shelf} ({e.strerror}): make {shelf.parent} writable"
        ) from e
    logger.warning("it was moved to %s", shelf / f"{step.name}-{number}")


def _memory(folder: Folder) -> Folder:
    """Where the newest step is remembered: not in the folder that may be lost."""
    return folder.parent / f".{folder.name}.newest"


def _remembered(folder: Folder) -> int | None:
    try:
        return int(_memory(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _files(step: Folder) -> dict[str, list[Any]]:
    """File -> [bytes, checksum], for every file of a step but the manifest."""
    if remote.is_remote(step):
        return {k: list(v) for k, v in remote.list_files(step).items() if k != MANIFEST}
    files = sorted(p for p in step.rglob("*") if p.is_file() and p != step / MANIFEST)
    return {str(p.relative_to(step)): [p.stat().st_size, _sha256(p)] for p in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
