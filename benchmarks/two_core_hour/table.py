"""The table of entries, from results/ENTRY.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.two_core_hour import entry as entries
from benchmarks.two_core_hour.data import TASK_ROWS, TEXT_SHA256

RESULTS = Path(__file__).parent / "results"
HEAD = ("entry", "recipe", "bits per character", "counts of both neighbors", "[MASK] loss (nat)",
        "tasks (random weights; no encoder)", "steps", "budget")  # fmt: skip
CONTEST = {
    "text_sha256": TEXT_SHA256,
    "tasks_sha256": None,
    "task_seeds": 3,
    "tune_rates": [*TASK_ROWS.tune_rates],
    "seed": 0,
    "budget_minutes": 60.0,
}
MACHINE = "2 cores"  # what the machine of a result begins with
NOT_RUN = "not run yet"


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Entry -> its result, for those that have one. ValueError: it is of another text, or of other
    tasks, seeds, time or machine than the contest's."""
    files = sorted(folder.glob("*.json"))
    results = {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files}
    for name, result in results.items():
        wrong = [k for k, v in CONTEST.items() if result.get(k, "") != v]
        if not result.get("machine", "").startswith(MACHINE):
            wrong.append("machine")
        if wrong:
            raise ValueError(
                f"{folder / name}.json is not of the contest, by {', '.join(wrong)}: take it out"
            )
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """A row for every entry of the repository, in Markdown: those with a result first, by bits per
    character."""
    titles = {name: entries.load(name).title for name in entries.names()}
    order = sorted(titles, key=lambda n: results.get(n, {}).get("bits_per_character", 99.0))
    rows = [row(name, titles[name], results.get(name)) for name in order]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row(name: str, title: str, result: dict[str, Any] | None) -> list[str]:
    """The cells of one entry."""
    if result is None:
        return [f"`{name}`", title, NOT_RUN, *[""] * (len(HEAD) - 3)]
    bits, error = result["bits_per_character"], result["bits_per_character_se"]
    steps = f"{result['steps']:,}"
    if result["steps"] < result["planned_steps"]:
        steps += f" of {result['planned_steps']:,}"
    return [
        f"`{name}`",
        title,
        f"{bits:.3f} ± {error:.3f}",
        f"{result['bigram_bits_per_character']:.3f}",
        f"{result['mask_loss']:.3f} ({result['bigram_loss']:.3f})",
        ", ".join(_task(task, result) for task in result["tasks"]) or "-",
        steps,
        f"{result['seconds'] / 60:.1f} of {result['budget_minutes']:g} min, {result['machine']}",
    ]


def _task(name: str, result: dict[str, Any]) -> str:
    """Of a task in percent: the entry (random weights; no encoder)."""
    beside = [result.get("random_tasks", {}).get(name, {}).get("value")]
    beside.append(result.get("without_encoder", {}).get(name))
    text = "; ".join("-" if value is None else f"{100 * value:.1f}" for value in beside)
    return f"{name} {100 * result['tasks'][name]['value']:.1f} ({text})"
