"""What scaling.py and roofline.py share: compiled cases in a JSON file, and a table in a page."""

from __future__ import annotations

import datetime
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

Cases = list[dict[str, Any]]


def read(file: Path) -> Cases:
    return json.loads(file.read_text())["cases"] if file.exists() else []


def keep(file: Path, cases: Cases) -> None:
    file.write_text(json.dumps({"cases": cases}, indent=1) + "\n")


def made() -> dict[str, Any]:
    """When, and by what: part of every case."""
    versions = {p: version(p) for p in ("jax", "libtpu")}
    return {"date": str(datetime.date.today()), "versions": versions}


def origins(cases: Cases) -> str:
    """All dates and versions, in words."""
    found = {(c["date"], c["versions"]["jax"], c["versions"]["libtpu"]) for c in cases}
    return ", or ".join(f"{date} (jax {jax}, libtpu {tpu})" for date, jax, tpu in sorted(found))


def fill(page: Path, begin: str, end: str, table: str) -> None:
    """Puts the table between two marks of the page."""
    text = page.read_text()
    page.write_text(f"{text.split(begin)[0]}{begin}\n{table}\n{end}{text.split(end)[1]}")
