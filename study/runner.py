"""Run a study step by step. Finished steps are found in STATE and not repeated.

OUT/data/                    see datasets.py: made again from the text where it is missing
OUT/compiled/                compiled programs
OUT/worker-N.txt             logs of workers
STATE/study_config.json      the preset and the text: each study needs its own folder
STATE/corpora/NAME.json      sizes of the corpora
STATE/runs/RUN/              run folders of pre-training, with the last checkpoint
STATE/tasks/TASK/RUN/        results of fine-tuning
STATE/measured/RUN.json      scores on held-out rows and sentence pairs
STATE/layers/TASK/RUN/       probe.json
STATE/failed.jsonl           errors; only a failed pre-training ends the rest of its job

STATE is OUT unless the user gives another folder. It is small, and a study goes on from it on any
machine that has the text and the tasks.
"""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

import bert_jax
from bert_jax.checkpoint import lock
from bert_jax.config import TaskType, replace
from bert_jax.inference import probe
from bert_jax.tasks import results
from bert_jax.training.pretrain import pretrain
from bert_jax.utils import io, metrics_log
from study import evaluate, worker_pool
from study.datasets import Datasets, move_corpus
from study.finetuning import finetune_run
from study.hypotheses import hypotheses_at
from study.jobs import QA, Job, list_jobs
from study.presets import Preset
from study.state import check_config, keep_last_checkpoint
from study.stop_request import StopRequest, stop_request

PRETRAINING = "pre-training"  # the step that all others need
PROBES: dict[TaskType, str] = {"tagging": "first", "classification": "mean"}  # and their pooling


class Stopped(Exception):
    """A signal arrived or the time limit ended; everything is saved."""


@dataclass(frozen=True)
class Study:
    """A study in the folder `out`."""

    out: Path
    preset: Preset
    datasets: Datasets
    prune_checkpoints: bool = False  # delete those that no hypothesis of the preset still needs
    state: Path | None = None  # the folder of results and checkpoints; None: `out`

    @property
    def results_dir(self) -> Path:
        """The folder of results and checkpoints, which is all that has to be kept."""
        return self.out if self.state is None else self.state

    def run(
        self, jobs: Sequence[Job], minutes: float | None = None, processes: int = 1
    ) -> int | None:
        """Run all jobs that are not complete, `processes` at a time. Return the signal that
        stopped the study early, 0 if the time limit did, else None. ValueError: the folder holds
        another study or is in use; the text or the tasks are unusable."""
        self.out.mkdir(parents=True, exist_ok=True)
        with lock.run_lock(self.results_dir):
            check_config(self.results_dir, self.preset, self.datasets)
            with stop_request(minutes) as stop:
                self.datasets.prepare(jobs)
                if processes == 1:
                    self.run_jobs(enumerate(jobs, 1), len(jobs), stop)
                else:
                    worker_pool.run_workers(self, jobs, processes, stop)
        return 0 if stop.timed_out else stop.signal or None

    def run_jobs(self, jobs: Iterable[tuple[int, Job]], total: int, stop: StopRequest) -> None:
        """Run (number, job) one by one until a stop request."""
        self._enable_compilation_cache()
        hypotheses = hypotheses_at(self.preset.name)
        all_jobs = {job.run.name: job for job in list_jobs(hypotheses, self.preset)}
        for number, job in jobs:
            self._print(f"{number}/{total} {job.run.name}")
            try:
                if not self.is_complete(job):
                    self._run_job(job, stop)
            except Stopped:
                return
            # hypotheses that were not selected may need more of the run later
            if self.prune_checkpoints and self.is_complete(all_jobs.get(job.run.name, job)):
                shutil.rmtree(self.folder(job) / "checkpoints", ignore_errors=True)

    def _enable_compilation_cache(self) -> None:
        """Seeds, variants and restarts share compiled programs."""
        if jax.config.values["jax_compilation_cache_dir"] is None:
            jax.config.update("jax_compilation_cache_dir", str((self.out / "compiled").resolve()))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

    def _run_job(self, job: Job, stop: StopRequest) -> None:
        for name, step in self._steps(job):
            if stop.signal:
                raise Stopped
            start, signal = time.monotonic(), None
            try:
                signal = step()
            except Exception as e:
                self._record_failure(job, name, e)
                if name == PRETRAINING:
                    return
            finally:
                if time.monotonic() - start > 1:  # else nothing was compiled
                    jax.clear_caches()
                    gc.collect()
            if signal:
                stop.signal = stop.signal or signal
                raise Stopped

    def _steps(self, job: Job) -> Iterator[tuple[str, Callable[[], int | None]]]:
        """(name, function) of the steps that are missing; a function returns a signal or None."""
        checkpoint = self.folder(job) / "checkpoints" / str(job.steps)
        if not (self.trained(job) and checkpoint.is_dir()):
            yield PRETRAINING, lambda: self.pretrain(job)
        yield from self._missing_results(job)

    def _missing_results(self, job: Job) -> Iterator[tuple[str, Callable[[], int | None]]]:
        """The same of what the trained model has still to do."""
        for name in self._missing_measurements(job):
            yield name, lambda name=name: self.measure(job, name)
        for name in self.task_names(job):
            if results.read_results(self.tuned_folder(job, name)) is None:
                yield name, lambda name=name: self.tune(job, name)
        for name, out in self.probe_folders(job).items():
            if not out.exists():
                yield f"probe: {name}", lambda name=name, out=out: self.probe(job, name, out)

    def is_complete(self, job: Job) -> bool:
        """Whether all of the job's results exist; its checkpoints may be deleted."""
        return self.trained(job) and not any(self._missing_results(job))

    def trained(self, job: Job) -> bool:
        """Whether the run has logged its last step."""
        if not (self.folder(job) / "metrics.jsonl").is_file():
            return False
        lines = metrics_log.read_metrics(self.folder(job))
        return bool(lines) and lines[-1]["step"] >= job.steps

    def folder(self, job: Job) -> Path:
        return self.results_dir / "runs" / job.run.name

    def corpus_info(self, job: Job) -> Path:
        """What the run's corpus holds, also where the corpus itself is on another machine."""
        return self.results_dir / "corpora" / f"{job.run.corpus.name}.json"

    def task_names(self, job: Job) -> list[str]:
        return [*(self.datasets.task_names() if job.tasks else []), *([QA] * job.qa)]

    def tuned_folder(self, job: Job, name: str) -> Path:
        return self.results_dir / "tasks" / name / job.run.name

    def probe_folders(self, job: Job) -> dict[str, Path]:
        """Task -> folder of its linear probes, for the types of task that have some."""
        tasks = self.datasets.task_names() if job.probes else []
        layers = self.results_dir / "layers"
        return {
            task: layers / task / job.run.name
            for task in tasks
            if self.datasets.task_type(task) in PROBES
        }

    def pretrain(self, job: Job) -> int | None:
        corpus, folder, info = (
            self.datasets.corpus(job.run.corpus),
            self.folder(job),
            self.corpus_info(job),
        )
        if not info.exists():
            info.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(corpus / "corpus.json", info)
        move_corpus(folder, str(corpus))
        fields = dict(run=dict(dir=str(folder)), data=dict(path=str(corpus)))
        signal = pretrain(replace(job.run.experiment, **fields))
        if signal is None:
            keep_last_checkpoint(folder, job.steps)
        return signal

    def measured(self, job: Job) -> dict[str, Any]:
        """Scores on held-out rows and sentence pairs."""
        file = self.results_dir / "measured" / f"{job.run.name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _missing_measurements(self, job: Job) -> list[str]:
        measured = self.measured(job)
        return [n for n in ("held_out", "pairs") if getattr(job, n) and n not in measured]

    def measure(self, job: Job, name: str) -> None:
        run, measured = self.folder(job), self.measured(job)
        max_rows = 4 * self.preset.eval_batches * self.preset.batch_size
        if name == "held_out":
            trained_on, held_out = map(self.datasets.corpus, (job.run.corpus, job.held_out))
            measured[name] = evaluate.held_out_scores(run, trained_on, held_out, max_rows)
        else:
            nsp, sop = map(self.datasets.corpus, job.pairs)
            measured[name] = evaluate.pair_accuracies(run, nsp, sop, max_rows)
        file = self.results_dir / "measured" / f"{job.run.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        io.write_text(file, json.dumps(measured, indent=2) + "\n")

    def tune(self, job: Job, name: str) -> int | None:
        """Fine-tune, and keep the scores."""
        folder = self.tuned_folder(job, name)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped: it takes a minute
        task_type, rows = self.datasets.task_type(name), self.datasets.task(name)
        signal = finetune_run(self.folder(job), task_type, rows, folder, self.preset, job.run.seed)
        if signal is None:  # only the scores are needed, and checkpoints take space
            for part in ("checkpoints", "tensorboard", "tokenizer"):
                shutil.rmtree(folder / part, ignore_errors=True)
        return signal

    def probe(self, job: Job, task: str, out: Path) -> None:
        """Score linear models on the features of every layer."""
        task_type = self.datasets.task_type(task)
        model = bert_jax.load(self.folder(job))
        layers = list(range(model.config.encoder.layers + 1))
        path, max_rows = str(self.datasets.task(task)), self.preset.probe_rows
        probe.probe_layers(
            model, task_type, path, out, layers, (PROBES[task_type],), max_rows, name=job.run.name
        )

    def failures(self) -> list[dict[str, Any]]:
        """All errors so far, in the order of time."""
        file = self.results_dir / "failed.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    def _record_failure(self, job: Job, step: str, error: Exception) -> None:
        """A failed step does not end the study; the page lists it."""
        message = f"{type(error).__name__}: {error}"
        line = {"run": job.run.name, "step": step, "error": message, "at": time.time()}
        with (self.results_dir / "failed.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")
        traceback.print_exception(error)
        self._print(f"{job.run.name}: {step} failed and is skipped: {message}")

    def _print(self, line: str) -> None:
        print(line, file=sys.__stderr__, flush=True)  # a worker's sys.stderr is its log file
