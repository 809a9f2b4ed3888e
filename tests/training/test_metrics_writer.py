"""What a run says about itself."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bert_jax.training import metrics_writer
from bert_jax.training.line_file import LineFile
from bert_jax.utils import metrics_log
from tests.helpers.clock import Clock

PLATEAU = {"loss": 7.0, "eval_loss": 7.0, "eval_mask_loss": 6.5, "eval_unigram_loss": 6.5}
COPYING = PLATEAU | {"eval_mlm_loss": 5.8}  # a tenth of the targets is shown


RTD = {"eval_rtd_recall": 0.02, "eval_rtd_auc": 0.5}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (PLATEAU, ["the unigram baseline"]),
        (COPYING, ["the unigram baseline"]),
        (PLATEAU | {"eval_mask_loss": 6.0}, []),
        ({"eval_pair_loss": 0.692, "eval_pair_baseline_loss": 0.693}, ["label shares alone"]),
        ({"eval_pair_loss": 0.6, "eval_pair_baseline_loss": 0.693}, []),
        ({"eval_rtd_recall": 0.0, "eval_rtd_accuracy": 0.93}, ["predicted as original"]),
        ({"eval_rtd_recall": 0.2}, []),
        (RTD, ["no better than by chance"]),
        (RTD | {"eval_rtd_auc": 0.55}, []),
    ],
)
def test_trivial_answers_are_recognised(values: dict, says: list[str]) -> None:
    messages = metrics_writer.at_trivial_baseline(values)
    assert len(messages) == len(says)
    assert all(s in f for s, f in zip(says, messages, strict=True))


def test_three_evaluations_at_the_baseline_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = metrics_writer.MetricsWriter(tmp_path, 0, 10, dict)
    for _ in range(3):
        assert "evaluations in a row" not in caplog.text
        run.advance(1)
        run.write(PLATEAU)
        run.flush()
    run.close()
    assert "for 3 evaluations in a row" in caplog.text


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step" 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        metrics_log.read_metrics(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(metrics_writer, "time", clock)
    return clock


def test_every_line_has_its_step_loss_and_throughput(tmp_path: Path, clock: Clock) -> None:
    run = metrics_writer.MetricsWriter(tmp_path, 0, 10, dict)
    with run.timer("evaluate"):
        clock.now += 3
    clock.now += 0.5
    run.advance(100)
    run.write({"loss": 2.0, "learning_rate": 0.1})
    run.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert list(line) == ["step", "loss", "tokens_per_second", "learning_rate"]
    assert line["tokens_per_second"] == 200  # what was timed apart does not count
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").open()]
    assert [t["what"] for t in timing] == ["begin", "evaluate", "steps"]
    assert [t["seconds"] for t in timing] == [0, 3, 0.5]


def test_the_time_of_a_run_adds_up(tmp_path: Path, clock: Clock) -> None:
    """What is timed apart, what waits, and the rest are disjoint and leave nothing out."""
    run = metrics_writer.MetricsWriter(tmp_path, 0, 10, dict)
    for _ in range(3):
        with run.data_wait():
            clock.now += 0.25
        with run.timer("save"):
            clock.now += 1
        clock.now += 0.5
        run.advance(1)
    run.close()
    spent = {what: seconds for what, seconds in metrics_log.goodput(tmp_path).items() if seconds}
    assert spent == {"steps": 1.5, "wait": 0.75, "save": 3}


def test_steps_that_a_kill_took_are_lost(tmp_path: Path, clock: Clock) -> None:
    """Ten steps of a second each, killed within a line, begun again after step 5."""
    lines = [
        dict(what="begin", step=0, seconds=0),
        dict(what="compile", step=0, seconds=5),
        *(dict(what="steps", step=i, after=i - 2, seconds=2, wait=0.5) for i in (2, 4, 6, 8, 10)),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"what": "st'
    (tmp_path / "timing.jsonl").write_text(text)
    again = metrics_writer.MetricsWriter(tmp_path, 5, 10, dict)
    for _ in range(5):
        again.advance(1)
    again.close()
    spent = metrics_log.goodput(tmp_path)
    assert spent["lost"] == 5
    assert spent["steps"] == 5
    assert (spent["compile"], spent["wait"]) == (5, 2.5)


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    run = metrics_writer.MetricsWriter(tmp_path, 0, 10, dict)
    run.advance(1)
    run.write({"loss": float("nan"), "gradient_norm": float("inf")})
    run.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"loss": null' in text
    assert '"gradient_norm": null' in text
    assert math.isnan(metrics_log.read_metrics(tmp_path)[0]["loss"])
    metrics_writer.MetricsWriter(tmp_path, 1, 10, dict).close()  # goes on: the line stays as it is
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_after_a_save_the_files_are_closed_until_the_next_line(tmp_path: Path) -> None:
    """A bucket that is mounted keeps only what was closed."""
    file = LineFile(tmp_path / "lines")
    for line in ("a", "b"):
        file.write(line)
        file.fsync()
        assert file._file.closed
    file.fsync()
    file.close()
    assert (tmp_path / "lines").read_text() == "a\nb\n"


def test_lines_of_a_full_disk_wait_in_memory_and_only_fsync_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk takes a part of the first line; both are complete once there is space."""
    run = metrics_writer.MetricsWriter(tmp_path, 0, 10, dict)
    line_file: Any = run._file
    disk, room = line_file._file, [5]

    def write(data: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return disk.write(data[: room.pop()])

    with monkeypatch.context() as full:
        full.setattr(
            line_file, "_file", SimpleNamespace(write=write, fileno=disk.fileno, closed=False)
        )
        for loss in (2.0, 1.0):
            run.advance(1)
            run.write({"loss": loss})
            run.flush()
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/metrics.jsonl'"):
            run.fsync()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"ste'
    assert caplog.text.count(f"{tmp_path}/metrics.jsonl cannot be written (No space left") == 1
    run.fsync()
    assert [line["loss"] for line in metrics_log.read_metrics(tmp_path)] == [2.0, 1.0]
    run.close()
