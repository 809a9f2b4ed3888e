"""Remember SIGTERM, SIGINT and the end of the time limit, so that the study stops cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class StopRequest:
    signal: int = 0  # 0: none so far
    timed_out: bool = False  # the signal is the end of the time limit


@contextlib.contextmanager
def stop_request(minutes: float | None = None) -> Iterator[StopRequest]:
    """Yield a `StopRequest` that signals fill in. The end of the minutes arrives as SIGTERM: a
    run in progress catches it itself and saves. A second signal raises KeyboardInterrupt."""
    request = StopRequest()

    def remember(number: int, _: Any) -> None:
        if request.signal and not request.timed_out:
            raise KeyboardInterrupt
        request.signal = number

    def time_out(*_: Any) -> None:
        request.timed_out = True
        os.kill(os.getpid(), signal.SIGTERM)

    handlers = {signal.SIGTERM: remember, signal.SIGINT: remember, signal.SIGALRM: time_out}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    if minutes is not None:
        signal.setitimer(signal.ITIMER_REAL, max(1.0, 60 * minutes))
    try:
        yield request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
