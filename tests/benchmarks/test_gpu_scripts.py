"""The scripts that measure a GPU run on a CPU with small shapes, and find no row twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def rows_after(out: Path, *command: str) -> list[dict[str, object]]:
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / command[0]), "--out", str(out), *command[1:]],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    return [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (("gpu_correct.py", "--tiny", "--together", "2", "--only", "64 padded"), 6),
        (("gpu_same.py", "--tiny"), 4),
        (("attention_speed.py", "--tiny"), 8),
        (("speed_table.py", "--tiny", "--no-peer", "--together", "2"), 1),
    ],
    ids=lambda value: value[0].removesuffix(".py") if isinstance(value, tuple) else None,
)
def test_a_script_makes_its_rows_once(command: tuple[str, ...], count: int, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    rows = rows_after(out, *command)
    assert len(rows) == count
    assert not [row for row in rows if "failure" in row or ("error" in row and not row.get("ok"))]
    assert rows_after(out, *command) == rows
