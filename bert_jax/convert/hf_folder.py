"""A Hugging Face folder on disk: config.json, weights, tokenizer. Reads, never runs, what is
there: safetensors hold arrays alone, and a pickle is opened only when asked for, by PyTorch's
loader that admits nothing but tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.config import Experiment, replace
from bert_jax.convert import hf_config, hf_tasks
from bert_jax.convert.hf_params import (
    TOKEN_TYPE_TABLE,
    Tensors,
    from_hf,
    full_names,
    heads_with_tensors,
)
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils.types import Json, Params

T = TypeVar("T")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder's config.json is theirs; a run folder's has an `encoder`."""
    return (folder / CONFIG).is_file() and "encoder" not in read_json(folder / CONFIG)


def read_hf_folder(
    folder: str | Path,
    allow_pickle: bool = False,
    drop: Collection[str] = (),
    absent: Collection[str] = (),
) -> tuple[Experiment, Params, Path]:
    """The experiment and parameters (NumPy, float32) of a folder, and where its tokenizer is.

    `drop` and `absent` as in `from_hf`. ValueError: anything that is missing, damaged, not of
    this architecture, or outside the folder.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: expected a Hugging Face folder")
    hf = read_json(folder / CONFIG)
    try:
        experiment, params = from_hf(hf, read_tensors(folder, allow_pickle), drop, absent)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    return experiment, params, folder


def read_hf_experiment(folder: str | Path) -> Experiment:
    """The experiment of `read_folder` from config.json and the headers of the weights' files;
    of the weights themselves only a table of token types with one row is read.

    ValueError: no such folder, not of this architecture, weights in a pickle, damaged headers.
    """
    folder = Path(folder)
    hf = read_json(folder / CONFIG)
    try:
        family, encoder = hf_config.family_from_hf_config(hf), hf_config.encoder_from_hf_config(hf)
        files = _tensor_files(folder)
        names = full_names(family, files)
        task = hf_tasks.task_from_hf_config(family, hf)
        heads = heads_with_tensors(family, names.values()) | set(
            hf_config.required_heads(family, hf)
        )
        given = {name: given for given, name in names.items()}.get(family.prefix + TOKEN_TYPE_TABLE)
        if given is not None and encoder.token_types == 1:
            row = _sound(files[given], lambda file: file.get_tensor(given))
            encoder = encoder if row.any() else replace(encoder, token_types=0)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    return hf_config.build_experiment(family, encoder, heads, task)


def check_tokenizer(experiment: Experiment, tokenizer: Tokenizer) -> None:
    """ValueError unless every id of the tokenizer has a row in the table. More rows than ids
    are common: tables are padded to round sizes."""
    rows = experiment.encoder.vocab_size
    if tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, the word table {rows} rows: "
            "this vocabulary does not belong to these weights"
        )
    if tokenizer.pad_id != experiment.encoder.pad_id:
        raise ValueError(
            f"the tokenizer's padding is id {tokenizer.pad_id}, the config's pad_token_id "
            f"{experiment.encoder.pad_id}: this vocabulary does not belong to these weights"
        )


def read_json(path: Path) -> Json:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not readable JSON: {e}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}: expected a JSON object")
    return values


def read_tensors(folder: Path, allow_pickle: bool = False) -> Tensors:
    """Every tensor of the folder, from one file or from those that an index lists."""
    if allow_pickle and not _is_safe(folder) and _pickles(folder):
        read = {file: _read_pickle(file) for file in _pickles(folder)}
        if not (folder / PICKLE_INDEX).is_file():
            return read[folder / PICKLE]
        files = _indexed(folder, PICKLE_INDEX, read)
    else:
        files = _tensor_files(folder)
        read = {file: _sound(file, _all_of) for file in sorted(set(files.values()))}
    return {name: read[file][name] for name, file in files.items()}


def _is_safe(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / WEIGHTS).is_file()


def _pickles(folder: Path) -> list[Path]:
    if (folder / PICKLE_INDEX).is_file():
        return sorted({folder / file for file in _weight_map(folder, PICKLE_INDEX).values()})
    return [folder / PICKLE] if (folder / PICKLE).is_file() else []


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Name of a tensor -> the safetensors file that holds it; headers alone are read."""
    if (folder / INDEX).is_file():
        files = sorted(set(_weight_map(folder, INDEX).values()))
        return _indexed(folder, INDEX, {folder / f: _sound(folder / f, _names_of) for f in files})
    if (folder / WEIGHTS).is_file():
        return dict.fromkeys(_sound(folder / WEIGHTS, _names_of), folder / WEIGHTS)
    if _pickles(folder):
        raise ValueError(
            f"only {_pickles(folder)[0].name} is there, a pickle, which could run code: convert "
            "it to safetensors, or import it with --allow-pickle (then PyTorch reads it, tensors "
            "only)"
        )
    raise ValueError(f"no weights: expected {WEIGHTS} or {INDEX}")


def _sound(path: Path, read: Callable[[Any], T]) -> T:
    """What `read` makes of an open safetensors file; what is wrong with it as a ValueError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return read(file)
    except (SafetensorError, OSError, TypeError, KeyError) as e:
        raise ValueError(
            f"{path.name} is not a sound safetensors file ({e}): download or copy it again"
        ) from None


def _names_of(file: Any) -> list[str]:
    return list(file.keys())


def _all_of(file: Any) -> Tensors:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    """Name of a tensor -> name of its file, which is one beside the index."""
    where = read_json(folder / index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(f, str) for f in where.values()):
        raise ValueError(f"{index} has no weight_map of tensor names to file names")
    beside = {path.name for path in folder.iterdir()}
    for file in sorted(set(where.values())):
        if file in ("", ".", "..") or "/" in file or "\\" in file or "\0" in file:
            raise ValueError(
                f"{index} points to {file!r}: expected the name of a file in the same folder"
            )
        if file not in beside or not (folder / file).is_file():
            raise ValueError(
                f"{index} names {file[:80]}, which is not there: copy it beside the index"
            )
    return where


def _indexed(folder: Path, index: str, held: Mapping[Path, Collection[str]]) -> dict[str, Path]:
    """Name of a tensor -> the file that the index gives for it, and that does hold it."""
    where = {name: folder / file for name, file in _weight_map(folder, index).items()}
    lost = sorted(name for name, file in where.items() if name not in held[file])
    if lost:
        raise ValueError(f"{index} promises tensors that its files do not hold: {', '.join(lost)}")
    return where


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path.name} can only be read with PyTorch, which is not installed: install torch, "
            "or convert the file to safetensors"
        ) from None
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises what the damaged bytes happen to lead to
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ValueError(f"{path.name} is not a file of tensors alone: {reason}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()
    ):
        raise ValueError(f"{path.name} holds something other than named tensors")
    return {k: _array(v) for k, v in tensors.items()}


def _array(tensor: Any) -> np.ndarray:
    floating = tensor.is_floating_point()
    return (tensor.detach().float() if floating else tensor.detach()).numpy()
