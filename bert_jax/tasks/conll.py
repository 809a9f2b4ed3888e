"""CoNLL's columns: one word per line, sentences separated by empty lines.

The word is in the first column and its tag in the last (CoNLL-U: second and fourth), between tabs
or spaces. Lines with -DOCSTART- are skipped, and comments before a sentence. These begin with a
hash and a space, and `name = ...` follows, or they have another number of columns than words, or
their last column is the tag of no word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.tasks.fields import IssueCounts, Location
from bert_jax.tasks.text_files import LocatedRecord, read_lines, words_of

COMMENT = re.compile(r"# \S+ = ")  # as in "# text = Ada met Tom."
HASHES = "lines that begin with `# `, read as the word `#` and not as comments"
NO_TAGS = "lines that begin with `# ` and end in no tag of other lines, skipped as comments"


def read_conll(file: Path, issues: IssueCounts | None) -> Iterator[LocatedRecord]:
    """The sentences: `tokens`, and `tags` if there are several columns. Words that could be
    comments, and comments that could be words, are counted in `issues` at the end.

    ValueError: a line with another number of columns than others, or as `read_lines`.
    """
    universal = file.suffix == ".conllu"
    lines = read_lines(file)
    begin, certain = _up_to_a_word(lines)
    width = len(_columns(certain))
    sentence: list[list[str]] = []
    first, found = Location(str(file), "line 1"), dict.fromkeys((HASHES, NO_TAGS), 0)
    tags: set[str] = set()
    for location, line in itertools.chain(begin, lines):
        columns = _columns(line)
        if not line.strip() or columns[0] == "-DOCSTART-":
            if sentence:
                yield first, _sentence(sentence, universal)
            sentence = []
            continue
        if line.startswith("# ") and not sentence:
            untabbed = "\t" in certain and "\t" not in line
            if universal or COMMENT.match(line) or untabbed or len(columns) != width:
                continue
            if file.is_file():  # a pipe cannot be read twice
                tags = tags or _tags_of_words(file)
                if columns[-1] not in tags:
                    found[NO_TAGS] += 1
                    continue
        if universal and not columns[0].isdecimal():  # 1-2: a contraction; 1.1: an empty node
            continue
        width = width or len(columns)
        if len(columns) != width:
            raise ValueError(
                f"{location}: {len(columns)} columns, and other lines have {width}: expected as "
                "many, and an empty line after each sentence"
            )
        if universal and width < 4:
            raise ValueError(f"{location}: {width} columns: expected CoNLL-U's ten")
        found[HASHES] += line.startswith("# ")
        first = first if sentence else location
        sentence.append(columns)
    if sentence:
        yield first, _sentence(sentence, universal)
    for issue, count in found.items():
        if count and issues is not None:
            issues[str(file), issue] += count


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else words_of(line)


def _up_to_a_word(
    lines: Iterable[tuple[Location, str]],
) -> tuple[list[tuple[Location, str]], str]:
    """The lines up to the first that is certainly a word, and that line; "" if there is none."""
    read = []
    for location, line in lines:
        read.append((location, line))
        if line.strip() and not line.startswith(("#", "-DOCSTART-")):
            return read, line
    return read, ""


def _tags_of_words(file: Path) -> set[str]:
    """The last columns of all lines that are certainly no comments."""
    comments = ("# ", "-DOCSTART-")
    words = (line for _, line in read_lines(file) if line.strip() and not line.startswith(comments))
    return {_columns(line)[-1] for line in words}


def _sentence(rows: list[list[str]], universal: bool) -> dict[str, Any]:
    word, tag = (1, 3) if universal else (0, -1)
    record: dict[str, Any] = {"tokens": [row[word] for row in rows]}
    return record if len(rows[0]) == 1 else record | {"tags": [row[tag] for row in rows]}
