"""`replay`: one step of a run again, to look at its numbers. The run folder is only read.

From the newest sound checkpoint before it (or from the start) the run is done again up to the
step, which is a function of state, seed and rows alone: on the same machine the same bits, be
it pre-training or fine-tuning. Then the step's gradient is taken apart by parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax import config, objectives
from bert_jax.checkpoint import manager, manifest
from bert_jax.checkpoint.run_dir import RESUMABLE_FIELDS
from bert_jax.config import Experiment, Supervised
from bert_jax.data import mixture
from bert_jax.distributed import sharding
from bert_jax.training import guard, warm_start
from bert_jax.training import step as train
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.utils import metrics_log
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import Batch


class RebuiltRun(NamedTuple):
    """What a run is made of, whichever command began it."""

    steps: train.CompiledSteps
    batches: Callable[[int], Iterator[Batch]]


class Replay(NamedTuple):
    """A step's numbers: `metrics` as the run computes them, `logged` as its metrics.jsonl has
    them, `found` as `guard.measure` gives them."""

    step: int
    begun: int  # the checkpoint's step, 0: the start
    metrics: dict[str, float]
    logged: dict[str, float] | None
    found: dict[str, Any]

    @property
    def differences(self) -> list[str]:
        """Metrics that are not what the run logged."""
        logged = self.logged or {}
        return [k for k, v in self.metrics.items() if k in logged and not _equal(v, logged[k])]


def replay(folder: Path, step: int) -> Replay:
    """Do a step of the run in `folder` again.

    ValueError: no run folder, a step that the run does not have, data that has changed.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: expected a run folder")
    experiment = config.read_config(folder / "config.json")
    if not 1 <= step <= experiment.run.steps:
        raise ValueError(f"step {step}: the run has steps 1 to {experiment.run.steps}")
    steps, batches = rebuild_run(experiment)
    checkpoints = folder / "checkpoints"
    begun, state = 0, None
    before = (s for s in sorted(manifest.steps(checkpoints), reverse=True) if s < step)
    for begun in before:
        if manifest.verify(checkpoints / str(begun)) is None:
            with manager.Checkpoints(checkpoints, read_only=True) as saved:
                state = saved.restore(begun, steps.like)
            break
    if state is None:
        begun, state = 0, steps.init()
    ahead = batches(begun)
    for _ in range(begun + 1, step):
        state, _ = steps.train(state, steps.to_devices(next(ahead)))
    batch = steps.to_devices(next(ahead))
    found = jax.device_get(steps.gradient_report(state.params, np.int32(step - 1), batch))
    _, metrics = steps.train(state, batch)
    lines = metrics_log.read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    logged = next((line for line in lines if line["step"] == step), None)
    return Replay(step, begun, train.to_floats(metrics), logged, found)


def rebuild_run(experiment: Experiment) -> RebuiltRun:
    """The steps and batches of a run, from the config in its folder."""
    mesh = sharding.make_mesh(experiment.mesh)
    parts = sharding.process_slices(mesh)
    if isinstance(experiment.objective, Supervised):
        task = FinetuneTask.of(experiment)
        _check(experiment, task.experiment)
        built = train.build_steps(experiment, objectives.build(experiment), mesh)
        first = warm_start.WarmStart(str(experiment.run.init), experiment)
        return RebuiltRun(first.begin(built), task.batches(experiment, "train").iterate)
    stages = mixture.open_stages(experiment)
    opened = [corpus for stage in stages for corpus in stage.corpora]
    _check(experiment, mixture.fill_in_config(experiment, opened, experiment.encoder))
    known = objectives.build(experiment, mixture.corpus_vocabulary(stages[-1]))
    built = train.build_steps(experiment, known, mesh)
    begun = warm_start.from_config(experiment)
    built = begun.begin(built) if begun else built
    return RebuiltRun(built, mixture.training_loader(experiment, stages, parts).iterate)


def _check(before: Experiment, now: Experiment) -> None:
    changed = [name for name in config.differences(before, now) if name not in RESUMABLE_FIELDS]
    if changed:
        raise ValueError(
            f"the data of the run is not what it was ({', '.join(changed)}): a step can be "
            "done again only with the rows that it had"
        )


def render_replay(result: Replay, folder: Path) -> str:
    """The step's metrics, the norms of every module, and the first number that is not finite."""
    start = f"checkpoint {result.begun}" if result.begun else "the start"
    metrics = [("", name, f"{value:.7g}") for name, value in result.metrics.items()]
    if result.logged is None:
        comparison = "the run logged no line for this step"
    elif result.differences:
        comparison = f"NOT as the run logged it: {', '.join(result.differences)}"
    else:
        comparison = "as the run logged it"
    gradient, parameter = modules(result.found["gradient"]), modules(result.found["parameter"])
    norms = [(name, f"{gradient[name]:.4g}", f"{parameter[name]:.4g}") for name in gradient]
    return "\n".join(
        [
            f"step {result.step} of {folder}, from {start}:",
            format_table(("", "", ""), metrics, left=(0, 1)),
            comparison,
            format_table(("norms by module", "gradient", "parameters"), norms),
            guard.first_nonfinite(result.found),
        ]
    )


def modules(norms: dict[str, Any]) -> dict[str, float]:
    """The norms of leaves, joined for those of one module."""
    joined: dict[str, float] = {}
    for name, norm in norms.items():
        module = name.rpartition("/")[0] or name
        joined[module] = math.hypot(joined.get(module, 0.0), float(norm))
    return joined


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and not math.isfinite(b)) or (math.isinf(a) and math.isnan(b))
