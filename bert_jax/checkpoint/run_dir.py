"""The folder of a run, whichever command makes it: begun, or found as it was left."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from bert_jax import config
from bert_jax.checkpoint import lock, remote_lock
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import initialize
from bert_jax.utils import io, remote

# What may differ when a run goes on: how far and how often, and the machine, not the result.
RESUMABLE_FIELDS = (
    "run.steps",
    "run.log_every",
    "run.save_every",
    "run.eval_every",
    "run.epochs",
    "run.evals_per_epoch",
    "run.dir",
    "run.remat",
    "run.loss_chunks",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "guard.max_skipped_updates",
    "guard.hang_factor",
    "guard.hang_timeout",
    "guard.timeout",
)


@contextlib.contextmanager
def locked_run_dir(
    experiment: Experiment, tokenizer: Path | Tokenizer, best: str = "-eval_loss"
) -> Iterator[Checkpoints]:
    """The checkpoints of a run, whose folder is this run's own until the block ends; `best` as
    there. With several processes all enter. What lies in `bucket.here(run.dir)` is laid on the
    bucket, where the folder is on one, with every checkpoint and when the block ends.

    ValueError: another run is in it, made it, or made more steps than are asked for.
    """
    run, main = experiment.run, jax.process_index() == 0
    folder = remote.local_cache_path(run.dir)
    known = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizers.load_tokenizer(tokenizer)
    initialize.barrier("checked")
    with _own(run.dir, main) as lay:
        if main:
            check_run_dir(folder, experiment, known)  # nobody came in between
            if not (folder / "config.json").exists():
                begin(folder, experiment, tokenizer)
                lay()
        initialize.barrier("begun")
        there = remote.remote_path(run.dir)
        _check_shared(there)
        with Checkpoints(
            there / "checkpoints", run.max_to_keep, best=best, beside=lay
        ) as checkpoints:
            if (checkpoints.newest() or 0) > run.steps:
                more = "steps" if run.epochs is None else "steps or epochs"
                raise ValueError(
                    f"the run in {run.dir} is at step {checkpoints.newest()}, run.steps is "
                    f"{run.steps}: ask for more {more}, or choose another --run.dir"
                )
            if main:  # a run that goes on records what may differ, now that nothing refuses it
                begin(folder, experiment, tokenizer)
            yield checkpoints


@contextlib.contextmanager
def _own(path: str, main: bool) -> Iterator[Callable[[], None]]:
    """Keep other runs out of a run folder; what lays its small files where they belong."""
    if not remote.is_remote(path):
        with lock.run_lock(Path(path), main):
            yield lambda: None
        return
    with remote_lock.hold(path, main) as mine:

        def lay() -> None:
            if main:
                mine.check()
                remote.upload(path)

        if main:
            remote.download(path)
        try:
            yield lay
        except BaseException:
            with contextlib.suppress(Exception):  # the error is what matters
                lay()
            raise
        lay()


def begin(folder: Path, experiment: Experiment, tokenizer: Path | Tokenizer) -> None:
    """Write the config and the tokenizer, each at once and in this order, so that a run that
    is killed in between begins again with the same command."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_config(experiment, folder / "config.json")
    if not (folder / "tokenizer").exists():
        with io.atomic_dir(folder / "tokenizer") as new:
            if isinstance(tokenizer, Tokenizer):
                tokenizer.save(new)
            else:
                shutil.copytree(tokenizer, new, dirs_exist_ok=True)


def _check_shared(folder: Path | Any) -> None:
    """ValueError: the folder that the first process began cannot be seen here."""
    if not (folder / "config.json").exists():
        raise ValueError(
            f"run.dir {folder} is not the first process's: expected a folder that all processes "
            "share"
        )


def check_run_dir(folder: Path, experiment: Experiment, tokenizer: Tokenizer) -> None:
    """A run folder is new, or was made by the same config but for `FREE`, and tokenizer."""
    name = experiment.run.dir  # which may be that of a folder on a bucket
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"run.dir {name} is a file: expected a folder")
    if not (folder / "config.json").exists():
        if any(not p.name.startswith(".") for p in folder.iterdir()):
            raise ValueError(f"run.dir {name} is not empty and no run: choose another folder")
        return
    before = config.read_config(folder / "config.json")
    changed = config.differences(before, experiment)
    refused = {name: values for name, values in changed.items() if name not in RESUMABLE_FIELDS}
    if refused:
        listed = "; ".join(f"{n} was {a!r}, now {b!r}" for n, (a, b) in refused.items())
        raise ValueError(
            f"run.dir {name} was made by another config: {listed}. "
            "Choose another --run.dir, or ask for what it was"
        )
    own = folder / "tokenizer"  # missing where the run was killed as it began
    if own.exists() and tokenizers.load_tokenizer(own).fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"the tokenizer in {name} is not that of the corpus {experiment.data.path}: "
            "go on with the corpus that the run began with"
        )
