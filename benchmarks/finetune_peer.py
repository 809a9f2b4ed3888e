"""Repeat a fine-tuning run in transformers on PyTorch; compare metrics and step times.

    python benchmarks/finetune_peer.py RUN [--timed 20] [--only-time]

RUN is a run of `bert-jax finetune` whose --init was a Hugging Face folder of a BERT; its scores are
printed if it is finished. transformers starts from the same checkpoint and trains on the same
batches with the same padding, learning rates, decay and clipping. Only the head's initial values
and the dropout differ. The best checkpoint on dev counts, as in bert_jax. Before that, both train
`--timed` batches in turn. Prints the median seconds per step, then all metrics as JSON.

Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers

from bert_jax import config, optim, tasks
from bert_jax.perf.bench.transformers_peer import decay_groups
from bert_jax.tasks import results
from bert_jax.training.assemble import assemble
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.utils import malloc

CLASSES = {
    "classification": transformers.AutoModelForSequenceClassification,
    "regression": transformers.AutoModelForSequenceClassification,
    "tagging": transformers.AutoModelForTokenClassification,
    "qa": transformers.AutoModelForQuestionAnswering,
}


class TransformersTrainer:
    """A transformers model in training."""

    def __init__(self, experiment: config.Experiment, task_type: str, labels: int) -> None:
        torch.manual_seed(experiment.run.seed)
        self.task_type, self.optim = task_type, experiment.optim
        sizes = {} if task_type == "qa" else {"num_labels": max(labels, 1)}
        self.model = CLASSES[task_type].from_pretrained(experiment.run.init, **sizes)
        self.rate = optim.schedule(self.optim, experiment.run.steps)
        groups = decay_groups(self.model, self.optim)
        betas = (self.optim.b1, self.optim.b2)
        self.adam = torch.optim.AdamW(groups, 1.0, betas=betas, eps=self.optim.eps)
        self.steps = 0

    def inputs(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        positions = np.arange(batch["tokens"].shape[-1])
        real, second = positions < batch["size"][:, None], positions >= batch["first"][:, None]
        arrays = {"input_ids": batch["tokens"], "attention_mask": real}
        arrays["token_type_ids"] = second & real
        return {k: torch.tensor(v, dtype=torch.long) for k, v in arrays.items()}

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        labels = {
            k: torch.tensor(batch[k]) for k in ("label", "start", "end", "tags") if k in batch
        }
        if self.task_type == "qa":
            targets = {
                "start_positions": labels["start"].long(),
                "end_positions": labels["end"].long(),
            }
        elif self.task_type == "tagging":
            tags = labels["tags"].long()
            targets = {"labels": torch.where(tags < 0, -100, tags)}
        else:
            label = labels["label"]
            targets = {"labels": label.float() if self.task_type == "regression" else label.long()}
        return self.model(**self.inputs(batch), **targets).loss

    def step(self, batch: dict[str, Any]) -> float:
        self.model.train()
        loss = self.loss(batch)
        self.adam.zero_grad()
        loss.backward()
        if self.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
        for group in self.adam.param_groups:
            group["lr"] = float(self.rate(np.int32(self.steps)))
        self.adam.step()
        self.steps += 1
        return loss.item()

    @torch.no_grad()
    def outputs(self, batch: dict[str, Any]) -> tuple[Any, Any]:
        self.model.eval()
        out = self.model(**self.inputs(batch))
        if self.task_type == "qa":
            outputs: Any = {"start": out.start_logits.numpy(), "end": out.end_logits.numpy()}
        else:
            outputs = out.logits.numpy()
            outputs = outputs[:, 0] if self.task_type == "regression" else outputs
        return batch["row"], outputs


def scores(peer: TransformersTrainer, task: FinetuneTask, split: str) -> dict[str, float]:
    encoded, per_token = task.encoded[split], peer.task_type in ("tagging", "qa")
    outputs = task.batches(task.config, split).predict_all(peer.outputs, per_token)
    return tasks.compute_metrics(task.dataset.task, encoded, outputs, task.dataset.labels)


def is_best(dev: float, best: float) -> bool:
    """Whether a dev score is the best so far as in bert_jax: the latest of equals, NaN lowest."""
    return dev >= best or (math.isnan(dev) and best == -math.inf)


def step_seconds(task: FinetuneTask, peer: TransformersTrainer, steps: int) -> dict[str, float]:
    """Median seconds per step. Batches alternate; the first batch of each shape is not counted."""
    experiment = task.config
    on_one = config.replace(experiment, mesh=config.Mesh())
    native = assemble(on_one, task, jax.devices()[:1]).steps
    state, seen_shapes = native.init(), set()
    seconds: dict[str, list[float]] = {"bert_jax": [], "transformers": []}
    for batch, _ in zip(
        task.batches(experiment, "train").iterate(0), range(10 * steps), strict=False
    ):
        start = time.perf_counter()
        state, metrics = native.train(state, native.to_devices(batch))
        jax.block_until_ready(metrics)
        between = time.perf_counter()
        peer.step(batch)
        end = time.perf_counter()
        if batch["tokens"].shape in seen_shapes:
            seconds["bert_jax"].append(between - start)
            seconds["transformers"].append(end - between)
        seen_shapes.add(batch["tokens"].shape)
        if len(seconds["bert_jax"]) == steps:
            break
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--timed", type=int, default=20, help="batches to time (0: none)")
    parser.add_argument("--only-time", action="store_true", help="do not train to the end")
    args = parser.parse_args()
    malloc.tune()  # as bert-jax does; PyTorch gains as well
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    experiment = config.read_config(args.run / "config.json")
    task = FinetuneTask.of(experiment)
    task_type, labels = task.dataset.task_type, len(task.dataset.labels)
    report: dict[str, Any] = {}
    if args.timed:
        seconds = step_seconds(task, TransformersTrainer(experiment, task_type, labels), args.timed)
        report["seconds_per_step"] = seconds
        print(json.dumps(seconds), flush=True)
    if args.only_time:
        return
    peer = TransformersTrainer(experiment, task_type, labels)
    main_metric = task.main_metric
    best, best_state = -math.inf, dict[str, Any]()
    steps, batches = experiment.run.steps, task.batches(experiment, "train").iterate(0)
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        loss = peer.step(batch)
        if step % experiment.run.eval_every == 0 or step == steps:
            dev = scores(peer, task, "dev")[main_metric]
            print(f"step {step}/{steps} loss {loss:.3f} dev {main_metric} {dev:.4f}", flush=True)
            if is_best(dev, best):
                best = -math.inf if math.isnan(dev) else dev
                best_state = copy.deepcopy(peer.model.state_dict())
    peer.model.load_state_dict(best_state)
    hf_scores = {s: scores(peer, task, s) for s in ("dev", "test") if s in task.encoded}
    report["transformers"] = hf_scores
    if (native := results.read_results(args.run)) is not None:
        report["bert_jax"] = {split: native[split] for split in hf_scores}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
