"""Does the work, piece by piece: what is done is found in OUT and not done again.

OUT/asked.json               the scale and the text: another study wants another folder
OUT/data/                    see materials.py
OUT/runs/RUN/                run folders of pretrain
OUT/tasks/TASK/RUN/          run folders of finetune, with results.json
OUT/measured/RUN.json        losses on held-out rows, sentence pairs
OUT/layers/TASK/RUN/         probe.json
OUT/worker-N.txt             what workers say
OUT/failed.jsonl             what raised: of a run that cannot be trained nothing else is done, of
                             others all that can be
"""

from __future__ import annotations

import gc
import hashlib
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
from bert_jax.config import FINETUNE, Experiment, Supervised, replace
from bert_jax.data import documents
from bert_jax.inference import probe
from bert_jax.tasks import results
from bert_jax.training import finetune_config
from bert_jax.training.finetune import finetune
from bert_jax.training.pretrain import pretrain
from bert_jax.utils import io, metrics_log
from study import evaluate as exam
from study import jobs as plan
from study import worker_pool as together
from study.datasets import Datasets
from study.hypotheses import HYPOTHESES
from study.jobs import ANSWERS, Job
from study.presets import Preset
from study.stop_request import deadline

TRAINING = "training"  # the step that all others need
PROBES = {"tagging": ("tagging", "first"), "texts": ("classification", "mean")}


class Stopped(Exception):
    """A signal, or the end of the minutes, came; all is saved."""


@dataclass(frozen=True)
class Study:
    """A folder, and all that is done in it."""

    out: Path
    scale: Preset
    materials: Datasets
    lean: bool = False  # drop the checkpoints of runs that no claim of the scale needs any more

    def run(
        self, works: Sequence[Job], minutes: float | None = None, processes: int = 1
    ) -> int | None:
        """Everything of `works` that is not done, so many at a time; returns the signal that ended
        it before, 0 where the minutes did. ValueError: the folder is another study's, or in use;
        text or tasks that nothing can be made of."""
        with lock.run_lock(self.out):
            self._claim()
            with deadline(minutes) as asked:
                self.materials.ready(works)
                if processes == 1:
                    self.one_by_one(enumerate(works, 1), len(works), asked)
                else:
                    together.run(self, works, processes, asked)
        return 0 if asked["over"] else asked["signal"] or None

    def one_by_one(
        self, numbered: Iterable[tuple[int, Job]], of: int, asked: dict[str, Any]
    ) -> None:
        """Each of the works as it comes, until a signal does."""
        self._keep_compiled()
        whole = {work.run.name: work for work in plan.work(HYPOTHESES, self.scale)}
        for number, work in numbered:
            self._say(f"{number}/{of} {work.run.name}")
            try:
                if not self.complete(work):
                    self._work(work, asked)
            except Stopped:
                return
            # a claim that is asked for later may need more of the run
            if self.lean and self.complete(whole.get(work.run.name, work)):
                shutil.rmtree(self.folder(work) / "checkpoints", ignore_errors=True)

    def _keep_compiled(self) -> None:
        """Seeds and arms share programs, and so do a study and its continuation."""
        if jax.config.values["jax_compilation_cache_dir"] is None:
            jax.config.update("jax_compilation_cache_dir", str((self.out / "compiled").resolve()))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

    def _claim(self) -> None:
        """Every study has a folder of its own."""
        files = self.materials.text
        told = hashlib.sha256()
        for name in documents.expand_sources(files):
            told.update(Path(name).read_bytes() if Path(name).is_file() else name.encode())
        given = self.materials.tasks
        sizes = {} if given is None else {p: p.stat().st_size for p in given.glob("*/*.json*")}
        tasks = sorted(f"{p.parent.name}/{p.name} {size}" for p, size in sizes.items())
        mine = {
            "scale": self.scale.name,
            "text": list(files),
            "sha256": told.hexdigest(),
            "tasks": tasks or "made from the text",
        }
        file = self.out / "asked.json"
        if not file.exists():
            io.write_text(file, json.dumps(mine, indent=2) + "\n")
        before = json.loads(file.read_text(encoding="utf-8"))
        if other := [k for k in ("scale", "sha256", "tasks") if before[k] != mine[k]]:
            what = {"scale": "scale", "sha256": "text", "tasks": "tasks"}[other[0]]
            raise ValueError(
                f"{self.out} holds a study at --scale {before['scale']} of "
                f"{', '.join(before['text'])} with another --{what}: choose another --out"
            )

    def _work(self, work: Job, asked: dict[str, Any]) -> None:
        for name, step in self._steps(work):
            if asked["signal"]:
                raise Stopped
            begin, signalled = time.monotonic(), None
            try:
                signalled = step()
            except (Stopped, KeyboardInterrupt):
                raise
            except Exception as e:
                self._failed(work, name, e)
                if name == TRAINING:
                    return
            finally:
                if time.monotonic() - begin > 1:  # else nothing was compiled
                    jax.clear_caches()
                    gc.collect()
            if signalled:
                asked["signal"] = asked["signal"] or signalled
                raise Stopped

    def complete(self, work: Job) -> bool:
        """Whether all that is measured on a run is there; its checkpoints may be gone."""
        found = self.measured(work)
        return (
            finished(self.folder(work), work.run.experiment.run.steps)
            and (work.held_out is None or "held_out" in found)
            and (not work.pairs or "pairs" in found)
            and all(
                results.read_results(self.tuned(work, n)) is not None for n in self.tasks_of(work)
            )
            and all(out is None or out.exists() for out in self.probed(work).values())
        )

    def tasks_of(self, work: Job) -> list[str]:
        return [*(self.materials.names() if work.tasks else []), *([ANSWERS] * work.answers)]

    def tuned(self, work: Job, name: str) -> Path:
        return self.out / "tasks" / name / work.run.name

    def probed(self, work: Job) -> dict[str, Path | None]:
        """Where the layers' scores go; None: no task is of this kind."""
        found: dict[str, Path | None] = {}
        for what, (kind, _) in PROBES.items() if work.layers else ():
            names = [n for n in self.materials.names() if self.materials.kind(n) == kind]
            found[what] = self.out / "layers" / names[0] / work.run.name if names else None
        return found

    def _steps(self, work: Job) -> Iterator[tuple[str, Callable[[], int | None]]]:
        yield TRAINING, lambda: self.train(work)
        for name, asked in (("held_out", work.held_out), ("pairs", work.pairs)):
            if asked:
                yield name, lambda name=name: self.measure(work, name)
        for name in self.tasks_of(work):
            yield name, lambda name=name: self.tune(work, name)
        for what, out in self.probed(work).items():
            if out is not None and not out.exists():
                yield f"layers: {what}", lambda what=what, out=out: self.layers(work, what, out)

    def folder(self, work: Job) -> Path:
        return self.out / "runs" / work.run.name

    def train(self, work: Job) -> int | None:
        run = work.run.experiment
        folder = self.folder(work)
        done = folder.is_dir() and newest(folder) >= run.run.steps
        if done:
            return None
        path = str(self.materials.corpus(work.run.corpus))
        return pretrain(replace(run, run=dict(dir=str(folder)), data=dict(path=path)))

    def measured(self, work: Job) -> dict[str, Any]:
        """What is neither a task nor in the run's own log."""
        file = self.out / "measured" / f"{work.run.name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def measure(self, work: Job, name: str) -> None:
        if name in (found := self.measured(work)):
            return
        run, rows = self.folder(work), 4 * self.scale.eval_batches * self.scale.batch_size
        if name == "held_out":
            assert work.held_out is not None
            found[name] = exam.held_out(run, self.materials.corpus(work.held_out), rows)
        else:
            nsp, sop = map(self.materials.corpus, work.pairs)
            found[name] = exam.pairs(run, nsp, sop, rows)
        file = self.out / "measured" / f"{work.run.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        io.write_text(file, json.dumps(found, indent=2) + "\n")

    def tune(self, work: Job, name: str) -> int | None:
        """One recipe and one head for all models: a dense layer on the first token's features."""
        folder = self.tuned(work, name)
        if results.read_results(folder) is not None:
            return None
        kind, path = self.materials.kind(name), str(self.materials.task(name))
        scale = self.scale
        head = Supervised(task=kind, head="first")
        plain = replace(
            FINETUNE,
            objective=head,
            optim=dict(peak_lr=scale.tune_lr),
            run=dict(epochs=scale.epochs, evals_per_epoch=None, log_every=20, max_to_keep=1),
        )

        def change(asked: Experiment) -> Experiment:
            run = dict(
                dir=str(folder), init=str(self.folder(work)), seed=work.run.seed, dtype=scale.dtype
            )
            changed = replace(asked, data=dict(path=path), run=run | dict(eval_every=1 << 20))
            return replace(changed, objective=dict(task=kind))

        stopped = finetune(finetune_config.for_model(plain, change))
        if stopped is None:  # the score is what is wanted; models take room
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return stopped

    def layers(self, work: Job, what: str, out: Path) -> None:
        """Scores of linear models on the features of every layer."""
        kind, pool = PROBES[what]
        model = bert_jax.load(self.folder(work))
        numbers = list(range(model.config.encoder.layers + 1))
        path = str(self.materials.task(out.parent.name))
        most = self.scale.probe_rows
        probe.probe_layers(model, kind, path, out, numbers, (pool,), most, name=work.run.name)  # type: ignore[arg-type]

    def failures(self) -> list[dict[str, Any]]:
        """What raised, ever, in the order of time."""
        file = self.out / "failed.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    def _failed(self, work: Job, step: str, error: Exception) -> None:
        """What cannot be done of one run does not end the study; the page names it."""
        told = f"{type(error).__name__}: {error}"
        line = {"run": work.run.name, "step": step, "error": told, "at": time.time()}
        with (self.out / "failed.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")
        traceback.print_exception(error)
        self._say(f"{work.run.name}, {step} was passed over: {told}")

    def _say(self, line: str) -> None:
        print(line, file=sys.__stderr__, flush=True)  # of a worker too, whose own is a file


def finished(folder: Path, steps: int) -> bool:
    """Whether a run has logged its last step."""
    lines = metrics_log.read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    return bool(lines) and lines[-1]["step"] >= steps


def newest(folder: Path) -> int:
    """The last step in a run's log whose state was saved; 0: none."""
    lines = metrics_log.read_metrics(folder) if (folder / "metrics.jsonl").is_file() else []
    saved = folder / "checkpoints"
    steps = [int(p.name) for p in saved.iterdir() if p.name.isdigit()] if saved.is_dir() else []
    return max((s for s in steps if any(line["step"] == s for line in lines)), default=0)
