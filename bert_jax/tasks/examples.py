"""Types of the tasks: examples as they are in the files, and the rows that a network reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import GlueTask, Supervised, TaskType


class TextExample(NamedTuple):
    """A text or a pair of texts, with a class, a number or any number of classes as label."""

    text: str
    text_pair: str | None = None
    label: str | float | tuple[str, ...] | None = None


class TaggingExample(NamedTuple):
    """Words, and a tag for each (None: unlabeled)."""

    tokens: tuple[str, ...]
    tags: tuple[str | None, ...] | None = None
    # of a row with a text and entities: the text, and each word's first and last character
    text: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None

    def space_before(self, word: int) -> bool:
        """Whether there is white space before a word; without a text, before all but the first."""
        if word == 0 or self.spans is None:
            return word > 0
        return self.spans[word][0] > self.spans[word - 1][1]


class ChoiceExample(NamedTuple):
    """A passage, a question about it, and the number of the right option (from 0)."""

    text: str
    question: str
    options: tuple[str, ...]
    label: int | None = None
    group: str | None = None  # a part of the data that is scored by itself, such as RACE's `high`


class RerankExample(NamedTuple):
    """A query and its candidates in the order of the first stage. A label is the grade of a
    candidate, 0 if it is not relevant."""

    text: str
    documents: tuple[str, ...]
    labels: tuple[float, ...] | None = None
    missing: tuple[float, ...] = ()  # grades of relevant documents that are no candidates


class Answer(NamedTuple):
    """An answer to a question."""

    text: str
    start: int  # its first character in the context; -1 if the context does not contain it


class QuestionExample(NamedTuple):
    """A question whose answers are spans of the context. One without answers is unlabeled, unless
    it is `impossible`: known to have no answer (SQuAD 2.0)."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    impossible: bool = False


Example = TextExample | TaggingExample | ChoiceExample | QuestionExample | RerankExample


def is_labeled(example: Example) -> bool:
    """Whether an example is scored."""
    if isinstance(example, QuestionExample):
        return example.impossible or bool(example.answers)
    if isinstance(example, TaggingExample):
        return any(tag is not None for tag in example.tags or ())
    if isinstance(example, RerankExample):
        return example.labels is not None
    return example.label is not None


def label_names(example: Example) -> Iterable[str]:
    """The classes or tags of an example, () if it has none or is not labeled."""
    if isinstance(example, TaggingExample):
        return (tag for tag in example.tags or () if tag is not None)
    if not isinstance(example, TextExample) or example.label is None:
        return ()
    return example.label if isinstance(example.label, tuple) else (str(example.label),)


ANSWERABLE_LABELS = ("answerable", "impossible")


def task_type_of(task: TaskType | GlueTask) -> TaskType:
    """The type of a task: `stsb` is a regression, the other GLUE tasks are classifications."""
    return Supervised(task=task).task_type


@dataclass(frozen=True)
class Dataset:
    """The examples of a folder or a TFDS dataset. A classification whose labels are lists has the
    task `multilabel`.

    labels   classes or tags in the order of the logits; for questions `ANSWERABLE_LABELS` if
             some training questions have no answer, else ()
    splits   `train` and `dev`, optionally `test`; for mnli also `dev_mismatched` and
             `test_mismatched`
    notes    messages about irregular rows that are not errors, with counts
    """

    task: TaskType | GlueTask
    task_type: TaskType
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> bool | None:
        """Whether the training rows have a second text; None: some have, or they are no texts."""
        texts = [e for e in self.splits["train"] if isinstance(e, TextExample)]
        given = {e.text_pair is not None for e in texts}
        return given.pop() if len(given) == 1 else None


class WordPositions(NamedTuple):
    """The words that get their tag from a row, the positions of their first pieces in it, and
    where the last of them ends in it."""

    words: np.ndarray  # int [w]
    positions: np.ndarray  # int [w]
    end: int


class ContextWindow(NamedTuple):
    """The part of a context that a row holds."""

    begin: int  # its first piece, counted in the context
    context_start: int  # position of its first piece in the row
    offsets: np.ndarray  # int [n 2]: first and last character (exclusive) of each piece
    max_context: np.ndarray  # bool [n]: whether this window has the most context for the piece


@dataclass(frozen=True)
class EncodedExamples:
    """Examples as rows.

    rows             always: tokens [l] (int32, without padding)  size  first (tokens of segment
                     0)  row
    + by task type   classification: label (-1: unknown)   regression: label (float32)
                     multilabel: label [n], 1 for each label of the text (all -1: unknown)
                     tagging: tags [l], at the first piece of a word, -1 elsewhere
                     texts in windows: tokens a list of [l_i], size [w], first [w]; windows of size
                     0 pad their number
                     choice: tokens a list of [l_i], size [c], first [c], label; a missing option
                     has size 0
                     rerank: one row per candidate, with its label (float32, -1: unknown); for
                     training one row per query: tokens a list of [l_i], size [c], first [c],
                     label [c], grades over the highest grade; a missing candidate has size 0
                     qa: start, end (positions in the row; 0 0 if the answer is outside it),
                     impossible (of the question), context (position of the context's first piece)
    example_indices  of each row: its example
    alignments       of each row: where its predictions belong (tagging, qa), else None
    num_truncated    number of examples that were too long and lost a part of their texts (choice:
                     of any option's; rerank: of any candidate's; qa: of the question)
    """

    task_type: TaskType
    rows: list[dict[str, Any]]
    example_indices: list[int]
    examples: Sequence[Example]
    alignments: Sequence[WordPositions | ContextWindow | None] = ()
    num_truncated: int = 0
    notes: list[str] = field(default_factory=list)
