"""Collect the results of a study's run folders in `study.json`: all that the page needs.

metadata  {scale, date, versions, machine, text, tasks, ...,
           task_baselines: {task: score without pre-training, from 0 to 1}}
runs      [{name, variant, seed, hypotheses, expected_tasks: [task],
            steps, rows, tokens, epochs, parameters, flops: {published, sparse}, speed, seconds,
            last: {eval_metric: value}, curves: {metric: [[step, value], ...]},  (metrics.jsonl)
            pair_delta: nat that the pair loss was, at best, below its trivial baseline,
            tasks: {task: {value, metric, rows, ...}},                           (results.json)
            held_out: the scores of `evaluate`, beside counts; pairs: {nsp, sop, ...},
            layers: {task: [score, ...]}, layer_rows, layer_types, layer_majority: {task: ...}},
           ...]
failed    [{run, step, error}, ...] of runs that still lack something

`tokens`, FLOPs and speed exclude padding. `rows` of a score is the number of scored rows.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from bert_jax.perf import param_table
from bert_jax.tasks import results as task_results
from bert_jax.utils import io, metrics_log
from study.datasets import read_rows
from study.finetuning import peak_rate
from study.jobs import Job
from study.metrics import Record
from study.runner import Study
from study.task_baselines import task_baseline
from study.variants import Cost, reference_flops

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
EVAL_CURVES = ("eval_mask_loss", "eval_mask_accuracy", "eval_rtd_auc", "eval_pair_loss")
HEADS = {"mlm", "pooler", "pair", "sbo", "rtd", "generator"}  # not used by a task

Lines = Sequence[dict[str, float]]  # of metrics.jsonl


def read_results(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"cannot read {file} as the results of a study: {e}") from e


def write_results(results: dict[str, Any], file: Path) -> None:
    """Write one line per run, so that a changed run is a changed line."""
    runs = ",\n".join(json.dumps(r, sort_keys=True) for r in results["runs"])
    metadata, failed = (json.dumps(results[key], indent=1) for key in ("metadata", "failed"))
    io.write_text(file, f'{{"metadata": {metadata},\n"failed": {failed},\n"runs": [\n{runs}\n]}}\n')


def collect_results(study: Study, jobs: Sequence[Job], processes: int = 1) -> dict[str, Any]:
    """The results of all jobs whose run is finished; `processes` ran at a time."""
    runs = [run_record(study, job) for job in jobs if study.trained(job)]
    incomplete = {job.run.name for job in jobs if not study.is_complete(job)}
    # the last error of each step; steps that failed once may have succeeded since
    errors = {(f["run"], f["step"]): f["error"] for f in study.failures() if f["run"] in incomplete}
    failed = [
        {"run": run, "step": step, "error": (error.splitlines() or [""])[0][:300]}
        for (run, step), error in errors.items()
    ]
    return {"metadata": _metadata(study, runs, processes), "failed": failed, "runs": runs}


def _metadata(study: Study, runs: Sequence[Record], processes: int) -> dict[str, Any]:
    device = jax.devices()[0]
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    if processes > 1:
        machine += f", {processes} runs at a time"
    if device.platform != "cpu":
        machine = f"{device.device_kind}, {machine}"
    synthetic = study.datasets.user_tasks is None
    tasks = study.datasets.task_names() if runs else []
    return {
        "scale": study.preset.name,
        "arm_flops": _round(reference_flops(study.preset)),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": machine,
        "text": [Path(name).name for name in study.datasets.text],
        "tasks": tasks,
        "tune_rates": study.preset.tune_rates,
        "task_baselines": _rounded({name: _task_baseline(study, name) for name in tasks}),
        "labels": "made from the text" if synthetic else "labeled by people",
    }


def run_record(study: Study, job: Job) -> Record:
    folder, run = study.folder(job), job.run
    lines = metrics_log.read_metrics(folder)
    seconds = metrics_log.goodput(folder)
    corpus = json.loads(study.corpus_info(job).read_text(encoding="utf-8"))
    train = corpus["train"]
    tokens = round(run.rows * train["tokens"] / train["rows"])
    cost = Cost.of(run.experiment, run.corpus.length, tokens)
    last = next((line for line in reversed(lines) if "eval_loss" in line), {})
    return {
        "name": run.name,
        "variant": run.variant,
        "seed": run.seed,
        "hypotheses": job.hypotheses,
        "expected_tasks": study.datasets.task_names() if job.tasks else [],
        "steps": job.steps,
        "rows": run.rows,
        "tokens": tokens,
        "epochs": _round(run.rows * corpus["duplicates"] / train["rows"]),  # over the text
        "parameters": count_parameters(run.experiment),
        "flops": {"published": _round(cost.published), "sparse": _round(cost.sparse)},
        "speed": _round(tokens / seconds["steps"]) if seconds["steps"] else None,
        "seconds": _round(sum(seconds.values())),
        "last": {
            k: _round(v) for k, v in last.items() if k.startswith("eval_") and math.isfinite(v)
        },
        "curves": {name: curve for name in EVAL_CURVES if (curve := _curve(lines, name))},
        "pair_delta": pair_delta(lines),
        "tasks": _task_scores(study, job),
        "expected_probes": [*study.probe_folders(job)],
        **_probe_scores(study, job),
        **_rounded(study.measured(job)),
    }


def count_parameters(experiment: Any) -> int:
    """The parameters that fine-tuning uses: embeddings and layers; of ELECTRA, the
    discriminator's."""
    leaves = param_table.parameter_table(experiment)["parameters"]["leaves"]
    return sum(leaf["count"] for leaf in leaves if HEADS.isdisjoint(leaf["name"].split("/")))


def pair_delta(lines: Lines) -> float | None:
    """How far the loss on validation pairs fell, at best, below its trivial baseline (nat), which
    knows the share of each class. None: no such loss was logged."""
    lines = [line for line in lines if math.isfinite(line.get("eval_pair_loss", math.nan))]
    deltas = [v["eval_pair_baseline_loss"] - v["eval_pair_loss"] for v in lines]
    return _round(max(deltas)) if deltas else None


def _curve(lines: Lines, metric: str) -> list[list[float]]:
    lines = [line for line in lines if math.isfinite(line.get(metric, math.nan))]
    return [[int(line["step"]), _round(line[metric])] for line in lines]


def _task_scores(study: Study, job: Job) -> dict[str, Any]:
    scores = {}
    for name in study.task_names(job):
        folder = study.tuned_folder(job, name)
        result = task_results.read_results(folder)
        if result is not None:
            dev = {k: _round(v) for k, v in result["dev"].items() if k != "loss"}
            rows = (folder / "predictions_dev.jsonl").read_bytes().count(b"\n")
            metric = result["metric"]
            rate = peak_rate(folder)
            scores[name] = {"metric": metric, "value": dev[metric], "rows": rows, **dev}
            scores[name]["peak_lr"] = rate
    return scores


def _task_baseline(study: Study, name: str) -> float | None:
    """On the rows that the runs are trained and scored on."""
    folder = study.datasets.task(name)
    train, scored = (list(read_rows(folder / f"{split}.jsonl")) for split in ("train", "dev"))
    try:
        return task_baseline(train, scored)
    except ValueError:  # runs say what is wrong with the rows
        return None


def _probe_scores(study: Study, job: Job) -> dict[str, dict[str, Any]]:
    """The main metric of each layer, embeddings first, by task; the scored rows, the types, and the
    metric of always predicting the most frequent label."""
    fields = ("layers", "layer_rows", "layer_types", "layer_majority")
    scores: dict[str, dict[str, Any]] = {field: {} for field in fields}
    for task, folder in study.probe_folders(job).items():
        if (folder / "probe.json").exists():
            probe = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
            values = [_round(s["metrics"][probe["metric"]]) for s in probe["scores"]]
            scores["layers"][task] = values
            scores["layer_rows"][task] = probe["rows"]["dev"]
            scores["layer_types"][task] = study.datasets.task_type(task)
            scores["layer_majority"][task] = _round(probe["majority"][probe["metric"]])
    return scores


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {k: _rounded(v) for k, v in values.items()}
    return _round(values) if isinstance(values, float) else values


def _round(value: float) -> float:
    """Six digits are enough for a page and keep the file small."""
    return float(f"{value:.6g}")
