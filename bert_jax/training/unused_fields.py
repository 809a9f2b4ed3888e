"""Fields that would change nothing in a run, or something else than their name says. A new run
refuses them; one that has begun goes on as it began, and folders with them can be loaded."""

from __future__ import annotations

from bert_jax.config import Contrastive, Experiment, Masked, ReplacedTokens, Supervised
from bert_jax.config.contrastive import MIN_LEARNED_TEMPERATURE
from bert_jax.utils import remote


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
    if isinstance(objective, Supervised) and _has_two_heads(objective):
        raise ValueError(
            "objective.head is prediction and objective.span joint, which has a head of its own: "
            "add --objective.span linear, or leave objective.head out"
        )
    if isinstance(objective, Contrastive):
        _refuse_contrastive_fields(objective)


def refuse_fields_of_ranking(config: Experiment, loss: str) -> None:
    """ValueError: a new run on scored pairs has a field that its loss does not use."""
    objective = config.objective
    assert isinstance(objective, Contrastive)
    if loss == "ranking" or has_begun(config):
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


def _refuse_contrastive_fields(objective: Contrastive) -> None:
    if objective.learn_temperature and objective.temperature < MIN_LEARNED_TEMPERATURE:
        raise ValueError(
            f"objective.temperature is {objective.temperature} and objective.learn_temperature on: "
            f"expected at least {MIN_LEARNED_TEMPERATURE}, the lowest one that is learned"
        )
    if objective.task == "pairs":
        return
    for name in ("query_prompt", "document_prompt", "max_negatives"):
        value = getattr(objective, name)
        if value not in ("", None):
            raise ValueError(
                f"objective.{name} is {value!r} and objective.task {objective.task}: rows of a "
                "corpus have no prompts and no negatives, so leave it out"
            )
