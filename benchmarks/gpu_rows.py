"""Files of rows that grow while a GPU is at hand, and processes that share the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of a file by name; none if it is not there."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def add_row(path: Path, row: Row) -> None:
    with path.open("a") as f:
        f.write(json.dumps(row) + "\n")


def run_parts(parts: int, *flags: str) -> bool:
    """Run this command `parts` times side by side, with `--part` 0, 1, ...; whether all succeed."""
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, *sys.argv, *flags, "--part"]
    processes = [subprocess.Popen([*command, str(i)], env=env) for i in range(parts)]
    codes = [process.wait() for process in processes]
    return not any(codes)
