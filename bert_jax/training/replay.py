"""`replay`: compute one step of a run again and look at its numbers. The run folder is only read.

The run is repeated from the newest valid checkpoint before the step (or from the start). A step
is a function of state, seed and rows alone, so the same machine computes the same bits, for
pre-training and fine-tuning alike; another number of devices computes them up to rounding. Then
the step's gradient is reported by parameter.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax import config
from bert_jax.checkpoint import manifest
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.checkpoint.run_dir import RESUMABLE_FIELDS
from bert_jax.config import Experiment
from bert_jax.distributed import sharding
from bert_jax.training import guard
from bert_jax.training.assemble import assemble, open_data
from bert_jax.training.step import CompiledSteps, TrainState, to_floats
from bert_jax.utils import metrics_log
from bert_jax.utils.tables import format_table

logger = logging.getLogger(__name__)


class Replay(NamedTuple):
    """The numbers of one step."""

    step: int
    start: int  # the checkpoint that the replay began from; 0: the start of the run
    metrics: dict[str, float]  # as computed now
    logged: dict[str, float] | None  # as in metrics.jsonl
    report: dict[str, Any]  # from `guard.gradient_norms`

    @property
    def differences(self) -> list[str]:
        """Names of metrics that differ from what the run logged."""
        logged = self.logged or {}
        return [k for k, v in self.metrics.items() if k in logged and not _equal(v, logged[k])]

    @property
    def cause(self) -> str | None:
        """Why metrics differ, as far as they show it; None if none do."""
        if not self.differences:
            return None
        if not {"skipped", "spikes"}.isdisjoint(self.differences):
            return (
                "the counts of skipped updates or spikes differ: guard.spike or guard.spike_factor "
                "was changed after this step"
            )
        if "learning_rate" in self.differences:
            return (
                "the learning rate differs: run.steps was changed after this step, and the "
                "schedule follows it"
            )
        return (
            "this machine, the number of its devices or a library version differs from that of "
            "the run"
        )


def replay(folder: Path, step: int) -> Replay:
    """Compute a step of the run in `folder` again.

    ValueError: no run folder, a step that the run does not have, data that has changed.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: expected a run folder")
    saved = config.read_config(folder / "config.json")
    saved = config.replace(saved, run=dict(dir=str(folder)))  # it may have been moved
    saved = _on_these_devices(saved)
    if not 1 <= step <= saved.run.steps:
        raise ValueError(f"step {step}: the run has steps 1 to {saved.run.steps}")
    data = open_data(saved, saved.encoder)
    _check_same_data(saved, data.config)
    run = assemble(saved, data)
    steps = run.steps
    start, state = _newest_state(folder / "checkpoints", step, steps)
    batches = run.train_batches()(start)
    for _ in range(start + 1, step):
        state, _ = steps.train(state, steps.to_devices(next(batches)))
    batch = steps.to_devices(next(batches))
    report = jax.device_get(steps.gradient_report(state.params, np.int32(step - 1), batch))
    _, metrics = steps.train(state, batch)
    lines = metrics_log.read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    logged = next((line for line in lines if line["step"] == step), None)
    return Replay(step, start, to_floats(metrics), logged, report)


def _on_these_devices(saved: Experiment) -> Experiment:
    """The run with a mesh of the devices that are here, if its own needs another number."""
    found = len(jax.devices())
    needed = math.prod(sharding.mesh_shape(saved.mesh, found).values())
    if needed == found:
        return saved
    logger.warning(
        "the run's mesh has %d devices, and this machine %d: its step is computed on these, with "
        "metrics that are equal up to rounding",
        *(needed, found),
    )
    return dataclasses.replace(saved, mesh=config.Mesh())


def _newest_state(checkpoints: Path, before: int, steps: CompiledSteps) -> tuple[int, TrainState]:
    """The newest valid checkpoint below the step `before`, and its state."""
    for step in sorted(manifest.steps(checkpoints), reverse=True):
        if step < before and manifest.verify(checkpoints / str(step)) is None:
            with Checkpoints(checkpoints, read_only=True) as saved:
                return step, saved.restore(step, steps.like)
    return 0, steps.init()


def _check_same_data(saved: Experiment, now: Experiment) -> None:
    changed = [n for n in config.differences(saved, now) if n not in RESUMABLE_FIELDS]
    if changed:
        raise ValueError(
            f"the data of the run has changed ({', '.join(changed)}): a step can only be replayed "
            "on the original data"
        )


def render_replay(result: Replay, folder: Path) -> str:
    """The step's metrics, the norms of every module, and the first number that is not finite."""
    start = f"checkpoint {result.start}" if result.start else "the start"
    metrics = [("", name, f"{value:.7g}") for name, value in result.metrics.items()]
    if result.logged is None:
        comparison = "the run logged no metrics for this step"
    elif result.differences:
        comparison = (
            f"differs from the metrics that the run logged: {', '.join(result.differences)}"
        )
    else:
        comparison = "equal to the metrics that the run logged"
    gradients = norms_by_module(result.report["gradient"])
    parameters = norms_by_module(result.report["parameter"])
    norms = [(name, f"{gradients[name]:.4g}", f"{parameters[name]:.4g}") for name in gradients]
    return "\n".join(
        [
            f"step {result.step} of {folder}, from {start}:",
            format_table(("", "", ""), metrics, left=(0, 1)),
            comparison,
            format_table(("norms by module", "gradient", "parameters"), norms),
            guard.first_nonfinite(result.report),
        ]
    )


def norms_by_module(norms: dict[str, Any]) -> dict[str, float]:
    """The norms of all leaves of a module, combined."""
    combined: dict[str, float] = {}
    for name, norm in norms.items():
        module = name.rpartition("/")[0] or name
        combined[module] = math.hypot(combined.get(module, 0.0), float(norm))
    return combined


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and not math.isfinite(b)) or (math.isinf(a) and math.isnan(b))
