"""Signals: finish the step, save, leave.

The first SIGTERM or SIGINT is remembered and the loop stops at the next step's boundary; a
second one ends the process at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """A context in which `signal` tells which signal asked the process to stop, if any."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._asked) for s in self.SIGNALS}
        return self

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for s in self.SIGNALS:
            signal.signal(s, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
