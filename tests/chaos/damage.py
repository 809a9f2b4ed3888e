"""Damage the newest checkpoint at random: either the damage is detected and the checkpoint before
it is used, or it is harmless. No run may resume with other numbers or start again at step 0.

    python -m tests.chaos.damage [--cases 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import io
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config
from bert_jax.checkpoint.manager import Checkpoints

STEPS = (5, 10, 15)
Random = random.Random


def state(step: int) -> dict[str, Any]:
    """A small training state: parameters, moments, counts."""
    rng = np.random.default_rng(step)
    shapes = {"word": (50, 8), "kernel": (2, 8, 8), "bias": (2, 8)}

    def draw() -> dict[str, Any]:
        return {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}

    opt = {"count": jnp.int32(step), "mu": draw(), "nu": draw()}
    return {"step": jnp.int32(step), "params": draw(), "opt": opt}


def save_run(folder: Path) -> Path:
    """Save three steps; returns the checkpoints folder."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for step in STEPS:
            checkpoints.save(step, state(step), config.BERT, {"eval_loss": 9.0 - step / 10})
    return folder / "checkpoints"


def _random_file(checkpoints: Path, rng: Random) -> Path:
    """A random file of the newest step."""
    files = sorted(p for p in (checkpoints / str(STEPS[-1])).rglob("*") if p.is_file())
    return rng.choice(files)


def truncate(checkpoints: Path, rng: Random) -> Path:
    file = _random_file(checkpoints, rng)
    file.write_bytes(file.read_bytes()[: rng.randrange(max(file.stat().st_size, 1))])
    return file


def empty(checkpoints: Path, rng: Random) -> Path:
    file = _random_file(checkpoints, rng)
    file.write_bytes(b"")
    return file


def remove(checkpoints: Path, rng: Random) -> Path:
    file = _random_file(checkpoints, rng)
    file.unlink()
    return file


def flip(checkpoints: Path, rng: Random) -> Path:
    file = _random_file(checkpoints, rng)
    content = bytearray(file.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return file


def swap(checkpoints: Path, rng: Random) -> Path:
    """Overwrite a file of the newest step by one of an older step: of the same name, or any."""
    file = _random_file(checkpoints, rng)
    older = checkpoints / str(rng.choice(STEPS[:-1]))
    same = older / file.relative_to(checkpoints / str(STEPS[-1]))
    others = sorted(p for p in older.rglob("*") if p.is_file())
    shutil.copyfile(same if same.exists() else rng.choice(others), file)
    return file


def swap_step(checkpoints: Path, rng: Random) -> Path:
    """Replace the newest step by an older one."""
    newest = checkpoints / str(STEPS[-1])
    shutil.rmtree(newest)
    shutil.copytree(checkpoints / str(rng.choice(STEPS[:-1])), newest)
    return newest


DAMAGES: dict[str, Callable[[Path, Random], Path]] = {
    "truncated": truncate,
    "emptied": empty,
    "removed": remove,
    "a bit flipped": flip,
    "swapped with an older one": swap,
    "the step swapped with an older one": swap_step,
}


def same(a: Any, b: Any) -> bool:
    leaves = zip(jax.tree.leaves_with_path(a), jax.tree.leaves_with_path(b), strict=True)
    return all(
        p == q and x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for (p, x), (q, y) in leaves
    )


def run_case(clean: Path, damage: str, rng: Random) -> tuple[str, str]:
    """Damage a copy and resume from it; returns "detected" or "harmless", and the damaged file.
    AssertionError: the restored numbers are not the saved ones."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(shutil.copytree(clean, Path(folder) / "checkpoints"))
        file = str(DAMAGES[damage](checkpoints, rng).relative_to(checkpoints))
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        logging.getLogger("bert_jax").addHandler(handler)
        with Checkpoints(checkpoints) as opened:
            step = opened.newest()
            assert step in STEPS[1:], f"{file} {damage}: resumed from {step}"
            restored = opened.restore(step, jax.eval_shape(lambda: state(step)))
        logging.getLogger("bert_jax").removeHandler(handler)
        assert same(restored, state(step)), f"{file} {damage}: other numbers"
        if step == STEPS[-1]:
            return "harmless", file
        assert f"checkpoints/{STEPS[-1]} is" in log.getvalue(), f"{file} {damage}: not reported"
        assert checkpoints.with_name("quarantine").is_dir(), f"{file} {damage}: not moved"
        return "detected", file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    args = parser.parse_args()
    print(f"damage: {args.cases} cases, --seed {args.seed}", flush=True)
    rng = Random(args.seed)
    counts: dict[str, collections.Counter[str]] = {d: collections.Counter() for d in DAMAGES}
    with tempfile.TemporaryDirectory() as folder:
        clean = save_run(Path(folder))
        for i in range(args.cases):
            damage = list(DAMAGES)[i % len(DAMAGES)]
            try:
                result, _ = run_case(clean, damage, rng)
            except AssertionError as e:
                sys.exit(f"case {i}: {e}")
            counts[damage][result] += 1
    print(f"{'damage':36} detected harmless")
    for damage, count in counts.items():
        print(f"{damage:36} {count['detected']:8} {count['harmless']:8}")


if __name__ == "__main__":
    main()
