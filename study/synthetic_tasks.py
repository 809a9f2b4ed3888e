"""Make tasks from plain text, for a study without labeled data.

    bigram_shift   classification   were two neighboring words of a sentence exchanged? (Conneau et
                                    al. 2018)
    stops          tagging          which punctuation follows each word of two sentences but the
                                    last
    same           classification   are two sentences neighbors, or from two documents?
    qa             SQuAD 1.1        find the name that is missing in a sentence, in the text before

They need little knowledge and do not replace human-labeled tasks, but they separate an encoder
that has learned something from one that has not.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.data import documents, splits
from bert_jax.data.sentences import split_sentences

MAX_ROWS = {"train": 4000, "dev": 1000}  # of each task
WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['-])*|\d[\d,.]*\d|\d|[,.;:?!]")
PUNCTUATION = {",": "comma", ";": "comma", ":": "comma", ".": "stop", "?": "stop", "!": "stop"}
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")  # inside a sentence, not at its start
GAP = "____"
MIN_WORDS, MAX_WORDS = 6, 40  # of a sentence

Row = dict[str, Any]
Document = Sequence[str]  # sentences


def write_tasks(text: Sequence[str], out: Path) -> None:
    """Write a folder for each task. The dev documents are those that `prepare` keeps for
    validation, so no model was trained on them. A task without rows in a split is left out."""
    read = [
        [s for p in d.paragraphs for s in split_sentences(p)]
        for d in documents.read_documents(text)
    ]
    docs: dict[str, list[Document]] = {"train": [], "dev": []}
    for number, document in enumerate(read):
        split = splits.split_name(number, min(splits.NUM_FOLDS, len(read)))
        docs["dev" if split == "validation" else "train"].append(document)
    for make_rows in (bigram_shift, stops, same):
        splits_rows = {s: _shuffled(make_rows(d), MAX_ROWS[s]) for s, d in docs.items()}
        for split, rows in splits_rows.items() if all(splits_rows.values()) else ():
            lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
            _write(out / make_rows.__name__ / f"{split}.jsonl", lines)
    for split, split_docs in docs.items():
        paragraphs = _shuffled(gaps(split_docs), MAX_ROWS[split])
        data = {"version": "1.1", "data": [{"title": split, "paragraphs": paragraphs}]}
        _write(out / "qa" / f"{split}.json", json.dumps(data, ensure_ascii=False))


def bigram_shift(docs: Iterable[Document]) -> Iterator[Row]:
    """Lower-case words without punctuation, so that neither tells where words were. Every other
    sentence is as it was; in the others two neighboring words that differ are exchanged."""
    rng = random.Random(0)
    shifted = False
    for sentence in _tokenized_sentences(docs):
        words = [w.lower() for w in sentence if w not in PUNCTUATION]
        places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
        if len(words) < MIN_WORDS or not places:
            continue
        if shifted := not shifted:
            i = rng.choice(places)
            words[i : i + 2] = reversed(words[i : i + 2])
        yield {"text": " ".join(words), "label": "shifted" if shifted else "original"}


def stops(docs: Iterable[Document]) -> Iterator[Row]:
    """Two sentences per row without the last word: that a sentence ends where a row does is no
    knowledge."""
    for document in docs:
        pairs = zip(document[::2], document[1::2], strict=False)
        for words in _tokenized_sentences([[f"{a} {b}" for a, b in pairs]]):
            tokens: list[str] = []
            tags: list[str] = []
            for word in words:
                if word not in PUNCTUATION:
                    tokens.append(word.lower())
                    tags.append("none")
                elif tags:
                    tags[-1] = PUNCTUATION[word]
            yield {"tokens": tokens[:-1], "tags": tags[:-1]}


def same(docs: Sequence[Document]) -> Iterator[Row]:
    """Every other pair has the second sentence of another document's pair, so that single sentences
    tell nothing. Of one document there are no rows."""
    rng = random.Random(0)
    pairs = [
        (number, first, second)
        for number, d in enumerate(docs)
        for first, second in zip(d[::2], d[1::2], strict=False)
    ]
    if len({number for number, *_ in pairs}) < 2:
        return
    for i, (number, first, second) in enumerate(pairs):
        label = "apart" if i % 2 else "beside"
        while label == "apart":
            other, _, second = rng.choice(pairs)
            if other != number:
                break
        yield {"text": first, "text_pair": second, "label": label}


def gaps(docs: Iterable[Document]) -> Iterator[Row]:
    """SQuAD paragraphs, each with one question."""
    for number, document in enumerate(docs):
        for i in range(3, len(document)):
            context = " ".join(document[i - 3 : i])
            for name in NAME.finditer(document[i]):
                start = context.find(f" {name[0]}") + 1
                if start:
                    question = document[i][: name.start()] + GAP + document[i][name.end() :]
                    answers = [{"text": name[0], "answer_start": start}]
                    qa = {"id": f"{number}-{i}", "question": question, "answers": answers}
                    yield {"context": context, "qas": [qa]}
                    break


def _tokenized_sentences(docs: Iterable[Document]) -> Iterator[list[str]]:
    """Words and punctuation of the sentences that are neither short nor long."""
    for document in docs:
        for sentence in document:
            words = WORD.findall(sentence)
            if MIN_WORDS <= len(words) <= MAX_WORDS:
                yield words


def _shuffled(rows: Iterator[Row], max_rows: int) -> list[Row]:
    """The first `max_rows` in a fixed random order, so that they come from all documents."""
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    return shuffled[:max_rows]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
