"""Time per step of one or several contenders, with the device synchronized."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

MIN_ROUND = 0.25  # seconds; short steps are repeated until a round takes that long


class Contender(Protocol):
    """Training that is timed: `step` starts one step, `wait` returns when all steps are done."""

    name: str
    warm_up: int  # steps that are not timed
    real_tokens: float  # mean per step, without padding
    padded_tokens: int  # per step

    def step(self) -> None: ...
    def wait(self) -> None: ...


class Times(NamedTuple):
    """Seconds per step of each round, by contender; the i-th rounds of all contenders follow each
    other directly."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, peer: str, tokens_ratio: float = 1.0) -> float:
        """Speed of `name` over that of `peer`: the median over rounds, each compared with the
        peer's same round. `tokens_ratio`: tokens per step of `name` over the peer's."""
        pairs = zip(self.seconds[name], self.seconds[peer], strict=True)
        return tokens_ratio * statistics.median(b / a for a, b in pairs)


def alternate(
    contenders: Sequence[Contender], rounds: int, after_round: Callable[[], None] = lambda: None
) -> Times:
    """Train all contenders alternately, and return the times of `rounds` rounds after a warm-up.

    In a round each contender makes one step, or as many as fill a quarter of a second, and
    waits. Every second round runs in reverse order, so that none always follows the same one.
    `after_round` is called after each round and is not timed.
    """
    steps = {contender.name: _warm_up(contender) for contender in contenders}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for i in range(rounds):
        for contender in contenders if i % 2 == 0 else reversed(contenders):
            n = steps[contender.name]
            total = timed(lambda contender=contender, n=n: _train(contender, n))
            seconds[contender.name].append(total / n)
        after_round()
    return Times(seconds)


def timed(f: Callable[[], Any]) -> float:
    """Seconds that a call of `f` takes."""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def _train(contender: Contender, steps: int) -> None:
    for _ in range(steps):
        contender.step()
    contender.wait()


def _warm_up(contender: Contender) -> int:
    """Run the warm-up, and return the number of steps in a round."""
    seconds = 0.0
    for _ in range(max(1, contender.warm_up)):
        seconds = timed(lambda: _train(contender, 1))
    return max(1, math.ceil(MIN_ROUND / seconds)) if seconds < MIN_ROUND / 4 else 1


def idle_share(
    dispatch: Callable[[], tuple[Any, float]], wait: Callable[[Any], None], steps: int
) -> float:
    """Fraction of the time in which the device waits for the host, in a loop of `steps` steps.

    `dispatch` starts a step and returns its future result with the time of the call; `wait`
    blocks until a result is there. A thread notes the end of each step. The device is idle from
    the end of a step to the next call, if that comes later; the call's own time is not counted.
    """
    starts, ends = [], []
    queue: SimpleQueue[Any] = SimpleQueue()

    def watch() -> None:
        while (result := queue.get()) is not None:
            wait(result)
            ends.append(time.perf_counter())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    for _ in range(steps):
        result, start = dispatch()
        starts.append(start)
        queue.put(result)
    queue.put(None)
    thread.join()
    gaps = [max(0.0, start - end) for start, end in zip(starts[1:], ends[:-1], strict=True)]
    return sum(gaps) / (ends[-1] - starts[0])
