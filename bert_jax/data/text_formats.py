"""Which format a file of text has: what the end of its name says, and its first bytes.

Files of other formats are refused: read as plain text they would be lines of noise.
"""

from __future__ import annotations

import re
from pathlib import Path

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv")
MARKUP = (".xml", ".html", ".htm", ".rtf", ".doc")
CRAWLS = (".warc", ".wet", ".wat")  # of Common Crawl
NOT_READ = (
    *TABLES,
    *MARKUP,
    *(".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".lz4", ".lzma"),
    *(".fastq", ".fq", ".sam", ".bam", ".vcf"),
    *CRAWLS,
    *(".arrow", ".feather", ".avro", ".orc", ".tfrecord", ".pdf", ".docx", ".epub"),
)
FIRST_BYTES = {
    b"PK\x03\x04": ".zip",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"Rar!\x1a\x07": ".rar",
    b"\x04\x22\x4d\x18": ".lz4",
    b"ARROW1\x00\x00": ".arrow",
    b"Obj\x01": ".avro",
    b"WARC/1.": ".warc",
    b"%PDF-1.": ".pdf",
    b"PAR1\x15": ".parquet",
    b"\x1f\x8b\x08": ".gz",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    **{f"BZh{i}1AY&SY".encode(): ".bz2" for i in range(1, 10)},
}
_PART = re.compile(r"\.(\d[\w-]*|[a-z]{2})")  # of a file that `split` divided
_TAR = slice(257, 265), (b"ustar\x0000", b"ustar  \x00")  # in an archive's first header: POSIX, GNU


def format_suffix(file: str) -> str:
    """The last suffix of a file's name, or the last one before that of a compression, in lower
    case: `.fa` of `Genome.FA.gz`, but `.txt` of `wiki.fa.txt`, where `fa` is Persian. Empty if
    there is none."""
    return _suffixes(file)[-1]


def _suffixes(file: str) -> list[str]:
    """The suffixes of a file's name in lower case, without that of a compression; two or more, the
    first ones empty."""
    suffixes = ["", "", *Path(file.lower()).suffixes]
    return suffixes[:-1] if suffixes[-1] in COMPRESSIONS else suffixes


def as_plain_text(file: str) -> str:
    """A name under which the same file is read as plain text: `a.fa.txt.gz` for `a.fa.gz`."""
    path = Path(file)
    if path.suffix.lower() in COMPRESSIONS:
        return str(path.with_suffix(f".txt{path.suffix}"))
    return f"{file}.txt"


def is_json_lines(file: str) -> bool:
    """Whether a file has one JSON record per line, by its name: also `c4.json.aa`, a part that
    `split` made, but not `notes.jsonl.txt`."""
    *_, before, last = _suffixes(file)
    return last in JSON_LINES or (before in JSON_LINES and _PART.fullmatch(last) is not None)


def has_fields(file: str) -> bool:
    """Whether a file has records with fields, by its name."""
    return is_json_lines(file) or Path(file).suffix.lower() == ".parquet"


def check_suffix(file: str) -> None:
    """ValueError: a file's name says that it has a format that is not read."""
    suffix = format_suffix(file)
    if suffix in NOT_READ:
        raise ValueError(
            f"{file} cannot be read, because it is a {suffix} file: expected plain text, FASTA, "
            f".jsonl, .json or .parquet, perhaps with {', '.join(COMPRESSIONS)}; "
            f"{_advice(suffix, file)}"
        )


def _advice(suffix: str, file: str) -> str:
    as_it_is = f"to read its lines as they are, rename it to {as_plain_text(file)}"
    if suffix in TABLES:
        return f"convert it to .jsonl and name the column with --field; {as_it_is}"
    if suffix in MARKUP:
        return f"extract its text; {as_it_is}"
    if suffix in CRAWLS:
        return "extract its texts to .jsonl, for example with the package warcio"
    return "unpack or convert it"


def check_first_bytes(start: bytes, file: str) -> None:
    """`start` is the first line of a file's data, decompressed. ValueError: it is that of a format
    that is not text."""
    suffixes = [suffix for first, suffix in FIRST_BYTES.items() if start.startswith(first)]
    place, names = _TAR
    if start[place] in names:
        suffixes.append(".tar")
    if suffixes:
        known = suffixes[0] in (*COMPRESSIONS, ".parquet")
        rename = ", or let its name end in that suffix" if known else ""
        raise ValueError(
            f"{file} holds no text: its data begins as that of a {suffixes[0]} file; unpack or "
            f"convert it{rename}"
        )
