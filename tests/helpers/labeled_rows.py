"""Small tokenizers, folders and outputs, for tests of downstream tasks."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import tasks
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.tasks import Answer, ContextWindow, EncodedExamples, QuestionExample
from tests.helpers.paths import SAMPLE

KINDS = ("bpe", "unigram", "wordpiece")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "in", "Zürich", "中文", "1,000", "don't"]


@functools.cache
def trained_tokenizer(kind: Any) -> Tokenizer:
    lines = [line for line in SAMPLE.read_text(encoding="utf-8").splitlines() if line][:12]
    return train_tokenizer([*lines, *(" ".join(WORDS) for _ in range(20))], kind, 400)


def write_jsonl(file: Path, rows: Sequence[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def write_task_dir(path: Path, train: Sequence[Any], dev: Sequence[Any] | None = None) -> Path:
    write_jsonl(path / "train.jsonl", train)
    write_jsonl(path / "dev.jsonl", train if dev is None else dev)
    return path


def write_squad(file: Path, *paragraphs: tuple[str, list[dict[str, Any]]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"context": context, "qas": qas} for context, qas in paragraphs]
    file.write_text(
        json.dumps({"version": "x", "data": [{"paragraphs": entries}]}), encoding="utf-8"
    )
    return file


def make_question(context: str, *texts: str, question: str = "What?") -> QuestionExample:
    """A question; each answer is a text that occurs in the context."""
    return QuestionExample(
        "q", question, context, tuple(Answer(t, context.index(t)) for t in texts)
    )


def perfect_outputs(encoded: EncodedExamples, labels: Sequence[str]) -> list[Any]:
    """Model outputs that predict exactly the labels."""
    return [_perfect_output(encoded.task_type, row, len(labels)) for row in encoded.rows]


def _perfect_output(task_type: str, row: dict[str, Any], n: int) -> Any:
    if task_type == "regression":
        return row["label"]
    if task_type == "qa":
        one_hot = np.eye(int(row["size"]), dtype=np.float32) * 10
        return {"start": one_hot[row["start"]], "end": one_hot[row["end"]]}
    if task_type == "tagging":
        return np.eye(n, dtype=np.float32)[row["tags"]]
    size = len(row["size"]) if task_type == "choice" else n
    return np.eye(size, dtype=np.float32)[row["label"]]


def score_perfect(task: Any, encoded: EncodedExamples, labels: Sequence[str]) -> dict[str, float]:
    return tasks.compute_metrics(task, encoded, perfect_outputs(encoded, labels), labels)


# ---- questions

LATIN = "Zoë's cafe\u0301 (in Zürich) sold 1,000 “fish”, \xa0$12.50 each."
MIXED = "In 北京 the 👩\u200d👧🏽 family ate ﬁsh and 한국어 노래 हिन्दी; naïve\u2028İstanbul."
LONG_CONTEXT = " ".join(f"the cat number {i} sat" for i in range(40))
QUESTIONS = [
    make_question(LATIN, "cafe\u0301"),
    make_question(LATIN, "Zoë"),
    make_question(LATIN, "$12.50"),
    make_question(LATIN, "“fish”"),
    make_question(LATIN, "1,000"),
    make_question(MIXED, "北京", question="어디?"),
    make_question(MIXED, "👩\u200d👧🏽"),
    make_question(MIXED, "ﬁsh and 한국어 노래"),
    make_question(MIXED, "naïve\u2028İstanbul"),
    make_question(LONG_CONTEXT, "the cat number 0"),
    make_question(LONG_CONTEXT, "cat number 23"),
    make_question(LONG_CONTEXT, "number 39 sat"),
    make_question("one", "one", question="the cat sat on a mat " * 40),
]


def encode_windows(
    kind: str, examples: Any = QUESTIONS, length: int = 100, **more: Any
) -> EncodedExamples:
    return tasks.encode_examples(
        "qa", examples, trained_tokenizer(kind), length, **{"stride": 16} | more
    )


def as_window(place: Any) -> ContextWindow:
    assert isinstance(place, ContextWindow)
    return place
