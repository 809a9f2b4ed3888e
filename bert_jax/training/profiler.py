"""A trace of some steps: what the device and the host did, for XProf or Perfetto."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax

logger = logging.getLogger(__name__)

AFTER = 3  # steps of a start that are not like the others: compiling, first fetches


def check_steps(steps: int) -> None:
    """ValueError: no number of steps."""
    if steps < 0:
        raise ValueError(f"--profile is {steps}: expected a number of steps, or 0 for no trace")


class Profiler:
    """Traces `steps` steps, perhaps none, into `folder`, but for the first `AFTER` after `start`.
    For XProf `tensorboard --logdir folder`; for Perfetto `perfetto_trace.json.gz` in it."""

    def __init__(self, folder: Path, steps: int, start: int = 0):
        check_steps(steps)
        self._folder, self._steps, self._first = folder, steps, start + AFTER + 1
        self._running = self._begun = False

    def before(self, step: int) -> None:
        if self._steps and step == self._first:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = self._begun = True

    def after(self, step: int, state: Any) -> None:
        """What the step made is waited for where the trace ends, so that all of it is in."""
        if self._running and step == self._first + self._steps - 1:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that a stop cut short; says so where there is none."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
        if self._steps and not self._begun:
            logger.warning(
                "no trace was written: it begins at step %d, after the first %d of a start, and "
                "this one ended before: train for more steps",
                *(self._first, AFTER),
            )
