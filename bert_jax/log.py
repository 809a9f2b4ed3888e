"""What a run writes about itself: `metrics.jsonl`, `timing.jsonl`, TensorBoard, and a bar or
lines to look at."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from bert_jax import folders

TRIVIAL: tuple[tuple[str, str, Callable[[dict[str, float]], bool]], ...] = (
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


def trivial(values: dict[str, float]) -> list[str]:
    """The trivial answers that evaluation metrics sit at. Accuracy does not tell: calling every
    token original is right nine times out of ten."""
    return [says for metric, says, holds in TRIVIAL if metric in values and holds(values)]


class RunLog:
    """The metrics of one run folder: each step once, in order, whatever restarts it took.

    A line is put together when its step is dispatched and written when the next one is, so
    that nobody waits for the device. Lines past `step`, where the run goes on, are dropped:
    they are written again, and the same. With `folder` None nothing is written (processes
    other than the first). `plain` turns what a step returns into numbers.
    """

    def __init__(
        self, folder: Path | None, step: int, steps: int, plain: Callable[[Any], dict[str, float]]
    ) -> None:
        self._file = self._board = self._timing = self._bar = None
        self._step, self._steps, self._plain = step, steps, plain
        self._tokens, self._seconds, self._since = 0, 0.0, time.monotonic()
        self._waiting: tuple[int, float, Any] | None = None
        self._sat: dict[str, int] = {}
        if folder is None:
            return
        _truncate(folder / "metrics.jsonl", step)
        self._file = (folder / "metrics.jsonl").open("a")
        self._timing = (folder / "timing.jsonl").open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Seconds spent on something else than steps: kept in `timing.jsonl`, left out of the
        throughput."""
        begin = time.monotonic()
        self._seconds += begin - self._since
        try:
            yield
        finally:
            self._since = time.monotonic()
            if self._timing is not None:
                taken = round(self._since - begin, 4)
                line = {"what": what, "step": self._step, "seconds": taken, "at": time.time()}
                self._timing.write(json.dumps(line) + "\n")
                self._timing.flush()

    def advance(self, tokens: int) -> None:
        """One more step, of so many real tokens."""
        self._step += 1
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update()

    def defer(self, metrics: Any) -> None:
        """Metrics of the step that was just dispatched; throughput is since those before."""
        now = time.monotonic()
        rate = self._tokens / max(self._seconds + now - self._since, 1e-9)
        self._tokens, self._seconds, self._since = 0, 0.0, now
        self._waiting = self._step, rate, metrics

    def flush(self) -> None:
        """Write what was deferred."""
        if self._waiting is not None:
            step, rate, metrics = self._waiting
            self._waiting = None
            self._write(step, rate, self._plain(metrics))

    def _write(self, step: int, rate: float, values: dict[str, float]) -> None:
        if self._file is None or self._board is None:
            return
        line = {"step": step, "loss": values["loss"], "tokens_per_second": round(rate, 1), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name != "step" and math.isfinite(value):
                self._board.add_scalar(name, value, step)
        if "eval_loss" in values:
            self._warn(values)
        shown = {k: f"{values[k]:.3f}" for k in ("loss", "eval_loss") if k in values}
        shown["tokens/s"] = f"{rate:,.0f}"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            self._say(
                f"step {step}/{self._steps} " + " ".join(f"{k} {v}" for k, v in shown.items())
            )

    def _warn(self, values: dict[str, float]) -> None:
        self._sat = {says: self._sat.get(says, 0) + 1 for says in trivial(values)}
        for says, times in self._sat.items():
            if times % PATIENCE == 0:
                self._say(f"warning: {says}, for {times} evaluations in a row")

    def _say(self, line: str) -> None:
        """A line beside the bar, if there is one."""
        tqdm.write(line, file=sys.stderr)

    def sync(self) -> None:
        """Bring every line so far to the disk, before a checkpoint that comes after them."""
        self.flush()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        for part in (self._file, self._timing, self._board, self._bar):
            if part is not None:
                part.close()


def read(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`; a last line that was cut by a kill is left out."""
    lines = []
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{folder} holds no metrics.jsonl: expected a run folder")
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            lines.append(json.loads(line))
        except ValueError as e:
            raise ValueError(f"{path} line {number} is not JSON: {e}") from e
    return lines


def _truncate(path: Path, step: int) -> None:
    """Keep the lines up to a step."""
    if path.exists():
        kept = [line for line in read(path.parent) if line["step"] <= step]
        folders.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
