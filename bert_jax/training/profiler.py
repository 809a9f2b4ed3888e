"""Trace some steps with jax.profiler, for XProf or Perfetto."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from bert_jax.distributed import initialize
from bert_jax.utils.errors import first_line

logger = logging.getLogger(__name__)

SKIP_FIRST = 3  # steps after a start that differ from the others: compiling, first fetches


def check_steps(steps: int) -> None:
    """ValueError: `steps` is negative."""
    if steps < 0:
        raise ValueError(f"--profile is {steps}: expected a number of steps, or 0 for no trace")


class Profiler:
    """Traces `steps` steps into `folder`, beginning `SKIP_FIRST` steps after `start`. Open it with
    XProf (`tensorboard --logdir folder`) or load its `perfetto_trace.json.gz` into Perfetto.

    Only the first process traces: Perfetto's file is made of one trace, and the folder is that of
    all. An error of the trace is logged and never ends the run.
    """

    def __init__(self, folder: Path, steps: int, start: int = 0):
        check_steps(steps)
        self._folder, self._first = folder, start + SKIP_FIRST + 1
        self._steps = steps if initialize.is_first() else 0
        self._running = self._started = False

    def before(self, step: int) -> None:
        if self._steps and step == self._first:
            self._started = True
            with self._errors_logged():
                jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
                self._running = True

    def after(self, step: int, state: Any) -> None:
        """End the trace after its last step, once the device has finished it."""
        if self._running and step == self._first + self._steps - 1:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """End a trace that a stop cut short. Log a warning where no trace was written."""
        if self._running:
            self._running = False
            with self._errors_logged():
                jax.profiler.stop_trace()
        if self._steps and not self._started:
            logger.warning(
                "no trace was written: the run ended before step %d, where tracing begins (after "
                "the first %d steps of each start); train for more steps",
                *(self._first, SKIP_FIRST),
            )

    @contextlib.contextmanager
    def _errors_logged(self) -> Iterator[None]:
        try:
            yield
        except Exception as e:  # of XLA's profiler, or of a full disk
            logger.warning("no trace was written to %s: %s", self._folder, first_line(e))
