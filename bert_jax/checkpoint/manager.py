"""Checkpoints that can be trusted: Orbax writes, a manifest vouches.

    checkpoints/STEP/   state/  config/  metrics/  manifest.json

A step is verified before anything of it is read. One that is unfinished or damaged is named
and set aside, and the one before it is used; where none can be trusted, nothing is touched. The
newest few are kept, and the best by validation loss. A save that fails is reported, and the
next one is tried; after several in a row the run stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.checkpoint import manifest
from bert_jax.config import Experiment, to_dict
from bert_jax.distributed import initialize
from bert_jax.utils import pytree, remote
from bert_jax.utils.errors import RunError

logger = logging.getLogger(__name__)

PATIENCE = 3  # failed saves in a row before the run stops
UNCOMMITTED = ".orbax-checkpoint-tmp"  # in the name of what Orbax has not committed


class Checkpoints:
    """The checkpoints of one run folder. Opening them verifies the newest; a `read_only` one
    changes nothing. `best` names the metric whose largest value is kept, with a minus the one
    whose smallest. `beside` is done by the first process before a step is vouched for: a run's
    small files, where they lie elsewhere. ValueError: none of them can be trusted.

    A context that ends well waits for the last save, and raises `Failure` where that failed.
    """

    def __init__(
        self,
        folder: manifest.Folder,
        keep: int = 3,
        read_only: bool = False,
        best: str = "-eval_loss",
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder if remote.is_remote(folder) else folder.absolute()
        self._beside = beside
        self._main = jax.process_index() == 0
        repair = not read_only and self._main
        # One verdict for all processes, and every byte is read once.
        self._newest = initialize.broadcast_from_first(
            lambda: manifest.latest_valid_step(self._folder, repair)
        )
        newest = policies.LatestN(max(keep, 2))  # the newest may not be vouched for yet
        score = _value_of(best)
        keep_best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([newest, keep_best]),
            best_fn=score,  # without it metrics are not written, and a restart forgets
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,  # what a kill left of a save
            # Where the folder cannot be made its threads would wait 20 minutes for it.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = self._open(options)
        self._finishing: threading.Thread | None = None
        self._failed: list[int] = []  # in a row
        self._cause = ""

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        # What ends the block matters more than a save that failed, which was reported.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(RunError):
            self.close()

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        """The newest step that was sound when the checkpoints were opened, or saved since; waits
        for the last save."""
        self._settle()
        return self._newest

    def best(self) -> int | None:
        """The step with the best metric of those that are kept, the latest of equals; None where
        no step has one. Waits for the last save. ValueError: it is not as it was written."""
        self._settle(last=True)
        step = self._manager.best_step()
        if step is not None:
            self._verify(step)
        return step

    def save(
        self, step: int, state: Any, config: Experiment, metrics: dict[str, float] | None = None
    ) -> None:
        """Begin to write; returns when the arrays are copied, before they are on disk.

        A save that fails is reported, and training goes on. Failure: so did `PATIENCE` in a
        row; the checkpoints before are as they were.
        """
        self._settle()  # a step is removed by retention only after one was vouched for
        try:
            _check_room(self._folder, state)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), config=ocp.args.JsonSave(to_dict(config))
                ),
                metrics=metrics,
                force=True,
            )
        except Exception as e:  # whatever Orbax and the file system come up with
            self._fail(step, e)
            self._settle()
            return
        # A daemon, so that a process that ends by an error does not wait for a commit.
        self._finishing = threading.Thread(target=self._finish, args=(step,), daemon=True)
        self._finishing.start()

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, with the shapes, types and shardings of `like`. ValueError: it
        is damaged, or of another kind."""
        return self._restore(step, _restoring(like))

    def restore_params(self, step: int, like: Any) -> Any:
        """The parameters alone; the optimiser's moments are not read."""
        return self._restore(step, _restoring({"params": like}, part=True))["params"]

    def close(self) -> None:
        """Wait until everything is on disk and vouched for. Failure: the last save failed."""
        try:
            self._settle(last=True)
        finally:
            # After a save that failed it may fail once more, which says no more.
            with contextlib.suppress(*([Exception] if self._failed else [])):
                self._manager.close()

    def _open(self, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
        """Orbax reads the metrics of every step, the older ones too, which nobody verified."""

        def manager() -> ocp.CheckpointManager:
            return ocp.CheckpointManager(
                self._folder, options=options, item_names=("state", "config")
            )

        try:
            return manager()
        except Exception:
            faults = {s: manifest.verify(self._folder / str(s)) for s in self._older()}
            if not any(faults.values()):
                raise
            if options.read_only or not self._main:
                options.lightweight_initialize = True  # without the metrics
                return manager()
            for step, found in faults.items():
                if found is not None:
                    logger.warning("checkpoint %s is %s", self._folder / str(step), found)
                    manifest.quarantine(self._folder / str(step))
            return manager()

    def _older(self) -> list[int]:
        return [s for s in manifest.steps(self._folder) if s != self._newest]

    def _verify(self, step: int) -> None:
        if step == self._newest:
            return
        found = manifest.verify(self._folder / str(step))
        if found is not None:
            raise ValueError(
                f"checkpoint {self._folder / str(step)} is {found}: bring it back from a copy, "
                f"or use another; the newest that can be trusted is {self._newest}"
            )

    def _restore(self, step: int, args: Any) -> Any:
        self._verify(step)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except Exception as e:
            raise ValueError(
                f"checkpoint {self._folder / str(step)} is as it was written and yet cannot be "
                f"restored ({_cause(e)}): it may be of another version of bert-jax or Orbax"
            ) from e

    def _finish(self, step: int) -> None:
        """Wait for the commit, which renames the finished folder, and vouch for it."""
        try:
            self._manager.wait_until_finished()
            if self._main:
                self._beside()
                manifest.write_manifest(self._folder / str(step))
        except Exception as e:
            self._fail(step, e)
        else:
            self._newest, self._failed = step, []

    def _fail(self, step: int, e: Exception) -> None:
        self._failed, self._cause = [*self._failed, step], _cause(e)
        logger.warning(
            "checkpoint %d was not saved: %s (failure %d of %d in a row; %s)",
            *(step, self._cause, len(self._failed), PATIENCE, self._kept()),
        )

    def _settle(self, last: bool = False) -> None:
        """Wait for the save before, and clear away what is left of it where it failed. Failure:
        so did several in a row, or none comes after it."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        if not self._failed:
            return
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()  # raises once more in this thread
        with contextlib.suppress(Exception):  # a bucket may still be out of reach
            unvouched = (self._folder / str(step) for step in self._failed if self._main)
            halves = self._folder.glob(f"*{UNCOMMITTED}*") if self._main else ()
            for left in (*unvouched, *halves):
                _remove(left)
            self._manager.reload()
        if last or len(self._failed) >= PATIENCE:
            saves = "save" if len(self._failed) == 1 else f"{len(self._failed)} saves"
            raise RunError(f"the last {saves} failed: {self._cause}. {self._advice()}")

    def _kept(self) -> str:
        return "there is none yet" if self._newest is None else f"the newest is {self._newest}"

    def _advice(self) -> str:
        return (
            f"Of the checkpoints in {self._folder} {self._kept()}: make room or mend the "
            "folder, then give the same command again"
        )


def _restoring(like: Any, part: bool = False) -> Any:
    """Rows of the vocabulary that only pad may be more or fewer in the checkpoint: they are cut
    off, or added as zeros."""
    args = ocp.checkpoint_utils.construct_restore_args(like)

    def leaf(name: str, arg: Any) -> Any:
        return dataclasses.replace(arg, strict=False) if pytree.is_embedding_table(name) else arg

    args = pytree.map_with_names(leaf, args)
    return ocp.args.PyTreeRestore(like, restore_args=args, partial_restore=part)


def _check_room(folder: manifest.Folder, state: Any) -> None:
    """OSError, on all processes alike: the folder is gone, or has no room for the state and a
    little more."""
    need = int(1.05 * sum(x.nbytes for x in jax.tree.leaves(state))) + 2**20
    free = initialize.broadcast_from_first(lambda: _free(folder))
    if free is None:  # Orbax would make a new one, which nobody would look for
        raise FileNotFoundError(errno.ENOENT, "the folder was removed", str(folder))
    if free < need:
        raise OSError(errno.ENOSPC, f"no room for {need:,} bytes, {free:,} are free", str(folder))


def _remove(folder: manifest.Folder) -> None:
    with contextlib.suppress(Exception):  # it is not looked at again without a manifest
        if remote.is_remote(folder):
            remote.remove(str(folder))
        else:
            shutil.rmtree(folder)


def _free(folder: manifest.Folder) -> int | None:
    """Bytes; None where the folder is gone. On a bucket there is always room, and no folder to
    lose."""
    if remote.is_remote(folder):
        return sys.maxsize
    if not folder.is_dir():
        return None
    disk = shutil.disk_usage(folder)
    return disk.free if disk.total else sys.maxsize  # some network file systems tell nothing


def _cause(e: Exception) -> str:
    """What went wrong in one line; tensorstore hides the system's word in a long text."""
    if isinstance(e, RunError):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        return f"{e.strerror}: {e.filename}" if e.filename else e.strerror
    number = re.search(r"os_error_code='(\d+)'", str(e))
    if number:
        return os.strerror(int(number[1]))
    first = (str(e).splitlines() or [""])[0]
    return f"{type(e).__name__}: {first[:200]}"


def _value_of(best: str) -> Callable[[Any], float]:
    name, sign = best.removeprefix("-"), -1.0 if best.startswith("-") else 1.0
    return lambda metrics: sign * metrics[name]


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes, types and shardings of a tree that need not exist."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
    )
