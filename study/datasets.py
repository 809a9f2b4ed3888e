"""The data of a study: tokenizers, corpora and tasks, each built on first use.

OUT/data/
  tokenizers/KIND/   corpora/NAME/   text/1ofN.txt
  synthetic/TASK/    tasks made from the text, if the user gives none
  tasks/TASK/        {train,dev}.jsonl (qa: .json): the rows that the preset takes
  tasks/TASK/rates/  the same train rows in two parts, which choose the rate of fine-tuning
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bert_jax.config import TaskType, read_config, replace, save_config
from bert_jax.data import documents, splits
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.sentence_pairs import PAIR_KINDS
from bert_jax.data.tokenization.special_tokens import Kind
from bert_jax.data.tokenization.training import sample_texts, train_tokenizer
from bert_jax.utils import io
from study import synthetic_tasks
from study.jobs import QA, Job
from study.presets import Preset
from study.variants import Corpus

RATES = "rates"  # in the folder of a task: every sixth training row is dev, the others train
RATES_FOLD = 6
UNLABELED = (-1, "-1", "-", "")  # in every row of a split: it has no labels
TOKENIZER_MB = 20.0  # megabytes of text that train a tokenizer


def write_tokenizer(out: Path, text: Sequence[str], kind: Kind, vocab_size: int) -> None:
    """Train a tokenizer on the text, and save it in the new folder `out`."""
    lines = (p for d in documents.read_documents(text) for p in d.paragraphs)
    trained = train_tokenizer(sample_texts(lines, TOKENIZER_MB), kind, vocab_size)
    with io.atomic_dir(out) as folder:
        trained.save(folder)


def write_documents(file: Path, docs: Iterable[documents.Document]) -> None:
    """Write documents as text: a paragraph per line, and blank lines between documents."""
    io.write_text(file, "\n\n".join("\n".join(d.paragraphs) for d in docs) + "\n")


@dataclass(frozen=True)
class Datasets:
    """The study's own data in `folder`."""

    folder: Path
    preset: Preset
    text: tuple[str, ...]
    user_tasks: Path | None = None  # None: tasks made from the text
    workers: int = 2

    def prepare(self, jobs: Sequence[Job]) -> None:
        """Build the tokenizers and tasks of the jobs, so that an error in the text or the tasks
        is reported at once and not in every run. Corpora follow later."""
        names = self.task_names() if any(job.tasks for job in jobs) else []
        if any(job.qa for job in jobs):
            if not (self.tasks_folder() / QA / "train.json").is_file():
                raise ValueError(
                    f"{self.tasks_folder()} has no {QA}/train.json and dev.json in SQuAD's "
                    "format: add them, or exclude their hypothesis with --only"
                )
            names = [*names, QA]
        for name in names:
            self.task_type(name)
            self.task(name)
        for kind in dict.fromkeys(job.run.corpus.tokenizer for job in jobs):
            self.tokenizer(kind)

    def tokenizer(self, kind: str) -> Path:
        out = self.folder / "tokenizers" / kind
        if not out.exists():
            write_tokenizer(out, self.text, cast(Any, kind), self.preset.vocab_size)
        return out

    def corpus(self, corpus: Corpus) -> Path:
        out = self.folder / "corpora" / corpus.name
        if not out.exists():
            text = self.text
            if corpus.subsample > 1:
                text = (str(self.subsampled_text(corpus.subsample)),)
            prepare_corpus(
                list(text),
                self.tokenizer(corpus.tokenizer),
                corpus.segments,
                corpus.length,
                out,
                workers=self.workers,
                duplicates=self.preset.pair_passes if corpus.segments in PAIR_KINDS else 1,
            )
        return out

    def subsampled_text(self, subsample: int) -> Path:
        """A file with one of every `subsample` documents, without the validation documents of
        the whole text."""
        out = self.folder / "text" / f"1of{subsample}.txt"
        if not out.exists():
            folds = splits.NUM_FOLDS
            training = (
                document
                for i, document in enumerate(documents.read_documents(self.text))
                if splits.split_name(i, folds) == "train"
            )
            chosen = itertools.islice(training, 0, None, subsample)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_documents(out, chosen)
        return out

    def tasks_folder(self) -> Path:
        """The folder that has a folder for each task."""
        if self.user_tasks is not None:
            return self.user_tasks
        out = self.folder / "synthetic"
        if not out.exists():
            with io.atomic_dir(out) as folder:
                synthetic_tasks.write_tasks(self.text, folder)
        return out

    def task_names(self) -> list[str]:
        """The tasks that are averaged: the preset's, as far as they exist; else all."""
        names = sorted(
            p.name
            for p in self.tasks_folder().iterdir()
            if (p / "train.jsonl").is_file() and p.name != QA
        )
        if not names:
            raise ValueError(
                f"{self.tasks_folder()} has no tasks: expected folders with train.jsonl and "
                "dev.jsonl"
            )
        return [n for n in self.preset.tasks if n in names] or names

    def task(self, name: str) -> Path:
        """The folder of a task's rows, as many as the preset takes. Scores are on `dev`: the
        given test rows if they have labels, else the given dev rows."""
        out = self.folder / "tasks" / name
        if not out.exists():
            write = sample_questions if name == QA else sample_rows
            with io.atomic_dir(out) as folder:
                write(self.tasks_folder() / name, folder, self.preset)
        return out

    def task_type(self, name: str) -> TaskType:
        if name == QA:
            return "qa"
        file = self.tasks_folder() / name / "train.jsonl"
        row = next(read_rows(file))
        if "tokens" in row:
            return "tagging"
        if "options" in row:
            return "choice"
        is_numeric = any(isinstance(row.get("label"), float) for row in read_rows(file))
        return "regression" if is_numeric else "classification"


def sample_rows(source: Path, out: Path, preset: Preset) -> None:
    """Write a fixed sample of the rows that are not too long, in their order."""
    max_words = preset.max_words[0]
    test = source / "test.jsonl"
    files = {
        "train": (source / "train.jsonl", preset.train_rows),
        "dev": (test if has_labels(test) else source / "dev.jsonl", preset.test_rows),
    }
    train_labels: set[Any] = set()
    for split, (file, max_rows) in files.items():
        rows = [r for r in read_rows(file) if _count_words(r) <= max_words]
        if split == "dev":  # a label that the sampled training rows lack cannot be learned
            rows = [r for r in rows if _label_names(r) <= train_labels]
        rows = sample(rows, max_rows)
        if not rows:
            raise ValueError(f"{file} has no row of at most {max_words} words: add shorter rows")
        train_labels.update(*map(_label_names, rows))
        _write_rows(out / f"{split}.jsonl", rows)
        if split == "train":
            _write_rate_rows(out / RATES, rows)


def _write_rate_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The training rows in two parts. Nothing, if there are too few."""
    train, dev = split_rows(rows)
    known = set().union(*map(_label_names, train))
    dev = [row for row in dev if _label_names(row) <= known]
    if dev:
        folder.mkdir()
        _write_rows(folder / "train.jsonl", train)
        _write_rows(folder / "dev.jsonl", dev)


def split_rows(rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Five of six, and every sixth."""
    parts: dict[str, list[Any]] = {"train": [], "validation": []}
    for i, row in enumerate(rows):
        parts[splits.split_name(i, RATES_FOLD)].append(row)
    return parts["train"], parts["validation"]


def _write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    file.write_text(text, encoding="utf-8")


def sample_questions(source: Path, out: Path, preset: Preset) -> None:
    """Write SQuAD files whose contexts are cut to a window of words around the answer."""
    _, context_words, question_words = preset.max_words
    for split, max_rows in {"train": preset.train_rows, "dev": preset.test_rows}.items():
        data = json.loads((source / f"{split}.json").read_text(encoding="utf-8"))["data"]
        questions = [
            (article["title"], paragraph["context"], qa)
            for article in data
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
            if qa["answers"] and len(qa["question"].split()) <= question_words
        ]
        if not questions:
            raise ValueError(
                f"{source}/{split}.json has no question of at most {question_words} words with "
                "an answer: add shorter questions"
            )
        articles = [
            {"title": title, "paragraphs": [cut_context(context, qa, context_words)]}
            for title, context, qa in sample(questions, max_rows)
        ]
        _write_articles(out / f"{split}.json", articles)
        if split == "train" and len(articles) >= RATES_FOLD:
            (out / RATES).mkdir()
            for part, of_part in zip(("train", "dev"), split_rows(articles), strict=True):
                _write_articles(out / RATES / f"{part}.json", of_part)


def _write_articles(file: Path, articles: Sequence[dict[str, Any]]) -> None:
    text = json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False)
    file.write_text(text, encoding="utf-8")


def cut_context(context: str, qa: dict[str, Any], max_words: int) -> dict[str, Any]:
    """A paragraph of at most `max_words` words around the first answer. The question's id seeds
    the window's start. Other answers stay if they are inside."""
    spans = [word.span() for word in re.finditer(r"\S+", context)]
    answer = qa["answers"][0]
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    inside = [i for i, (a, b) in enumerate(spans) if b > begin and a < end]
    first, last = inside[0], inside[-1]
    low, high = max(0, last - max_words + 1), min(first, max(0, len(spans) - max_words))
    start = min(first, random.Random(qa["id"]).randint(min(low, high), max(low, high)))
    stop = max(last + 1, min(len(spans), start + max_words))
    left, right = spans[start][0], spans[stop - 1][1]
    answers = [
        {"text": a["text"], "answer_start": a["answer_start"] - left}
        for a in qa["answers"]
        if left <= a["answer_start"] and a["answer_start"] + len(a["text"]) <= right
    ]
    cut_qa = {"id": qa["id"], "question": qa["question"], "answers": answers}
    return {"context": context[left:right], "qas": [cut_qa]}


def sample(items: Sequence[Any], max_items: int) -> list[Any]:
    """A fixed sample of at most `max_items`, in order."""
    if len(items) <= max_items:
        return list(items)
    chosen = sorted(random.Random(0).sample(range(len(items)), max_items))
    return [items[i] for i in chosen]


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as f:
        yield from map(json.loads, f)


def has_labels(file: Path) -> bool:
    """Whether every row has a label, and not all have a marker of unlabeled rows."""
    rows = list(read_rows(file)) if file.is_file() else []
    labels = [row.get("label", row.get("tags")) for row in rows]
    return None not in labels and any(label not in UNLABELED for label in labels)


def _label_names(row: dict[str, Any]) -> set[Any]:
    """A row's labels, without the numbers of a regression."""
    label = row.get("tags", row.get("label"))
    return {n for n in (label if isinstance(label, list) else [label]) if isinstance(n, str | int)}


def _count_words(row: dict[str, Any]) -> int:
    if "tokens" in row:
        return len(row["tokens"])
    return len(f"{row['text']} {row.get('text_pair') or ''}".split())


def move_corpus(folder: Path, path: str) -> None:
    """Tell a run folder that came from another machine where its corpus is now. The run still
    refuses a corpus of another content."""
    file = folder / "config.json"
    if file.exists():
        saved = read_config(file)
        if saved.data.path != path:
            save_config(replace(saved, data=dict(path=path)), file)
