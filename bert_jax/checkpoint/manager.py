"""Orbax checkpoints with a checksum manifest.

    checkpoints/STEP/   state/  config/  metrics/  manifest.json

A step is verified before anything in it is read. An unfinished or damaged step is reported and
moved to quarantine, and the run resumes from the step before it; if no step is valid, nothing is
moved. Retention keeps the newest steps and the best one by a metric. A save that fails is reported
and the next one is tried; after several failures in a row the run stops. With several processes it
stops after the first one, unless all of them know of it: the others may wait for this process.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from bert_jax.checkpoint import manifest, stored_shapes, vocab_padding
from bert_jax.config import Experiment, to_dict
from bert_jax.distributed import initialize
from bert_jax.utils import io, remote
from bert_jax.utils.errors import LockLost, RunError, with_type

logger = logging.getLogger(__name__)

MAX_FAILED_SAVES = 3  # in a row, then the run stops
UNCOMMITTED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax has not committed


class Checkpoints:
    """The checkpoints of one run directory.

    Opening verifies the newest step; with `read_only` nothing is changed. `best` is the metric
    whose largest value is kept, or with a leading minus the smallest. `upload` is called in the
    first process before a manifest is written (run_dir.py), `refresh_lock` by the training loop
    and at each save. ValueError: there are steps, and none is valid.

    As a context manager it waits for the last save; RunError if that save failed.
    """

    def __init__(
        self,
        folder: manifest.StoragePath,
        keep: int = 3,
        read_only: bool = False,
        best: str = "-eval_loss",
        upload: Callable[[], None] = lambda: None,
        refresh_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = remote.storage_path(folder)
        self._upload, self.refresh_lock = upload, refresh_lock
        self._main, self._read_only = initialize.is_first(), read_only
        repair = not read_only and self._main
        # The first process verifies for all, so that every byte is read once.
        self._newest = initialize.broadcast_from_first(
            lambda: manifest.latest_valid_step(self._folder, repair)
        )
        newest = policies.LatestN(max(keep, 2))  # the newest may not have its manifest yet
        score = _score_function(best)
        keep_best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([newest, keep_best]),
            best_fn=score,  # without it Orbax does not write metrics, and a restart loses them
            # Not Orbax's `read_only`, which warns of itself; without these two and without a save
            # Orbax writes nothing.
            create=not read_only,
            cleanup_tmp_directories=not read_only,  # of a save that was killed
            # If the folder cannot be created, Orbax's threads would wait 20 minutes for it.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = self._open(options)
        self._finishing: threading.Thread | None = None
        self._failed: list[int] = []  # steps whose saves failed, in a row
        self._error: Exception | None = None  # of the last save that failed
        self._failed_in_all = True  # whether the last save failed in all processes alike

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, error: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        # The block's error matters more than a failed save, which was reported already.
        with contextlib.nullcontext() if error is None else contextlib.suppress(RunError):
            self.close()

    def steps(self) -> list[int]:
        """The numbers of the saved steps, ascending."""
        return sorted(self._manager.all_steps())

    def newest(self) -> int | None:
        """The newest step that was valid on opening or was saved since, or None. Waits for the
        last save."""
        self._wait()
        return self._newest

    def require_saved(self) -> None:
        """Wait for the last save. RunError: it failed."""
        self._wait(last=True)

    def best(self) -> int | None:
        """The step with the best metric among the kept ones, the latest of equals; None if no step
        has the metric. Waits for the last save. ValueError: its checksums do not match."""
        self._wait(last=True)
        step = self._manager.best_step()
        if step is not None:
            self._verify(step)
        return step

    def save(
        self,
        step: int,
        state: Any,
        config: Experiment,
        metrics: dict[str, float] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Start an asynchronous save; returns when the arrays are copied, before they are written.
        `before` is called first; the save has failed if it does.

        A failed save is reported, and training continues. RunError: `MAX_FAILED_SAVES` failed in a
        row, or one in this process of several, or another run owns the run directory; earlier
        checkpoints are unchanged.
        """
        assert not self._read_only
        self._wait()  # Orbax may remove an old step only after the last one has its manifest
        self.refresh_lock()
        try:
            _check_free_space(self._folder, state)
        except Exception as e:
            self._fail(step, e, in_all=True)
            self._wait()
            return
        try:
            before()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), config=ocp.args.JsonSave(to_dict(config))
                ),
                metrics=metrics,
                force=True,
            )
        except Exception as e:  # of Orbax, TensorStore or the file system
            self._fail(step, e)
            self._wait()
            return
        # A daemon: a process that ends with an error does not wait for the commit.
        self._finishing = threading.Thread(target=self._finish, args=(step,), daemon=True)
        self._finishing.start()

    def restore(self, step: int, like: Any) -> Any:
        """The state of a step, with the shapes, types and shardings of `like`. ValueError: it
        is damaged, or has other arrays."""
        state = self._restore(step, vocab_padding.restore_args(like), like)
        self.refresh_lock()
        return state

    def restore_params(self, step: int, like: Any) -> Any:
        """The parameters alone; optimizer moments are not read. ValueError: as `restore`."""
        params = {"params": like}
        args = vocab_padding.restore_args(params, partial=True)
        return self._restore(step, args, params)["params"]

    def check_encoder(self, step: int, experiment: Experiment, file: Any) -> None:
        """ValueError: `experiment`, which was read from `file`, has another encoder than the one
        that the step was saved with."""
        self._verify(step)
        stored_shapes.check_encoder(self._folder / str(step), experiment, file)

    def close(self) -> None:
        """Wait until the last step and its manifest are written. RunError: the last save failed."""
        try:
            self._wait(last=True)
        finally:
            # After a failed save Orbax may raise the same error again.
            with contextlib.suppress(*([Exception] if self._failed else [])):
                self._manager.close()

    def _open(self, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
        """Orbax reads the metrics of every step, also of older ones that nobody verified."""

        def open_manager() -> ocp.CheckpointManager:
            return ocp.CheckpointManager(self._folder, options=options)

        try:
            return open_manager()
        except Exception:
            older = [s for s in manifest.steps(self._folder) if s != self._newest]
            problems = {s: manifest.verify(self._folder / str(s)) for s in older}
            if not any(problems.values()):
                raise
            if self._read_only or not self._main:
                options.lightweight_initialize = True  # without the metrics
                return open_manager()
            for step, problem in problems.items():
                if problem is not None:
                    logger.warning("checkpoint %s is %s", self._folder / str(step), problem)
                    manifest.quarantine(self._folder / str(step), problem)
            return open_manager()

    def _verify(self, step: int) -> None:
        problem = None if step == self._newest else manifest.verify(self._folder / str(step))
        if problem is not None:
            raise ValueError(
                f"checkpoint {self._folder / str(step)} is {problem}: restore it from a backup, "
                f"or use another; the newest valid one is {self._newest}"
            )

    def _restore(self, step: int, args: Any, like: Any) -> Any:
        self._verify(step)
        try:
            stored_shapes.check_shapes(self._folder / str(step), like)
            return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
        except stored_shapes.OtherArrays:
            raise
        except Exception as e:
            raise ValueError(
                f"checkpoint {self._folder / str(step)} passes its checksums but cannot be "
                f"restored ({_cause(e)}): it may be of another version of bert-jax or Orbax"
            ) from e

    def _finish(self, step: int) -> None:
        """Wait for Orbax's commit, then write the manifest."""
        try:
            self._manager.wait_until_finished()
            if self._main:
                self._complete(step)
        except Exception as e:
            self._fail(step, e)
        else:
            self._newest, self._failed = step, []

    def _complete(self, step: int) -> None:
        """Upload the small files and write the manifest. An error is tried again once: Orbax has
        committed the step, which would be removed, and has removed an older one for it."""
        for attempt in (1, 2):
            try:
                self._upload()
                manifest.write_manifest(self._folder / str(step))
                return
            except LockLost:
                raise
            except Exception:  # of a bucket, too
                if attempt == 2:
                    raise

    def _fail(self, step: int, e: Exception, in_all: bool = False) -> None:
        self._failed, self._error, self._failed_in_all = [*self._failed, step], e, in_all
        # The others log only errors; of a failure in all of them, process 0 gives the warning.
        log = logger.warning if self._main or in_all else logger.error
        log(
            "checkpoint %d was not saved: %s (failure %d of %d in a row; %s)",
            *(step, _cause(e), len(self._failed), MAX_FAILED_SAVES, self._newest_saved()),
        )

    def _wait(self, last: bool = False) -> None:
        """Wait for the previous save, and remove its remains if it failed. RunError: several saves
        failed in a row, or the `last` one did, or one of which other processes may not know."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        if not self._failed:
            return
        assert self._error is not None
        if jax.process_count() > 1 and not self._failed_in_all:
            raise RunError(
                f"checkpoint {self._failed[-1]} was not saved: {_cause(self._error)}. In "
                f"{self._folder} {self._newest_saved()}: free disk space or repair the folder, "
                "then run the same command again to resume"
            ) from self._error
        with contextlib.suppress(Exception):
            self._manager.wait_until_finished()  # raises again in this thread
        # What another run has written since it took over is not ours to remove.
        remains = not isinstance(self._error, LockLost)
        with contextlib.suppress(Exception):  # a bucket may still be unreachable
            failed = (self._folder / str(step) for step in self._failed if self._main and remains)
            uncommitted = self._folder.glob(f"*{UNCOMMITTED}*") if self._main and remains else ()
            for path in (*failed, *uncommitted):
                with contextlib.suppress(Exception):  # without a manifest it is never used
                    path.rmtree()
            self._manager.reload()
        if last or len(self._failed) >= MAX_FAILED_SAVES:
            saves = "save" if len(self._failed) == 1 else f"{len(self._failed)} saves"
            raise RunError(  # the cause stays attached: it may say that another process was lost
                f"the last {saves} failed: {_cause(self._error)}. In {self._folder} "
                f"{self._newest_saved()}: free disk space or repair the folder, then run the same "
                "command again to resume"
            ) from self._error

    def _newest_saved(self) -> str:
        if self._newest is None:
            return "there is no checkpoint yet"
        return f"the newest checkpoint is {self._newest}"


def _check_free_space(folder: manifest.StoragePath, state: Any) -> None:
    """OSError, in all processes: the folder is gone, or has no space for the state and a little
    more."""
    need = int(1.05 * sum(x.nbytes for x in jax.tree.leaves(state))) + 2**20
    free = initialize.broadcast_from_first(lambda: io.free_bytes(folder))
    if free is None:  # Orbax would create a new folder without the earlier checkpoints
        raise FileNotFoundError(errno.ENOENT, "the folder was removed", str(folder))
    if free < need:
        raise OSError(
            errno.ENOSPC, f"{need:,} bytes are needed, {free:,} bytes are free", str(folder)
        )


def _cause(e: Exception) -> str:
    """The cause of an error in one line; TensorStore hides the errno in a long text."""
    if isinstance(e, RunError):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        return f"{e.strerror}: {e.filename}" if e.filename else e.strerror
    number = re.search(r"os_error_code='(\d+)'", str(e))
    if number:
        return os.strerror(int(number[1]))
    return with_type(e)


def _score_function(best: str) -> Callable[[Any], float]:
    name, sign = best.removeprefix("-"), -1.0 if best.startswith("-") else 1.0

    def score(metrics: Any) -> float:
        value = metrics[name]
        return -math.inf if math.isnan(value) else sign * value  # no figure is never the best

    return score
