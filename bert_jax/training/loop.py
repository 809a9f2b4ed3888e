"""The training loop: batches, steps, logging, evaluation, checkpoints, and an early stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment
from bert_jax.training import guard, trackers
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.guard import PreemptionHandler, SkipMonitor, Watchdog
from bert_jax.training.metrics_writer import MetricsWriter
from bert_jax.training.profiler import Profiler
from bert_jax.training.step import CompiledSteps, TrainState, to_floats
from bert_jax.utils import remote
from bert_jax.utils.errors import RunError
from bert_jax.utils.types import Batch


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
    run, start = config.run, checkpoints.newest() or 0
    stopping = early_stopping or EarlyStopping("", None)
    if start:
        stopping.resume(remote.storage_path(run.dir), start)
    if stopping.should_stop:
        stopping.log(start)
    last_step = start if stopping.should_stop else run.steps
    writer = MetricsWriter(
        folder if jax.process_index() == 0 else None,
        start,
        run.steps,
        to_floats,
        partial(trackers.open_trackers, config, folder),
    )
    profiler = Profiler(folder / "profile", profile, start)
    with (
        contextlib.closing(writer),
        contextlib.closing(profiler),
        Watchdog(config.guard, folder) as watchdog,
    ):
        phase = partial(_phase, writer, watchdog)
        with phase("restore" if start else "init"):
            state = checkpoints.restore(start, steps.like) if start else steps.init()
            jax.block_until_ready(state)
        skips = SkipMonitor(config.guard, state.guard, start)
        stream, compiled_shapes = batches(start), set()
        for step in range(start + 1, last_step + 1):
            watchdog.step(step)
            profiler.before(step)
            with watchdog.phase("data"), writer.data_wait():
                batch = next(stream)
            shapes = frozenset((name, x.shape) for name, x in batch.items())
            with contextlib.nullcontext() if shapes in compiled_shapes else phase("compile"):
                state, metrics = steps.train(state, steps.to_devices(batch))
            compiled_shapes.add(shapes)
            profiler.after(step, state)
            writer.advance(int(batch["size"].sum()) * steps.host_share)
            # The metrics of the step before are fetched while this step runs: the device never
            # waits for the host, and the host is never more than one step ahead.
            writer.flush()
            checkpoints.refresh_lock()
            skips.update(step, metrics)
            last = preemption.should_stop() or step == run.steps
            evaluating = step % run.eval_every == 0 or step == run.steps
            saving = step % run.save_every == 0 or last or (evaluating and save_evaluated)
            if evaluating or saving:
                skips.finish()  # no bad state is saved, and the step's time is its own
            if skips.halted:
                batch = steps.to_devices(next(batches(skips.step - 1)))
                newest = checkpoints.newest()
                raise RunError(_skip_message(config, steps, state, batch, skips.step, newest))
            scores = {}
            if evaluating:
                with phase("evaluate"):
                    scores = evaluate(state.params)
                if scores:
                    stopping.update(step, scores)
                if stopping.should_stop:
                    stopping.log(step)
                    last = saving = True
            if step % run.log_every == 0 or scores:
                writer.write({**metrics, **scores})
            if saving:
                writer.fsync()
                with phase("save"):
                    checkpoints.save(step, state, config, scores or None)
            if last:
                break
    return state


@contextlib.contextmanager
def _phase(writer: MetricsWriter, watchdog: Watchdog, name: str) -> Iterator[None]:
    """Anything but training steps: timed in timing.jsonl, watched for a hang."""
    with watchdog.phase(name), writer.timer(name):
        yield


def _skip_message(
    config: Experiment,
    steps: CompiledSteps,
    state: TrainState,
    batch: Batch,
    step: int,
    newest: int | None,
) -> str:
    """What was non-finite at `step`, computed again: the skipped update left the state as it
    was."""
    report = jax.device_get(steps.gradient_report(state.params, np.int32(step - 1), batch))
    return (
        f"stopped at step {step}: {config.guard.max_skipped_updates} consecutive updates were "
        f"skipped. At this step {guard.first_nonfinite(report)}. No bad state was saved: "
        + (f"the last checkpoint is step {newest}" if newest else "there is no checkpoint yet")
        + f". Look at it with `bert-jax replay {config.run.dir} {step}`. Fix the data, lower the "
        "learning rate, or raise --guard.max_skipped_updates"
    )
