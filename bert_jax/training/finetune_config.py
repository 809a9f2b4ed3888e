"""A recipe, a model and a task's data -> the experiment that they make together, and its rows.

encoder           the model's, dropout included
objective         the recipe's, else the heads that the model's family was published with;
                  labels from the data
steps             from epochs, evaluations from those per epoch
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax import config, tasks
from bert_jax.config import Experiment, Supervised
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks import Dataset, EncodedExamples
from bert_jax.training import warm_start
from bert_jax.utils import remote

Parts = Sequence[tuple[int, int]]
ANY = 2**30  # tokens: the model is not known yet
SHARES = (  # numbers of steps, and what gives way to them
    ("run", "steps", "epochs"),
    ("run", "eval_every", "evals_per_epoch"),
    ("optim", "warmup_steps", "warmup_ratio"),
)


def for_model(recipe: Experiment, change: Callable[[Experiment], Experiment]) -> Experiment:
    """The recipe laid out for the model that `change` writes into `run.init`, then changed.

    The encoder is the model's, dropout included. Where the recipe's objective is a plain
    `Supervised()`, the heads are those of the model's family. Steps that `change` asks for beat
    epochs, `eval_every` the evaluations per epoch, and `warmup_steps` the share of warm-up.

    ValueError: a config for pre-training, a number of steps and its share both asked for, and what
    `change` raises.
    """
    if not isinstance(recipe.objective, Supervised):
        raise ValueError(
            f"the config's objective is {type(recipe.objective).__name__}: expected a recipe for "
            "fine-tuning, such as configs/finetune.py"
        )
    asked = change(config.replace(recipe, encoder=dict(max_length=ANY)))
    assert isinstance(asked.objective, Supervised)
    assert asked.run.init is not None
    before = previous_config(remote.local_cache_path(asked.run.dir), asked.run.init)
    there = before is None or (Path(asked.run.init) / "config.json").is_file()
    model = warm_start.load_config(asked.run.init) if there else before
    assert model is not None
    family = warm_start.model_family(model)
    task = asked.objective.task
    if recipe.objective == Supervised():
        heads = config.supervised_objective(family, task)
    else:
        heads = config.replace(recipe.objective, task=task, family=family)
    fields = dict(run={}, optim={})
    beaten = [(g, n, s) for g, n, s in SHARES if _get(asked, g, n) != _get(recipe, g, n)]
    for group, _, share in beaten:
        fields[group][share] = None
    whole = change(config.replace(recipe, encoder=model.encoder, objective=heads, **fields))
    for group, number, share in beaten:
        if _get(whole, group, share) is not None:
            raise ValueError(f"{group}.{number} and {group}.{share} are both given: expected one")
    return whole


def _get(experiment: Experiment, group: str, field: str) -> Any:
    return getattr(getattr(experiment, group), field)


def previous_config(folder: Path, init: str | None) -> Experiment | None:
    """The config of a run folder, or of its first seed, that was begun from this model."""
    for file in (folder / "config.json", folder / "seed_0" / "config.json"):
        if file.is_file():
            before = config.read_config(file)
            return before if before.run.init == init else None
    return None


@dataclass(frozen=True)
class FinetuneTask:
    """The rows of a task, and the experiment with what they decide."""

    experiment: Experiment
    dataset: Dataset
    encoded: dict[str, EncodedExamples]
    tokenizer: Tokenizer

    @staticmethod
    def of(asked: Experiment) -> FinetuneTask:
        objective = asked.objective
        assert isinstance(objective, Supervised)
        if asked.data.path is None:
            raise ValueError("expected --data DIR: a folder with train.jsonl and dev.jsonl")
        dataset = tasks.read_dataset(objective.task, asked.data.path)
        tokenizer = _tokenizer(asked)
        length = asked.data.length or min(objective.default_length, asked.encoder.max_length)
        encoded = {}
        for split, examples in dataset.splits.items():
            training = split == "train"
            if training and objective.family == "electra" and objective.task in ("mrpc", "stsb"):
                examples = tasks.with_swapped_pairs(examples)
            encoded[split] = tasks.encode_examples(
                dataset.task_type,
                examples,
                tokenizer,
                length,
                dataset.labels,
                train=training,
                family=objective.family,
            )
        resolved = _resolve(asked, dataset, len(encoded["train"].rows), length)
        return FinetuneTask(resolved, dataset, encoded, tokenizer)

    @property
    def headline(self) -> str:
        """The metric by which checkpoints are compared."""
        return tasks.main_metric(self.dataset.task, self.dataset)

    def batches(
        self, experiment: Experiment, split: str, parts: Parts = ((0, 1),)
    ) -> LabeledBatches:
        """Of training rows, or of those of another split by micro-batches: a whole batch may not
        fit on the devices. `parts` of them are this process's."""
        pieces = 1 if split == "train" else experiment.optim.accumulate
        return LabeledBatches(
            self.encoded[split].rows,
            experiment.data.batch_size // pieces,
            experiment.encoder.pad_id,
            experiment.run.seed,
            parts,
        )

    @property
    def notes(self) -> list[str]:
        """What was odd in the data, in words."""
        said = list(self.dataset.notes)
        for split, encoded in self.encoded.items():
            said += [f"{split}: {note}" for note in encoded.notes]
        return said


def _tokenizer(asked: Experiment) -> Tokenizer:
    """The run folder's where it was begun, else the model's."""
    folder, init = remote.local_cache_path(asked.run.dir), str(asked.run.init)
    if previous_config(folder, init) is not None:
        for own in (folder / "tokenizer", folder / "seed_0" / "tokenizer"):
            if own.is_dir():
                return tokenizers.load_tokenizer(own)
    return warm_start.load_tokenizer(init)


def _resolve(asked: Experiment, dataset: Dataset, rows: int, length: int) -> Experiment:
    """The config with what the data decides: labels, row length, steps and evaluations."""
    run = asked.run
    steps, every = run.steps, run.eval_every
    if run.epochs is not None:
        steps = max(1, math.ceil(rows * run.epochs / asked.data.batch_size))
    if run.evals_per_epoch is not None:
        every = max(1, round(rows / asked.data.batch_size / run.evals_per_epoch))
    told = hashlib.sha256(repr(dataset.splits).encode()).hexdigest()
    heads: dict[str, Any] = dict(labels=dataset.labels)
    assert isinstance(asked.objective, Supervised)
    if asked.objective.family == "albert" and dataset.labels != tasks.ANSWERABLE_LABELS:
        heads["span"] = "linear"  # as published: its joint head is for SQuAD 2.0 alone
    return config.replace(
        asked,
        objective=heads,
        data=dict(length=length, corpus=told),
        run=dict(steps=steps, eval_every=every),
    )
