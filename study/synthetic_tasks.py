"""Tasks made from text alone, for a study without labelled data.

    capitals     tagging          which words of a sentence in small letters were capitalised
    stops        tagging          after which words a sentence in words alone had what sign
    same         classification   whether two sentences stand side by side or are of two documents
    qa           SQuAD 1.1        a sentence whose name is left out; the text before it, where the
                                  name is the answer

They ask for little knowledge and are no stand-in for tasks that people labelled, but tell an
encoder that has learned something from one that has not.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.data import documents, splits

ROWS = {"train": 4000, "dev": 1000}  # most of each task
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|\d[\d,.]*\d|\d|[,.;:?!]")
SIGNS = {",": "comma", ";": "comma", ":": "comma", ".": "stop", "?": "stop", "!": "stop"}
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")  # within a sentence, not at its head
GAP = "____"
SHORT, LONG = 6, 40  # words of a sentence

Row = dict[str, Any]


def write(text: Sequence[str], out: Path) -> None:
    """A folder for each task. The documents of dev are those that no model was trained on:
    prepare keeps them for validation."""
    read = [
        [s for p in d.paragraphs for s in documents.split_sentences(p)]
        for d in documents.read_documents(text)
    ]
    parts: dict[str, list[list[str]]] = {"train": [], "dev": []}
    for number, told in enumerate(read):
        held_out = splits.split_name(number, min(splits.NUM_FOLDS, len(read))) == "validation"
        parts["dev" if held_out else "train"].append(told)
    for name, make in (("capitals", capitals), ("stops", stops), ("same", same)):
        (out / name).mkdir()
        for split, told in parts.items():
            rows = _drawn(make(told), ROWS[split])
            lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
            (out / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (out / "qa").mkdir()
    for split, told in parts.items():
        asked = _drawn(gaps(told), ROWS[split])
        data = {"version": "1.1", "data": [{"title": split, "paragraphs": asked}]}
        (out / "qa" / f"{split}.json").write_text(
            json.dumps(data, ensure_ascii=False), encoding="utf-8"
        )


def capitals(told: Iterable[Sequence[str]]) -> Iterator[Row]:
    for words in _sentences(told):
        words = [w for w in words if w not in SIGNS]
        tags = ["capital" if w[0].isupper() else "small" for w in words]
        yield {"tokens": [w.lower() for w in words], "tags": tags}


def stops(told: Iterable[Sequence[str]]) -> Iterator[Row]:
    """Two sentences in a row, so that not every stop is the last word's."""
    for document in told:
        pairs = zip(document[::2], document[1::2], strict=False)
        for words in _sentences([[f"{a} {b}" for a, b in pairs]]):
            tokens: list[str] = []
            tags: list[str] = []
            for word in words:
                if word not in SIGNS:
                    tokens.append(word.lower())
                    tags.append("none")
                elif tags:
                    tags[-1] = SIGNS[word]
            yield {"tokens": tokens, "tags": tags}


def same(told: Sequence[Sequence[str]]) -> Iterator[Row]:
    rng = random.Random(0)
    for number, document in enumerate(told):
        others = [i for i in range(len(told)) if i != number and told[i]]
        for first, second in zip(document[::2], document[1::2], strict=False):
            beside = not others or rng.random() < 0.5
            if not beside:
                second = rng.choice(told[rng.choice(others)])
            label = "beside" if beside else "apart"
            yield {"text": first, "text_pair": second, "label": label}


def gaps(told: Iterable[Sequence[str]]) -> Iterator[Row]:
    """Paragraphs of SQuAD, each with one question."""
    for number, document in enumerate(told):
        for i in range(3, len(document)):
            context = " ".join(document[i - 3 : i])
            for found in NAME.finditer(document[i]):
                at = context.find(f" {found[0]}") + 1
                if at:
                    question = document[i][: found.start()] + GAP + document[i][found.end() :]
                    answer = {"text": found[0], "answer_start": at}
                    asked = {"id": f"{number}-{i}", "question": question, "answers": [answer]}
                    yield {"context": context, "qas": [asked]}
                    break


def _sentences(told: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    """The words and signs of sentences that are neither short nor long."""
    for document in told:
        for sentence in document:
            words = WORD.findall(sentence)
            if SHORT <= len(words) <= LONG:
                yield words


def _drawn(rows: Iterator[Row], most: int) -> list[Row]:
    """In an order that is always alike, so that the first rows are of all documents."""
    every = list(rows)
    random.Random(0).shuffle(every)
    return every[:most]
