"""RACE's own folders: train, dev and test, each with text files at any depth. A file holds JSON
objects, each a passage with its questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bert_jax.tasks.examples import ChoiceExample
from bert_jax.tasks.fields import IssueCounts
from bert_jax.tasks.records import LocatedExample, parse_example
from bert_jax.tasks.text_files import read_lines

GROUPS = ("middle", "high")  # folders of a split, whose scores are reported apart
LETTERS = {"A": 0, "B": 1, "C": 2, "D": 3}


def is_race(folder: Path) -> bool:
    return not (folder / "train.jsonl").exists() and (folder / "train").is_dir()


def read_race(folder: Path, split: str, issues: IssueCounts) -> list[LocatedExample]:
    """The questions of a split, file by file in the order of their names. An `all.txt` (ALBERT's
    copy of a folder, one passage per line) replaces the other files of its folder.

    ValueError: no such folder, no text files in it, a file that does not have RACE's format.
    """
    examples: list[LocatedExample] = []
    for file in sorted((folder / split).rglob("*.txt")):
        if file.name == "all.txt" or not (file.parent / "all.txt").exists():
            examples += _read_file(file, issues)
    if not examples:
        raise ValueError(f"{folder / split} has no texts: expected RACE's .txt files in it")
    return examples


def _read_file(file: Path, issues: IssueCounts) -> list[LocatedExample]:
    examples: list[LocatedExample] = []
    group = next((part for part in file.parent.parts[::-1] if part in GROUPS), None)
    for location, line in read_lines(file):
        if not line.strip():
            continue
        try:
            passage = json.loads(line)
            columns = [passage[field] for field in ("questions", "options", "answers")]
            questions = [(q, options, LETTERS[a]) for q, options, a in zip(*columns, strict=True)]
            text = passage["article"]
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ValueError(
                f"{location}: not a RACE passage ({e}): expected JSON with article, questions, "
                "options, answers"
            ) from None
        for question, options, label in questions:
            record = {
                "text": _collapse(text),
                "question": _collapse(question),
                "options": _collapse(options),
                "label": label,
            }
            example = parse_example("choice", record, location, issues, labeled=True)
            assert isinstance(example, ChoiceExample)
            examples.append((location, example._replace(group=group)))
    return examples


def _collapse(value: Any) -> Any:
    """A text, or a list of texts, with one space for each run of white space (fairseq,
    preprocess_RACE.py); the tokenizers of the other families do that by themselves."""
    if isinstance(value, list):
        return [_collapse(v) for v in value]
    return " ".join(value.split()) if isinstance(value, str) else value
