"""Write the metrics of a run: `metrics.jsonl`, `timing.jsonl`, trackers, and a progress bar or log
lines."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bert_jax.training.line_file import LineFile
from bert_jax.training.trackers import Tracker
from bert_jax.utils import io, metrics_log

logger = logging.getLogger(__name__)

TRIVIAL_BASELINES: tuple[tuple[str, str, Callable[[dict[str, float]], bool]], ...] = (
    # (metric that shows that the run has this task, message, condition)
    (
        "eval_unigram_loss",
        "loss at [MASK] is no better than the unigram baseline",
        lambda v: v["eval_mask_loss"] > v["eval_unigram_loss"] - 0.02,
    ),
    (
        "eval_pair_baseline_loss",
        "sentence-pair loss is no better than that of the label shares alone",
        lambda v: v["eval_pair_loss"] > v["eval_pair_baseline_loss"] - 0.005,
    ),
    (
        "eval_rtd_recall",
        "almost every token is predicted as original",
        lambda v: v["eval_rtd_recall"] < 0.01,
    ),
    (
        "eval_rtd_auc",
        "replaced tokens are told from others no better than by chance",
        lambda v: v["eval_rtd_auc"] < 0.52,
    ),
)
PATIENCE = 3  # evaluations in a row before a warning
# What a line of the log has: the loss of all predicted tokens, some of which stand there to be
# copied, and that at the mask token beside word frequencies.
SHOWN = ("loss", "eval_loss", "eval_mask_loss", "eval_unigram_loss")


def at_trivial_baseline(values: dict[str, float]) -> list[str]:
    """Messages about evaluation metrics that are no better than a trivial baseline. Accuracy does
    not show it: predicting "original" for every token is right nine times out of ten."""
    return [
        message
        for metric, message, condition in TRIVIAL_BASELINES
        if metric in values and condition(values)
    ]


class MetricsWriter:
    """Writes the metrics of one run folder: each step once, in order, across restarts.

    A line is composed when its step is dispatched and written when the next step is, so that
    the host never waits for the device. When a run resumes after `step`, later lines are
    dropped; they will be written again, with the same values. A full disk ends no run here: lines
    wait in memory (line_file.py), and only `fsync` raises. With `folder` None nothing is
    written (processes other than the first). `to_floats` converts a step's metrics to numbers.
    `trackers(step)` opens the trackers, for metrics from that step on, when there are the first.
    """

    def __init__(
        self,
        folder: Path | None,
        step: int,
        steps: int,
        to_floats: Callable[[Any], dict[str, float]],
        trackers: Callable[[int], list[Tracker]] = lambda step: [],
    ) -> None:
        self._file = self._timing = self._bar = None
        self._trackers: list[Tracker] | None = None
        self._open_trackers = partial(trackers, step + 1)
        self._step, self._steps, self._to_floats = step, steps, to_floats
        self._tokens, self._seconds, self._since = 0.0, 0.0, time.monotonic()
        self._counted_step, self._waited = step, 0.0
        self._pending: tuple[int, float, Any] | None = None
        self._at_baseline: dict[str, int] = {}
        if folder is None:
            return
        _truncate(folder / "metrics.jsonl", step)
        self._file = LineFile(folder / "metrics.jsonl")
        _end_line(folder / "timing.jsonl")
        self._timing = LineFile(folder / "timing.jsonl")
        self._time("begin", 0.0)
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    @contextlib.contextmanager
    def timer(self, what: str) -> Iterator[None]:
        """Time anything but training steps: the seconds go to `timing.jsonl`, and do not count in
        the throughput."""
        begin = time.monotonic()
        self._seconds += begin - self._since
        try:
            yield
        finally:
            self._since = time.monotonic()
            self._time(what, self._since - begin)

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time how long a step waits for its batch."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - begin

    def _time(self, what: str, seconds: float, **more: float) -> None:
        if self._timing is not None:
            line = {"what": what, "step": self._step, "seconds": round(seconds, 4)}
            more = {k: round(v, 4) for k, v in more.items()}
            self._timing.write(json.dumps({**line, **more, "at": time.time()}))

    def _count(self) -> float:
        """Record the time of the steps since the last call; returns their seconds, waiting for data
        included."""
        now = time.monotonic()
        seconds = self._seconds + now - self._since
        if self._step > self._counted_step:
            self._time("steps", seconds - self._waited, wait=self._waited, after=self._counted_step)
        self._counted_step, self._waited = self._step, 0.0
        self._seconds, self._since = 0.0, now
        return seconds

    def advance(self, tokens: float) -> None:
        """Count one more step, with this number of tokens that are not padding."""
        self._step += 1
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update()

    def write(self, metrics: Any) -> None:
        """Register the metrics of the step that was just dispatched, with the throughput since the
        last call. The next `flush` writes them."""
        rate = self._tokens / max(self._count(), 1e-9)
        self._tokens = 0.0
        self._pending = self._step, rate, metrics

    def flush(self) -> None:
        """Write the registered metrics."""
        if self._pending is not None:
            step, rate, metrics = self._pending
            self._pending = None
            self._write(step, rate, self._to_floats(metrics))

    def _write(self, step: int, rate: float, values: dict[str, float]) -> None:
        if self._file is None:
            return
        line = {"step": step, "loss": values["loss"], "tokens_per_second": round(rate, 1), **values}
        # JSON has no NaN: null stands for a number that is not finite.
        finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
        self._file.write(json.dumps(finite))
        if self._trackers is None:
            self._trackers = self._open_trackers()
        for tracker in self._trackers:
            tracker.add({k: v for k, v in finite.items() if k != "step" and v is not None}, step)
        if "eval_loss" in values:
            self._warn(values)
        shown = {k: f"{values[k]:.3f}" for k in SHOWN if k in values}
        shown["tokens/s"] = f"{rate:,.0f}"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            text = " ".join(f"{k} {v}" for k, v in shown.items())
            logger.info("step %d/%d %s", step, self._steps, text)

    def _warn(self, values: dict[str, float]) -> None:
        self._at_baseline = {
            message: self._at_baseline.get(message, 0) + 1
            for message in at_trivial_baseline(values)
        }
        for message, times in self._at_baseline.items():
            if times % PATIENCE == 0:
                logger.warning("%s, for %d evaluations in a row", message, times)

    def fsync(self) -> None:
        """Write all metrics to the disk, before the checkpoint that follows them. OSError: they
        cannot be written."""
        self.flush()
        for file in (self._file, self._timing):
            if file is not None:
                file.fsync()

    def close(self) -> None:
        """Write what is pending, and close the files and the progress bar."""
        self.flush()
        self._count()
        for part in (self._file, self._timing, *(self._trackers or ()), self._bar):
            if part is not None:
                part.close()


def _truncate(path: Path, step: int) -> None:
    """Keep the lines up to a step."""
    if path.exists():
        kept = [line for line in metrics_log.metric_lines(path) if line["step"] <= step]
        io.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _end_line(path: Path) -> None:
    """End a line that a kill cut, so that the next is one of its own."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as f:
            f.write("\n")
