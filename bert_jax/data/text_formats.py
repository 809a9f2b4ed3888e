"""Which format a file of text has: what the end of its name says."""

from __future__ import annotations

from pathlib import Path

COMPRESSIONS = (".gz", ".xz", ".zst")


def format_suffix(file: str) -> str:
    """The last suffix of a file's name, or the last one before that of a compression, in lower
    case: `.fa` of `Genome.FA.gz`, but `.txt` of `wiki.fa.txt`, where `fa` is Persian. Empty if
    there is none."""
    *suffixes, last = ["", *Path(file.lower()).suffixes]
    return suffixes[-1] if last in COMPRESSIONS else last


def as_plain_text(file: str) -> str:
    """A name under which the same file is read as plain text: `a.fa.txt.gz` for `a.fa.gz`."""
    path = Path(file)
    if path.suffix.lower() in COMPRESSIONS:
        return str(path.with_suffix(f".txt{path.suffix}"))
    return f"{file}.txt"
