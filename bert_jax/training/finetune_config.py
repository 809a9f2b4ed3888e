"""A fine-tuning recipe, a model and a task's data -> the config they make, and its rows.

encoder           the model's, dropout included
objective         the recipe's, else the heads that the model's family was published with;
                  labels from the data
steps             from epochs; evaluations from evaluations per epoch
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax import convert, tasks
from bert_jax.checkpoint import run_dir
from bert_jax.config import Contrastive, Experiment, Supervised, replace, supervised_objective
from bert_jax.config.step_counts import (
    given_step_counts,
    mark_step_counts,
    override_step_counts,
)
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization import coverage
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks import Dataset, EncodedExamples
from bert_jax.training import adapter_base, objective_of_model, warm_start
from bert_jax.training.layer_selection import with_layers
from bert_jax.training.soft_labels import SoftLabels
from bert_jax.training.teacher import load_teacher
from bert_jax.training.unused_fields import refuse_unused_fields
from bert_jax.training.warm_start import WarmStart, previous_config
from bert_jax.utils import hub, remote
from bert_jax.utils.types import Batch, Slices

ANY_LENGTH = 2**30  # tokens: the model is not known yet


def for_model(recipe: Experiment, override: Callable[[Experiment], Experiment]) -> Experiment:
    """Adapt the recipe to the model that `override` writes into `run.init`, then override it.

    The encoder is the model's, dropout included. Where the recipe's objective is a plain
    `Supervised()`, the heads are those of the model's family. An overridden number of steps
    replaces epochs, `eval_every` the evaluations per epoch, `warmup_steps` the warm-up ratio.

    ValueError: a config for pre-training, a number of steps together with its ratio, and what
    `override` raises.
    """
    if not isinstance(recipe.objective, Supervised | Contrastive):
        raise ValueError(
            f"the config's objective is {type(recipe.objective).__name__}: expected a recipe for "
            "fine-tuning, such as configs/finetune.py"
        )
    marked = mark_step_counts(recipe)
    requested = override(replace(marked, encoder=dict(max_length=ANY_LENGTH)))
    assert isinstance(requested.objective, Supervised | Contrastive)
    init = requested.run.init
    assert init is not None
    pinned = warm_start.pin_init(requested)
    commit = pinned.run.init_commit
    model = previous_config(remote.local_cache_path(requested.run.dir), init)
    if model is None or (commit is None and convert.is_model_folder(Path(init))):
        model = warm_start.load_config(hub.at_commit(init, commit))
    family, task = warm_start.model_family(model), requested.objective.task
    heads: Any
    if isinstance(recipe.objective, Contrastive):
        heads = objective_of_model.sentence_objective(recipe.objective, family, init, commit, model)
    elif recipe.objective == Supervised():
        assert isinstance(requested.objective, Supervised)
        heads = supervised_objective(family, requested.objective.task)
    else:
        heads = replace(recipe.objective, task=task, family=family)
        objective_of_model.log_differences(heads, family)
    encoder = with_layers(model.encoder, requested.run.init_layers, init)
    adapted = replace(recipe, encoder=encoder, objective=heads)
    config = override_step_counts(adapted, given_step_counts(requested), override)
    return replace(config, run=dict(init_commit=commit))


@dataclass(frozen=True)
class FinetuneTask:
    """The encoded rows of a task, and the config with what they decide."""

    config: Experiment
    dataset: Dataset
    encoded: dict[str, EncodedExamples]  # by split
    tokenizer: Tokenizer
    soft_labels: SoftLabels | None = None  # a teacher's, for the training rows

    vocabulary = None  # nothing is masked

    @staticmethod
    def of(config: Experiment) -> FinetuneTask:
        """Read `data.path` and encode it. ValueError: no such task, or rows that it cannot have."""
        objective = config.objective
        assert isinstance(objective, Supervised)
        refuse_unused_fields(config)
        if config.data.path is None:
            raise ValueError("expected --data DIR: a folder with train.jsonl and dev.jsonl")
        dataset = tasks.read_dataset(
            objective.task,
            config.data.path,
            unlabeled=objective.unlabeled,
            unknown_labels=objective.unknown_labels,
        )
        tokenizer = run_tokenizer(config)
        length = config.row_length
        encoded = {}
        for split, examples in dataset.splits.items():
            training = split == "train"
            if training and objective.family == "electra" and objective.task in ("mrpc", "stsb"):
                examples = tasks.with_swapped_pairs(examples)
            encoded[split] = tasks.encode_for(
                replace(objective, **_decided_by(dataset)),
                examples,
                tokenizer,
                length,
                train=training,
            )
            covered = coverage.of_rows(tokenizer, encoded[split].rows)
            coverage.log_rows(tokenizer, f"{split} rows", covered)
        train = encoded["train"]
        filled = _fill_in_config(config, dataset, len(train.rows), length)
        filled = adapter_base.pin_base(filled)
        teacher = load_teacher(filled)
        if teacher is None:
            return FinetuneTask(filled, dataset, encoded, tokenizer)
        soft_labels = SoftLabels(teacher, filled, tokenizer, train)
        return FinetuneTask(teacher.pin(filled), dataset, encoded, tokenizer, soft_labels)

    def with_seed(self, i: int) -> FinetuneTask:
        """The same rows for the i-th of several seeds, in a folder of its own."""
        return dataclasses.replace(self, config=config_of_seed(self.config, i))

    @property
    def warm_start(self) -> WarmStart:
        """Every fine-tuning run starts from a model."""
        return WarmStart(str(self.config.run.init), self.config)

    @property
    def main_metric(self) -> str:
        """The metric by which checkpoints are compared."""
        return tasks.main_metric(self.dataset.task, self.dataset)

    def batches(self, config: Experiment, split: str, slices: Slices = ((0, 1),)) -> LabeledBatches:
        """Batches of a split, of which this process reads `slices`. Splits other than train go by
        micro-batches: a whole batch may not fit on the devices."""
        micro_batches = 1 if split == "train" else config.optim.accumulate
        rows = self.encoded[split].rows
        if split == "train" and self.soft_labels is not None:
            rows = self.soft_labels.rows(config, slices)
        return LabeledBatches(
            rows,
            config.data.batch_size // micro_batches,
            config.encoder.pad_id,
            config.run.seed,
            slices,
            config.run.steps if config.data.group_by_length else None,
        )

    def batches_from(self, config: Experiment, slices: Slices) -> Callable[[int], Iterator[Batch]]:
        """step -> the training batches from that step on."""
        return self.batches(config, "train", slices).iterate

    @property
    def label_counts(self) -> list[str]:
        """The rows of every split and of every class in it, one line per split."""
        return tasks.label_counts(self.dataset.splits, self.dataset.labels)

    @property
    def notes(self) -> list[str]:
        """What is unusual in the data, in words."""
        by_split = [f"{split}: {n}" for split, e in self.encoded.items() for n in e.notes]
        return [*self.dataset.notes, *by_split]


def config_of_seed(config: Experiment, i: int) -> Experiment:
    """The config of the i-th of several seeds, in a folder of its own."""
    run = config.run
    return replace(config, run=dict(seed=run.seed + i, dir=f"{run.dir.rstrip('/')}/seed_{i}"))


def run_tokenizer(config: Experiment) -> Tokenizer:
    """The run folder's tokenizer when the run resumes, else the model's."""
    folder, init = remote.local_cache_path(config.run.dir), str(config.run.init)
    config_file = run_dir.config_file(folder)
    if config_file is not None and previous_config(folder, init) is not None:
        saved = config_file.parent / "tokenizer"
        if saved.is_dir():
            return tokenizers.load_tokenizer(saved)
    return warm_start.load_tokenizer(hub.at_commit(init, config.run.init_commit))


def _fill_in_config(config: Experiment, dataset: Dataset, rows: int, length: int) -> Experiment:
    """The config with what the data decides: labels, row length, steps and evaluations."""
    content_hash = hashlib.sha256(repr(dataset.splits).encode()).hexdigest()
    assert isinstance(config.objective, Supervised)
    heads = _decided_by(dataset) | dict(pairs=dataset.pairs)
    heads["label_weights"] = _label_weights(config.objective, dataset)
    thresholds = config.objective.thresholds
    if thresholds and (dataset.task_type != "multilabel" or len(thresholds) != len(dataset.labels)):
        expected = (
            f"one for each of the {len(dataset.labels)} labels"
            if dataset.task_type == "multilabel"
            else f"none, since the task is {dataset.task_type}"
        )
        raise ValueError(f"objective.thresholds has {len(thresholds)} numbers: expected {expected}")
    if config.objective.family == "albert" and dataset.labels != tasks.ANSWERABLE_LABELS:
        heads["span"] = "linear"  # as published: its joint head is for SQuAD 2.0 alone
    config = replace(config, objective=heads, data=dict(length=length))
    return fill_in_steps(config, rows, content_hash)


def fill_in_steps(config: Experiment, rows: int, content_hash: str) -> Experiment:
    """The config with the hash of the data, and with the steps and evaluations that its epochs
    mean for so many training rows."""
    run, batch_size = config.run, config.data.batch_size
    steps, eval_every = run.steps, run.eval_every
    if run.epochs is not None:
        # a last batch that is not full is not trained on, as in BERT's, ALBERT's and ELECTRA's code
        steps = max(1, math.floor(rows * run.epochs / batch_size))
    if run.evals_per_epoch is not None:
        eval_every = max(1, round(rows / batch_size / run.evals_per_epoch))
    return replace(
        config,
        data=dict(corpus=content_hash),
        run=dict(steps=steps, eval_every=eval_every),
    )


def _decided_by(dataset: Dataset) -> dict[str, Any]:
    """The fields of the objective that rows are encoded with."""
    fields: dict[str, Any] = dict(task=dataset.task, labels=dataset.labels)
    if dataset.task_type == "rerank":
        fields["max_grade"] = tasks.max_grade(dataset.splits["train"])
    return fields


def _label_weights(objective: Supervised, dataset: Dataset) -> tuple[float, ...]:
    """The weight of each label; () if they all count alike. ValueError: weights without names."""
    if objective.class_weights is None:
        if objective.label_weights:
            raise ValueError(
                "objective.label_weights follows from the data: leave it out, and name the classes "
                "in objective.class_weights"
            )
        return ()
    multilabel = dataset.task_type == "multilabel"
    examples = dataset.splits["train"]
    return tasks.class_weights(objective.class_weights, dataset.labels, examples, multilabel)
