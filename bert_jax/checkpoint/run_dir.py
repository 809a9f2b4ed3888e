"""The run directory of a training command: create it, or check and resume it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax import config
from bert_jax.checkpoint import lock
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.checkpoint.remote_lock import RemoteLock
from bert_jax.config import Experiment
from bert_jax.data import mix_weights
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import initialize
from bert_jax.utils import io, remote

SHARED_WAIT = 90.0  # seconds; NFS keeps what it knows of a folder for up to 60

# Fields that may change when a run resumes: its length, its intervals and the hardware.
RESUMABLE_FIELDS = (
    "run.steps",
    "run.log_every",
    "run.save_every",
    "run.max_to_keep",
    "run.eval_every",
    "run.epochs",
    "run.evals_per_epoch",
    "run.patience",
    "run.select",
    "run.dir",
    "run.lock_timeout",
    "run.trackers",
    "run.remat",
    "run.unroll",
    "run.loss_chunks",
    "data.threads",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
    "guard.max_skipped_updates",
    "guard.spike",
    "guard.spike_factor",
    "guard.hang_factor",
    "guard.hang_timeout",
    "guard.timeout",
)


@contextlib.contextmanager
def locked_run_dir(
    experiment: Experiment,
    tokenizer: Path | Tokenizer,
    best: str = "-eval_loss",
    take_over: bool = False,
) -> Iterator[Checkpoints]:
    """Lock the run directory until the block ends, create it or check that it can be resumed, and
    return its checkpoints; `best` as in `Checkpoints`. All processes of a run enter together.

    The small files of a remote run directory, in `remote.local_cache_path(run.dir)`, are uploaded
    with every checkpoint and at the end. `take_over` does not wait for a remote lock to expire.
    ValueError: another run is in the directory or made it, or is past `run.steps`, or its stages
    would move.
    """
    run, is_main = experiment.run, initialize.is_first()
    folder = remote.local_cache_path(run.dir)
    loaded = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizers.load_tokenizer(tokenizer)
    initialize.barrier("checked")
    with _locked(run.dir, run.lock_timeout, is_main, take_over) as (upload, refresh_lock):
        if is_main:
            check_run_dir(folder, experiment, loaded)  # again: now no other run can change it
            if not (folder / "config.json").exists():
                write_run_dir(folder, experiment, tokenizer)
                upload()
        initialize.barrier("created")
        storage = remote.storage_path(run.dir)
        if not _appears(storage / "config.json"):
            raise ValueError(
                f"run.dir {storage} differs from that of the first process: expected a folder that "
                "all processes share"
            )
        with Checkpoints(
            storage / "checkpoints",
            run.max_to_keep,
            best=best,
            upload=upload,
            refresh_lock=refresh_lock,
        ) as checkpoints:
            done = checkpoints.newest() or 0
            if done > run.steps:
                longer = "--run.steps" if run.epochs is None else "--run.steps or --run.epochs"
                raise ValueError(
                    f"the run in {run.dir} is at step {done}, but run.steps is "
                    f"{run.steps}: raise {longer}, or choose another --run.dir"
                )
            check_stages(storage / "config.json", experiment, done)
            check_grouped(storage / "config.json", experiment, done)
            if is_main:  # a resumed run records the fields that changed, now that it may resume
                write_run_dir(folder, experiment, tokenizer)
            yield checkpoints


def _appears(file: Any) -> bool:
    """Whether a file that the first process has written is there. A network disk may say for a
    while that there is no folder, because it was asked before; listing the folder asks again."""
    deadline = time.monotonic() + SHARED_WAIT
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        with contextlib.suppress(OSError):
            list(file.parent.iterdir())
        time.sleep(min(1.0, SHARED_WAIT))
    return True


@contextlib.contextmanager
def _locked(
    path: str, timeout: float, is_main: bool, take_over: bool
) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Lock a run directory. Returns two functions: upload its small files, and refresh the lock;
    they do nothing for a local directory, or in processes other than the first."""
    if not is_main:
        yield lambda: None, lambda: None
        return
    if not remote.is_remote(path):
        with lock.run_lock(Path(path)):
            yield lambda: None, lambda: None
        return
    remote_lock = RemoteLock(path, timeout)

    def upload() -> None:
        remote_lock.check()
        remote.upload(path)

    with remote_lock.hold(take_over):
        remote.download(path)
        try:
            yield upload, remote_lock.refresh
        except BaseException:
            with contextlib.suppress(Exception):  # the first error matters more
                upload()
            raise
        upload()


def write_run_dir(folder: Path, experiment: Experiment, tokenizer: Path | Tokenizer) -> None:
    """Write the config and the tokenizer, each atomically and in this order, so that the same
    command can resume a run that was killed in between."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_config(experiment, folder / "config.json")
    if not (folder / "tokenizer").exists():
        with io.atomic_dir(folder / "tokenizer") as new:
            if isinstance(tokenizer, Tokenizer):
                tokenizer.save(new)
            else:
                shutil.copytree(tokenizer, new, dirs_exist_ok=True)


def config_file(folder: Path) -> Path | None:
    """The config.json of a run folder, or of its first seed; None if no run has begun there."""
    files = (folder / "config.json", folder / "seed_0" / "config.json")
    return next((file for file in files if file.is_file()), None)


def check_run_dir(folder: Path, experiment: Experiment, tokenizer: Tokenizer) -> None:
    """ValueError unless the run directory is new, or was made with the same tokenizer and config;
    the `RESUMABLE_FIELDS` may differ. `folder` holds the small files of `run.dir`."""
    name = experiment.run.dir
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"run.dir {name} is a file: expected a folder")
    if not (folder / "config.json").exists():
        if any(not p.name.startswith(".") for p in folder.iterdir()):
            raise ValueError(
                f"run.dir {name} is not empty and is not a run directory: choose another --run.dir"
            )
        return
    saved = config.read_config(folder / "config.json")
    changed = config.differences(saved, experiment)
    refused = {
        field: values
        for field, values in changed.items()
        if field not in RESUMABLE_FIELDS and not _is_moved(field, saved, experiment)
    }
    if "lora.base" in refused and None not in refused["lora.base"]:
        old, new = refused["lora.base"]
        raise ValueError(
            f"the adapters in run.dir {name} were trained beside another model: the hash of its "
            f"parameters was {old[:12]}, that of {experiment.run.init} is {new[:12]}. Give the "
            "original model, or choose another --run.dir"
        )
    if refused:
        listed = "; ".join(f"{field} was {a!r}, now {b!r}" for field, (a, b) in refused.items())
        raise ValueError(
            f"run.dir {name} was made by another config: {listed}. "
            "Choose another --run.dir, or restore the original values"
        )
    saved_tokenizer = folder / "tokenizer"  # missing if the run was killed while it was created
    if (
        saved_tokenizer.exists()
        and tokenizers.load_tokenizer(saved_tokenizer).fingerprint != tokenizer.fingerprint
    ):
        raise ValueError(
            f"the tokenizer in {name} is not that of the corpus {experiment.data.path}: "
            "resume with the corpus of the first start"
        )


def check_stages(saved: Path, experiment: Experiment, steps: int) -> None:
    """ValueError if a stage would begin at another one of the first `steps`, which are done: their
    batches would be read again, or never. `saved` is the config.json of the run directory."""
    if experiment.data.stages is None:
        return
    before = config.read_config(saved)
    moved = config.moved_stage(before.stages, experiment.stages, steps)
    if moved is not None:
        old, new = moved
        raise ValueError(
            f"run.steps was {before.run.steps}, now {experiment.run.steps}, which moves the stages "
            f"of data.stages: the run in {experiment.run.dir} is at step {steps}, and its batches "
            f"of {old.batch_size} rows of {old.length} tokens would begin at step {new.start} "
            f"instead of {old.start}. Restore run.steps, or start a new run from this one with "
            "--init and another --run.dir"
        )


def check_grouped(saved: Path, experiment: Experiment, steps: int) -> None:
    """ValueError if rows are grouped by length and the number of steps has changed: after the
    `steps` that are done, rows would be read again, or never. `saved` is the config.json of the run
    directory."""
    if not experiment.data.group_by_length or not steps:
        return
    before = config.read_config(saved).run.steps
    if before != experiment.run.steps:
        raise ValueError(
            f"run.steps was {before}, now {experiment.run.steps}, and data.group_by_length divides "
            "the rows of all steps: restore the number of steps or epochs, or start a new run from "
            "this one with --init and another --run.dir"
        )


def _is_moved(field: str, saved: Experiment, now: Experiment) -> bool:
    """Whether a path has changed and what it names has not. Data are the same where the hash of
    their content is, as are teachers; the model that a run started from, where both paths lead to
    one place."""
    if field in ("data.path", "data.mix"):
        same_data = saved.data.corpus is not None and saved.data.corpus == now.data.corpus
        weights = mix_weights.given_weights
        return same_data and weights(saved.data) == weights(now.data)
    if field in ("distill.teacher", "distill.teacher_commit"):
        hashes = {saved.distill.teacher_hash, now.distill.teacher_hash}
        return len(hashes) == 1 and None not in hashes
    same_base = saved.lora.base is not None and saved.lora.base == now.lora.base
    if field == "run.init_commit":
        return same_base
    return field == "run.init" and (same_base or same_path(saved.run.init, now.run.init))


def same_path(a: str | None, b: str | None) -> bool:
    """Whether two paths lead to one place: `d`, `d/`, `./d`, and its absolute path do."""
    return a == b or (
        a is not None and b is not None and os.path.realpath(a) == os.path.realpath(b)
    )
