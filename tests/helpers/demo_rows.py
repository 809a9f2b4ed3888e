"""The demo's 427 validation rows as they were before `prepare` balanced them, on which results of
before and after are compared: fixtures/demo_validation_rows.npz.

    tokens int16 [427 64]   size first pair int16 [427]   tokenizer: its fingerprint

The tokenizer is not stored: the first command makes it again. The rows were made at commit
e56e8f0, where `prepare` made one duplicate and drew a validation document's target length once:

    bert-jax tokenizer data/sample.txt --kind wordpiece --vocab-size 4000 --out T
    bert-jax prepare data/sample.txt --tokenizer T --segments nsp --length 64 --out C --workers 2
    python -m tests.helpers.demo_rows C
"""

from __future__ import annotations

import sys

import numpy as np

from bert_jax.data.corpus import open_corpus
from tests.helpers.paths import FIXTURES

FILE = FIXTURES / "demo_validation_rows.npz"
NAMES = ("tokens", "size", "first", "pair")


def load() -> dict[str, np.ndarray]:
    """int32: `tokens` [427 64], `size` `first` `pair` [427]."""
    with np.load(FILE) as saved:
        return {name: saved[name].astype(np.int32) for name in NAMES}


def tokenizer_fingerprint() -> str:
    """Of the tokenizer that made the rows."""
    with np.load(FILE) as saved:
        return str(saved["tokenizer"])


def save(corpus: str) -> None:
    """Store the validation rows of a corpus folder."""
    opened = open_corpus(corpus)
    source = opened.source("validation")
    rows = source.__getitems__(list(range(len(source))))
    arrays = {name: np.array([row[name] for row in rows], np.int16) for name in NAMES}
    np.savez_compressed(FILE, tokenizer=opened.info.tokenizer_fingerprint, **arrays)


if __name__ == "__main__":
    save(sys.argv[1])
