"""Files of rows by their suffix: JSONL, CSV and TSV with named columns, CoNLL.

.csv .tsv       a header with the names of the fields, quotes as in RFC 4180. A cell may hold a
                JSON list (`tokens`, `tags`, `options`, `label`, `entities`, `answers`,
                `documents`, `labels`, `missing`, `negatives`); words and tags may also be
                separated by spaces, options have columns `option_1 option_2 ...`, of which the
                last may be empty, and an answer has `answer` and `answer_start`. An empty cell of
                a label, of `text_pair`, `missing` or `negatives` means that there is none. Lines
                without a cell are skipped; a row of empty cells is a row.
.conll .conllu  one word per line (conll.py)
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from bert_jax.config import TaskType
from bert_jax.tasks.conll import read_conll
from bert_jax.tasks.fields import LABEL_FIELDS, IssueCounts, Location
from bert_jax.tasks.text_files import (
    LocatedRecord,
    read_json_lines,
    read_lines,
    words_of,
)

SUFFIXES = (".jsonl", ".csv", ".tsv", ".conll", ".conllu")
Kind = TaskType | Literal["pairs"]
# Columns whose cells are lists; in `label` a cell in brackets that is no list is a class.
LIST_FIELDS: dict[Kind, tuple[str, ...]] = {
    "classification": ("label",),
    "multilabel": ("label",),
    "regression": (),
    "tagging": ("tokens", "tags", "entities"),
    "choice": ("options",),
    "qa": ("answers",),
    "rerank": ("documents", "labels", "missing"),
    "pairs": ("negatives",),
}
NAMED_COLUMNS = (".csv", ".tsv")
NUMBER = re.compile(r"-?\d+")
SWALLOWED = (
    "rows of several lines, each of which has as many cells as the header (the first is on {}); if "
    "these are rows of their own, double their quotes and quote their cells"
)


def expected_rows(file: Path) -> str:
    """What a file must have by its suffix, for the message that it is empty."""
    if file.suffix in NAMED_COLUMNS:
        return "rows below a header"
    if file.suffix in (".conll", ".conllu"):
        return "one word per line"
    return "one JSON object per line"


def split_file(folder: Path, split: str, suffixes: Sequence[str]) -> Path | None:
    """The file of a split, with one of the suffixes; None if there is none. ValueError: there are
    several."""
    files = [folder / f"{split}{s}" for s in suffixes if (folder / f"{split}{s}").exists()]
    if len(files) > 1:
        raise ValueError(
            f"{folder} has {' and '.join(f.name for f in files)}: expected one file of a split"
        )
    return files[0] if files else None


def read_records(
    task_type: Kind,
    file: Path,
    issues: IssueCounts | None = None,
    ignore_labels: bool = False,
) -> Iterator[LocatedRecord]:
    """The records of a file, in the format that its suffix names (JSONL for others). What is
    unusual in it is counted in `issues`, completely at its end. With `ignore_labels` the cells of
    labels are not read, so they may be anything.

    ValueError: a file that is missing, not UTF-8, or not in that format.
    """
    if file.suffix in NAMED_COLUMNS:
        return _read_table(task_type, file, issues, ignore_labels)
    if file.suffix in (".conll", ".conllu"):
        if task_type != "tagging":
            raise ValueError(
                f"{file} is for tagging, but the task is {task_type}: use .jsonl or .csv"
            )
        return read_conll(file, issues)
    return read_json_lines(file)


# ---- CSV and TSV


def _read_table(
    task_type: Kind, file: Path, issues: IssueCounts | None, ignore_labels: bool
) -> Iterator[LocatedRecord]:
    csv.field_size_limit(2**31 - 1)
    of_row: list[str] = []  # the lines of the current row
    delimiter = "\t" if file.suffix == ".tsv" else ","
    reader = csv.reader(_collect_lines(file, of_row), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    swallowed: list[Location] = []
    begin = 1
    while True:
        location = Location(str(file), f"line {begin}")
        of_row.clear()
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as e:
            raise ValueError(f"{location}: {e}: {_advice(of_row)}") from None
        begin = reader.line_num + 1
        if not row or (header is None and not any(row)):
            continue
        if header is None:
            header = [name.strip() for name in row]
            _refuse_other_separator(header, delimiter, location)
            if len(set(header)) < len(header):
                raise ValueError(f"{location}: two columns have the same name: {', '.join(header)}")
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{location}: {len(row)} cells, and the header has {len(header)} columns "
                f"({', '.join(header)}): quote a cell that holds a {delimiter!r} or a line break"
            )
        if len(of_row) > 1 and _look_like_rows(of_row, delimiter, len(header)):
            swallowed.append(location)
        cells = dict(zip(header, row, strict=True))
        if ignore_labels:
            cells = {name: cell for name, cell in cells.items() if name not in LABEL_FIELDS}
        yield location, _from_cells(task_type, cells, location)
    if swallowed and issues is not None:
        issues[str(file), SWALLOWED.format(swallowed[0].part)] += len(swallowed)


def _collect_lines(file: Path, of_row: list[str]) -> Iterator[str]:
    """The lines with their ends: those inside a quoted cell are part of it."""
    for _, line in read_lines(file, keep_ends=True):
        of_row.append(line)
        yield line


def _refuse_other_separator(header: list[str], delimiter: str, location: Location) -> None:
    """ValueError: the only name in the header has a separator in it."""
    other = next((c for c in ",;\t|" if c != delimiter and c in header[0]), None)
    if len(header) == 1 and other is not None:
        raise ValueError(
            f"{location}: the header is separated by {other!r}: expected {delimiter!r} in a "
            f"{Path(location.file).suffix} file; save the table as .csv with commas, or as .tsv "
            "with tabs"
        )


def _advice(lines: Iterable[str]) -> str:
    """Of a row that cannot be read."""
    if any("\r" in line.rstrip("\r\n") for line in lines):
        return "a carriage return alone ends no line: end lines with \\n or \\r\\n"
    return "a cell with a quote must be quoted, and its quotes doubled"


def _look_like_rows(lines: Iterable[str], delimiter: str, columns: int) -> bool:
    """Whether each line of one row could be a row: an unquoted text began with a quote, and
    a later one ended with a quote."""
    return columns > 1 and all(line.count(delimiter) == columns - 1 for line in lines)


def _from_cells(task_type: Kind, cells: dict[str, str], location: Location) -> dict[str, Any]:
    record: dict[str, Any] = dict(cells)
    for name in ("id", "text_pair"):
        if not record.get(name):
            record.pop(name, None)
    for name in ("missing", "negatives"):
        if not cells.get(name, "").strip():
            record.pop(name, None)
    for name in LIST_FIELDS[task_type]:
        cell = cells.get(name, "").strip()
        if cell.startswith("[") or (cell.startswith("{") and name != "label"):
            try:
                record[name] = json.loads(cell)
            except (ValueError, RecursionError) as e:
                if name != "label" or _is_python_list(cell):
                    raise ValueError(
                        f"{location}: `{name}` is not JSON: {e}; expected a list like "
                        '["a", "b"], as json.dumps writes it'
                    ) from None
        elif name in ("tokens", "tags") and name in cells:
            record[name] = words_of(cells[name])
    for name in LABEL_FIELDS:
        if name in record and not cells[name].strip():
            record[name] = None
    if task_type == "pairs" and "score" in cells:
        record["score"] = _number(cells["score"]) if cells["score"].strip() else None
    if task_type in ("regression", "choice") and isinstance(record.get("label"), str):
        record["label"] = _number(record["label"])
    options = sorted((n for n in cells if re.fullmatch(r"option_\d+", n)), key=lambda n: int(n[7:]))
    if options and "options" not in cells:
        record["options"] = _options([cells[name] for name in options], location)
    if "is_impossible" in cells:
        flags = {"true": True, "1": True, "false": False, "0": False, "": False}
        impossible = cells["is_impossible"].strip().lower()
        record["is_impossible"] = flags.get(impossible, cells["is_impossible"])
    if "answer" in cells and "answers" not in cells:
        answer = {"text": cells["answer"], "answer_start": _number(cells.get("answer_start", ""))}
        record["answers"] = [answer] if cells["answer"] else []
    return record


def _is_python_list(cell: str) -> bool:
    """Whether a cell is a list as Python or NumPy prints it, which pandas writes: of strings, or of
    numbers between spaces. A class may be named [other]."""
    if re.fullmatch(r"\[[-+.,\deE\s]*\d[-+.,\deE\s]*\]", cell):
        return True
    try:
        return isinstance(ast.literal_eval(cell), list)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _options(cells: list[str], location: Location) -> list[str]:
    """Rows may have fewer options than columns: the last cells are empty, never one before."""
    while cells and not cells[-1]:
        cells.pop()
    if "" in cells:
        raise ValueError(
            f"{location}: option {cells.index('') + 1} of {len(cells)} is empty: expected options "
            "without a gap, since `label` is a number of an option; fill in the cell"
        )
    return cells


def _number(cell: str) -> Any:
    """An integer or a number, or the cell itself if it is none."""
    if NUMBER.fullmatch(cell.strip()):
        return int(cell)
    try:
        return float(cell)
    except ValueError:
        return cell
