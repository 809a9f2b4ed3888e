"""What a report draws: every logged number is visible, and its baseline has its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_jax.training import report

LINES = (
    {"step": 20, "loss": 8.5, "pair_loss": 0.75},
    {"step": 20, "eval_loss": 8.4, "eval_pair_loss": 0.72, "eval_pair_baseline_loss": 0.69},
    {"step": 20, "eval_mask_loss": 7.8, "eval_unigram_loss": 6.5},
)


@pytest.fixture
def axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of a report on `LINES` by their titles."""
    figures: list[Any] = []
    monkeypatch.setattr(report.plt, "close", figures.append)
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    report.report([run], tmp_path / "report")
    monkeypatch.undo()
    axes = {axis.get_title(): axis for axis in figures[0].axes if axis.get_visible()}
    for figure in figures:
        report.plt.close(figure)
    return axes


def test_a_curve_of_one_point_is_visible(axes: dict[str, Any]) -> None:
    drawn = [line for axis in axes.values() for line in axis.lines]
    assert drawn
    assert all(line.get_marker() == "." for line in drawn)


def test_a_baseline_is_called_what_it_is(axes: dict[str, Any]) -> None:
    labels = {
        title: {text.get_text() for text in axis.get_legend().get_texts()}
        for title, axis in axes.items()
    }
    assert "run, label shares" in labels["sentence-pair loss (nat)"]
    assert "run, unigram baseline" in labels["loss at [MASK] (nat)"]


def test_a_figure_that_the_newest_evaluation_lacks_has_no_old_value(tmp_path: Path) -> None:
    lines = (
        {"step": 10, "loss": 8.0, "eval_loss": 7.0, "eval_mlm_loss": 7.0, "eval_mask_loss": 6.25},
        {"step": 20, "loss": 7.5, "eval_loss": 6.5, "eval_mlm_loss": 6.5},
    )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    report.report([tmp_path], tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert "no token was masked" in page
    assert "6.25" not in page
    assert "7.5" in page


def test_chance_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(report.plt, "close", figures.append)
    line = {"step": 1, "eval_rtd_auc": 0.7}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    report.report([tmp_path], tmp_path / "report")
    monkeypatch.undo()
    (axis,) = (a for a in figures[0].axes if a.get_title() == "AUC of replaced tokens")
    assert "chance" in {text.get_text() for text in axis.get_legend().get_texts()}
    for figure in figures:
        report.plt.close(figure)


def test_a_run_is_named_after_its_folder_and_pictures_of_another_run_are_removed(
    axes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "run")
    for name in ("confusion.png", "calibration.png"):
        (tmp_path / "report" / name).write_text("of another run")
    report.report([Path(".")], tmp_path / "report")
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files == {"curves.png", "report.html"}
    assert "<th>run</th>" in (tmp_path / "report/report.html").read_text()
