"""GLUE's diagnostic set (AX): sentence pairs that an MNLI model is tested on, never trained.

    diagnostic.tsv       index  sentence1  sentence2         without labels, for submission
    diagnostic-full.tsv  ...  Premise  Hypothesis  Label     with labels; some are empty

Its published metric is the Matthews correlation of three classes.
"""

from __future__ import annotations

from pathlib import Path

from bert_jax.tasks.examples import TextExample
from bert_jax.tasks.fields import IssueCounts, parse_label
from bert_jax.tasks.records import LocatedExample
from bert_jax.tasks.text_files import read_lines

SPLIT = "diagnostic"
FILES = ("diagnostic-full.tsv", "diagnostic.tsv")
FOLDERS = (".", "diagnostic", "AX", "../diagnostic", "../AX")  # from the folder of MNLI
COLUMNS = (("Premise", "Hypothesis"), ("sentence1", "sentence2"))
UNLABELED = "rows without a label, predicted and not scored"


def find_diagnostic(mnli: Path) -> Path | None:
    """The file of the diagnostic set beside or in the folder of MNLI, the labeled one if there are
    both; None if there is none."""
    files = (mnli / folder / name for name in FILES for folder in FOLDERS)
    return next((file for file in files if file.is_file()), None)


def read_diagnostic(file: Path, issues: IssueCounts) -> list[LocatedExample]:
    """Its rows, each with its location. ValueError: a file without the columns of the set."""
    lines = read_lines(file)
    location, header = next(lines, (None, ""))
    names = header.split("\t")
    texts = next((pair for pair in COLUMNS if set(pair) <= set(names)), None)
    if texts is None:
        raise ValueError(
            f"{location or file}: the columns are {', '.join(names)}: expected Premise and "
            "Hypothesis, or sentence1 and sentence2, separated by tabs"
        )
    examples: list[LocatedExample] = []
    for location, line in lines:
        cells = line.split("\t")
        if not line:
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"{location}: {len(cells)} columns: expected {len(names)}, as in the header, "
                "separated by tabs"
            )
        row = dict(zip(names, cells, strict=True))
        label = parse_label(row["Label"], location) if row.get("Label") else None
        if "Label" in names and label is None:
            issues[str(file), UNLABELED] += 1
        examples.append((location, TextExample(row[texts[0]], row[texts[1]], label)))
    if not examples:
        raise ValueError(f"{file} is empty: expected rows below its header")
    return examples
