"""What runs are made from: tokenizers, corpora and tasks, each made once.

OUT/data/
  tokenizers/KIND/   corpora/NAME/   text/1ofN.txt
  made/TASK/         tasks made from the text, where none are given
  tasks/TASK/        {train,dev}.jsonl, of `qa` .json: the rows that the scale takes
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bert_jax.config import TaskType
from bert_jax.data import documents, splits
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.utils import io
from study import synthetic_tasks as made
from study.jobs import ANSWERS, Job
from study.presets import Preset
from study.variants import Corpus

SAMPLE_MB = 20.0  # of text for tokenizers


@dataclass(frozen=True)
class Datasets:
    """The study's own data in `folder`, made on first use."""

    folder: Path
    scale: Preset
    text: tuple[str, ...]
    tasks: Path | None = None  # of the user; None: tasks made from the text
    workers: int = 2

    def ready(self, works: Sequence[Job]) -> None:
        """Makes all but the corpora that the works need, so that what is wrong with the text or
        the tasks is told at once, not run by run."""
        names = self.names() if any(work.tasks for work in works) else []
        if any(work.answers for work in works):
            if not (self.given() / ANSWERS / "train.json").is_file():
                raise ValueError(
                    f"{self.given()} has no {ANSWERS}/train.json and dev.json in SQuAD's format: "
                    "add them, or leave their claim out with --only"
                )
            names = [*names, ANSWERS]
        for name in names:
            self.kind(name)
            self.task(name)
        for kind in dict.fromkeys(work.run.corpus.tokenizer for work in works):
            self.tokenizer(kind)

    def tokenizer(self, kind: str) -> Path:
        out = self.folder / "tokenizers" / kind
        if not out.exists():
            lines = (p for d in documents.read_documents(self.text) for p in d.paragraphs)
            from bert_jax.data.tokenization import training

            few = training.sample_texts(lines, SAMPLE_MB)
            trained = train_tokenizer(few, cast(Any, kind), self.scale.vocab_size)
            with io.atomic_dir(out) as new:
                trained.save(new)
        return out

    def corpus(self, wanted: Corpus) -> Path:
        out = self.folder / "corpora" / wanted.name
        if not out.exists():
            prepare_corpus(
                list(self.text) if wanted.share == 1 else [str(self.part(wanted.share))],
                self.tokenizer(wanted.tokenizer),
                cast(Any, wanted.segments),
                wanted.length,
                out,
                workers=self.workers,
            )
        return out

    def part(self, share: int) -> Path:
        """One of so many documents, none of those that the whole text keeps for validation."""
        out = self.folder / "text" / f"1of{share}.txt"
        if not out.exists():
            read = enumerate(documents.read_documents(self.text))
            training = (d for i, d in read if splits.split_name(i, splits.NUM_FOLDS) == "train")
            chosen = itertools.islice(training, 0, None, share)
            out.parent.mkdir(parents=True, exist_ok=True)
            io.write_text(out, "\n\n".join("\n".join(d.paragraphs) for d in chosen) + "\n")
        return out

    def given(self) -> Path:
        """The folder with a folder for each task."""
        if self.tasks is not None:
            return self.tasks
        out = self.folder / "made"
        if not out.exists():
            with io.atomic_dir(out) as new:
                made.write(self.text, new)
        return out

    def names(self) -> list[str]:
        """The tasks whose mean is taken: those of the scale that are given; else all."""
        there = sorted(
            p.name
            for p in self.given().iterdir()
            if (p / "train.jsonl").is_file() and p.name != ANSWERS
        )
        chosen = [n for n in self.scale.tasks if n in there] or there
        if not chosen:
            raise ValueError(
                f"{self.given()} holds no tasks: expected folders with train.jsonl and dev.jsonl"
            )
        return chosen

    def task(self, name: str) -> Path:
        """A task's rows, as many as the scale takes: `dev` is what is scored, the given test rows
        where there are some, else the given dev rows."""
        out = self.folder / "tasks" / name
        if not out.exists():
            source = self.given() / name
            with io.atomic_dir(out) as new:
                if name == ANSWERS:
                    questions(source, new, self.scale)
                else:
                    rows(source, new, self.scale)
        return out

    def kind(self, name: str) -> TaskType:
        if name == ANSWERS:
            return "qa"
        first = next(_lines(self.given() / name / "train.jsonl"))
        if "tokens" in first:
            return "tagging"
        if "options" in first:
            return "choice"
        return "regression" if isinstance(first["label"], float) else "classification"


def rows(source: Path, out: Path, scale: Preset) -> None:
    """Rows that are not too long, drawn by their place, in their order."""
    test = source / "test.jsonl"
    files = {"train": source / "train.jsonl", "dev": test if _has_labels(test) else None}
    files["dev"] = files["dev"] or source / "dev.jsonl"
    sizes = {"train": scale.train_rows, "dev": scale.test_rows}
    known: set[Any] = set()
    for split, file in files.items():
        short = [r for r in _lines(file) if _words(r) <= scale.lengths[0]]  # type: ignore[arg-type]
        if split == "dev":  # a label that the drawn training rows do not have cannot be learned
            short = [r for r in short if _names(r) <= known]
        kept = sample(short, sizes[split])
        if not kept:
            raise ValueError(
                f"{file} has no row of at most {scale.lengths[0]} words: give shorter ones"
            )
        known |= {name for r in kept for name in _names(r)}
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8")


def questions(source: Path, out: Path, scale: Preset) -> None:
    """SQuAD files whose contexts are a window of words with the answer in it; where in it is
    drawn."""
    sizes = {"train": scale.train_rows, "dev": scale.test_rows}
    for split, most in sizes.items():
        data = json.loads((source / f"{split}.json").read_text(encoding="utf-8"))["data"]
        every = [
            (article["title"], paragraph["context"], qa)
            for article in data
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
            if qa["answers"] and len(qa["question"].split()) <= scale.lengths[2]
        ]
        if not every:
            raise ValueError(
                f"{source}/{split}.json has no question of at most {scale.lengths[2]} words with "
                "an answer: give shorter ones"
            )
        cut = [
            {"title": title, "paragraphs": [window(context, qa, scale.lengths[1])]}
            for title, context, qa in sample(every, most)
        ]
        text = json.dumps({"version": "1.1", "data": cut}, ensure_ascii=False)
        (out / f"{split}.json").write_text(text, encoding="utf-8")


def window(context: str, qa: dict[str, Any], words: int) -> dict[str, Any]:
    """A paragraph of at most so many words around the first answer, its start drawn by the
    question's id. Of the other answers those inside stay."""
    bounds = []
    at = 0
    for word in context.split():
        at = context.index(word, at)
        bounds.append((at, at + len(word)))
        at += len(word)
    answer = qa["answers"][0]
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    inside = [i for i, (a, b) in enumerate(bounds) if b > begin and a < end]
    first, last = inside[0], inside[-1]
    low, high = max(0, last - words + 1), min(first, max(0, len(bounds) - words))
    start = random.Random(qa["id"]).randint(min(low, high), max(low, high))
    start = min(start, first)
    stop = max(last + 1, min(len(bounds), start + words))
    left, right = bounds[start][0], bounds[stop - 1][1]
    kept = [
        {"text": a["text"], "answer_start": a["answer_start"] - left}
        for a in qa["answers"]
        if left <= a["answer_start"] and a["answer_start"] + len(a["text"]) <= right
    ]
    asked = {"id": qa["id"], "question": qa["question"], "answers": kept}
    return {"context": context[left:right], "qas": [asked]}


def sample(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, drawn always alike, in their order."""
    if len(items) <= most:
        return list(items)
    chosen = sorted(random.Random(0).sample(range(len(items)), most))
    return [items[i] for i in chosen]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as f:
        for line in f:
            yield json.loads(line)


def _has_labels(file: Path) -> bool:
    if not file.is_file():
        return False
    first = next(_lines(file), {})
    return "label" in first or "tags" in first


def _names(row: dict[str, Any]) -> set[Any]:
    """The labels of a row that are names, not measurements."""
    label = row.get("tags", row.get("label"))
    return {n for n in (label if isinstance(label, list) else [label]) if isinstance(n, str | int)}


def _words(row: dict[str, Any]) -> int:
    if "tokens" in row:
        return len(row["tokens"])
    return len(f"{row['text']} {row.get('text_pair') or ''}".split())
