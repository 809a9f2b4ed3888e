"""What a run writes about itself: `metrics.jsonl`, TensorBoard, and a line or bar to look at."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm

TRIVIAL = (  # what a run that learns nothing shows in its evaluation
    (
        "masked tokens are predicted no better than by word frequencies",
        lambda v: v["eval_mlm_loss"] > v["eval_unigram_loss"] - 0.02,
    ),
    ("the pair head tells nothing apart", lambda v: v["eval_pair_loss"] > 0.68),
    ("almost every token is called original", lambda v: v["eval_rtd_recall"] < 0.01),
)
PATIENCE = 3  # evaluations in a row before a warning


def trivial(values: dict[str, float]) -> list[str]:
    """The trivial answers that evaluation metrics sit at. Accuracy does not tell: calling every
    token original is right nine times out of ten."""
    found = []
    for says, holds in TRIVIAL:
        try:
            if holds(values):
                found.append(says)
        except KeyError:  # not this objective's
            continue
    return found


class RunLog:
    """The metrics of one run folder: each step once, in order, whatever restarts it took.

    Lines past `step`, where the run goes on, are dropped: they are written again, and the
    same. With `path` None nothing is written (processes other than the first).
    """

    def __init__(self, folder: Path | None, step: int, steps: int) -> None:
        self._file = self._board = None
        self._steps, self._time, self._tokens = steps, time.monotonic(), 0
        if folder is not None:
            path = folder / "metrics.jsonl"
            _truncate(path, step)
            self._file = path.open("a")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._sat: dict[str, int] = {}
        self._bar = None
        if folder is not None and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def advance(self, tokens: int) -> None:
        """One more step, of so many real tokens."""
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics; throughput is measured since the line before."""
        now = time.monotonic()
        rate = self._tokens / max(now - self._time, 1e-9)
        self._time, self._tokens = now, 0
        line = {"step": step, "loss": values["loss"], "tokens_per_second": round(rate, 1), **values}
        if self._file is None or self._board is None:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name != "step" and math.isfinite(value):
                self._board.add_scalar(name, value, step)
        if "eval_loss" in values:
            self._sat = {says: self._sat.get(says, 0) + 1 for says in trivial(values)}
            for says, times in self._sat.items():
                if times % PATIENCE == 0:
                    self._say(f"warning: {says}, for {times} evaluations in a row")
        shown = {k: f"{values[k]:.3f}" for k in ("loss", "eval_loss") if k in values}
        shown["tokens/s"] = f"{rate:,.0f}"
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            self._say(
                f"step {step}/{self._steps} " + " ".join(f"{k} {v}" for k, v in shown.items())
            )

    def _say(self, line: str) -> None:
        """A line beside the bar, if there is one."""
        tqdm.write(line, file=sys.stderr)

    def sync(self) -> None:
        """Bring every line so far to the disk, before a checkpoint that comes after them."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        for part in (self._file, self._board, self._bar):
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
    if not path.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read(path.parent) if line["step"] <= step]
    new = path.with_suffix(".new")
    new.write_text("".join(kept))
    new.replace(path)
