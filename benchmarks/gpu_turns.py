"""Turns of processes that share one GPU: many prepare side by side, but one alone is timed.

Time on a GPU is dear, and preparing a step takes longer than timing it. `Turns.preparing` is held
by any number of processes at once, and `Turns.alone` by one while none prepares.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """A lock in a folder that all processes know."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @contextmanager
    def preparing(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        with (self._folder / "gpu").open("w") as file:  # closing it unlocks it
            fcntl.flock(file, kind)
            yield
