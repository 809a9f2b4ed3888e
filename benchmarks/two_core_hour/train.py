"""How many steps fit into the budget on this machine, and the run of so many.

Of the budget counts the time of `pretrain`: initialization, compilation, reading rows, steps,
evaluation, checkpoints. Making the tokenizer and the corpus does not count. The number of steps
must be known before the run, because the schedule depends on it, so a short run measures it.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.two_core_hour.entry import Entry
from bert_jax.config import Experiment, replace
from bert_jax.training.pretrain import pretrain
from bert_jax.utils import metrics_log
from study.stop_request import stop_request

CALIBRATION_STEPS = 240  # the first of them are slower than the rest
RESERVE = 0.04  # of the budget, left free: steps may become slower
EVALUATIONS = 5


def run_config(entry: Entry, path: str, folder: Path, steps: int, seed: int) -> Experiment:
    """The entry's config for a run of so many steps."""
    every = max(1, steps // EVALUATIONS)
    run = dict(
        dir=str(folder),
        steps=steps,
        seed=seed,
        log_every=max(1, min(50, steps // 3)),
        eval_every=every,
        eval_batches=16,
        save_every=max(every, 500),
        max_to_keep=1,
    )
    return replace(entry.config, data=dict(path=path, threads=2), run=run)


def plan_steps(budget: float, startup: float, seconds_per_step: float) -> int:
    """The steps that fit into a budget in seconds, with a reserve.

    ValueError: not one step fits.
    """
    steps = int((budget * (1 - RESERVE) - startup) / seconds_per_step)
    if steps < 1:
        raise ValueError(
            f"--budget is {budget / 60:.3g} minutes, and starting takes {startup:.0f} s and a step "
            f"{seconds_per_step:.2f} s: give more minutes"
        )
    return steps


def measure_steps(entry: Entry, path: str, folder: Path, budget: float) -> int:
    """The steps that fit into a budget, measured with a short run in the new folder `folder`.
    A step includes its wait for data."""
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was interrupted
    config = run_config(entry, path, folder, CALIBRATION_STEPS, 0)
    start = time.monotonic()
    if signal := pretrain(replace(config, run=dict(log_every=20))):
        raise SystemExit(128 + signal)
    wall = time.monotonic() - start
    spent = metrics_log.goodput(folder)
    in_steps = spent["steps"] + spent["wait"]
    shutil.rmtree(folder)
    return plan_steps(budget, wall - in_steps, in_steps / CALIBRATION_STEPS)


def train(entry: Entry, path: str, folder: Path, budget: float, seed: int) -> dict[str, float]:
    """Train within a budget in seconds; what is not done by its end is not done. Returns the
    planned steps, the steps, and the seconds that they took."""
    planned = measure_steps(entry, path, folder.with_name("calibration"), budget)
    config = run_config(entry, path, folder, planned, seed)
    start = time.monotonic()
    with stop_request(budget / 60) as stop:
        signal = pretrain(config)
    if not stop.timed_out and (signal := signal or stop.signal):
        raise SystemExit(128 + signal)
    seconds = time.monotonic() - start
    steps = max(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    return {"planned_steps": planned, "steps": steps, "seconds": round(seconds, 1)}


def random_weights(entry: Entry, path: str, folder: Path, seed: int) -> None:
    """A new run folder of the entry's encoder as it is before training."""
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was interrupted
    config = run_config(entry, path, folder, 1, seed)
    if signal := pretrain(replace(config, optim=dict(peak_lr=0.0))):
        raise SystemExit(128 + signal)
