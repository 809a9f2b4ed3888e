"""Fine-tuned heads: Hugging Face's classes for fine-tuning to `Supervised` and back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.config import Encoder, Supervised, TaskType, head_fields
from bert_jax.convert.hf_config_keys import architecture
from bert_jax.convert.hf_families import ELECTRA, MODERNBERT
from bert_jax.convert.hf_long_texts import with_long_texts
from bert_jax.convert.hf_name_rules import Family, NameTable, TaskClass
from bert_jax.convert.hf_task_keys import (
    CROSS_ENCODER,
    IDENTITY,
    MULTILABEL,
    NO_ANSWER,
    OLD_CROSS_ENCODER,
    PROBLEM_TYPES,
    TEXT_PAIRS,
    THRESHOLDS,
    check_summary,
    dropout_keys,
    is_regression,
    read_dropout,
    read_labels,
    read_no_answer_threshold,
    read_text_pairs,
    read_thresholds,
)
from bert_jax.tasks.examples import ANSWERABLE_LABELS
from bert_jax.utils.types import Json, Params

ALTERNATIVE = "or export it to onnx, orbax or stablehlo"
# `Supervised.head` of a family's classes; others: pooler
DEFAULT_HEADS = {"electra": "gelu", "distilbert": "relu", "modernbert": "prediction"}


class HfTask(NamedTuple):
    """A fine-tuned network as a Hugging Face class."""

    name: str
    table: NameTable
    params: Params  # native names, laid out as the table expects them
    config: Json  # the keys of config.json for the head


def task_from_hf_config(family: Family, hf: Json, drop: Collection[str] = ()) -> Supervised | None:
    """The task of the class in a config.json. None if it is not a class for fine-tuning, or if
    all tensors of the head are dropped.

    ValueError: labels or a problem type that no head supports.
    """
    name = architecture(hf)
    task_types: list[TaskType] = [t for t, task in family.tasks.items() if task.name == name]
    if not task_types:
        return None
    own = [m for m in family.tasks[task_types[0]].table if not m.startswith(family.prefix)]
    if all_dropped(own, tuple(drop)):
        return None
    task_type = task_types[0]
    labels: tuple[str, ...] = ()
    if task_type in ("classification", "tagging"):
        labels = read_labels(hf)
    if task_type == "qa" and NO_ANSWER in hf:
        labels = ANSWERABLE_LABELS
    thresholds: tuple[float, ...] = ()
    if task_type == "classification" and hf.get("problem_type") == MULTILABEL:
        task_type, thresholds = "multilabel", read_thresholds(hf, labels)
    elif task_type == "classification" and is_regression(family, hf, labels):
        task_type, labels = "regression", () if labels == ("LABEL_0",) else labels
        settings = hf.get(CROSS_ENCODER)
        activation = settings.get("activation_fn") if isinstance(settings, dict) else None
        if IDENTITY in (activation, hf.get(OLD_CROSS_ENCODER)):
            task_type = "rerank"
    if task_type == "choice" and family is ELECTRA:
        check_summary(hf)
    head: Any = DEFAULT_HEADS.get(family.name, "pooler")
    init: Any = head_fields(family.name, task_type)["init"]
    dropout = read_dropout(family, hf, task_type)
    pooling: Any = hf.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise ValueError(f"config.json has classifier_pooling {pooling!r}: expected cls or mean")
    name: Any = family.name
    objective = Supervised(
        task_type,
        name,
        head,
        labels=labels,
        thresholds=thresholds,
        dropout=dropout,
        init=init,
        pooling=pooling,
        pairs=read_text_pairs(hf),
        no_answer_threshold=read_no_answer_threshold(hf),
    )
    return with_long_texts(objective, hf)


def all_dropped(modules: Collection[str], drop: tuple[str, ...]) -> bool:
    """Whether all tensors of a head's modules are dropped."""
    names = [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    return bool(drop) and all(name.startswith(drop) for name in names)


def task_table(family: Family, task: Supervised) -> NameTable:
    """The names of the task head, Hugging Face to native."""
    return _task(family, task).table


def _task(family: Family, task: Supervised) -> TaskClass:
    return family.tasks["classification" if task.task_type in PROBLEM_TYPES else task.task_type]


# ---- native to Hugging Face


def task_to_hf(family: Family, encoder: Encoder, task: Supervised, params: Params) -> HfTask:
    """The Hugging Face class that computes the same as the task's head.

    ELECTRA's own head is one dense layer; Hugging Face's has two with a GELU between them. Since
    gelu(x) - gelu(-x) = x, the second can represent the first: its first layer computes the
    logits and their negatives, its second layer subtracts them.

    ValueError: there is none.
    """
    name, table = _task(family, task)
    if task.task_type == "qa" and task.span == "joint":
        raise ValueError(
            "Hugging Face has no class with joint spans: fine-tune with --objective.span linear, "
            f"{ALTERNATIVE}"
        )
    head = DEFAULT_HEADS.get(family.name, "pooler")
    if family is MODERNBERT and task.head != head:
        raise ValueError(_no_such_head(name, task, head))
    if task.task_type in (*PROBLEM_TYPES, "choice"):
        params = rescale_label_head(params, task)
        if family is ELECTRA and task.head == "first":
            label = _with_gelu_layer(params["label"], encoder.hidden_size)
            params = {**params, "label": label}
        elif task.head != head:
            raise ValueError(_no_such_head(name, task, head))
    return HfTask(name, table, params, _head_config(family, task))


def _no_such_head(name: str, task: Supervised, head: str) -> str:
    return (
        f"objective.head is {task.head}: Hugging Face's {name} has no such head; fine-tune with "
        f"--objective.head {head}, {ALTERNATIVE}"
    )


def rescale_label_head(params: Params, task: Supervised | None) -> Params:
    """The parameters of a network with those of the task's last layer multiplied by `task.scale`,
    so that outputs are in the labels' unit."""
    if task is None or task.scale == 1.0 or "label" not in params:
        return params
    label = params["label"]
    dense = jax.tree.map(lambda x: x * np.float32(task.scale), label["dense"])
    return {**params, "label": {**label, "dense": dense}}


def _with_gelu_layer(label: Params, width: int) -> Params:
    kernel, bias = (np.asarray(label["dense"][k]) for k in ("kernel", "bias"))
    n = len(bias)
    if 2 * n > width:
        raise ValueError(
            f"Hugging Face's ELECTRA has a GELU before its last layer. A head without one can be "
            f"converted for at most {width // 2} labels, and this one has {n}: fine-tune with "
            f"--objective.head gelu, {ALTERNATIVE}"
        )
    rest = np.zeros((width, width - 2 * n), np.float32)
    first = {
        "kernel": np.concatenate([kernel, -kernel, rest], axis=1),
        "bias": np.concatenate([bias, -bias, rest[0]]),
    }
    identity = np.eye(n, dtype=np.float32)
    last = {
        "kernel": np.concatenate([identity, -identity, rest[:n].T]),
        "bias": np.zeros(n, np.float32),
    }
    return {"first": first, "dense": last}


def _head_config(family: Family, task: Supervised) -> Json:
    out: Json = dict.fromkeys(dropout_keys(family, task.task_type), task.dropout)
    if family is MODERNBERT:
        out["classifier_pooling"] = task.pooling
    if task.task_type in (*PROBLEM_TYPES, "tagging"):
        names = task.labels or [f"LABEL_{i}" for i in range(task.num_outputs)]
        out["id2label"] = {str(i): name for i, name in enumerate(names)}
        out["label2id"] = {name: i for i, name in enumerate(names)}
    if task.task_type in PROBLEM_TYPES:
        out["problem_type"] = PROBLEM_TYPES[task.task_type]
    if task.task_type == "rerank":
        out[CROSS_ENCODER] = {"activation_fn": IDENTITY}
    if task.pairs is not None and task.task_type in ("classification", "multilabel", "regression"):
        out[TEXT_PAIRS] = task.pairs
    if task.task_type == "qa" and task.labels:
        out[NO_ANSWER] = task.no_answer_threshold
    if task.thresholds:
        out[THRESHOLDS] = dict(zip(task.labels, task.thresholds, strict=True))
    return out
