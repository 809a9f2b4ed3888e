"""The error analysis of fine-tuned runs in a report: scores of each label, a reliability curve, and
the rows with the largest loss."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from bert_jax.tasks import errors_file, results

Errors = dict[str, dict[str, Any]]  # run -> split -> errors


def read_all(folders: dict[str, Path]) -> Errors:
    """The errors of the runs that have them. ValueError: an invalid file."""
    every = {name: errors_file.read_errors(folder) for name, folder in folders.items()}
    return {name: errors for name, errors in every.items() if errors}


def shown_split(values: dict[str, Any]) -> str | None:
    """The split that is shown: test where it is labeled, else dev."""
    return next((split for split in ("test", "dev") if split in values), None)


def draw_calibration(errors: Errors, path: Path) -> bool:
    """Draw the reliability curve of each run, and how many decisions each point stands for; returns
    False where no run has one."""
    curves = {}
    for name, splits in errors.items():
        split = shown_split(splits)
        if split is not None and "calibration" in splits[split]:
            curves[f"{name}, {split}"] = splits[split]["calibration"]
    if not curves:
        return False
    figure, axis = plt.subplots(figsize=(6, 5))
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, label="perfect")
    for name, curve in curves.items():
        x = [b["confidence"] for b in curve["bins"]]
        y = [b["accuracy"] for b in curve["bins"]]
        count = sum(b["count"] for b in curve["bins"])
        area = [20 + 300 * b["count"] / max(count, 1) for b in curve["bins"]]
        (line,) = axis.plot(x, y, label=f"{name}: ECE {curve['ece']:.3f}")
        axis.scatter(x, y, s=area, color=line.get_color(), alpha=0.4)
    axis.set_xlabel("probability of the prediction", fontsize=8)
    axis.set_ylabel("share that is right", fontsize=8)
    axis.set_title("reliability (ECE: expected calibration error)", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def label_sections(folders: dict[str, Path]) -> str:
    """A table of every label's precision, recall, F1 and support for each run that has them."""
    sections = []
    for name, folder in folders.items():
        per_label = (results.read_results(folder) or {}).get("per_label", {})
        split = shown_split(per_label)
        if split is not None:
            header = ("label", "precision", "recall", "F1", "support")
            rows = [
                (label, *(f"{s[k]:.3f}" for k in ("precision", "recall", "f1")), str(s["support"]))
                for label, s in per_label[split].items()
            ]
            sections.append(_section(f"Scores of each label: {name}, {split}", header, rows))
    return "".join(sections)


def worst_sections(errors: Errors) -> str:
    """The rows with the largest loss of each run. Lines are those of its file of predictions."""
    sections = []
    for name, splits in errors.items():
        split = shown_split(splits)
        if split is not None and splits[split]["worst"]:
            rows = [
                (str(r["line"]), f"{r['loss']:.3f}", r["label"], r["predicted"], r["text"])
                for r in splits[split]["worst"]
            ]
            header = ("line", "loss", "label", "predicted", "text")
            title = f"Largest losses: {name}, {split} (lines of predictions_{split}.jsonl)"
            sections.append(_section(title, header, rows))
    return "".join(sections)


def _section(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f'<div><table class="text"><tr>{head}</tr>{body}</table></div>'
    return f"<h2>{html.escape(title)}</h2>{table}"
