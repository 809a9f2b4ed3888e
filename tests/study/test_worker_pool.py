"""Worker processes: each job runs once, a stop loses nothing, a killed worker is reported."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from study import worker_pool
from study.datasets import Datasets
from study.hypotheses import BY_LETTER
from study.jobs import Job, list_jobs
from study.presets import SMOKE
from study.runner import Stopped, Study
from study.stop_request import StopRequest
from study.variants import Corpus

JOBS = list_jobs([BY_LETTER["b"]], SMOKE)[:4]
NAMES = {job.run.name for job in JOBS}


class NoCorpora(Datasets):
    def corpus(self, corpus: Corpus) -> Path:
        return self.folder / corpus.name


class FakeStudy(Study):
    """A job writes a file instead of training a model."""

    def file(self, job: Job) -> Path:
        return self.out / job.run.name

    def is_complete(self, job: Job) -> bool:
        return self.file(job).exists()

    def _run_job(self, job: Job, stop: StopRequest) -> None:
        with self.file(job).open("x") as f:  # fails if two workers run the job
            f.write(str(os.getpid()))


class EndlessStudy(FakeStudy):
    """The second job runs until it is stopped."""

    def _run_job(self, job: Job, stop: StopRequest) -> None:
        if job == JOBS[1]:
            (self.out / "running").touch()
            while not stop.signal:  # signal.pause() would miss one that came before it
                time.sleep(0.02)
            assert stop.signal == signal.SIGTERM
            raise Stopped
        super()._run_job(job, stop)


class KilledStudy(FakeStudy):
    """The first job kills its worker."""

    def _run_job(self, job: Job, stop: StopRequest) -> None:
        if job == JOBS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._run_job(job, stop)


def run_study(kind: type[FakeStudy], out: Path, stop: StopRequest | None = None) -> set[str]:
    """Run all jobs with two workers; return the names of the complete ones."""
    study = kind(out, SMOKE, NoCorpora(out / "data", SMOKE, ()))
    worker_pool.run_workers(study, JOBS, 2, stop or StopRequest())
    return {job.run.name for job in JOBS if study.is_complete(job)}


@pytest.mark.slow
def test_after_a_stop_another_start_resumes_and_every_job_runs_once(tmp_path: Path) -> None:
    stop = StopRequest()

    def send_stop() -> None:
        while not (tmp_path / "running").exists():
            time.sleep(0.02)
        stop.signal = signal.SIGTERM

    thread = threading.Thread(target=send_stop, daemon=True)
    thread.start()
    complete = run_study(EndlessStudy, tmp_path, stop)
    thread.join()
    assert JOBS[1].run.name not in complete
    assert run_study(FakeStudy, tmp_path) == NAMES


@pytest.mark.slow
def test_a_killed_worker_is_reported_after_the_others_end(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match=r"a worker ended with status -9 .* to continue"):
        run_study(KilledStudy, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= NAMES - {JOBS[0].run.name}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system hides its cores")
def test_workers_share_all_cores_and_each_has_one() -> None:
    cores = os.sched_getaffinity(0)
    for processes in range(1, 2 * len(cores) + 1):
        shares = worker_pool.split_cores(processes)
        assert all(shares)
        assert set().union(*shares) == cores
        if processes <= len(cores):
            assert sum(map(len, shares)) == len(cores)
