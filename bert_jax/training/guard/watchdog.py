"""Watchdog: write the stacks of all threads when a phase exceeds its timeout.

A thread watches the phase that the run is in (data, step, evaluate, save, compile, ...). When a
phase takes longer than `guard.hang_factor` times the median of its kind, and longer than
`guard.hang_timeout` seconds, the stacks of all threads go to standard error and to
`hang-TIME-PROCESS.txt` in the run folder, and again each time the phase has taken twice as
long. After `guard.timeout` seconds in one phase the process exits. Time is taken from the
monotonic clock, since a wall clock may jump.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import jax

from bert_jax.config import Guard

HISTORY = 101  # durations per kind of phase that the median is taken over


class Phase(NamedTuple):
    """What the run is doing, and since when."""

    name: str
    step: int
    since: float  # of time.monotonic()


class Watchdog:
    """A context that watches the phases of a run."""

    def __init__(self, config: Guard, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._current = Phase("start", 0, time.monotonic())
        self._durations: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=HISTORY))
        self._done = threading.Event()
        self._process = jax.process_index()

    def step(self, step: int) -> None:
        """Begin a training step."""
        self._enter("step", step)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase within a step, or before the first one, with a timeout of its own."""
        outer = self._current
        self._enter(name, outer.step)
        try:
            yield
        finally:
            self._enter(outer.name, outer.step)

    def _enter(self, name: str, step: int) -> None:
        now = time.monotonic()
        self._durations[self._current.name].append(now - self._current.since)
        self._current = Phase(
            name, step, now
        )  # one assignment, so that the thread never sees a half

    def limit(self, name: str) -> float:
        """The timeout of a phase in seconds."""
        durations = list(self._durations[name])
        median = statistics.median(durations) if durations else 0.0
        return max(self._config.hang_factor * median, self._config.hang_timeout)

    def __enter__(self) -> Watchdog:
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        reported, next_report = None, 0.0
        while not self._done.wait(min(1.0, self._config.hang_timeout / 4)):
            phase, elapsed = self._current, time.monotonic() - self._current.since
            if reported is not None and phase is not reported:
                _print(f"watchdog: the run continues at step {phase.step}")
                reported = None
            if elapsed >= (next_report if phase is reported else self.limit(phase.name)):
                reported, next_report = phase, 2 * elapsed
                self._report(phase, elapsed)
            if self._config.timeout is not None and elapsed >= self._config.timeout:
                _print(
                    f"watchdog: exiting after {elapsed:.0f} s in {phase.name} (guard.timeout); "
                    "checkpoints are kept"
                )
                os._exit(1)

    def _report(self, phase: Phase, elapsed: float) -> None:
        title = (
            f"watchdog: {phase.name} of step {phase.step} has taken {elapsed:.1f} s, expected at "
            f"most {self.limit(phase.name):.1f} s (process {self._process})"
        )
        stacks = _stacks()
        _print(f"{title}\n{stacks}")
        name = f"hang-{time.strftime('%Y%m%dT%H%M%S')}-{self._process}.txt"
        try:
            with (self._folder / name).open("a") as f:
                f.write(f"{title}\n{stacks}\n")
        except OSError as e:  # a full or lost disk may be the reason of the hang
            _print(f"watchdog: {self._folder / name} cannot be written: {e}")


def _stacks() -> str:
    """The stack of every thread of this process, newest call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()
    )


def _print(text: str) -> None:
    """Print without `logging`: a thread that hangs may hold the lock of a log handler."""
    print(text, file=sys.stderr, flush=True)
