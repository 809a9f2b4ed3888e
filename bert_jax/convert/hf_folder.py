"""Read a Hugging Face folder: config.json, weights, tokenizer.

No code from the folder is run. Safetensors files contain only arrays. A pickle is read only with
`allow_pickle`, by PyTorch's loader with `weights_only`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from bert_jax.config import Encoder, Experiment, replace
from bert_jax.convert import hf_config, hf_long_texts, hf_task_keys, hf_tasks
from bert_jax.convert.hf_name_rules import full_names
from bert_jax.convert.hf_params import from_hf, heads_with_tensors
from bert_jax.convert.hf_weights import (
    open_safetensors,
    optional_json,
    read_json,
    read_tensors,
    tensor_files,
)
from bert_jax.convert.peft_folder import is_peft_folder, read_peft
from bert_jax.data.tokenization import folder_settings, pretrained
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils.model_files import (
    CONFIG,
    CROSS_ENCODER,
    SENTENCE_SETTINGS,
)
from bert_jax.utils.types import Json, Params

logger = logging.getLogger(__name__)


def is_hf_folder(folder: Path) -> bool:
    """Whether the folder has Hugging Face's config.json; a run folder's has a key `encoder`. Or
    whether it is a folder of peft, which may have none."""
    if is_peft_folder(folder):
        return True
    return (folder / CONFIG).is_file() and "encoder" not in read_json(folder / CONFIG)


def is_model_folder(folder: Path) -> bool:
    """Whether the folder has the config of a model: a run's, Hugging Face's, or peft's."""
    return (folder / CONFIG).is_file() or is_peft_folder(folder)


def read_hf_folder(
    folder: str | Path,
    allow_pickle: bool = False,
    drop: Collection[str] = (),
    absent: Collection[str] = (),
    drop_all: bool = True,
) -> tuple[Experiment, Params, Path]:
    """The experiment and parameters (NumPy, float32) of a folder, and its tokenizer's folder.

    `drop`, `absent` and `drop_all` as in `from_hf`. ValueError: anything that is missing, damaged,
    of another architecture, or outside the folder.
    """
    folder, tokenizer = Path(folder), Path(folder)
    if not is_model_folder(folder):
        raise ValueError(f"{folder} has no {CONFIG}: expected a Hugging Face folder")
    try:
        if is_peft_folder(folder):
            hf, tensors, tokenizer = read_peft(folder, allow_pickle)
        else:
            hf, tensors = read_json(folder / CONFIG), read_tensors(folder, allow_pickle)
            hf |= _cross_encoder_settings(folder)
        experiment, params = from_hf(hf, tensors, drop, absent, drop_all)
        if _has_unused_types(experiment.encoder, tokenizer):
            logger.info(
                "%s: its tokenizer gives all tokens the type 0; here the second text of a pair has "
                "the type 1, so scores of pairs differ from those of transformers before training",
                folder,
            )
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    return experiment, params, tokenizer


def _has_unused_types(encoder: Encoder, tokenizer: Path) -> bool:
    """Whether there are rows for token types that the tokenizer in this folder never gives: RoBERTa
    with the default type_vocab_size, or a BERT with a tokenizer of XLM-RoBERTa."""
    if encoder.token_types < 2:
        return False
    tokenizer = pretrained.inner_folder(tokenizer)
    return not folder_settings.gives_types(tokenizer, pretrained.read_config(tokenizer))


def _cross_encoder_settings(folder: Path) -> Json:
    """What a CrossEncoder of sentence-transformers 5.4 and later says of its score, under the key
    that earlier versions put into config.json."""
    settings = optional_json(folder / SENTENCE_SETTINGS)
    if settings.get("model_type") != CROSS_ENCODER or "activation_fn" not in settings:
        return {}
    return {hf_task_keys.CROSS_ENCODER: {"activation_fn": settings["activation_fn"]}}


def read_hf_experiment(folder: str | Path) -> Experiment:
    """The experiment of `read_hf_folder`, without reading the weights: from config.json and the
    headers of the weight files. Only a token-type table with a single row is read.

    ValueError: a missing folder, another architecture, weights in a pickle, damaged headers.
    """
    folder = Path(folder)
    if is_peft_folder(folder):  # what it says depends on its weights and its base
        return read_hf_folder(folder)[0]
    hf = read_json(folder / CONFIG) | _cross_encoder_settings(folder)
    try:
        family, encoder = hf_config.family_from_hf_config(hf), hf_config.encoder_from_hf_config(hf)
        files = tensor_files(folder)
        if family.is_bare(files):
            hf["architectures"] = None
        names = full_names(family, files)
        task = hf_tasks.task_from_hf_config(family, hf)
        heads = heads_with_tensors(family, names.values())
        heads |= set(hf_config.required_heads(family, hf))
        original_names = {name: original for original, name in names.items()}
        types = original_names.get(family.types_table or "")
        if types is not None and encoder.token_types == 1:
            row = open_safetensors(files[types], lambda file: file.get_tensor(types))
            encoder = encoder if row.any() else replace(encoder, token_types=0)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    experiment = hf_config.build_experiment(family, encoder, heads, task)
    return hf_long_texts.with_row_length(experiment, hf)


def check_tokenizer(experiment: Experiment, tokenizer: Tokenizer) -> None:
    """Raise ValueError unless every id of the tokenizer has a row in the embedding table, and its
    padding is that from which RoBERTa counts positions. Tables often have more rows than ids,
    because they are padded to round sizes."""
    encoder = experiment.encoder
    rows = encoder.vocab_size
    if tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, but the embedding table has {rows} "
            "rows: this vocabulary does not belong to these weights, or its settings list special "
            "tokens that they do not have"
        )
    if tokenizer.pad_id == encoder.pad_id:
        return
    if encoder.position_offset:
        raise ValueError(
            f"the tokenizer's padding id is {tokenizer.pad_id}, but the config's pad_token_id is "
            f"{encoder.pad_id}, from which this model counts positions: give the model its own "
            "tokenizer (import --tokenizer), or name that piece pad_token in the tokenizer's "
            "settings"
        )
    logger.info(
        "the tokenizer's padding id is %d, and the config's pad_token_id %d: padding is masked, so "
        "this changes nothing",
        *(tokenizer.pad_id, encoder.pad_id),
    )
