"""An ordered map over worker processes with bounded memory, and a progress bar.

joblib.Parallel(return_as="generator") takes 0.8 to 0.97 of the time, but its workers outlive a
parent that is killed; these do not.
"""

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
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from bert_jax.utils.errors import RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """A pool of `workers` processes, or this process if it is one; a context manager. Workers
    are spawned, not forked: a fork would break threads of the parent (jax, Rust)."""

    def __init__(self, workers: int):
        self._workers = workers
        self._pool = None
        if workers > 1:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_init_worker,
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, f: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield f of each item, in order. At most twice as many items as workers are in flight,
        so that memory does not grow with the number of items. RunError: a worker ended."""
        if self._pool is None:
            yield from map(f, items)
            return
        pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
        try:
            for item in items:
                pending.append(self._pool.submit(f, item))
                if len(pending) >= 2 * self._workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as e:
            raise RunError(
                f"one of {self._workers} workers was killed, perhaps for want of memory, or could "
                'not start, because a script lacks `if __name__ == "__main__":`: nothing was '
                "written; try again with fewer --workers, or add that line"
            ) from e


def _init_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Progress:
    """A progress bar on stderr if that is a terminal, else a line every ten seconds."""

    def __init__(self, label: str, unit: str, total: int | None = None, shown: bool = True):
        self._label, self._unit, self._total = label, unit, total
        self._done = 0.0
        self._started = self._last_line = time.monotonic()
        self._shown = shown
        self._bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=label, unit=unit, unit_scale=True, total=total)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown and self._done:
            self._print_line()

    def add(self, amount: float) -> None:
        """Report that `amount` more units are done."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
        elif self._shown and time.monotonic() - self._last_line > 10:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._started
        total = f" of {self._total:,}" if self._total is not None else ""
        rate = self._done / max(seconds, 1e-9)
        logger.info(
            f"{self._label}: {self._done:,.1f}{total} {self._unit}, {rate:,.1f} {self._unit}/s, "
            f"{seconds:.0f} s"
        )
