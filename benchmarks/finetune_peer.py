"""The same fine-tuning in transformers on PyTorch: how far apart the metrics are, and how long
a step takes.

    python benchmarks/finetune_peer.py RUN [--timed 20] [--only-time]

RUN is a run of `bert-jax finetune`, finished where its scores are wanted, whose --init was a
Hugging Face folder of a BERT. The peer begins with the same checkpoint and takes the same rows in
the same batches, padded alike, with the same learning rates, decay and clipping; what differs is
the head's first values and the draws of dropout. As here, the checkpoint that scores best on dev
is the one that counts. At first both train `--timed` batches in turns, whose median times are
printed.

Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers

from bert_jax import config, objectives, optim, tasks
from bert_jax.distributed import sharding
from bert_jax.tasks import results
from bert_jax.training import warm_start
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.step import compile_steps
from bert_jax.utils import malloc

CLASSES = {
    "classification": transformers.AutoModelForSequenceClassification,
    "regression": transformers.AutoModelForSequenceClassification,
    "tagging": transformers.AutoModelForTokenClassification,
    "qa": transformers.AutoModelForQuestionAnswering,
}


class Peer:
    """One model of theirs in training."""

    def __init__(self, experiment: config.Experiment, kind: str, labels: int) -> None:
        torch.manual_seed(experiment.run.seed)
        self.kind, self.optim = kind, experiment.optim
        sizes = {} if kind == "qa" else {"num_labels": max(labels, 1)}
        self.model = CLASSES[kind].from_pretrained(experiment.run.init, **sizes)
        self.rate = optim.schedule(self.optim, experiment.run.steps)
        named = list(self.model.named_parameters())
        plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
        decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
        groups = [
            {"params": plain, "weight_decay": 0.0},
            {"params": decayed, "weight_decay": self.optim.weight_decay},
        ]
        betas = (self.optim.b1, self.optim.b2)
        self.adam = torch.optim.AdamW(groups, 1.0, betas=betas, eps=self.optim.eps)
        self.steps = 0

    def inputs(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        at = np.arange(batch["tokens"].shape[-1])
        real, second = at < batch["size"][:, None], at >= batch["first"][:, None]
        named = {"input_ids": batch["tokens"], "attention_mask": real}
        named["token_type_ids"] = second & real
        return {k: torch.tensor(v, dtype=torch.long) for k, v in named.items()}

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        given = {k: torch.tensor(batch[k]) for k in ("label", "start", "end", "tags") if k in batch}
        if self.kind == "qa":
            asked = {"start_positions": given["start"].long(), "end_positions": given["end"].long()}
        elif self.kind == "tagging":
            tags = given["tags"].long()
            asked = {"labels": torch.where(tags < 0, -100, tags)}
        else:
            label = given["label"]
            asked = {"labels": label.float() if self.kind == "regression" else label.long()}
        return self.model(**self.inputs(batch), **asked).loss

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
        if self.kind == "qa":
            made: Any = {"start": out.start_logits.numpy(), "end": out.end_logits.numpy()}
        else:
            made = out.logits.numpy()
            made = made[:, 0] if self.kind == "regression" else made
        return batch["row"], made


def scores(peer: Peer, task: FinetuneTask, split: str) -> dict[str, float]:
    encoded, by_token = task.encoded[split], peer.kind in ("tagging", "qa")
    outputs = task.batches(task.config, split).predict_all(peer.outputs, by_token)
    return tasks.compute_metrics(task.dataset.task, encoded, outputs, task.dataset.labels)


def timed(task: FinetuneTask, peer: Peer, steps: int) -> dict[str, float]:
    """Median seconds of a step, batch by batch in turns, after each shape was seen once."""
    experiment = task.config
    objective = objectives.build(experiment)
    ours = compile_steps(
        experiment, objective, sharding.make_mesh(config.Mesh(), jax.devices()[:1])
    )
    ours = warm_start.WarmStart(str(experiment.run.init), experiment).apply(ours)
    state, seen = ours.init(), set()
    taken: dict[str, list[float]] = {"bert_jax": [], "transformers": []}
    for batch, _ in zip(
        task.batches(experiment, "train").iterate(0), range(10 * steps), strict=False
    ):
        begin = time.perf_counter()
        state, metrics = ours.train(state, ours.to_devices(batch))
        jax.block_until_ready(metrics)
        between = time.perf_counter()
        peer.step(batch)
        end = time.perf_counter()
        if batch["tokens"].shape in seen:
            taken["bert_jax"].append(between - begin)
            taken["transformers"].append(end - between)
        seen.add(batch["tokens"].shape)
        if len(taken["bert_jax"]) == steps:
            break
    return {who: statistics.median(seconds) for who, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--timed", type=int, default=20, help="batches; 0: none")
    parser.add_argument("--only-time", action="store_true", help="do not train to the end")
    args = parser.parse_args()
    malloc.tune()  # as bert-jax does; PyTorch gains by it, too
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    experiment = config.read_config(args.run / "config.json")
    task = FinetuneTask.of(experiment)
    kind, labels = task.dataset.task_type, len(task.dataset.labels)
    report: dict[str, Any] = {}
    if args.timed:
        taken = timed(task, Peer(experiment, kind, labels), args.timed)
        report["seconds_per_step"] = taken
        print(json.dumps(taken), flush=True)
    if args.only_time:
        return
    peer, headline = Peer(experiment, kind, labels), task.main_metric
    best: tuple[float, dict[str, Any]] | None = None
    steps, batches = experiment.run.steps, task.batches(experiment, "train").iterate(0)
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        loss = peer.step(batch)
        if step % experiment.run.eval_every == 0 or step == steps:
            dev = scores(peer, task, "dev")[headline]
            print(f"step {step}/{steps} loss {loss:.3f} dev {headline} {dev:.4f}", flush=True)
            if best is None or dev > best[0]:
                best = dev, copy.deepcopy(peer.model.state_dict())
    assert best is not None
    peer.model.load_state_dict(best[1])
    theirs = {s: scores(peer, task, s) for s in ("dev", "test") if s in task.encoded}
    report["transformers"] = theirs
    if (ours := results.read_results(args.run)) is not None:
        report["bert_jax"] = {split: ours[split] for split in theirs}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
