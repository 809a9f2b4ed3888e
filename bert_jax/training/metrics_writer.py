"""What a run writes about itself: `metrics.jsonl`, `timing.jsonl`, TensorBoard, and a bar or
lines to look at."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bert_jax.utils import io, metrics_log

if TYPE_CHECKING:
    from bert_jax.training.tensorboard import TensorBoardWriter

logger = logging.getLogger(__name__)

TRIVIAL_BASELINES: tuple[tuple[str, str, Callable[[dict[str, float]], bool]], ...] = (
    # a metric that says the run has this task, what is said, when
    (
        "eval_unigram_loss",
        "masked tokens are predicted no better than by word frequencies",
        lambda v: v["eval_mlm_loss"] > v["eval_unigram_loss"] - 0.02,
    ),
    (
        "eval_pair_share",
        "the pair head tells nothing apart",
        lambda v: v["eval_pair_loss"] > entropy(v["eval_pair_share"]) - 0.005,
    ),
    (
        "eval_rtd_recall",
        "almost every token is called original",
        lambda v: v["eval_rtd_recall"] < 0.01,
    ),
)
PATIENCE = 3  # evaluations in a row before a warning


def entropy(p: float) -> float:
    """Of a coin, in nat: the loss of always answering with the share of each class."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def at_trivial_baseline(values: dict[str, float]) -> list[str]:
    """The trivial answers that evaluation metrics sit at. Accuracy does not tell: calling every
    token original is right nine times out of ten."""
    return [says for metric, says, holds in TRIVIAL_BASELINES if metric in values and holds(values)]


def _board(folder: Path, step: int) -> TensorBoardWriter:
    """tensorboardX imports torch where there is one: a second that no first step waits for."""
    from bert_jax.training.tensorboard import TensorBoardWriter

    return TensorBoardWriter(folder, step)


class MetricsWriter:
    """The metrics of one run folder: each step once, in order, whatever restarts it took.

    A line is put together when its step is dispatched and written when the next one is, so
    that nobody waits for the device. Lines past `step`, where the run goes on, are dropped:
    they are written again, and the same. With `folder` None nothing is written (processes
    other than the first). `plain` turns what a step returns into numbers.
    """

    def __init__(
        self, folder: Path | None, step: int, steps: int, plain: Callable[[Any], dict[str, float]]
    ) -> None:
        self._file = self._timing = self._bar = None
        self._board: TensorBoardWriter | None = None
        self._step, self._steps, self._plain = step, steps, plain
        self._tokens, self._seconds, self._since = 0.0, 0.0, time.monotonic()
        self._counted, self._waited = step, 0.0
        self._waiting: tuple[int, float, Any] | None = None
        self._sat: dict[str, int] = {}
        if folder is None:
            return
        _truncate(folder / "metrics.jsonl", step)
        self._file = (folder / "metrics.jsonl").open("a")
        _end_line(folder / "timing.jsonl")
        self._timing = (folder / "timing.jsonl").open("a")
        self._time("begin", 0.0)
        self._open_board = partial(_board, folder / "tensorboard", step + 1)
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    @contextlib.contextmanager
    def timer(self, what: str) -> Iterator[None]:
        """Seconds spent on something else than steps: kept in `timing.jsonl`, left out of the
        throughput."""
        begin = time.monotonic()
        self._seconds += begin - self._since
        try:
            yield
        finally:
            self._since = time.monotonic()
            self._time(what, self._since - begin)

    @contextlib.contextmanager
    def data_wait(self) -> Iterator[None]:
        """Seconds of a step in which it waits for its data."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - begin

    def _time(self, what: str, seconds: float, **more: float) -> None:
        if self._timing is not None:
            line = {"what": what, "step": self._step, "seconds": round(seconds, 4)}
            more = {k: round(v, 4) for k, v in more.items()}
            self._timing.write(json.dumps({**line, **more, "at": time.time()}) + "\n")
            self._timing.flush()

    def _count(self) -> float:
        """Close the books on the steps since the last time; returns their seconds, waiting for
        data included."""
        now = time.monotonic()
        seconds = self._seconds + now - self._since
        if self._step > self._counted:
            self._time("steps", seconds - self._waited, wait=self._waited, after=self._counted)
        self._counted, self._waited = self._step, 0.0
        self._seconds, self._since = 0.0, now
        return seconds

    def advance(self, tokens: float) -> None:
        """One more step, of so many real tokens."""
        self._step += 1
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update()

    def write(self, metrics: Any) -> None:
        """Metrics of the step that was just dispatched; throughput is since those before."""
        rate = self._tokens / max(self._count(), 1e-9)
        self._tokens = 0.0
        self._waiting = self._step, rate, metrics

    def flush(self) -> None:
        """Write what was deferred."""
        if self._waiting is not None:
            step, rate, metrics = self._waiting
            self._waiting = None
            self._write(step, rate, self._plain(metrics))

    def _write(self, step: int, rate: float, values: dict[str, float]) -> None:
        if self._file is None:
            return
        line = {"step": step, "loss": values["loss"], "tokens_per_second": round(rate, 1), **values}
        # JSON knows no NaN; null stands for what is not finite.
        finite = {k: v if math.isfinite(v) else None for k, v in line.items()}
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        if self._board is None:
            self._board = self._open_board()
        self._board.add({k: v for k, v in finite.items() if k != "step" and v is not None}, step)
        if "eval_loss" in values:
            self._warn(values)
        shown = {k: f"{values[k]:.3f}" for k in ("loss", "eval_loss") if k in values}
        shown["tokens/s"] = f"{rate:,.0f}"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            text = " ".join(f"{k} {v}" for k, v in shown.items())
            logger.info("step %d/%d %s", step, self._steps, text)

    def _warn(self, values: dict[str, float]) -> None:
        self._sat = {says: self._sat.get(says, 0) + 1 for says in at_trivial_baseline(values)}
        for says, times in self._sat.items():
            if times % PATIENCE == 0:
                logger.warning("%s, for %d evaluations in a row", says, times)

    def sync(self) -> None:
        """Bring every line so far to the disk, before a checkpoint that comes after them."""
        self.flush()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._count()
        for part in (self._file, self._timing, self._board, self._bar):
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
