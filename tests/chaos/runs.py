"""Tiny runs of the five families as processes of their own, and what they leave."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax, when a state is read to compare
ROOT = Path(__file__).parents[2]
FAMILIES = {  # family: kind of tokenizer, segments
    "bert": ("wordpiece", "nsp"),
    "albert": ("unigram", "sop"),
    "roberta": ("bpe", "full"),
    "electra": ("wordpiece", "electra"),
    "spanbert": ("wordpiece", "single"),
}
STEPS, SAVE_EVERY = 40, 5
TEMPORARY = "*.orbax-checkpoint-tmp*"
POLL = 0.002  # seconds


def bert_jax(*args: object) -> list[str]:
    return [sys.executable, "-m", "bert_jax", *map(str, args)]


def environment(root: Path) -> dict[str, str]:
    """A compile cache makes a start cheap; one device, whatever the caller has."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return kept | cache | {"JAX_PLATFORMS": "cpu"}


def prepare(root: Path, family: str) -> Path:
    """A small corpus of the sample text."""
    kind, segments = FAMILIES[family]
    text, tokenizer, out = root / "text.txt", root / f"tok-{family}", root / f"corpus-{family}"
    if not text.exists():
        sample = (ROOT / "data/sample.txt").read_text()
        text.write_text(sample[:300_000].rsplit("\n\n", 1)[0] + "\n")
    train = ("tokenizer", text, "--kind", kind, "--vocab-size", 1500, "--out", tokenizer)
    rows = ("--segments", segments, "--length", 32, "--out", out)
    for command in (train, ("prepare", text, "--tokenizer", tokenizer, *rows)):
        done = subprocess.run(
            bert_jax(*command), cwd=ROOT, env=environment(root), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return out


def pretrain(family: str, corpus: Path, run: Path, processes: int = 1) -> list[list[str]]:
    """The command of each process."""
    often = ("--run.log-every", 1, "--run.save-every", SAVE_EVERY, "--run.seed", 3)
    config = ROOT / f"configs/tiny_{family}.py"
    where = ("--data.path", corpus, "--run.dir", run, "--run.steps", STEPS)
    one = bert_jax("pretrain", config, *where, *often)
    if processes == 1:
        return [one]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        at = f"localhost:{free.getsockname()[1]}"
    several = ["--coordinator", at, "--processes", str(processes), "--process"]
    return [[*one, *several, str(i)] for i in range(processes)]


class Process:
    """One start of a run, by one process or several, and where it is as seen from its folder."""

    def __init__(self, commands: list[list[str]], run: Path, env: dict[str, str]) -> None:
        self.run, self.begun = run, time.monotonic()
        self._lines = len(self._timing())
        self.newest = max((s for s in self._steps() if self._vouched(s)), default=0)
        self._stderr = run.with_suffix(".stderr")
        with self._stderr.open("w") as stderr:
            self._popen, *self._others = (
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=env,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
                for command in commands
            )

    def wait_for(self, seen: Callable[[], bool], then: float = 0.0) -> bool:
        """Until something is seen and some seconds more; False: the process ended before."""
        while not seen():
            if self._popen.poll() is not None:
                return False
            time.sleep(POLL)
        try:
            self._popen.wait(then)
        except subprocess.TimeoutExpired:
            return True
        return False

    def send(self, signal: int) -> None:
        os.kill(self._popen.pid, signal)

    def kill(self, rng: random.Random) -> bool:
        """SIGKILL one; the others end by themselves. Whether all ended badly, as they must."""
        hit = rng.choice([self._popen, *self._others])
        hit.kill()
        others = [p.wait(200) for p in (self._popen, *self._others) if p is not hit]
        return hit.wait() == -SIGKILL and 0 not in others

    def status(self) -> int:
        return max((p.wait(600) for p in (self._popen, *self._others)), key=abs)

    def said(self) -> str:
        return self._stderr.read_text()[-1500:]

    @property
    def alone(self) -> bool:
        return not self._others

    def holds_the_folder(self) -> bool:
        lock = self.run / ".lock"
        try:
            return f"process {self._popen.pid} " in lock.read_text()
        except FileNotFoundError:
            return False

    def logged(self, step: int) -> bool:
        return self.holds_the_folder() and last_step(self.run) >= step

    def opened(self) -> bool:
        """What the process before left is cleared away, and the state is there."""
        return self.holds_the_folder() and bool({"restore", "init"} & self._did())

    def saves(self) -> bool:
        """A step is being written."""
        return self.opened() and bool(self._folders(TEMPORARY))

    def committed(self) -> bool:
        """A step is written, and nobody vouches for it yet."""
        return self.opened() and not all(map(self._vouched, self._steps()))

    def place(self) -> str:
        """Where the process is, or was when it was killed."""
        if not self.holds_the_folder():
            return "start-up"
        if not self.opened():
            return "restore"
        if self.saves():
            return "save"
        if self.committed():
            return "manifest"
        return "steps" if "compile" in self._did() else "compile"

    def began_anew(self) -> bool:
        return "init" in self._did()

    def _did(self) -> set[str]:
        """What this start has noted so far."""
        return set(re.findall(r'"what": "(\w+)"', " ".join(self._timing()[self._lines :])))

    def _folders(self, pattern: str = "*") -> list[Path]:
        """Those that are still there when they are looked at."""
        return [p for p in (self.run / "checkpoints").glob(pattern) if p.exists()]

    def _steps(self) -> Iterator[int]:
        return (int(p.name) for p in self._folders() if p.name.isdigit())

    def _vouched(self, step: int) -> bool:
        return (self.run / "checkpoints" / str(step) / "manifest.json").exists()

    def _timing(self) -> list[str]:
        path = self.run / "timing.jsonl"
        return path.read_text().splitlines() if path.exists() else []


def last_step(run: Path) -> int:
    try:
        found = re.findall(r'^\{"step": (\d+),.*\}$', (run / "metrics.jsonl").read_text(), re.M)
    except FileNotFoundError:
        return 0
    return int(found[-1]) if found else 0


def metrics(run: Path) -> list[dict[str, float]]:
    """All lines, without the one number that depends on time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def state(run: Path) -> dict[str, tuple[Any, ...]]:
    """The final parameters, moments and guard: name -> (dtype, shape, bytes)."""
    path = run / "checkpoints" / str(STEPS) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        shapes = checkpointer.metadata(path).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=plain))
    named: dict[str, tuple[Any, ...]] = {}

    def add(name: str, node: Any) -> None:
        if isinstance(node, dict | list | tuple):
            parts = node.items() if isinstance(node, dict) else enumerate(node)
            for key, value in parts:
                add(f"{name}/{key}", value)
        elif node is not None:
            x = np.asarray(node)
            named[name] = (x.dtype, x.shape, x.tobytes())

    add("", tree)
    return named


def differences(run: Path, calm: Path) -> list[str]:
    """What is not as in an undisturbed run, bit by bit."""
    found, expected = state(run), state(calm)
    names = sorted(k for k in found | expected if found.get(k) != expected.get(k))
    if metrics(run) != metrics(calm):
        names.append("metrics.jsonl")
    return names


def moment(rng: random.Random, process: Process, start: float) -> str:
    """Wait for a random moment, each phase as often as the others; `start` is how many seconds
    an undisturbed start takes. What was waited for, or "" where the process ended first."""
    step = process.newest + rng.randint(1, 2 * SAVE_EVERY)
    late = process.newest + 2 * SAVE_EVERY
    moments: dict[str, tuple[Callable[[], bool], float]] = {
        "restore": (process.holds_the_folder, rng.uniform(0.0, start / 2)),
        "steps": (lambda: process.logged(step), rng.uniform(0.0, 0.1)),
        "save": (process.saves, rng.uniform(0.0, 0.1)),
        # A moment so short that it may be missed: then some steps later will do.
        "manifest": (lambda: process.committed() or process.logged(late), 0.0),
    }
    if process.alone:  # of several who come late the others wait for minutes
        moments["start-up"] = lambda: True, rng.uniform(0.0, start)
    name = rng.choice(list(moments))
    seen, then = moments[name]
    return name if process.wait_for(seen, then) else ""
