"""An ordered map over worker processes that keeps little in flight, and its progress."""

from __future__ import annotations

import collections
import concurrent.futures
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """`workers` processes, or this one when there is only one; a context manager. Workers are
    spawned, not forked: the parent may run threads (jax, Rust) that a fork would break."""

    def __init__(self, workers: int, setup: Callable[..., None], *args: Any):
        self._count = workers
        self._pool = None
        if workers == 1:
            setup(*args)
        else:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(setup, args),
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, f: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """f of each item, in order. Twice as many items as workers are under way at most, so
        memory does not grow with their number."""
        if self._pool is None:
            yield from map(f, items)
            return
        pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
        for item in items:
            pending.append(self._pool.submit(f, item))
            if len(pending) >= 2 * self._count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _start(setup: Callable[..., None], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    threading.Thread(target=_die_with_parent, daemon=True).start()
    setup(*args)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Progress:
    """A bar where stderr is a terminal, else a line every ten seconds."""

    def __init__(self, what: str, unit: str, total: int | None = None, shown: bool = True):
        self._what, self._unit, self._total = what, unit, total
        self._done = 0.0
        self._started = self._spoke = time.monotonic()
        self._shown = shown
        self._bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=what, unit=unit, unit_scale=True, total=total)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown and self._done:
            self._say()

    def add(self, amount: float) -> None:
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
        elif self._shown and time.monotonic() - self._spoke > 10:
            self._say()

    def _say(self) -> None:
        self._spoke = time.monotonic()
        seconds = self._spoke - self._started
        of = f" of {self._total:,}" if self._total is not None else ""
        rate = self._done / max(seconds, 1e-9)
        logger.info(
            f"{self._what}: {self._done:,.1f}{of} {self._unit}, {rate:,.1f} {self._unit}/s, "
            f"{seconds:.0f} s"
        )
