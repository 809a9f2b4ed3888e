"""`import`: a Hugging Face folder -> an imported folder, laid out like that of a run.

    config.json   tokenizer/   checkpoints/0/

The tokenizer's files are copied as they are, so that a later export gives them back unchanged.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import config, convert
from bert_jax.checkpoint import Checkpoints
from bert_jax.config import Experiment
from bert_jax.text import tokenizer as tokenizers


def import_folder(
    folder: str | Path,
    out: str | Path,
    generator: str | Path | None = None,
    tokenizer: str | Path | None = None,
    heads: Collection[str] = (),
    drop: Collection[str] = (),
    allow_pickle: bool = False,
) -> list[str]:
    """Write `out`; returns the names of the parameters that were drawn at random.

    generator   ELECTRA's other folder: both become one pre-training state
    tokenizer   where the tokenizer is, if not beside the weights
    heads       that are wanted: those the folder lacks are initialised
    drop        tensors, or beginnings of their names, that are passed over

    `out` appears when it is whole or not at all. ValueError: `out` is not empty, or the folder
    cannot be imported (`convert.read_folder`).
    """
    folder, out = Path(folder), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty: choose another --out, or remove it")
    absent = {*heads, *(["pooler"] if "pair" in heads else [])}  # the pair head reads it
    experiment, params, beside = convert.read_folder(folder, allow_pickle, drop, absent)
    drawn: list[str] = []
    if generator is not None:
        other = convert.read_folder(generator, allow_pickle, drop)[:2]
        experiment, params = convert.join((experiment, params), other)
    elif heads:
        experiment, params, drawn = convert.with_heads(experiment, params, heads)
    source = Path(tokenizer) if tokenizer is not None else beside
    convert.check_tokenizer(experiment, tokenizers.load(source))
    experiment = config.replace(experiment, run=dict(dir=str(out)))

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(partial, experiment, params, source)
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return drawn


def _write(folder: Path, experiment: Experiment, params: Any, tokenizer: Path) -> None:
    folder.chmod(0o777 & ~_umask())  # temporary folders are made for their owner alone
    config.save(experiment, folder / "config.json")
    (folder / "tokenizer").mkdir()
    for name in convert.TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / "tokenizer" / name)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(0, {"params": jax.tree.map(jnp.asarray, params)}, experiment)
    checkpoints.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
