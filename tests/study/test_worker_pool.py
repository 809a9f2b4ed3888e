"""Several workers do a study: each work once, none lost to a stop, a killed worker is told."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from study import jobs as plan
from study import worker_pool as together
from study.datasets import Datasets
from study.hypotheses import BY_LETTER
from study.jobs import Job
from study.presets import SMOKE
from study.runner import Stopped, Study
from study.variants import Corpus

JOBS = plan.work([BY_LETTER["b"]], SMOKE)


class NoRows(Datasets):
    def corpus(self, wanted: Corpus) -> Path:
        return self.folder / wanted.name


class Noting(Study):
    """Each work leaves a file with its worker's number, instead of a trained model."""

    def file(self, work: Job) -> Path:
        return self.out / work.run.name

    def complete(self, work: Job) -> bool:
        return self.file(work).exists()

    def _work(self, work: Job, asked: dict[str, Any]) -> None:
        with self.file(work).open("x") as f:  # an error if two workers do it
            f.write(str(os.getpid()))


class Endless(Noting):
    """Goes on with the second work until it is stopped."""

    def _work(self, work: Job, asked: dict[str, Any]) -> None:
        if work == JOBS[1]:
            (self.out / "under way").touch()
            signal.pause()
            assert asked["signal"] == signal.SIGTERM
            raise Stopped
        super()._work(work, asked)


class Dying(Noting):
    """Takes its worker along at the first work."""

    def _work(self, work: Job, asked: dict[str, Any]) -> None:
        if work == JOBS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._work(work, asked)


def go(kind: type[Noting], out: Path, asked: dict[str, Any] | None = None) -> set[str]:
    """The works that were done."""
    study = kind(out, SMOKE, NoRows(out / "data", SMOKE, ()))
    together.run(study, JOBS, 2, {"signal": 0} if asked is None else asked)
    return {w.run.name for w in JOBS if study.complete(w)}


def test_every_work_is_done_once(tmp_path: Path) -> None:
    assert go(Noting, tmp_path) == {w.run.name for w in JOBS}


def test_a_stop_reaches_the_workers_and_another_start_does_the_rest(tmp_path: Path) -> None:
    asked = {"signal": 0}

    def stop() -> None:
        while not (tmp_path / "under way").exists():
            time.sleep(0.02)
        asked["signal"] = signal.SIGTERM

    thread = threading.Thread(target=stop)
    thread.start()
    done = go(Endless, tmp_path, asked)
    thread.join()
    assert JOBS[1].run.name not in done
    assert go(Noting, tmp_path) == {w.run.name for w in JOBS}


def test_a_killed_worker_is_told_when_the_others_are_done(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"a worker ended with status -9 .* goes on"):
        go(Dying, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {w.run.name for w in JOBS[1:]}
    assert go(Noting, tmp_path) == {w.run.name for w in JOBS}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be asked for here")
def test_cores_are_shared_out_and_nobody_is_without() -> None:
    mine = os.sched_getaffinity(0)
    for processes in range(1, 2 * len(mine) + 1):
        shares = together._shares(processes)
        assert all(shares)
        assert set().union(*shares) == mine
        if processes <= len(mine):
            assert sum(map(len, shares)) == len(mine)
