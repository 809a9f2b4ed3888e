"""The training loop: batches, steps, logging, evaluation, checkpoints, and an early stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Run
from bert_jax.distributed import initialize
from bert_jax.training import guard, trackers
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.guard import PreemptionHandler, SkipMonitor, Watchdog
from bert_jax.training.metrics_writer import MetricsWriter
from bert_jax.training.profiler import Profiler
from bert_jax.training.step import CompiledSteps, TrainState, to_floats
from bert_jax.utils import remote
from bert_jax.utils.errors import RunError
from bert_jax.utils.types import Batch

Shapes = frozenset[tuple[str, tuple[int, ...]]]  # of the arrays of a batch, by name


def fit(
    config: Experiment,
    steps: CompiledSteps,
    batches: Callable[[int], Iterator[Batch]],
    evaluate: Callable[[Any], dict[str, float]],
    checkpoints: Checkpoints,
    folder: Path,
    preemption: PreemptionHandler,
    save_evaluated: bool = False,
    early_stopping: EarlyStopping | None = None,
    profile: int = 0,
) -> TrainState:
    """Train to `run.steps`, resuming from the newest checkpoint where there is one.

    `batches(step)` yields the batches from a step on. `evaluate(params)` returns `eval_`
    metrics. With `save_evaluated` every evaluated step is saved too, so that the best is among
    the checkpoints. `early_stopping` may end the run before. `profile` steps are traced into
    `folder/profile`.

    Returns the last state; after a signal, the saved state of the step in which it arrived.
    RunError: too many consecutive updates were skipped.
    """
    start = checkpoints.newest() or 0
    stopping = early_stopping or EarlyStopping("", None)
    if start:
        stopping.resume(remote.storage_path(config.run.dir), start)
    if stopping.should_stop:
        stopping.log(start)
    remaining = range(start + 1, (start if stopping.should_stop else config.run.steps) + 1)
    with _open_monitors(config, folder, start, profile) as monitors:
        writer, phase = monitors.writer, monitors.phase
        with phase("restore" if start else "init"):
            state = checkpoints.restore(start, steps.like) if start else steps.init()
            jax.block_until_ready(state)
        skips = SkipMonitor(config.guard, state.guard, start)
        follow_up = _FollowUp(
            config, evaluate, preemption.should_stop, checkpoints, stopping, writer, phase
        )
        seen_shapes: set[Shapes] = set()
        for step, batch in _read_batches(batches(start), remaining, monitors):
            monitors.profiler.before(step)
            with _compile_phase(batch, seen_shapes, phase):
                state, metrics = steps.train(state, steps.to_devices(batch))
            monitors.profiler.after(step, state)
            writer.advance(int(batch["size"].sum()) * steps.host_share)
            # The metrics of the step before are fetched while this step runs: the device never
            # waits for the host, and the host is never more than one step ahead.
            writer.flush()
            checkpoints.refresh_lock()
            skips.update(step, metrics)
            due = _what_is_due(config.run, step, preemption.should_stop(), save_evaluated)
            if due.evaluation or due.save:
                skips.finish()  # no bad state is saved, and the step's time is its own
            if skips.halted:
                report = None
                if not skips.is_spike:  # the skipped update left the state as it was
                    batch = steps.to_devices(next(batches(skips.step - 1)))
                    report = steps.gradient_report(state.params, np.int32(skips.step - 1), batch)
                newest = checkpoints.newest()
                raise RunError(skip_message(config, skips.step, newest, jax.device_get(report)))
            if follow_up(step, state, metrics, due):
                break
    return state


class _Monitors(NamedTuple):
    """What watches a run."""

    writer: MetricsWriter
    profiler: Profiler
    watchdog: Watchdog

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Anything but training steps: timed in timing.jsonl, watched for a hang."""
        with self.watchdog.phase(name), self.writer.timer(name):
            yield


@contextlib.contextmanager
def _open_monitors(
    config: Experiment, folder: Path, start: int, profile: int
) -> Iterator[_Monitors]:
    writer = MetricsWriter(
        folder if initialize.is_first() else None,
        start,
        config.run.steps,
        to_floats,
        partial(trackers.open_trackers, config, folder),
    )
    profiler = Profiler(folder / "profile", profile, start)
    with (
        contextlib.closing(writer),
        contextlib.closing(profiler),
        Watchdog(config.guard, folder) as watchdog,
    ):
        yield _Monitors(writer, profiler, watchdog)


class _Due(NamedTuple):
    """What follows a step."""

    evaluation: bool
    save: bool
    last: bool


def _what_is_due(run: Run, step: int, preempted: bool, save_evaluated: bool) -> _Due:
    last = preempted or step == run.steps
    evaluation = step % run.eval_every == 0 or step == run.steps
    save = step % run.save_every == 0 or last or (evaluation and save_evaluated)
    return _Due(evaluation, save, last)


@dataclass(frozen=True)
class _FollowUp:
    """Evaluates, logs and saves after a step, as far as each is due."""

    config: Experiment
    evaluate: Callable[[Any], dict[str, float]]
    is_preempted: Callable[[], bool]
    checkpoints: Checkpoints
    stopping: EarlyStopping
    writer: MetricsWriter
    phase: Callable[[str], AbstractContextManager[None]]

    def __call__(self, step: int, state: TrainState, metrics: dict[str, Any], due: _Due) -> bool:
        """Whether the step is the last."""
        scores: dict[str, float] = {}
        if due.evaluation:
            with self.phase("evaluate"):
                scores = self.evaluate(state.params)
            if scores:
                self.stopping.update(step, scores)
            if self.stopping.should_stop:
                self.stopping.log(step)
                due = due._replace(save=True, last=True)
            if self.is_preempted():  # while the model was evaluated
                due = due._replace(save=True, last=True)
        if step % self.config.run.log_every == 0 or scores:
            self.writer.write({**metrics, **scores})
        if due.save:
            self.writer.flush()
            with self.phase("save"):
                self.checkpoints.save(
                    step, state, self.config, scores or None, before=self.writer.fsync
                )
        return due.last


def _read_batches(
    stream: Iterator[Batch], steps: range, monitors: _Monitors
) -> Iterator[tuple[int, Batch]]:
    """The batch of each step; the time that the loop waits for it is logged."""
    for step in steps:
        monitors.watchdog.step(step)
        with monitors.watchdog.phase("data"), monitors.writer.data_wait():
            batch = next(stream)
        yield step, batch


def _compile_phase(
    batch: Batch, seen: set[Shapes], phase: Callable[[str], AbstractContextManager[None]]
) -> AbstractContextManager[None]:
    """The phase "compile" for the first batch of each shape."""
    shapes = frozenset((name, x.shape) for name, x in batch.items())
    if shapes in seen:
        return contextlib.nullcontext()
    seen.add(shapes)
    return phase("compile")


def skip_message(
    config: Experiment, step: int, newest: int | None, report: dict[str, Any] | None
) -> str:
    """Why a run stops at `step`, and how it can go on from its `newest` checkpoint. `report` is the
    step's `guard.gradient_norms`, or None if its update was skipped as a loss spike."""
    name = config.run.dir
    saved = f"the last checkpoint is step {newest}" if newest else "there is no checkpoint yet"
    if report is None:
        last = ", the last one as a loss spike"
        advice = "Resume with --guard.spike warn, or with a larger --guard.spike-factor"
    else:
        last = f". At this step {guard.first_nonfinite(report)}"
        look = f"Look at it with `bert-jax replay {name} {step}`. "
        start = f", and may start from this run with --init {name}"
        if remote.is_remote(name):
            start = f"; to start from this run, copy {name} to a local folder and give it to --init"
        advice = (
            ("" if remote.is_remote(name) else look)
            + "To get past such rows raise --guard.max-skipped-updates; other data or a lower "
            f"learning rate need a new --run.dir{start if newest else ''}"
        )
    return (
        f"stopped at step {step}: {config.guard.max_skipped_updates} consecutive updates were "
        f"skipped{last}. No bad state was saved: {saved}. {advice}"
    )
