"""Several jobs at a time: worker processes share the cores, and each takes the next job.

A small model uses one core better than two. Each worker's log is OUT/worker-N.txt.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from bert_jax.cli import logs
from bert_jax.utils import malloc
from study.stop_request import StopRequest, stop_request

if TYPE_CHECKING:
    from study.jobs import Job
    from study.runner import Study


def run_workers(study: Study, jobs: Sequence[Job], processes: int, stop: StopRequest) -> None:
    """Run all jobs that are not complete. After a stop request the workers get SIGTERM and save.
    ChildProcessError: a worker was killed."""
    _prepare_corpora(study, jobs, stop)
    context = multiprocessing.get_context("spawn")  # JAX has threads, which do not survive a fork
    next_index = context.Value("i", 0)
    workers = [
        context.Process(target=_work, args=(study, jobs, next_index, number, cores))
        for number, cores in enumerate(split_cores(processes))
    ]
    for worker in workers:
        worker.start()
    terminated = False
    try:
        while alive := [w.sentinel for w in workers if w.is_alive()]:
            connection.wait(alive, timeout=0.5)
            if stop.signal and not terminated:
                terminated = True
                for worker in workers:
                    worker.terminate()
    finally:
        for worker in workers:
            worker.kill()  # those that are left after a second signal
            worker.join()
    failed = [w.exitcode for w in workers if w.exitcode]
    if failed and not stop.signal:
        raise ChildProcessError(
            f"a worker ended with status {failed[0]} (see {study.out}/worker-*.txt): run the same "
            "command to continue"
        )


def _prepare_corpora(study: Study, jobs: Sequence[Job], stop: StopRequest) -> None:
    """Prepare corpora before several workers would. Errors are ignored here: each run that needs
    the corpus reports them."""
    corpora = dict.fromkeys(
        corpus
        for job in jobs
        if not study.is_complete(job)
        for corpus in (job.run.corpus, job.held_out, *job.pairs)
        if corpus is not None
    )
    for corpus in corpora:
        if not stop.signal:
            with suppress(Exception):
                study.datasets.corpus(corpus)


def _work(study: Study, jobs: Sequence[Job], next_index: Any, number: int, cores: set[int]) -> None:
    malloc.tune()
    os.setsid()  # Ctrl-C reaches only the parent, which forwards it
    if cores:
        os.sched_setaffinity(0, cores)
    log = (study.out / f"worker-{number}.txt").open("a", buffering=1)
    with log as sys.stderr, stop_request() as stop:
        logs.configure()
        study.run_jobs(_next_jobs(jobs, next_index), len(jobs), stop)


def _next_jobs(jobs: Sequence[Job], next_index: Any) -> Iterator[tuple[int, Job]]:
    """(number from 1, job) of jobs that no worker has taken, while the parent is alive."""
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        with next_index.get_lock():
            index = next_index.value
            next_index.value += 1
        if index >= len(jobs):
            return
        yield index + 1, jobs[index]


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use; empty if the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def split_cores(processes: int) -> list[set[int]]:
    """The cores of each worker; an empty set means any."""
    cores = available_cores()
    if not cores:
        return [set()] * processes
    return [set(cores[i::processes]) or {cores[i % len(cores)]} for i in range(processes)]
