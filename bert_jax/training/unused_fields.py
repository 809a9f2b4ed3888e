"""Fields that would change nothing in a run, or something else than their name says. A new run
refuses them; one that has begun goes on as it began, and folders with them can be loaded."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import Any

from bert_jax.checkpoint import run_dir
from bert_jax.config import Contrastive, Experiment, Masked, ReplacedTokens, Supervised
from bert_jax.config.contrastive import MIN_LEARNED_TEMPERATURE
from bert_jax.utils import remote

logger = logging.getLogger(__name__)

VOCABULARY_TARGETS = ("replace_mlm", "all_tokens_mlm")  # of ELECTRA's discriminator
FINE_TUNING = "the run is fine-tuning"
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
    _refuse_fields_of_what_is_off(config)
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
        advice = "it learns the teacher's outputs alone"
        _refuse_changed("distill", config.distill, PRETRAINING_DISTILL, FINE_TUNING, advice)
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
        **dict.fromkeys(("max_negatives", "learn_temperature", "symmetric"), loss == "ranking"),
    }
    unused = {name for name, use in used.items() if not use}
    _refuse_changed("objective", objective, unused, f"the loss is {loss}")
    if loss == "ranking":
        _refuse_temperature_of_cosines(objective)
    elif not objective.normalize:
        raise ValueError(
            f"objective.normalize is False, and the loss {loss} compares vectors by their cosine: "
            "add --objective.normalize (a model that compares by dot product begins without it)"
        )


def _refuse_changed(
    section: str, part: Any, names: Iterable[str], reason: str, advice: str = ""
) -> None:
    """ValueError: one of these fields of a section, which have no effect, is not at its default.
    The message ends with the `advice`: what there is instead."""
    for name, default in _changed(part, names).items():
        raise ValueError(
            f"{section}.{name} is {getattr(part, name)!r}, and {reason}, which does not use it: "
            f"leave it out (default: {default!r}){advice and '; '}{advice}"
        )


def _changed(part: Any, names: Iterable[str]) -> dict[str, Any]:
    """The default of each of these fields that is not at it."""
    defaults = {field.name: field.default for field in dataclasses.fields(part)}
    return {n: defaults[n] for n in sorted(names) if getattr(part, n) != defaults[n]}


def _refuse_fields_of_what_is_off(config: Experiment) -> None:
    """ValueError: a field of an optimizer, guard or adapters that the run does not use."""
    optim, lora = config.optim, config.lora
    if optim.schedule != "trapezoid":
        for name in _changed(optim, ("cooldown_ratio", "cooldown_shape")):  # may be the config's
            value = getattr(optim, name)
            logger.warning(
                "optim.%s is %s and has no effect: optim.schedule is %s, not trapezoid",
                *(name, value, optim.schedule),
            )
    if optim.name != "muon":
        _refuse_changed("optim", optim, ("momentum",), f"optim.name is {optim.name}")
    elif lora.enabled:
        _refuse_changed("optim", optim, ("momentum",), f"lora.rank is {lora.rank}")
    if not lora.enabled:
        _refuse_changed("lora", lora, ("alpha", "dropout", "targets"), "lora.rank is None")
    if config.guard.spike == "off":
        names = ("spike_factor", "spike_window")
        _refuse_changed("guard", config.guard, names, "guard.spike is off")


def has_begun(config: Experiment) -> bool:
    """Whether the run's folder holds the config of a run, or of its first seed."""
    return run_dir.config_file(remote.local_cache_path(config.run.dir)) is not None


def _has_two_heads(task: Supervised) -> bool:
    return task.task_type == "qa" and (task.head, task.span) == ("prediction", "joint")


def _is_pairs(objective: object) -> bool:
    return isinstance(objective, Contrastive) and objective.task == "pairs"


def _refuse_corpus_fields(config: Experiment) -> None:
    advice = "labeled rows are read from --data DIR in batches of data.batch_size"
    _refuse_changed("data", config.data, ("stages", "mix", "mix_exponent"), FINE_TUNING, advice)
    _refuse_changed("run", config.run, ("eval_batches", "init_positions"), FINE_TUNING)
    if _is_pairs(config.objective):
        config.distill.check_unused()


def _refuse_finetuning_fields(config: Experiment) -> None:
    positions = config.run.init_positions
    if config.run.init is None and positions != "model":
        raise ValueError(
            f"run.init_positions is {positions}, but there is no model to start from: give --init "
            "MODEL, or --run.init-positions model"
        )
    names = ("epochs", "evals_per_epoch", "select")
    advice = "it has run.steps and run.eval_every, and keeps the newest and the best checkpoints"
    _refuse_changed("run", config.run, names, "the run is pre-training", advice)


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
    _refuse_changed("objective", task, unused, kind)
    if task.long != "windows":
        names = ("window_pool", "max_windows")
        _refuse_changed("objective", task, names, f"objective.long is {task.long}")


def _refuse_temperature_of_cosines(objective: Contrastive) -> None:
    """ValueError: dot products with the default temperature, which is for cosines."""
    if not objective.normalize and objective.temperature == Contrastive.temperature:
        raise ValueError(
            f"objective.normalize is False and objective.temperature {objective.temperature}, "
            "which is for cosines: dot products that are divided by it leave the softmax without "
            "a gradient: add --objective.temperature 1"
        )


def _refuse_contrastive_fields(objective: Contrastive) -> None:
    if objective.learn_temperature and objective.temperature < MIN_LEARNED_TEMPERATURE:
        raise ValueError(
            f"objective.temperature is {objective.temperature} and objective.learn_temperature on: "
            f"expected at least {MIN_LEARNED_TEMPERATURE}, the lowest one that is learned"
        )
    if objective.task == "pairs":
        return
    _refuse_temperature_of_cosines(objective)
    names = ("margin", "query_prompt", "document_prompt", "max_negatives")
    advice = "rows of a corpus have no prompts and no negatives"
    _refuse_changed("objective", objective, names, f"objective.task is {objective.task}", advice)
