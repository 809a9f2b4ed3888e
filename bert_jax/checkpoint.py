"""Checkpoints that can be trusted: Orbax writes, a manifest vouches.

    checkpoints/STEP/   state/  config/  metrics/  manifest.json

Orbax commits a step at once, so a kill never leaves half of one under its name; but what
happens to the files later it does not notice (of 2,331 flipped bits 1,833 came back as wrong
numbers). So each step carries the size and SHA-256 of every file, written after the commit and
verified before anything is read. A step without a manifest is unfinished. One that is
unfinished or damaged is named and set aside, and the one before it is used; where none can be
trusted, nothing is touched. The newest few are kept, and the best by validation loss.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax import folders
from bert_jax.config import Experiment, to_dict

MANIFEST = "manifest.json"
UNFINISHED = "unfinished: it has no manifest"
POLL = 0.02  # seconds between looks for a commit


def manifest_of(step: Path) -> dict[str, list[Any]]:
    """File -> [bytes, SHA-256], for every file of a step but the manifest."""
    files = sorted(p for p in step.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {str(p.relative_to(step)): [p.stat().st_size, _sha256(p)] for p in files}


def fault(step: Path) -> str | None:
    """What is wrong with a step's folder, if anything."""
    try:
        expected = json.loads((step / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return UNFINISHED
    except (OSError, ValueError) as e:
        return f"damaged: its manifest cannot be read ({e})"
    found = manifest_of(step)
    if found == expected:
        return None
    differ = sorted(k for k in expected | found if expected.get(k) != found.get(k))
    return f"damaged: {differ[0]} is not as it was written"


def sound_step(folder: Path, repair: bool) -> int | None:
    """The newest step of a `checkpoints` folder that is as it was written; None where there is
    no step at all. With `repair` the unsound ones above it are moved to `set_aside` beside the
    folder, and so are all where each is merely unfinished: a run that was killed in its first
    save begins anew. ValueError: there are steps, none is sound, and one is damaged."""
    if not folder.is_dir():
        return None
    steps = sorted((int(p.name) for p in folder.iterdir() if p.name.isdigit()), reverse=True)
    unsound: dict[int, str] = {}
    for step in steps:
        found = fault(folder / str(step))
        if found is None:
            break
        unsound[step] = found
    for step, found in unsound.items():
        print(f"checkpoint {folder / str(step)} is {found}", file=sys.stderr)
    lost = len(unsound) == len(steps)
    if lost and any(found != UNFINISHED for found in unsound.values()):
        raise ValueError(
            f"none of the checkpoints in {folder} can be trusted: bring one back from a "
            "copy, or begin anew in another --run.dir"
        )
    if repair:
        for step in unsound:
            aside = folder.parent / "set_aside" / f"{step}-{time.time_ns()}"
            aside.parent.mkdir(exist_ok=True)
            (folder / str(step)).rename(aside)
            print(f"it was moved to {aside}", file=sys.stderr)
    return None if lost else steps[len(unsound)]


class Checkpoints:
    """The checkpoints of one run folder. Opening them verifies the newest; a `read_only` one
    changes nothing. `best` names the metric whose largest value is kept, with a minus the one
    whose smallest."""

    def __init__(
        self, folder: Path, keep: int = 3, read_only: bool = False, best: str = "-eval_loss"
    ) -> None:
        self._folder = folder.absolute()
        self._newest = sound_step(self._folder, repair=not read_only and jax.process_index() == 0)
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of its own choices
        newest = policies.LatestN(max(keep, 2))  # the newest may not be vouched for yet
        score = _value_of(best)
        keep_best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, keep_best]),
                best_fn=score,  # without it metrics are not written, and a restart forgets
                create=not read_only,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,  # what a kill left of a save
            ),
            item_names=("state", "config"),
        )
        self._vouching: threading.Thread | None = None
        self._failed = threading.Event()

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        """The newest step that was sound when the checkpoints were opened, or saved since."""
        return self._newest

    def save(
        self, step: int, state: Any, config: Experiment, metrics: dict[str, float] | None = None
    ) -> None:
        """Begin to write; returns when the arrays are copied, before they are on disk."""
        self._settle()  # a step is removed by retention only after it was vouched for
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(to_dict(config))
            ),
            metrics=metrics,
            force=True,
        )
        self._newest = step
        if jax.process_index() == 0:
            # A daemon, so that a process that ends by an error does not wait for a commit.
            self._vouching = threading.Thread(target=self._vouch, args=(step,), daemon=True)
            self._vouching.start()

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, with the shapes, types and shardings of `like`."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=args)["state"]

    def restore_params(self, step: int, like: Any) -> Any:
        """The parameters alone; the optimiser's moments are not read."""
        item = {"params": like}
        args = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]["params"]

    def close(self) -> None:
        """Wait until everything is on disk and vouched for."""
        try:
            self._settle()
        finally:
            self._manager.close()

    def _vouch(self, step: int) -> None:
        """Wait for the commit, which renames the finished folder, and write its manifest."""
        folder = self._folder / str(step)
        while not folder.is_dir():
            if self._failed.wait(POLL):
                return  # it never will be
        folders.write_text(folder / MANIFEST, json.dumps(manifest_of(folder), indent=1))

    def _settle(self) -> None:
        """Wait for the save before; raises what its writing raised."""
        try:
            self._manager.wait_until_finished()
        except BaseException:
            self._failed.set()
            raise
        if self._vouching is not None:
            self._vouching.join()
            self._vouching = None


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _value_of(best: str) -> Callable[[Any], float]:
    name, sign = best.removeprefix("-"), -1.0 if best.startswith("-") else 1.0
    return lambda metrics: sign * metrics[name]


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, types and shardings of a tree that need not exist."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )
