"""Run folders -> the study's store, `study.json`: all that the page is made of, and no more.

made    {scale, date, versions, machine, text, tasks}
runs    [{name, arm, seed, claims, wanted: [task], steps, rows, tokens, epochs, parameters,
          flops: {published, sparse}, speed, seconds, last: {eval_metric: value},
          curve: {metric: [[step, value], ...]},         from metrics.jsonl
          gain, pair_gain: nat that a loss was, at best, below that of frequencies,
          tasks: {task: {value, metric, rows, ...}},      from results.json
          held_out, pairs, layers: {what: [score, ...], what_rows}}, ...]
failed  [{run, step, error}, ...]                        of runs that still lack something

`tokens`, and so FLOPs and speed, leave padding out; `rows` of a score are those it is the mean of.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from bert_jax.perf import param_table
from bert_jax.tasks import results
from bert_jax.training import metrics_writer
from bert_jax.utils import metrics_log
from study.compute import Cost
from study.jobs import Job
from study.metrics import Record
from study.runner import Study, finished

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
CURVES = ("mlm_loss", "rtd_loss", "rtd_recall", "pair_loss", "sbo_loss", "loss")
SCORED = ("eval_mlm_loss", "eval_rtd_loss", "eval_rtd_auc", "eval_mlm_accuracy", "eval_pair_loss")
HEADS = ("mlm", "pooler", "pair", "sbo", "rtd", "generator")  # of no use to a task
DIGITS = 6


def collect(study: Study, works: Sequence[Job], processes: int = 1) -> dict[str, Any]:
    """What is there of the works, finished runs alone; so many were done at a time."""
    found = [record(study, work) for work in works]
    runs = [r for r in found if r is not None]
    missing = {work.run.name for work in works if not study.complete(work)}
    # the last word on each of them: what failed once may have been done since
    failed = {(f["run"], f["step"]): f["error"] for f in study.failures() if f["run"] in missing}
    told = [
        {"run": run, "step": step, "error": (error.splitlines() or [""])[0][:300]}
        for (run, step), error in failed.items()
    ]
    return {"made": made(study, runs, processes), "failed": told, "runs": runs}


def made(study: Study, runs: Sequence[Record], processes: int) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    on = f"{os.cpu_count()} cores ({platform.machine()})"
    if processes > 1:
        on += f", {processes} runs at a time"
    given = study.materials.tasks
    return {
        "scale": study.scale.name,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": on if device.platform == "cpu" else f"{device.device_kind}, {on}",
        "text": [Path(name).name for name in study.materials.text],
        "tasks": study.materials.names() if runs else [],
        "labelled": "made from the text" if given is None else "labelled by people",
    }


def record(study: Study, work: Job) -> Record | None:
    """None: the run is not finished."""
    folder, run = study.folder(work), work.run
    steps = run.experiment.run.steps
    if not finished(folder, steps):
        return None
    lines = metrics_log.read_metrics(folder)
    spent = metrics_log.goodput(folder)
    corpus = study.materials.folder / "corpora" / run.corpus.name / "corpus.json"
    prepared = json.loads(corpus.read_text(encoding="utf-8"))["train"]
    tokens = round(run.rows * prepared["tokens"] / prepared["rows"])
    cost = Cost.of(run.experiment, run.length, tokens)
    file = study.out / "measured" / f"{run.name}.json"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {
        "name": run.name,
        "arm": run.arm,
        "seed": run.seed,
        "claims": work.claims,
        "wanted": study.materials.names() if work.tasks else [],
        "steps": steps,
        "rows": run.rows,
        "tokens": tokens,
        "epochs": _short(run.rows / prepared["rows"]),
        "parameters": parameters(run.experiment),
        "flops": {"published": _short(cost.published), "sparse": _short(cost.sparse)},
        "speed": _short(tokens / spent["steps"]) if spent["steps"] else None,
        "seconds": _short(sum(spent.values()) - spent["wait"]),
        "last": {k: _short(v) for k, v in _last(lines).items() if k.startswith("eval_")},
        # of the families all, as a reference; of the others what plots show
        "curve": {
            m: c
            for m in (*(CURVES if "i" in work.claims else ()), *SCORED)
            if (c := _curve(lines, m))
        },
        "gain": gain(lines),
        "pair_gain": pair_gain(lines),
        "tasks": _tasks(study, work),
        "layers": _layers(study, work),
        **measured,
    }


def parameters(experiment: Any) -> int:
    """Of what a task takes over: embeddings and layers; ELECTRA's discriminator's."""
    leaves = param_table.parameter_table(experiment)["parameters"]["leaves"]
    return sum(leaf["count"] for leaf in leaves if not {*leaf["name"].split("/")} & {*HEADS})


def gain(lines: Sequence[dict[str, float]]) -> float | None:
    """By how much the loss fell, at best, below that of answering with frequencies: of words, or
    of replaced tokens where a discriminator is what tasks take over. On validation text, or in
    the last tenth of training: masks that never change are learned by heart, and tell little of
    other text. None: no such losses were logged."""
    told = [_below(v) for v in lines if "eval_loss" in v]
    held = [nat for nat in told if nat is not None and math.isfinite(nat)]
    seen = [v["mlm_loss"] for v in lines if math.isfinite(v.get("mlm_loss", math.nan))]
    ends = [v for v in lines if "eval_unigram_loss" in v]
    if ends and seen and not any(f"eval_{x}_loss" in ends[-1] for x in ("rtd", "restored")):
        late = statistics.mean(seen[-max(1, len(seen) // 10) :])
        held.append(ends[-1]["eval_unigram_loss"] - late)
    return _short(max(held)) if held else None


def pair_gain(lines: Sequence[dict[str, float]]) -> float | None:
    """The same of sentence pairs, on validation text."""
    told = [v for v in lines if math.isfinite(v.get("eval_pair_loss", math.nan))]
    held = [metrics_writer.entropy(v["eval_pair_share"]) - v["eval_pair_loss"] for v in told]
    return _short(max(held)) if held else None


def _below(told: dict[str, float]) -> float | None:
    """What `gain` is the best of, at one evaluation."""
    if "eval_rtd_loss" in told:
        recall, precision = told["eval_rtd_recall"], told["eval_rtd_precision"]
        # of all errors: replaced tokens that were not found, and originals that were suspected
        share = (1 - told["eval_rtd_accuracy"]) / (
            1 - recall + (recall * (1 / precision - 1) if precision else 0)
        )
        return metrics_writer.entropy(share) - told["eval_rtd_loss"]
    if "eval_unigram_loss" in told:
        return told["eval_unigram_loss"] - told.get("eval_restored_loss", told["eval_mlm_loss"])
    return None


def _last(lines: Sequence[dict[str, float]]) -> dict[str, float]:
    found = next((line for line in reversed(lines) if "eval_loss" in line), {})
    return {k: v for k, v in found.items() if math.isfinite(v)}


def _curve(lines: Sequence[dict[str, float]], metric: str) -> list[list[float]]:
    held = [line for line in lines if math.isfinite(line.get(metric, math.nan))]
    return [[int(line["step"]), _short(line[metric])] for line in held]


def _tasks(study: Study, work: Job) -> dict[str, Any]:
    found = {}
    for name in study.tasks_of(work):
        read = results.read_results(study.tuned(work, name))
        if read is not None:
            scores = {k: _short(v) for k, v in read["dev"].items() if k != "loss"}
            told = (study.tuned(work, name) / "predictions_dev.jsonl").read_bytes()
            head = {"metric": read["metric"], "value": scores[read["metric"]]}
            found[name] = {**head, "rows": told.count(b"\n"), **scores}
    return found


def _layers(study: Study, work: Job) -> dict[str, Any]:
    """What was probed -> its headline metric from the embeddings to the last layer."""
    found: dict[str, Any] = {}
    for what, out in study.probed(work).items():
        if out is not None and (out / "probe.json").exists():
            told = json.loads((out / "probe.json").read_text(encoding="utf-8"))
            found[what] = [_short(s["metrics"][told["metric"]]) for s in told["scores"]]
            found[f"{what}_rows"] = told["rows"]["dev"]
    return found


def _short(value: float) -> float:
    """As many digits as a page can need, so that the store stays small."""
    return float(f"{value:.{DIGITS}g}")
