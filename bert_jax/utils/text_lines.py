"""The lines of a text file: one reader for every command that takes one text per line; texts that
are not UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
TEXTS_PER_CHUNK = 4096
CHARACTERS_PER_CHUNK = 1 << 24

T = TypeVar("T", str, bytes)


def iter_lines(file: str | Path) -> Iterator[str]:
    """The lines without their ends, which are newlines, with or without a carriage return before: a
    carriage return of its own, a form feed or U+2028 may be part of a text. A byte-order mark is
    left out. ValueError: the file is not UTF-8, or cannot be read."""
    try:
        with Path(file).open("rb") as f:
            for number, raw in enumerate(f, 1):
                yield without_end(decode_line(raw, number, file))
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e}") from e


def decode_line(raw: bytes, number: int, file: str | Path) -> str:
    """Line `number`, from 1, of a file as text; the first may begin with a byte-order mark.
    ValueError: it is not UTF-8."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as e:
        advice = "decompress" if Path(file).suffix in COMPRESSED else "convert"
        raise ValueError(f"{file}, line {number}: not UTF-8 ({e.reason}): {advice} it") from None


def without_end(line: str) -> str:
    """The line without its end, \\n or \\r\\n."""
    return line.removesuffix("\n").removesuffix("\r")


def text_chunks(
    texts: Iterable[T], most: int | None = None, characters: int | None = None
) -> Iterator[list[T]]:
    """The texts in lists of at most `most` (`TEXTS_PER_CHUNK`). A list ends when it has so many
    `characters` (`CHARACTERS_PER_CHUNK`) or more, because its tokens are in memory together."""
    most, characters = most or TEXTS_PER_CHUNK, characters or CHARACTERS_PER_CHUNK
    chunk: list[T] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if len(chunk) == most or size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def check_read_twice(file: Path) -> None:
    """ValueError: a pipe, which can be read once."""
    if file.exists() and not file.is_file() and not file.is_dir():
        raise ValueError(f"{file} is read twice, and is no regular file: write it to one first")


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
