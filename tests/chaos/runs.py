"""Tiny pre-training runs of the five families, and of adapters and a student beside a teacher, in
their own processes, and their results."""

from __future__ import annotations

import logging
import os
import random
import re
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

from tests.helpers import cheap_compiles
from tests.helpers.compare import metric_lines
from tests.helpers.ports import free_port

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax, when a state is read to compare
ROOT = Path(__file__).parents[2]
FAMILIES = {  # family: (tokenizer kind, segments)
    "bert": ("wordpiece", "nsp"),
    "albert": ("unigram", "sop"),
    "roberta": ("bpe", "full"),
    "electra": ("wordpiece", "electra"),
    "spanbert": ("wordpiece", "single"),
}
VARIANTS = {  # of bert, on a model that was trained before: the flag that takes it, and others
    "adapters": ("--init", "--lora.rank", 2, "--lora.dropout", 0.1),
    "teacher": ("--teacher", "--distill.temperature", 2),
}
STEPS, SAVE_EVERY = 40, 5
TEMPORARY = "*.orbax-checkpoint-tmp*"
POLL = 0.002  # seconds


def bert_jax(*args: object) -> list[str]:
    return [sys.executable, "-m", "bert_jax", *map(str, args)]


def environment(root: Path) -> dict[str, str]:
    """Environment variables: cheap compiles, kept in a cache, and one CPU device."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": cheap_compiles.xla_flags(1)}
    return os.environ | cache | flags


def prepare(root: Path, name: str) -> Path:
    """Prepare a small corpus from the sample text, and for a variant also train the model that it
    needs, for five steps; returns the corpus's folder."""
    kind, segments = FAMILIES[family_of(name)]
    text, tokenizer, out = root / "text.txt", root / f"tok-{name}", root / f"corpus-{name}"
    if not text.exists():
        sample = (ROOT / "data/sample.txt").read_text()
        text.write_text(sample[:300_000].rsplit("\n\n", 1)[0] + "\n")
    train = ("tokenizer", text, "--kind", kind, "--vocab-size", 1500, "--out", tokenizer)
    rows = ("--segments", segments, "--length", 32, "--duplicates", 1, "--out", out)
    commands: list[tuple[object, ...]] = [train, ("prepare", text, "--tokenizer", tokenizer, *rows)]
    if name in VARIANTS:
        data = "--data.path", out, "--run.dir", model_of(out), "--run.steps", 5
        commands.append(("pretrain", ROOT / "configs/tiny_bert.py", *data))
    for command in commands:
        done = subprocess.run(
            bert_jax(*command), cwd=ROOT, env=environment(root), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return out


def family_of(name: str) -> str:
    return "bert" if name in VARIANTS else name


def model_of(corpus: Path) -> Path:
    """The model that the variant of this corpus begins with or learns from."""
    return corpus.with_name(f"model-{corpus.name}")


def pretrain(name: str, corpus: Path, run: Path, processes: int = 1) -> list[list[str]]:
    """The command line of each process; `name` is a family or a variant."""
    intervals = ("--run.log-every", 1, "--run.save-every", SAVE_EVERY, "--run.seed", 3)
    config = ROOT / f"configs/tiny_{family_of(name)}.py"
    paths = ("--data.path", corpus, "--run.dir", run, "--run.steps", STEPS)
    first, *others = VARIANTS.get(name, (None,))
    model = (first, model_of(corpus), *others) if first else ()
    command = bert_jax("pretrain", config, *paths, *intervals, *model)
    if processes == 1:
        return [command]
    several = ["--coordinator", f"localhost:{free_port()}", "--processes", str(processes)]
    several += ["--heartbeat-timeout", "20", "--process"]  # so the others end soon after a kill
    return [[*command, *several, str(i)] for i in range(processes)]


class Process:
    """One start of a run in one or several processes; its phase is read from its run directory."""

    def __init__(self, commands: list[list[str]], run: Path, env: dict[str, str]) -> None:
        self.run, self.started = run, time.monotonic()
        self._lines = len(self._timing())
        self.newest = max((s for s in self._steps() if self._has_manifest(s)), default=0)
        self._stderr_file = run.with_suffix(".stderr")
        with self._stderr_file.open("w") as stderr:
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

    def wait_for(self, condition: Callable[[], bool], seconds: float = 0.0) -> bool:
        """Wait until `condition` holds and `seconds` more; False: the process ended first."""
        while not condition():
            if self._popen.poll() is not None:
                return False
            time.sleep(POLL)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def send(self, signal: int) -> None:
        os.kill(self._popen.pid, signal)

    def kill(self, rng: random.Random) -> bool:
        """Send SIGKILL to one process; the others end by themselves. True if none ended with 0."""
        victim = rng.choice([self._popen, *self._others])
        victim.kill()
        others = [p.wait(200) for p in (self._popen, *self._others) if p is not victim]
        return victim.wait() == -SIGKILL and 0 not in others

    def status(self) -> int:
        return max((p.wait(600) for p in (self._popen, *self._others)), key=abs)

    def stderr(self) -> str:
        return self._stderr_file.read_text()[-1500:]

    @property
    def alone(self) -> bool:
        return not self._others

    def has_lock(self) -> bool:
        lock = self.run / ".lock"
        try:
            return f"process {self._popen.pid} " in lock.read_text()
        except FileNotFoundError:
            return False

    def logged(self, step: int) -> bool:
        return self.has_lock() and last_step(self.run) >= step

    def opened(self) -> bool:
        """The checkpoints are open, and the state is restored or initialized."""
        return self.has_lock() and bool({"restore", "init"} & self._activities())

    def is_saving(self) -> bool:
        """Orbax is writing a step."""
        return self.opened() and bool(self._folders(TEMPORARY))

    def committed(self) -> bool:
        """A step is committed and has no manifest yet."""
        return self.opened() and not all(map(self._has_manifest, self._steps()))

    def phase(self) -> str:
        """The phase of the process, or the one in which it was killed."""
        if not self.has_lock():
            return "start-up"
        if not self.opened():
            return "restore"
        if self.is_saving():
            return "save"
        if self.committed():
            return "manifest"
        return "steps" if "compile" in self._activities() else "compile"

    def started_anew(self) -> bool:
        return "init" in self._activities()

    def _activities(self) -> set[str]:
        """The activities that this start has written to timing.jsonl."""
        return set(re.findall(r'"what": "(\w+)"', " ".join(self._timing()[self._lines :])))

    def _folders(self, pattern: str = "*") -> list[Path]:
        """Matching folders, without those that vanish meanwhile."""
        return [p for p in (self.run / "checkpoints").glob(pattern) if p.exists()]

    def _steps(self) -> Iterator[int]:
        return (int(p.name) for p in self._folders() if p.name.isdigit())

    def _has_manifest(self, step: int) -> bool:
        return (self.run / "checkpoints" / str(step) / "manifest.json").exists()

    def _timing(self) -> list[str]:
        path = self.run / "timing.jsonl"
        return path.read_text().splitlines() if path.exists() else []


def last_step(run: Path) -> int:
    try:
        steps = re.findall(r'^\{"step": (\d+),.*\}$', (run / "metrics.jsonl").read_text(), re.M)
    except FileNotFoundError:
        return 0
    return int(steps[-1]) if steps else 0


def state(run: Path) -> dict[str, tuple[Any, ...]]:
    """Name -> (dtype, shape, bytes) of the final parameters, moments and guard."""
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


def differences(run: Path, undisturbed: Path) -> list[str]:
    """Names of the arrays, and `metrics.jsonl`, that differ from an undisturbed run."""
    actual, expected = state(run), state(undisturbed)
    names = sorted(k for k in actual | expected if actual.get(k) != expected.get(k))
    if metric_lines(run) != metric_lines(undisturbed):
        names.append("metrics.jsonl")
    return names


def moment(rng: random.Random, process: Process, start: float) -> str:
    """Wait for a random moment, in each phase equally often; returns the phase, or "" if the
    process ended first. `start` is the duration of an undisturbed start in seconds."""
    step = process.newest + rng.randint(1, 2 * SAVE_EVERY)
    late = process.newest + 2 * SAVE_EVERY
    moments: dict[str, tuple[Callable[[], bool], float]] = {
        "restore": (process.has_lock, rng.uniform(0.0, start / 2)),
        "steps": (lambda: process.logged(step), rng.uniform(0.0, 0.1)),
        "save": (process.is_saving, rng.uniform(0.0, 0.1)),
        # This moment is short and may be missed: then wait for a later step.
        "manifest": (lambda: process.committed() or process.logged(late), 0.0),
    }
    if process.alone:  # with several, the others would wait for minutes
        moments["start-up"] = lambda: True, rng.uniform(0.0, start)
    name = rng.choice(list(moments))
    condition, seconds = moments[name]
    return name if process.wait_for(condition, seconds) else ""
