"""What a task is made of: examples as people wrote them, and the rows a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import GlueTask, Supervised, TaskType


class TextExample(NamedTuple):
    """A text or a pair of them, and a label or a number."""

    text: str
    text_pair: str | None = None
    label: str | float | None = None


class TaggingExample(NamedTuple):
    """Words, and a tag for each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None


class ChoiceExample(NamedTuple):
    """A passage, a question about it, and which of the options is right (from 0)."""

    text: str
    question: str
    options: tuple[str, ...]
    label: int | None = None


class Answer(NamedTuple):
    text: str
    start: int  # its first character in the context; -1: it is not there


class QuestionExample(NamedTuple):
    """A question whose answers are spans of the context; without any it is unlabelled, unless
    it is `impossible`: known to have none (SQuAD 2.0)."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    impossible: bool = False


Example = TextExample | TaggingExample | ChoiceExample | QuestionExample


def task_type_of(task: TaskType | GlueTask) -> TaskType:
    """What a task asks for: `stsb` is a regression, the other GLUE names classifications."""
    return Supervised(task=task).task_type


@dataclass(frozen=True)
class Dataset:
    """A folder that was read.

    `labels` are in the order of the logits: classes or tags; for questions `ANSWERABLE` where
    some of the training questions have no answer, else none. `splits` has `train` and `dev`,
    perhaps `test`, for mnli also `dev_mismatched` and `test_mismatched`. `notes` say in words
    what was odd but no error, counted.
    """

    task: TaskType | GlueTask
    task_type: TaskType
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    notes: list[str] = field(default_factory=list)


ANSWERABLE_LABELS = ("answerable", "impossible")


class WordPositions(NamedTuple):
    """Which words get their tag from a row, and where their first pieces stand in it."""

    words: np.ndarray  # int [w]
    at: np.ndarray  # int [w]


class ContextWindow(NamedTuple):
    """The part of a context that a row holds."""

    begin: int  # its first piece, counted in the context
    context: int  # position of its first piece in the row
    spans: np.ndarray  # int [n 2]: the characters of the context that each piece stands for
    best: np.ndarray  # bool [n]: no other window shows more around this piece


@dataclass(frozen=True)
class EncodedExamples:
    """Examples as rows.

    row          always: tokens [l] (int32, unpadded)  size  first (tokens of segment 0)  row
    + task_type       classification: label (-1: unknown)   regression: label (float32)
                 tagging: tags [l], at the first piece of a word, -1 elsewhere
                 choice: tokens a list of [l_i], size [c], first [c], label; an option that is
                 not there has size 0
                 qa: start, end (positions in the row, 0 0: not in it), impossible (of the
                 question), context (position of the first piece of the context)
    `owner`      of each row: its example
    `places`     of each row: where its predictions belong (tagging, qa), else None
    `cut`        how many examples did not fit and lost a part of their texts (choice: of any
                 option's; qa: of the question)
    """

    task_type: TaskType
    rows: list[dict[str, Any]]
    example_indices: list[int]
    examples: Sequence[Example]
    alignments: Sequence[WordPositions | ContextWindow | None] = ()
    num_truncated: int = 0
    notes: list[str] = field(default_factory=list)
