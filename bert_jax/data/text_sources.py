"""Which files and datasets the texts of a command are. Datasets of the Hub are downloaded; nothing
is read yet."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_jax.data import hub_dataset, text_formats

TEXT_FIELD = "text"  # of records; --field names another one
TFDS = "tfds:"


class TextSources(NamedTuple):
    """What the texts of a command stand for."""

    sources: list[str]  # files, and tfds:NAME/SPLIT, in order
    hub_rows: dict[str, int]  # split of the Hub, with its commit -> its rows


def field_for(source: str | Path, field: str, other: str | Path) -> str:
    """The field of one of two texts: a plain one has none, unless both are plain, which is then
    refused (`expand_texts`)."""
    plain = not _has_fields(str(source)) and _has_fields(str(other))
    return TEXT_FIELD if plain else field


def _has_fields(source: str) -> bool:
    named = source.startswith(TFDS) or hub_dataset.is_hub_dataset(source)
    return named or text_formats.has_fields(source)


def require_text(patterns: Sequence[str | Path]) -> None:
    """ValueError: there is no pattern."""
    if not patterns:
        raise ValueError(
            "no TEXT is given: expected files, globs, tfds:NAME/SPLIT or "
            "hf:datasets/OWNER/NAME/SPLIT"
        )


def expand_texts(patterns: Sequence[str | Path], field: str = TEXT_FIELD) -> TextSources:
    """The files and TFDS datasets that the patterns name, in order: a dataset of the Hub is
    downloaded and becomes its files. Whatever can be refused without a download is refused first.
    ValueError: a pattern names no file, or one of a format that is not read; a text is named twice;
    no text is of records, which alone have a `field`."""
    require_text(patterns)
    names = [*map(str, patterns)]
    files = {n: _expand_local(n) for n in names if not hub_dataset.is_hub_dataset(n)}
    _check_named_once((n, files[n]) for n in names if n in files)
    if field != TEXT_FIELD:
        _check_some_records([file for n in names for file in files.get(n, [n])], field)
    splits = {n: hub_dataset.download_text(n) for n in names if n not in files}
    files |= {n: [*map(str, shards.files)] for n, shards in splits.items()}
    _check_named_once((n, files[n]) for n in names)
    hub_rows = {shards.name: shards.rows for shards in splits.values()}
    return TextSources([file for n in names for file in files[n]], hub_rows)


def _expand_local(pattern: str) -> list[str]:
    """The files that a path or a glob names, or a TFDS dataset."""
    if pattern.startswith(TFDS):
        if not all(split_tfds(pattern)):
            raise ValueError(f"{pattern} names no split: expected {TFDS}NAME/SPLIT")
        return [pattern]
    path = Path(pattern)
    if path.is_file():
        files = [pattern]
    elif path.is_dir():
        raise ValueError(f"{pattern} is a folder: expected files; give {pattern}/*.txt")
    elif path.exists():
        raise ValueError(
            f"{pattern} is a pipe or a device: expected a file; write the text to one first"
        )
    elif glob.has_magic(pattern):
        files = sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
        if not files:
            raise ValueError(f"no file matches {pattern}: check the pattern")
    else:
        raise ValueError(f"{pattern} does not exist: expected a text file; check the path")
    for file in files:
        text_formats.check_suffix(file)
    return files


def split_tfds(source: str) -> tuple[str, str]:
    """NAME and SPLIT of `tfds:NAME/SPLIT`; what is missing is empty."""
    name, _, split = source.removeprefix(TFDS).rpartition("/")
    return name, split


def _check_named_once(groups: Iterable[tuple[str, list[str]]]) -> None:
    """ValueError: two patterns name one text, so documents that are held out would be trained on.
    Shards of one split of the Hub may be equal: they are then links to one file."""
    known: dict[str, str] = {}
    for pattern, files in groups:
        places = [(f if f.startswith(TFDS) else str(Path(f).resolve()), f) for f in files]
        if hub_dataset.is_hub_dataset(pattern):
            places = [*dict(places).items()]
        for place, file in places:
            if place in known:
                raise ValueError(
                    f"{file} is given twice (also as {known[place]}): expected every text once"
                )
            known[place] = file


def _check_some_records(sources: Sequence[str], field: str) -> None:
    """ValueError: all texts are plain text or FASTA."""
    if not any(map(_has_fields, sources)):
        raise ValueError(
            f"--field is {field}, but {sources[0]} is no file of records, which alone have fields: "
            "expected .jsonl, .json, .ndjson or .parquet; convert it, or leave --field out"
        )
