"""`import`: a model -> an imported folder, laid out like that of a run.

    config.json   tokenizer/   checkpoints/0/

It comes from a Hugging Face folder or from one of ours, perhaps with more words and more
positions than it had there. A tokenizer that stays as it is is copied file by file, so that a
later export gives it back unchanged.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import config, convert
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.model import load
from bert_jax.utils import io

logger = logging.getLogger(__name__)


def import_folder(
    folder: str | Path,
    out: str | Path,
    generator: str | Path | None = None,
    tokenizer: str | Path | None = None,
    heads: Collection[str] = (),
    drop: Collection[str] = (),
    allow_pickle: bool = False,
    cased: bool = False,
    words: Sequence[str] = (),
    positions: int | None = None,
) -> list[str]:
    """Write `out`; returns the names of the parameters, or rows, that were drawn at random.

    generator   ELECTRA's other folder: both become one pre-training state
    tokenizer   where the tokenizer is, if not beside the weights
    heads       that are wanted: those the folder lacks are initialised
    drop        tensors, or beginnings of their names, that are passed over
    cased       the vocabulary keeps capital letters, which its folder does not say
    words       to add to the vocabulary; those that it has are named on stderr
    positions   tokens that the longest text shall have

    `out` appears when it is whole or not at all. ValueError: `out` is not empty, or the folder
    cannot be imported (`convert.read_hf_folder`) or made larger (`convert.resize`).
    """
    folder, out = Path(folder), Path(out)
    io.require_new(out)
    experiment, params, source, drawn = _read(folder, generator, heads, drop, allow_pickle)
    source = source if tokenizer is None else Path(tokenizer)
    made = _cased(source) if cased else tokenizers.load_tokenizer(source)
    convert.check_tokenizer(experiment, made)
    changed = cased
    if words:
        experiment, params, grown = _with_words(experiment, params, made, words)
        if grown.vocab_size > made.vocab_size:
            drawn.append(f"embeddings/word[{made.vocab_size}:{grown.vocab_size}]")
            made, changed = grown, True
    if positions is not None:
        experiment, params = convert.resize_position_embeddings(experiment, params, positions)
    experiment = config.replace(experiment, run=dict(dir=str(out)))

    with io.atomic_dir(out) as new:
        _write(new, experiment, params)
        made.save(new / "tokenizer") if changed else _copy(source, new / "tokenizer")
    return drawn


def _read(
    folder: Path,
    generator: str | Path | None,
    heads: Collection[str],
    drop: Collection[str],
    allow_pickle: bool,
) -> tuple[Experiment, Any, Path, list[str]]:
    """Experiment, parameters, the tokenizer's folder, and the names of fresh parameters."""
    if (folder / "config.json").is_file() and not convert.is_hf_folder(folder):
        if generator is not None or heads or drop or allow_pickle:
            raise ValueError(
                f"{folder} is a folder of ours: --generator, --heads, --drop and --allow-pickle "
                "are for Hugging Face folders; leave them out"
            )
        model = load(folder)
        return model.config, model.params, folder / "tokenizer", []
    absent = {*heads, *(["pooler"] if "pair" in heads else [])}  # the pair head reads it
    experiment, params, beside = convert.read_hf_folder(folder, allow_pickle, drop, absent)
    drawn: list[str] = []
    if generator is not None:
        other = convert.read_hf_folder(generator, allow_pickle, drop)[:2]
        experiment, params = convert.join_electra((experiment, params), other)
    elif heads:
        experiment, params, drawn = convert.with_heads(experiment, params, heads)
    return experiment, params, beside, drawn


def _cased(source: Path) -> Tokenizer:
    made = tokenizers.load_tokenizer(source, cased=True)
    if not made.cased:
        raise ValueError(
            f"{source} has a tokenizer.json, which makes small letters: --cased is for folders "
            "of a bare vocabulary; leave it out"
        )
    return made


def _with_words(
    experiment: Experiment, params: Any, tokenizer: Tokenizer, words: Sequence[str]
) -> tuple[Experiment, Any, Tokenizer]:
    grown, known = tokenizer.with_words(words)
    if known:
        more = ", ..." if len(known) > 10 else ""
        shown = ", ".join(known[:10]) + more
        logger.info("in the vocabulary already: %d (%s)", len(known), shown)
    old, new = tokenizer.vocab_size, grown.vocab_size
    return *convert.resize_token_embeddings(experiment, params, old, new), grown


def _write(folder: Path, experiment: Experiment, params: Any) -> None:
    config.save_config(experiment, folder / "config.json")
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(0, {"params": jax.tree.map(jnp.asarray, params)}, experiment)
    checkpoints.close()


def _copy(tokenizer: Path, out: Path) -> None:
    out.mkdir()
    for name in (*convert.TOKENIZER_FILES, tokenizers.FINGERPRINT_FILE):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, out / name)
