"""Several works at a time: workers that share out the cores, each taking the next work.

A small model keeps one core busier than two. Each worker's log is OUT/worker-N.txt.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from study.stop_request import deadline

if TYPE_CHECKING:
    from study.jobs import Job
    from study.runner import Study


def run(study: Study, works: Sequence[Job], processes: int, asked: dict[str, Any]) -> None:
    """All works that are not done, unless `asked` carries a signal before: workers get it as
    SIGTERM, and save. ChildProcessError: a worker was killed."""
    _prepare(study, works, asked)
    context = multiprocessing.get_context("spawn")  # JAX has threads, which no fork survives
    taken = context.Value("i", 0)
    cores = _shares(processes)
    workers = [
        context.Process(target=_worker, args=(study, works, taken, number, cores[number]))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    told = False
    try:
        while alive := [w.sentinel for w in workers if w.is_alive()]:
            connection.wait(alive, timeout=0.5)
            if asked["signal"] and not told:
                told = True
                for worker in workers:
                    worker.terminate()
    finally:
        for worker in workers:
            worker.kill()  # those that are left after a second signal
            worker.join()
    lost = [w.exitcode for w in workers if w.exitcode]
    if lost and not asked["signal"]:
        raise ChildProcessError(
            f"a worker ended with status {lost[0]} (see {study.out}/worker-*.txt): the same "
            "command goes on"
        )


def _prepare(study: Study, works: Sequence[Job], asked: dict[str, Any]) -> None:
    """Corpora, which several workers would make at once. One that cannot be made is not told
    here, but for each run that wants it."""
    wanted = {
        c: None
        for work in works
        if not study.complete(work)
        for c in (work.run.corpus, work.held_out, *work.pairs)
        if c is not None
    }
    for corpus in wanted:
        if not asked["signal"]:
            with suppress(Exception):
                study.materials.corpus(corpus)


def _worker(study: Study, works: Sequence[Job], taken: Any, number: int, cores: set[int]) -> None:
    os.setsid()  # a Ctrl-C goes to the parent alone, which passes it on
    if cores:
        os.sched_setaffinity(0, cores)
    with (
        (study.out / f"worker-{number}.txt").open("a", buffering=1) as sys.stderr,
        deadline(None) as asked,
    ):
        study.one_by_one(_next(works, taken), len(works), asked)


def _next(works: Sequence[Job], taken: Any) -> Iterator[tuple[int, Job]]:
    """(number from 1, work), of those that no worker has taken yet, while the parent lives."""
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        with taken.get_lock():
            at = taken.value
            taken.value += 1
        if at >= len(works):
            return
        yield at + 1, works[at]


def cores() -> list[int]:
    """The numbers of those that are ours; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _shares(processes: int) -> list[set[int]]:
    """Which cores each worker has; empty: any, where that is not ours to say."""
    mine = cores()
    if not mine:
        return [set()] * processes
    return [set(mine[i::processes]) or {mine[i % len(mine)]} for i in range(processes)]
