"""Small corpora of the sample text."""

from pathlib import Path
from typing import Any

from bert_jax.data.corpus import Corpus
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import SAMPLE


def write_inputs(folder: Path, part: int) -> tuple[str, str]:
    """The files `text.txt`, the first 1/`part` of each of 152 documents, and `tokenizer`."""
    documents = SAMPLE.read_text(encoding="utf-8").split("\n\n")
    text = "\n\n".join(d[: len(d) // part] for d in documents)
    (folder / "text.txt").write_text(text, encoding="utf-8")
    train_tokenizer(text.split("\n"), "wordpiece", 1000).save(folder / "tokenizer")
    return str(folder / "text.txt"), str(folder / "tokenizer")


def make(
    inputs: tuple[str, str], out: Path, kind: str = "nsp", length: int = 64, **options: Any
) -> Corpus:
    options = {"duplicates": 1, "progress": False} | options
    return prepare_corpus([inputs[0]], inputs[1], kind, length, out, **options)


def rows(prepared: Corpus, split: str = "train") -> list[tuple]:
    source = prepared.source(split)
    read = source.__getitems__(list(range(len(source))))
    return [(r["tokens"].tolist(), r["size"], r["first"], r["pair"]) for r in read]
