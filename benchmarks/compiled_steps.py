"""Shared by benchmarks that compile steps: stored cases, and tables in pages."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Cases = list[dict[str, Any]]


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
