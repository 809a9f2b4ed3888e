"""`import`: a model to an imported folder, which has the layout of a run folder.

    config.json   tokenizer/   checkpoints/0/   (sentence/)

The source is a Hugging Face folder, a run folder or an imported folder. Words and positions may be
added. An unchanged tokenizer is copied file by file, so that an export returns it unchanged. The
modules of a sentence-transformers folder after its encoder are in `sentence/`.
"""

from __future__ import annotations

import dataclasses
import json
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
from bert_jax.convert.export.sentence_transformers import write_sentence_head
from bert_jax.data.tokenization import folder_settings, pretrained
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.added_tokens import replaced_pieces
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.model import load
from bert_jax.utils import hub, io

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
    albert_original: bool = False,
    words: Sequence[str] = (),
    positions: int | None = None,
) -> list[str]:
    """Write `out`. Returns the names of the parameters, or rows, that were initialized randomly.

    folder      a model's folder, or a name on the Hugging Face Hub; so are the next two
    generator   folder of ELECTRA's generator; both become one pre-training state
    tokenizer   folder of the tokenizer, if it is not in `folder`
    heads       heads that the model must have; missing ones are initialized
    drop        tensors to ignore, or prefixes of their names
    cased       whether a vocabulary keeps capital letters, if its folder does not say so
    albert_original  whether an ALBERT tokenizer follows ALBERT's own code, not `transformers`
    words       words to add to the vocabulary; known ones are logged
    positions   new maximum length in tokens

    `out` is written completely or not at all. ValueError: `out` is not empty, or the folder cannot
    be imported (`convert.read_hf_folder`) or resized (`convert.resize`).
    """
    out = Path(out)
    io.require_new(out)
    if generator is not None and heads:
        raise ValueError(
            "--heads and --generator are both given: the two networks of ELECTRA have the heads "
            "that they need, so leave out --heads"
        )
    origin = hub.model_folder(folder, allow_pickle)
    head = _read_head(origin.path, allow_pickle)
    if generator is not None:
        generator = hub.model_folder(generator, allow_pickle).path
    experiment, params, source, initialized = _read_model(
        convert.encoder_folder(origin.path), generator, heads, drop, allow_pickle
    )
    if tokenizer is not None:
        source = pretrained.tokenizer_folder(tokenizer)
    new_tokenizer = _load_tokenizer(source, cased, albert_original)
    convert.check_tokenizer(experiment, new_tokenizer)
    changed = cased or albert_original
    if words:
        old_size = new_tokenizer.vocab_size
        experiment, params, new_tokenizer = _add_words(experiment, params, new_tokenizer, words)
        if new_tokenizer.vocab_size > old_size:
            logger.info(
                "embeddings/word[%d:%d]: each new row is the mean of the pieces that it replaces",
                old_size,
                new_tokenizer.vocab_size,
            )
            changed = True
    if positions is not None:
        before = experiment.encoder.max_length
        experiment, params = convert.resize_position_embeddings(experiment, params, positions)
        if experiment.data.length == before:  # of a fine-tuned model's rows
            experiment = config.replace(experiment, data=dict(length=positions))
    run: dict[str, Any] = dict(dir=str(out))
    if origin.commit is not None:
        run |= dict(init=origin.name, init_commit=origin.commit)
    experiment = config.replace(experiment, run=run)

    with io.atomic_dir(out) as new:
        _write_model(new, experiment, params)
        if changed:
            new_tokenizer.save(new / "tokenizer")
        else:
            _copy_tokenizer(source, new / "tokenizer")
        if head is not None:
            (new / convert.SENTENCE_DIR).mkdir()
            sizes = experiment.encoder.hidden_size, experiment.encoder.max_length
            if positions is not None:  # the user wants longer texts
                head = dataclasses.replace(head, max_length=None)
            write_sentence_head(head, new / convert.SENTENCE_DIR, *sizes)
        if positions is not None:
            _set_max_length(new / "tokenizer", experiment.encoder.max_length)
    return initialized


def _read_head(folder: Path, allow_pickle: bool) -> convert.SentenceHead | None:
    """The sentence head of a sentence-transformers folder, or of an imported one."""
    own = folder / convert.SENTENCE_DIR
    return convert.read_sentence_head(own if own.is_dir() else folder, allow_pickle)


def _read_model(
    folder: Path,
    generator: Path | None,
    heads: Collection[str],
    drop: Collection[str],
    allow_pickle: bool,
) -> tuple[Experiment, Any, Path, list[str]]:
    """Experiment, parameters, the tokenizer's folder, and the names of new parameters."""
    if (folder / "config.json").is_file() and not convert.is_hf_folder(folder):
        if generator is not None or heads or drop or allow_pickle:
            raise ValueError(
                f"{folder} is not a Hugging Face folder: --generator, --heads, --drop and "
                "--allow-pickle are only for those; leave them out"
            )
        model = load(folder)
        return model.config, model.params, folder / "tokenizer", []
    absent = {*heads, *(["pooler"] if "pair" in heads else [])}  # which the pair head needs
    alone = generator is None  # else a prefix may be that of a name in one of the two folders
    experiment, params, tokenizer = convert.read_hf_folder(
        folder, allow_pickle, drop, absent, drop_all=alone
    )
    initialized: list[str] = []
    if generator is not None:
        other = convert.read_hf_folder(generator, allow_pickle, drop, drop_all=False)[:2]
        experiment, params = convert.join_electra((experiment, params), other)
    elif heads:
        experiment, params, initialized = convert.with_heads(experiment, params, heads)
    return experiment, params, tokenizer, initialized


def _load_tokenizer(source: Path, cased: bool, albert_original: bool) -> Tokenizer:
    tokenizer = tokenizers.load_tokenizer(source, cased, albert_original)
    if cased and not tokenizer.cased:
        raise ValueError(
            f"{source} has a tokenizer.json that lowercases: --cased is only for folders with "
            "nothing but a vocabulary; leave it out"
        )
    return tokenizer


def _add_words(
    experiment: Experiment, params: Any, tokenizer: Tokenizer, words: Sequence[str]
) -> tuple[Experiment, Any, Tokenizer]:
    new_tokenizer, known = tokenizer.with_words(words)
    if known:
        more = ", ..." if len(known) > 10 else ""
        shown = ", ".join(known[:10]) + more
        logger.info("words that are in the vocabulary already: %d (%s)", len(known), shown)
    old, new = tokenizer.vocab_size, new_tokenizer.vocab_size
    replaced = replaced_pieces(tokenizer, new_tokenizer, words)
    grown = convert.resize_token_embeddings(experiment, params, old, new, replaced=replaced)
    return *grown, new_tokenizer


def _write_model(folder: Path, experiment: Experiment, params: Any) -> None:
    config.save_config(experiment, folder / "config.json")
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(0, {"params": jax.tree.map(jnp.asarray, params)}, experiment)
    checkpoints.close()


def _copy_tokenizer(tokenizer: Path, out: Path) -> None:
    out.mkdir()
    for name in (*convert.TOKENIZER_FILES, tokenizers.FINGERPRINT_FILE):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, out / name)
    folder_settings.keep_class(tokenizer, out)


def _set_max_length(tokenizer: Path, max_length: int) -> None:
    """Let the tokenizer's settings say how long the model's texts may be, so that other libraries
    do not truncate to its old length."""
    _set(tokenizer, model_max_length=max_length)


def _set(tokenizer: Path, **values: Any) -> None:
    file = tokenizer / "tokenizer_config.json"
    text = json.dumps(convert.optional_json(file) | values, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
