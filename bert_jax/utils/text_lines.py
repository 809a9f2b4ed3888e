"""The lines of a text file: one reader for every command that takes one text per line; texts that
are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def iter_lines(file: str | Path) -> Iterator[str]:
    """The lines without their ends, which are newlines, with or without a carriage return before: a
    carriage return of its own, a form feed or U+2028 may be part of a text. A byte-order mark is
    left out. ValueError: the file is not UTF-8, or cannot be read."""
    try:
        with Path(file).open(encoding="utf-8-sig", newline="\n") as f:
            for line in f:
                yield line.removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{file} cannot be read as UTF-8 text: {e}") from e


def without_surrogates(text: str) -> str:
    """The text with `?` for each half of a surrogate pair, as in a JSON file that was cut, or a
    command's argument that is not UTF-8. It is no character, and no tokenizer takes it."""
    return text.encode(errors="replace").decode()


def read_lines(file: str | Path) -> list[str]:
    """`iter_lines` as a list. ValueError: the file is empty."""
    lines = list(iter_lines(file))
    if not lines:
        raise ValueError(f"{file} is empty: expected one text per line")
    return lines
