"""The text in two parts, and what is made from them: tokenizer, corpora, tasks.

OUT/data/train.txt      what an entry may read
OUT/data/held_out.txt   every 20th document: scored in bits per character; the tasks' test rows
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.two_core_hour.entry import Entry
from bert_jax.data import documents, splits
from bert_jax.data.documents import Document
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.text_sources import expand_texts
from study.datasets import Datasets, write_documents, write_tokenizer
from study.presets import CPU, SMALL_RATES

TEXT = "data/sample.txt"
TEXT_SHA256 = "f013d9007485acf79630a943a3c8cf7a62a7a6752996f34db70603879c1a8330"
# The rows and the recipe of each task; () takes all tasks of a folder.
TASK_ROWS = replace(CPU, tasks=(), tune_rates=SMALL_RATES)
MIN_DOCUMENTS = splits.NUM_FOLDS  # so that one is held out


@dataclass(frozen=True)
class ContestData:
    """The data of one entry in `folder`."""

    folder: Path
    text: tuple[str, ...] = (TEXT,)
    tasks: Path | None = None  # the user's; None: tasks made from the text

    @property
    def train(self) -> Path:
        return self.folder / "train.txt"

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out.txt"

    @property
    def labeled(self) -> Datasets:
        """The tasks to fine-tune on."""
        return Datasets(self.folder, TASK_ROWS, self.text, self.tasks)

    def test_rows(self, task: str) -> int:
        """How many rows of a task are scored. The task is made if it is not there yet."""
        lines = (self.labeled.task(task) / "dev.jsonl").read_text(encoding="utf-8")
        return len(lines.splitlines())

    def split(self) -> None:
        """Write the two parts. ValueError: there are too few documents to hold one out."""
        parts: dict[bool, list[Document]] = {False: [], True: []}
        for i, document in enumerate(documents.read_documents(self.text)):
            parts[splits.split_name(i, splits.NUM_FOLDS) == "validation"].append(document)
        if not parts[True]:
            raise ValueError(
                f"{', '.join(self.text)}: {len(parts[False])} documents are too few, expected at "
                f"least {MIN_DOCUMENTS} (a blank line ends a document)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_documents(self.train, parts[False])
        write_documents(self.held_out, parts[True])

    def corpus(self, entry: Entry) -> str:
        """The entry's corpora of the training text, as `data.path`."""
        tokenizer = self.folder / "tokenizer"
        if not tokenizer.exists():
            write_tokenizer(tokenizer, [str(self.train)], entry.tokenizer, entry.vocab_size)
        for length in entry.lengths:
            out = self.folder / "corpus" / str(length)
            if not out.exists():
                prepare_corpus([str(self.train)], tokenizer, entry.segments, length, out, workers=2)
        length, *more = entry.lengths
        return str(self.folder / "corpus" / ("{length}" if more else str(length)))


def sha256(text: Iterable[str]) -> str:
    """The hash of the files, one after the other."""
    digest = hashlib.sha256()
    for name in expand_texts(list(text)).sources:
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()
