"""The head that each family was fine-tuned with, by task."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from bert_jax.config.objectives import Glue, Kind, Supervised

FAMILIES = ("bert", "albert", "roberta", "electra", "spanbert")


def head_for(family: str, kind: Kind, unanswerable: bool = True) -> dict[str, Any]:
    """What a family's own code has of `head`, `span`, `init` and `dropout` for a kind of task.

    bert, spanbert   the pooled first token; dropout .1 whatever the encoder's is
    albert           the same; of questions that may have no answer (`unanswerable`) joint spans
    roberta          dense, tanh on the first token; fairseq drops nothing, Hugging Face .1
    electra          the first token; Glorot's initialisation; joint spans; no dropout on tags
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}: expected {', '.join(FAMILIES)}")
    head: dict[str, Any] = dict(head="pooler", span="linear", init="same", dropout=0.1)
    if family == "albert" and unanswerable:
        head |= dict(span="joint")
    if family == "roberta":
        head |= dict(dropout=0.0)
    if family == "electra":
        head |= dict(head="first", span="joint", init="glorot")
        head |= dict(dropout=0.0) if kind == "tagging" else {}
    return head


def supervised(
    family: str,
    task: Kind | Glue,
    labels: tuple[str, ...] = (),
    unanswerable: bool = True,
    **changes: Any,
) -> Supervised:
    """The objective of a task as the family's own code has it, with `changes` to its fields.
    STS-B's scores, 0 to 5, are learned from 0 to 1 in RoBERTa and ELECTRA.

    ValueError: no such family.
    """
    plain = Supervised(task=task, labels=labels)
    scale = 5.0 if task == "stsb" and family in ("roberta", "electra") else 1.0
    body = typing.cast(Any, "bert" if family == "spanbert" else family)
    fields = head_for(family, plain.kind, unanswerable) | dict(family=body, scale=scale) | changes
    return dataclasses.replace(plain, **fields)
