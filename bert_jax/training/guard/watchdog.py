"""A watchdog: who hangs says where.

A thread looks at the phase that the run is in (data, step, evaluate, save, compile, ...). One
that takes longer than `guard.hang_factor` times the median of its kind, and longer than
`guard.hang_timeout` seconds, has the stacks of all threads written to standard error and to
`hang-TIME-PROCESS.txt` in the run folder; then it is watched on, and told of again each time
it has taken twice as long. Only the monotonic clock counts: a wall clock may jump.
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

KEPT = 101  # durations of each kind that the median is taken over


class Phase(NamedTuple):
    name: str
    step: int
    since: float  # of time.monotonic()


class Watchdog:
    """A context in which phases are watched."""

    def __init__(self, config: Guard, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._now = Phase("start", 0, time.monotonic())
        self._taken: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._done = threading.Event()
        self._process = jax.process_index()

    def step(self, step: int) -> None:
        """A step begins; its number is named from now on."""
        self._enter("step", step)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Something within a step, or before the first, that is timed on its own."""
        before = self._now
        self._enter(name, before.step)
        try:
            yield
        finally:
            self._enter(before.name, before.step)

    def _enter(self, name: str, step: int) -> None:
        now = time.monotonic()
        self._taken[self._now.name].append(now - self._now.since)
        self._now = Phase(name, step, now)  # one assignment: the thread sees it whole

    def limit(self, name: str) -> float:
        """Seconds after which a phase is told of."""
        taken = list(self._taken[name])
        usual = statistics.median(taken) if taken else 0.0
        return max(self._config.hang_factor * usual, self._config.hang_timeout)

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
        told, next_at = None, 0.0
        while not self._done.wait(min(1.0, self._config.hang_timeout / 4)):
            phase, late = self._now, time.monotonic() - self._now.since
            if told is not None and phase is not told:
                _say(f"watchdog: the run goes on at step {phase.step}")
                told = None
            if late >= (next_at if phase is told else self.limit(phase.name)):
                told, next_at = phase, 2 * late
                self._tell(phase, late)
            if self._config.timeout is not None and late >= self._config.timeout:
                _say(f"watchdog: ended after {late:.0f} s (guard.timeout); checkpoints stay")
                os._exit(1)

    def _tell(self, phase: Phase, late: float) -> None:
        title = (
            f"watchdog: {phase.name} of step {phase.step} has taken {late:.1f} s, expected at "
            f"most {self.limit(phase.name):.1f} s (process {self._process})"
        )
        stacks = _stacks()
        _say(f"{title}\n{stacks}")
        name = f"hang-{time.strftime('%Y%m%dT%H%M%S')}-{self._process}.txt"
        try:
            with (self._folder / name).open("a") as f:
                f.write(f"{title}\n{stacks}\n")
        except OSError as e:  # a full or lost disk may be why it hangs
            _say(f"watchdog: {self._folder / name} cannot be written: {e}")


def _stacks() -> str:
    """Where every thread of this process is, newest call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n" + "".join(traceback.format_stack(frame))
        for ident, frame in sys._current_frames().items()
    )


def _say(text: str) -> None:
    """Written without `logging`: another thread may hang while it holds the lock of a handler."""
    print(text, file=sys.stderr, flush=True)
