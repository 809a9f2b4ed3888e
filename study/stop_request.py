"""Signals, and the end of the minutes: remembered, for whoever works to look at."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def deadline(minutes: float | None) -> Iterator[dict[str, Any]]:
    """Signals are remembered, and so is the end of the minutes, which comes as SIGTERM: a run
    that is under way catches it itself and saves."""
    asked: dict[str, Any] = {"signal": 0, "over": False}

    def remember(number: int, _: Any) -> None:
        if asked["signal"] and not asked["over"]:
            raise KeyboardInterrupt  # a second one does not wait
        asked["signal"] = number

    def over(*_: Any) -> None:
        asked["over"] = True
        os.kill(os.getpid(), signal.SIGTERM)

    before = {s: signal.signal(s, remember) for s in (signal.SIGTERM, signal.SIGINT)}
    alarm = signal.signal(signal.SIGALRM, over)
    if minutes is not None:
        signal.setitimer(signal.ITIMER_REAL, max(1.0, 60 * minutes))
    try:
        yield asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number, handler in before.items():
            signal.signal(number, handler)
