"""Fields that would change nothing in a run, or something else than their name says. A new run
refuses them; one that has begun goes on as it began, and folders with them can be loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from bert_jax.config import Contrastive, Experiment, Masked, ReplacedTokens, Supervised
from bert_jax.config.contrastive import MIN_LEARNED_TEMPERATURE
from bert_jax.config.distill import Distill
from bert_jax.utils import remote

VOCABULARY_TARGETS = ("replace_mlm", "all_tokens_mlm")  # of ELECTRA's discriminator
PRETRAINING_DISTILL = ("relation_weight", "logit_weight", "teacher_layer", "relation_heads")


def refuse_unused_fields(config: Experiment) -> None:
    """ValueError: a new run has a field that would have no effect; the message says what to do."""
    if has_begun(config):
        return
    objective = config.objective
    if config.data.group_by_length and not isinstance(objective, Supervised):
        raise ValueError(
            "data.group_by_length is on, but it is for fine-tuning on labeled rows, and not for "
            "pairs or pre-training: leave it out"
        )
    if isinstance(objective, Supervised) or _is_pairs(objective):
        _refuse_corpus_fields(config)
    else:
        _refuse_finetuning_fields(config)
    if isinstance(objective, Masked | ReplacedTokens):
        masking = objective.masking
        if masking.granularity == "ngram" and masking.max_ngram == 1:
            raise ValueError(
                "objective.masking.granularity is ngram and objective.masking.max_ngram 1, which "
                "masks whole words: set max_ngram to 2 or more (ALBERT: 3), or granularity to word"
            )
    if isinstance(objective, ReplacedTokens) and objective.target in VOCABULARY_TARGETS:
        default = ReplacedTokens().weight
        if objective.weight == default:
            raise ValueError(
                f"objective.target is {objective.target} and objective.weight {default:g}, which "
                "is for detecting replaced tokens: add --objective.weight 1"
            )
    if isinstance(objective, Supervised):
        _refuse_fields_of_other_tasks(objective)
        _refuse_distill_fields(config.distill)
    if isinstance(objective, Supervised) and _has_two_heads(objective):
        raise ValueError(
            "objective.head is prediction and objective.span joint, which has a head of its own: "
            "add --objective.span linear, or leave objective.head out"
        )
    if isinstance(objective, Contrastive):
        _refuse_contrastive_fields(objective)


def refuse_fields_of_other_losses(config: Experiment, loss: str) -> None:
    """ValueError: a new run on pairs has a field that its loss does not use."""
    objective = config.objective
    assert isinstance(objective, Contrastive)
    if has_begun(config):
        return
    used = {
        "margin": loss == "margin",
        "temperature": loss in ("ranking", "cosent"),
        "max_negatives": loss == "ranking",
    }
    _refuse_changed(objective, {n for n, use in used.items() if not use}, f"the loss is {loss}")
    if loss == "ranking":
        return
    if not objective.normalize:
        raise ValueError(
            f"objective.normalize is False, and the loss {loss} compares vectors by their cosine: "
            "add --objective.normalize (a model that compares by dot product begins without it)"
        )
    for name in ("learn_temperature", "symmetric"):
        if getattr(objective, name):
            raise ValueError(
                f"objective.{name} is on, but the loss {loss} of scored pairs does not use it: "
                "leave it out"
            )


def _refuse_changed(objective: Any, names: Iterable[str], reason: str) -> None:
    """ValueError: one of these fields, which have no effect, is not at its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(objective)}
    for name in sorted(names):
        value = getattr(objective, name)
        if value != defaults[name]:
            raise ValueError(
                f"objective.{name} is {value}, and {reason}, which does not use it: leave it out"
            )


def has_begun(config: Experiment) -> bool:
    """Whether the run's folder holds the config of a run, or of its first seed."""
    folder = remote.local_cache_path(config.run.dir)
    return any((folder / name).is_file() for name in ("config.json", "seed_0/config.json"))


def _has_two_heads(task: Supervised) -> bool:
    return task.task_type == "qa" and (task.head, task.span) == ("prediction", "joint")


def _is_pairs(objective: object) -> bool:
    return isinstance(objective, Contrastive) and objective.task == "pairs"


def _refuse_corpus_fields(config: Experiment) -> None:
    for name in ("stages", "mix", "mix_exponent"):
        value = getattr(config.data, name)
        if value is not None:
            raise ValueError(
                f"data.{name} is {value}, but it is for pre-training on corpora: leave it out; "
                "labeled rows are read from --data DIR in batches of data.batch_size"
            )


def _refuse_finetuning_fields(config: Experiment) -> None:
    for name, default in (("epochs", None), ("evals_per_epoch", None), ("select", "best")):
        value = getattr(config.run, name)
        if value != default:
            raise ValueError(
                f"run.{name} is {value}, but it is for fine-tuning: leave it out; pre-training has "
                "run.steps and run.eval_every, and keeps its newest checkpoints and the best one"
            )


def _refuse_fields_of_other_tasks(task: Supervised) -> None:
    per_row = task.task_type not in ("tagging", "qa")
    used = {
        "pooling": task.head == "prediction",
        "scale": task.task_type == "regression",
        "stride": task.task_type == "qa",
        "tag_scoring": task.task_type == "tagging",
        "rank_loss": task.task_type == "rerank",
        "max_documents": task.task_type == "rerank",
    }
    unused = {name for name, use in used.items() if not use}
    kind = f"the task is {task.task_type}" + (f" with the head {task.head}" if per_row else "")
    _refuse_changed(task, unused, kind)
    if task.long != "windows":
        _refuse_changed(task, ("window_pool", "max_windows"), f"objective.long is {task.long}")


def _refuse_distill_fields(distill: Distill) -> None:
    for field in dataclasses.fields(distill):
        if field.name in PRETRAINING_DISTILL and getattr(distill, field.name) != field.default:
            raise ValueError(
                f"distill.{field.name} is {getattr(distill, field.name)}, but it is for "
                "pre-training: leave it out; fine-tuning learns the teacher's outputs alone"
            )


def _refuse_contrastive_fields(objective: Contrastive) -> None:
    if objective.learn_temperature and objective.temperature < MIN_LEARNED_TEMPERATURE:
        raise ValueError(
            f"objective.temperature is {objective.temperature} and objective.learn_temperature on: "
            f"expected at least {MIN_LEARNED_TEMPERATURE}, the lowest one that is learned"
        )
    if objective.task == "pairs":
        return
    _refuse_changed(objective, ("margin",), f"objective.task is {objective.task}")
    for name in ("query_prompt", "document_prompt", "max_negatives"):
        value = getattr(objective, name)
        if value not in ("", None):
            raise ValueError(
                f"objective.{name} is {value!r} and objective.task {objective.task}: rows of a "
                "corpus have no prompts and no negatives, so leave it out"
            )
