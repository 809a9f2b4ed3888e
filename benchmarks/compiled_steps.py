"""Shared by benchmarks that compile steps: abstract inputs, stored cases, and tables in pages."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import Experiment
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary

Cases = list[dict[str, Any]]


def small_vocabulary(config: Experiment) -> Vocabulary:
    """A vocabulary of the config's size with five special tokens, for steps that only compile."""
    special = np.arange(config.encoder.vocab_size) < 5
    return Vocabulary(4, special, WordEdges.marked(~special), np.ones(config.encoder.vocab_size))


def abstract_batch(rows: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a pre-training batch."""
    per_row = jax.ShapeDtypeStruct((rows,), np.int32)
    batch = dict.fromkeys(("size", "first", "pair", "row", "epoch"), per_row)
    return {**batch, "tokens": jax.ShapeDtypeStruct((rows, length), np.int32)}


def read_cases(file: Path) -> Cases:
    return json.loads(file.read_text())["cases"] if file.exists() else []


def write_cases(file: Path, cases: Cases) -> None:
    file.write_text(json.dumps({"cases": cases}, indent=1) + "\n")


def date_and_versions(compiler: str = "libtpu") -> dict[str, Any]:
    """Fields of every case: when it was compiled, and by what."""
    versions = {p: version(p) for p in ("jax", compiler)}
    return {"date": str(datetime.date.today()), "versions": versions}


def format_versions(cases: Cases) -> str:
    """All dates and versions of the cases, in words."""
    versions = {(c["date"], *c["versions"].items()) for c in cases}
    return ", or ".join(
        f"{date} ({', '.join(f'{name} {number}' for name, number in packages)})"
        for date, *packages in sorted(versions)
    )


def replace_table(page: Path, begin: str, end: str, table: str) -> None:
    """Replace the text between the marks `begin` and `end` of a page."""
    text = page.read_text()
    page.write_text(f"{text.split(begin)[0]}{begin}\n{table}\n{end}{text.split(end)[1]}")


def run_command(doc: str, commands: dict[str, Callable[[], None]]) -> None:
    """Run the command that the first argument names."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=formatter)
    parser.add_argument("command", choices=[*commands])
    commands[parser.parse_args().command]()
