"""Fine-tuned heads: Hugging Face's classes for fine-tuning to `Supervised` and back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.config import (
    ROBERTA_LIKE,
    Encoder,
    Supervised,
    TaskType,
    head_fields,
)
from bert_jax.convert.hf_families import ELECTRA, MODERNBERT
from bert_jax.convert.hf_long_texts import with_long_texts
from bert_jax.convert.hf_name_rules import Family, NameTable, TaskClass
from bert_jax.tasks.examples import ANSWERABLE_LABELS
from bert_jax.utils.text_lines import without_surrogates
from bert_jax.utils.types import Json, Params, is_number

MULTILABEL = "multi_label_classification"
PROBLEM_TYPES = {  # of the classes for texts
    "classification": "single_label_classification",
    "multilabel": MULTILABEL,
    "regression": "regression",
    "rerank": "regression",
}
# How CrossEncoder of sentence-transformers turns a logit into a score: our rerankers, and those for
# MS MARCO, leave it as it is.
CROSS_ENCODER = "sentence_transformers"
OLD_CROSS_ENCODER = "sbert_ce_default_activation_function"  # its key before version 4
# Our entries of config.json, which transformers does not know.
TEXT_PAIRS = "text_pairs"
NO_ANSWER = "no_answer_threshold"
IDENTITY = "torch.nn.modules.linear.Identity"
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
    architectures = hf.get("architectures") or [None]
    name = architectures[0] if isinstance(architectures, list) else architectures
    task_types: list[TaskType] = [t for t, task in family.tasks.items() if task.name == name]
    if not task_types:
        return None
    own = [m for m in family.tasks[task_types[0]].table if not m.startswith(family.prefix)]
    if all_dropped(own, tuple(drop)):
        return None
    task_type = task_types[0]
    labels: tuple[str, ...] = ()
    if task_type in ("classification", "tagging"):
        labels = _labels(hf)
    if task_type == "qa" and NO_ANSWER in hf:
        labels = ANSWERABLE_LABELS
    thresholds: tuple[float, ...] = ()
    if task_type == "classification" and hf.get("problem_type") == MULTILABEL:
        task_type, thresholds = "multilabel", _thresholds(hf, labels)
    elif task_type == "classification" and _is_regression(family, hf, labels):
        task_type, labels = "regression", () if labels == ("LABEL_0",) else labels
        settings = hf.get(CROSS_ENCODER)
        activation = settings.get("activation_fn") if isinstance(settings, dict) else None
        if IDENTITY in (activation, hf.get(OLD_CROSS_ENCODER)):
            task_type = "rerank"
    if task_type == "choice" and family is ELECTRA:
        _check_summary(hf)
    head: Any = DEFAULT_HEADS.get(family.name, "pooler")
    init: Any = head_fields(family.name, task_type)["init"]
    dropout = _dropout(family, hf, task_type)
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
        pairs=_text_pairs(hf),
        no_answer_threshold=_no_answer_threshold(hf),
    )
    return with_long_texts(objective, hf)


def drop_flag(family: Family, task_type: TaskType) -> str:
    """The flag of `import` that leaves out the head of a task."""
    key: TaskType = "classification" if task_type in PROBLEM_TYPES else task_type
    table = family.tasks[key].table
    modules = {m.split(".")[0] for m in table if not m.startswith(family.prefix)}
    return f"--drop {' '.join(sorted(modules))}"


def all_dropped(modules: Collection[str], drop: tuple[str, ...]) -> bool:
    """Whether all tensors of a head's modules are dropped."""
    names = [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    return bool(drop) and all(name.startswith(drop) for name in names)


def _labels(hf: Json) -> tuple[str, ...]:
    """The label names in order; LABEL_0, ... as in Hugging Face if there are none."""
    id2label, count = hf.get("id2label"), hf.get("num_labels", 2)
    if id2label is None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        return tuple(f"LABEL_{i}" for i in range(count))
    if isinstance(id2label, dict) and id2label:
        by_number = {str(k): v for k, v in id2label.items()}
        numbers = [str(i) for i in range(len(id2label))]
        if sorted(by_number) == sorted(numbers):
            return tuple(without_surrogates(str(by_number[i])) for i in numbers)
    raise ValueError(
        f"config.json has id2label {id2label!r}: expected a name for each number from 0 on"
    )


def _thresholds(hf: Json, labels: tuple[str, ...]) -> tuple[float, ...]:
    """The `thresholds` of an exported multi-label head, in the order of its labels; () if it has
    none, which means .5."""
    by_label = hf.get("thresholds")
    if by_label is None:
        return ()
    if (
        not isinstance(by_label, dict)
        or sorted(by_label) != sorted(labels)
        or not all(is_number(t) and 0 <= t <= 1 for t in by_label.values())
    ):
        raise ValueError(
            f"config.json has thresholds {by_label!r:.80}: expected a number for each label, or "
            "remove the entry for 0.5"
        )
    return tuple(by_label[label] for label in labels)


def _no_answer_threshold(hf: Json) -> float:
    """That of an export of ours that was trained on questions without an answer, else 0."""
    threshold = hf.get(NO_ANSWER, 0.0)
    if not is_number(threshold):
        raise ValueError(
            f"config.json has {NO_ANSWER} {threshold!r:.80}: expected a number, or no such entry "
            "where every question has an answer"
        )
    return float(threshold)


def _text_pairs(hf: Json) -> bool | None:
    """Whether an export of ours was trained on pairs of texts; None if it does not say."""
    pairs = hf.get(TEXT_PAIRS)
    if pairs is not None and not isinstance(pairs, bool):
        raise ValueError(
            f"config.json has {TEXT_PAIRS} {pairs!r:.80}: expected true or false; correct or "
            "remove the entry"
        )
    return pairs


def _is_regression(family: Family, hf: Json, labels: tuple[str, ...]) -> bool:
    problem = hf.get("problem_type")
    if problem is None:
        return len(labels) == 1
    if problem == "regression" and len(labels) == 1:
        return True
    if problem == "single_label_classification":
        return False
    raise ValueError(
        f"config.json has problem_type {problem!r} with {len(labels)} labels: expected "
        "single_label_classification, multi_label_classification, or regression of one number; "
        f"for the encoder alone, drop the head's tensors: {drop_flag(family, 'classification')}"
    )


def _check_summary(hf: Json) -> None:
    for key, required in (("type", "first"), ("use_proj", True), ("activation", "gelu")):
        value = hf.get(f"summary_{key}", required)
        if value != required:
            raise ValueError(
                f"config.json has summary_{key} {value!r}: only {required!r} can be imported"
            )


def _dropout(family: Family, hf: Json, task_type: str) -> float:
    general = "dropout" if family.name == "distilbert" else "hidden_dropout_prob"
    rates = [hf.get(key) for key in (*_rate_keys(family, task_type), general)]
    default = 0.0 if family is MODERNBERT else 0.1
    rate = next((r for r in rates if r is not None), default)
    if not isinstance(rate, int | float):
        raise ValueError(f"config.json has a dropout of {rate!r} for its head: expected a number")
    return float(rate)


def _rate_keys(family: Family, task_type: str) -> tuple[str, ...]:
    """The config.json keys of the head's dropout."""
    if family.name == "modernbert":
        return ("classifier_dropout",)
    if family.name == "distilbert":
        own = {"tagging": (), "qa": ("qa_dropout",)}
        return own.get(task_type, ("seq_classif_dropout",))
    if task_type == "choice" and (family is ELECTRA or family.name in ROBERTA_LIKE):
        return ("summary_last_dropout",) if family is ELECTRA else ()
    return ("classifier_dropout_prob",) if family.name == "albert" else ("classifier_dropout",)


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
        params = {**params, "label": rescale_label_head(params["label"], task)}
        if family is ELECTRA and task.head == "first":
            params["label"] = _with_gelu_layer(params["label"], encoder.hidden_size)
        elif task.head != head:
            raise ValueError(_no_such_head(name, task, head))
    return HfTask(name, table, params, _head_config(family, task))


def _no_such_head(name: str, task: Supervised, head: str) -> str:
    return (
        f"objective.head is {task.head}: Hugging Face's {name} has no such head; fine-tune with "
        f"--objective.head {head}, {ALTERNATIVE}"
    )


def rescale_label_head(label: Params, task: Supervised) -> Params:
    """The head's parameters multiplied by `task.scale`, so that outputs are in the labels' unit."""
    if task.scale == 1.0:
        return label
    return {**label, "dense": jax.tree.map(lambda x: x * np.float32(task.scale), label["dense"])}


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
    out: Json = dict.fromkeys(_rate_keys(family, task.task_type), task.dropout)
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
        out["thresholds"] = dict(zip(task.labels, task.thresholds, strict=True))
    return out
