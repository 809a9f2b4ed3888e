"""Fine-tuned heads: their config.json and classes, and our `Supervised`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.config import Encoder, Supervised, TaskType, head_fields
from bert_jax.convert.hf_name_rules import ELECTRA, ROBERTA, Family, NameTable, TaskClass
from bert_jax.utils.types import Json, Params

ALTERNATIVE = "or export it to orbax or stablehlo"


class HfTask(NamedTuple):
    """A fine-tuned network as a class of theirs."""

    name: str
    table: NameTable
    params: Params  # ours, laid out as the table has them
    config: Json  # what its config.json has beside the encoder's


def task_from_hf_config(family: Family, hf: Json, drop: Collection[str] = ()) -> Supervised | None:
    """The task of the class that a config.json names; None where it is none of fine-tuning, or
    where all tensors of the head are among those that are dropped.

    ValueError: labels, or a kind of task, that we have no head for.
    """
    architectures = hf.get("architectures") or [None]
    name = architectures[0] if isinstance(architectures, list) else architectures
    kinds: list[TaskType] = [k for k, task in family.tasks.items() if task.name == name]
    if not kinds or _all_dropped(family, family.tasks[kinds[0]], tuple(drop)):
        return None
    kind = kinds[0]
    labels: tuple[str, ...] = ()
    if kind in ("classification", "tagging"):
        labels = _labels(hf)
    if kind == "classification" and _is_regression(hf, labels):
        kind, labels = "regression", () if labels == ("LABEL_0",) else labels
    if kind == "choice" and family is ELECTRA:
        _check_summary(hf)
    head: Any = "gelu" if family is ELECTRA else "pooler"
    draw: Any = head_fields(family.name, kind)["init"]
    rate = _dropout(family, hf, kind)
    body: Any = family.name
    return Supervised(kind, body, head, labels=labels, dropout=rate, init=draw)


def _all_dropped(family: Family, task: TaskClass, drop: tuple[str, ...]) -> bool:
    own = [at for at in task.table if not at.startswith(family.prefix)]
    names = [f"{at}.{part}" for at in own for part in ("weight", "bias")]
    return bool(drop) and all(name.startswith(drop) for name in names)


def _labels(hf: Json) -> tuple[str, ...]:
    """Names by number; those that have none are called as theirs call them."""
    named, count = hf.get("id2label"), hf.get("num_labels", 2)
    if named is None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
        return tuple(f"LABEL_{i}" for i in range(count))
    if isinstance(named, dict) and named:
        by_number = {str(k): v for k, v in named.items()}
        wanted = [str(i) for i in range(len(named))]
        if sorted(by_number) == sorted(wanted):
            return tuple(str(by_number[i]) for i in wanted)
    raise ValueError(
        f"config.json has id2label {named!r}: expected a name for each number from 0 on"
    )


def _is_regression(hf: Json, labels: tuple[str, ...]) -> bool:
    problem = hf.get("problem_type")
    if problem is None:
        return len(labels) == 1
    if problem == "regression" and len(labels) == 1:
        return True
    if problem == "single_label_classification":
        return False
    raise ValueError(
        f"config.json has problem_type {problem!r} with {len(labels)} labels: expected "
        "single_label_classification, or regression of one number; for the encoder alone, drop "
        "the head's tensors: --drop classifier"
    )


def _check_summary(hf: Json) -> None:
    for key, only in (("type", "first"), ("use_proj", True), ("activation", "gelu")):
        value = hf.get(f"summary_{key}", only)
        if value != only:
            raise ValueError(
                f"config.json has summary_{key} {value!r}: only {only!r} can be imported"
            )


def _dropout(family: Family, hf: Json, kind: str) -> float:
    rates = [hf.get(key) for key in (*_rate_keys(family, kind), "hidden_dropout_prob")]
    rate = next((r for r in rates if r is not None), 0.1)
    if not isinstance(rate, int | float):
        raise ValueError(f"config.json has a dropout of {rate!r} for its head: expected a number")
    return float(rate)


def _rate_keys(family: Family, kind: str) -> tuple[str, ...]:
    """Where the head's own dropout stands."""
    if kind == "choice" and family in (ELECTRA, ROBERTA):
        return ("summary_last_dropout",) if family is ELECTRA else ()
    return ("classifier_dropout_prob",) if family.name == "albert" else ("classifier_dropout",)


def task_table(family: Family, task: Supervised) -> NameTable:
    return _task(family, task).table


def _task(family: Family, task: Supervised) -> TaskClass:
    return family.tasks["classification" if task.task_type == "regression" else task.task_type]


# ---- ours to theirs


def task_to_hf(family: Family, encoder: Encoder, task: Supervised, params: Params) -> HfTask:
    """The class of theirs that computes what the task's head does.

    ELECTRA's own head is one dense layer, Hugging Face's has a GELU before it. Since
    gelu(x) - gelu(-x) = x, theirs can stand for ours: its first layer gives the logits and
    their negatives, its second subtracts.

    ValueError: none does.
    """
    name, table = _task(family, task)
    if task.task_type == "qa" and task.span == "joint":
        raise ValueError(
            "Hugging Face has no class for joint spans: fine-tune with --objective.span linear, "
            f"{ALTERNATIVE}"
        )
    if task.task_type in ("classification", "regression", "choice"):
        params = {**params, "label": rescale_label_head(params["label"], task)}
        if family is ELECTRA and task.head == "first":
            params["label"] = _through_gelu(params["label"], encoder.hidden_size)
        elif task.head != ("gelu" if family is ELECTRA else "pooler"):
            raise ValueError(
                f"objective.head is {task.head}: Hugging Face's {name} has no such head; "
                f"fine-tune with --objective.head {'gelu' if family is ELECTRA else 'pooler'}, "
                f"{ALTERNATIVE}"
            )
    return HfTask(name, table, params, _config(family, task))


def rescale_label_head(label: Params, task: Supervised) -> Params:
    """The head's parameters such that it answers in the labels' own unit."""
    if task.scale == 1.0:
        return label
    return {**label, "dense": jax.tree.map(lambda x: x * np.float32(task.scale), label["dense"])}


def _through_gelu(label: Params, width: int) -> Params:
    kernel, bias = (np.asarray(label["dense"][k]) for k in ("kernel", "bias"))
    n = len(bias)
    if 2 * n > width:
        raise ValueError(
            f"Hugging Face's ELECTRA has a GELU before its last layer; {n} labels of a head "
            f"without one need {2 * n} of its {width} units: fine-tune with --objective.head "
            f"gelu, {ALTERNATIVE}"
        )
    rest = np.zeros((width, width - 2 * n), np.float32)
    first = {
        "kernel": np.concatenate([kernel, -kernel, rest], axis=1),
        "bias": np.concatenate([bias, -bias, rest[0]]),
    }
    one = np.eye(n, dtype=np.float32)
    last = {"kernel": np.concatenate([one, -one, rest[:n].T]), "bias": np.zeros(n, np.float32)}
    return {"first": first, "dense": last}


def _config(family: Family, task: Supervised) -> Json:
    out: Json = dict.fromkeys(_rate_keys(family, task.task_type), task.dropout)
    if task.task_type in ("classification", "regression", "tagging"):
        names = task.labels or [f"LABEL_{i}" for i in range(task.num_outputs)]
        out["id2label"] = {str(i): name for i, name in enumerate(names)}
        out["label2id"] = {name: i for i, name in enumerate(names)}
    if task.task_type in ("classification", "regression"):
        kind = "regression" if task.task_type == "regression" else "single_label_classification"
        out["problem_type"] = kind
    return out
