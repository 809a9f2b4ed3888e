"""Time per step, with the device synchronised, of one side or of several in turns."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

ROUND = 0.25  # seconds that a round takes at least on a device whose steps are short


class Contender(Protocol):
    """Somebody who trains: `step` begins one, `wait` returns when all that began are done."""

    name: str
    warm_up: int  # steps before the clock starts
    real_tokens: float  # of a step, on average
    padded_tokens: int

    def step(self) -> None: ...
    def wait(self) -> None: ...


class Times(NamedTuple):
    """Seconds per step of each round, by side; the i-th rounds of all sides are next to each
    other in time."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, ours: str, theirs: str, tokens: float = 1.0) -> float:
        """How much faster one side is, by the median over rounds of what the two did next to
        each other; `tokens`: ours over theirs per step."""
        pairs = zip(self.seconds[ours], self.seconds[theirs], strict=True)
        return tokens * statistics.median(b / a for a, b in pairs)


def alternate(sides: Sequence[Contender], rounds: int) -> Times:
    """`rounds` rounds in which each side in turn trains, after a warm-up that is not counted.

    A round of a side is one step, or as many as fill a quarter of a second, then a wait. Every
    other round goes through the sides backwards, so that none always follows the same one.
    """
    steps = {side.name: _warm(side) for side in sides}
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for i in range(rounds):
        for side in sides if i % 2 == 0 else reversed(sides):
            n = steps[side.name]
            seconds[side.name].append(timed(lambda side=side, n=n: _run(side, n)) / n)
    return Times(seconds)


def timed(f: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def _run(side: Contender, n: int) -> None:
    for _ in range(n):
        side.step()
    side.wait()


def _warm(side: Contender) -> int:
    """Steps that make up a round."""
    last = 0.0
    for _ in range(max(1, side.warm_up)):
        last = timed(lambda: _run(side, 1))
    return max(1, math.ceil(ROUND / last)) if last < ROUND / 4 else 1


def idle_share(dispatch: Callable[[], Any], finished: Callable[[Any], None], steps: int) -> float:
    """The share of time in which the device has nothing to do, in a loop that calls `dispatch`.

    `dispatch` begins a step, in its own time, and returns what it will make; `finished` waits
    for that. A thread notes when each step ends; a gap is from there to the call that begins
    the next, if that comes later. What the call itself takes is not seen.
    """
    begun, ended = [], []
    queue: SimpleQueue[Any] = SimpleQueue()

    def watch() -> None:
        while (made := queue.get()) is not None:
            finished(made)
            ended.append(time.perf_counter())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    for _ in range(steps):
        made, at = dispatch()
        begun.append(at)
        queue.put(made)
    queue.put(None)
    thread.join()
    gaps = [max(0.0, b - e) for b, e in zip(begun[1:], ended[:-1], strict=True)]
    return sum(gaps) / (ended[-1] - begun[0])
