"""RACE's own folders: train, dev and test, each with texts in any depth below it, a text and
its questions per JSON object."""

from __future__ import annotations

import json
from pathlib import Path

from bert_jax.tasks.records import IssueCounts, LocatedExample, parse_example, read_lines

LETTERS = {"A": 0, "B": 1, "C": 2, "D": 3}


def is_race(folder: Path) -> bool:
    return not (folder / "train.jsonl").exists() and (folder / "train").is_dir()


def read_race(folder: Path, split: str, odd: IssueCounts) -> list[LocatedExample]:
    """A split's questions; files in the order of their names, `all.txt` (ALBERT's copy of a
    folder, a text a line) in place of what stands beside it.

    ValueError: no such folder, no texts in it, one that is not of RACE's shape.
    """
    found: list[LocatedExample] = []
    for file in sorted((folder / split).rglob("*.txt")):
        if file.name == "all.txt" or not (file.parent / "all.txt").exists():
            found += _read_file(file, odd)
    if not found:
        raise ValueError(f"{folder / split} has no texts: expected RACE's .txt files in it")
    return found


def _read_file(file: Path, odd: IssueCounts) -> list[LocatedExample]:
    found: list[LocatedExample] = []
    for place, line in read_lines(file):
        if not line.strip():
            continue
        try:
            text = json.loads(line)
            fields = [text[field] for field in ("questions", "options", "answers")]
            asked = [(q, options, LETTERS[a]) for q, options, a in zip(*fields, strict=True)]
            passage = text["article"]
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ValueError(
                f"{place}: not a text of RACE ({e}): expected JSON with article, questions, "
                "options, answers"
            ) from None
        for question, options, label in asked:
            record = {"text": passage, "question": question, "options": options, "label": label}
            found.append((place, parse_example("choice", record, place, odd, labelled=True)))
    return found
