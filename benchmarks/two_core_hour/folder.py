"""What the folder of an entry was made from, in OUT/entry.json: a second start must say the same,
so that no score is that of another entry, text, task or number of seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.two_core_hour.data import TASK_ROWS
from benchmarks.two_core_hour.entry import Entry
from bert_jax.utils import io

FILE = "entry.json"


def made_from(
    entry: Entry, budget_minutes: float, seed: int, task_seeds: int, text: str, tasks: Path | None
) -> dict[str, Any]:
    """`text` is the hash of the text; `tasks` the folder of the user's tasks."""
    values = {
        "entry": dataclasses.asdict(entry),
        "budget_minutes": budget_minutes,
        "seed": seed,
        "task_seeds": task_seeds,
        "tune_rates": TASK_ROWS.tune_rates,
        "text_sha256": text,
        "tasks_sha256": None if tasks is None else _hash_tasks(tasks),
    }
    return json.loads(json.dumps(values, default=str))


def claim(out: Path, values: dict[str, Any]) -> None:
    """Write what a new folder is made from. ValueError: it was made from something else."""
    file = out / FILE
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise ValueError(f"{out} is not empty and has no {FILE}: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        io.write_text(file, json.dumps(values, indent=2) + "\n")
        return
    there = json.loads(file.read_text(encoding="utf-8"))
    other = [name for name, value in values.items() if there.get(name) != value]
    if other:
        raise ValueError(
            f"{out} was made from another {', '.join(other)} ({FILE}): choose another --out"
        )


def _hash_tasks(tasks: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in tasks.rglob("*.json*") if path.is_file()):
        digest.update(f"{file.relative_to(tasks)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
