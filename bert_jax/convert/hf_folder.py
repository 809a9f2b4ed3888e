"""Read a Hugging Face folder: config.json, weights, tokenizer.

No code from the folder is run. Safetensors files contain only arrays. A pickle is read only with
`allow_pickle`, by PyTorch's loader with `weights_only`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.config import Experiment, replace
from bert_jax.convert import hf_config, hf_long_texts, hf_tasks
from bert_jax.convert.hf_params import (
    Tensors,
    from_hf,
    full_names,
    heads_with_tensors,
)
from bert_jax.convert.peft_folder import is_peft_folder, read_peft
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.utils import extras
from bert_jax.utils.errors import first_line
from bert_jax.utils.model_files import (
    ADAPTER_CONFIG,
    CONFIG,
    CROSS_ENCODER,
    INDEX,
    PICKLE,
    PICKLE_INDEX,
    SENTENCE_SETTINGS,
    WEIGHTS,
)
from bert_jax.utils.types import Json, Params

T = TypeVar("T")


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
            settings = read_json(folder / ADAPTER_CONFIG)
            hf, tensors, tokenizer = read_peft(folder, settings, read_tensors, read_json)
        else:
            hf, tensors = read_json(folder / CONFIG), read_tensors(folder, allow_pickle)
            hf |= _cross_encoder_settings(folder)
        experiment, params = from_hf(hf, tensors, drop, absent, drop_all)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    return experiment, params, tokenizer


def _cross_encoder_settings(folder: Path) -> Json:
    """What a CrossEncoder of sentence-transformers 5.4 and later says of its score, under the key
    that earlier versions put into config.json."""
    file = folder / SENTENCE_SETTINGS
    settings = read_json(file) if file.is_file() else {}
    if settings.get("model_type") != CROSS_ENCODER or "activation_fn" not in settings:
        return {}
    return {hf_tasks.CROSS_ENCODER: {"activation_fn": settings["activation_fn"]}}


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
        files = _tensor_files(folder)
        names = full_names(family, files)
        task = hf_tasks.task_from_hf_config(family, hf)
        heads = heads_with_tensors(family, names.values())
        heads |= set(hf_config.required_heads(family, hf))
        original_names = {name: original for original, name in names.items()}
        types = original_names.get(family.types_table or "")
        if types is not None and encoder.token_types == 1:
            row = _open_safetensors(files[types], lambda file: file.get_tensor(types))
            encoder = encoder if row.any() else replace(encoder, token_types=0)
    except ValueError as e:
        raise ValueError(f"{folder}: {e}") from None
    experiment = hf_config.build_experiment(family, encoder, heads, task)
    return hf_long_texts.with_row_length(experiment, hf)


def check_tokenizer(experiment: Experiment, tokenizer: Tokenizer) -> None:
    """Raise ValueError unless every id of the tokenizer has a row in the embedding table. Tables
    often have more rows than ids, because they are padded to round sizes."""
    rows = experiment.encoder.vocab_size
    if tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, but the embedding table has {rows} "
            "rows: this vocabulary does not belong to these weights"
        )
    if tokenizer.pad_id != experiment.encoder.pad_id:
        raise ValueError(
            f"the tokenizer's padding id is {tokenizer.pad_id}, but the config's pad_token_id is "
            f"{experiment.encoder.pad_id}: this vocabulary does not belong to these weights"
        )


def read_json(path: Path) -> Json:
    """The JSON object of a file. ValueError: not readable, or not an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not readable JSON: {e}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} contains {type(values).__name__}: expected a JSON object")
    return values


def read_tensors(folder: Path, allow_pickle: bool = False) -> Tensors:
    """All tensors of the folder, from one file or from the files of an index."""
    if allow_pickle and not _has_safetensors(folder) and _pickles(folder):
        tensors = {file: _read_pickle(file) for file in _pickles(folder)}
        if not (folder / PICKLE_INDEX).is_file():
            return tensors[folder / PICKLE]
        files = _indexed(folder, PICKLE_INDEX, tensors)
    else:
        files = _tensor_files(folder)
        tensors = {file: _open_safetensors(file, _read_all) for file in sorted(set(files.values()))}
    return {name: tensors[file][name] for name, file in files.items()}


def _has_safetensors(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / WEIGHTS).is_file()


def _pickles(folder: Path) -> list[Path]:
    if (folder / PICKLE_INDEX).is_file():
        return sorted({folder / file for file in _weight_map(folder, PICKLE_INDEX).values()})
    return [folder / PICKLE] if (folder / PICKLE).is_file() else []


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> its safetensors file; only headers are read."""
    if (folder / INDEX).is_file():
        files = sorted(set(_weight_map(folder, INDEX).values()))
        return _indexed(
            folder, INDEX, {folder / f: _open_safetensors(folder / f, _tensor_names) for f in files}
        )
    if (folder / WEIGHTS).is_file():
        return dict.fromkeys(_open_safetensors(folder / WEIGHTS, _tensor_names), folder / WEIGHTS)
    if _pickles(folder):
        raise ValueError(
            f"the only weights are in {_pickles(folder)[0].name}, a pickle, which could run code: "
            "convert it to safetensors, or import it with --allow-pickle (PyTorch then reads "
            "tensors only)"
        )
    raise ValueError(f"no weights: expected {WEIGHTS} or {INDEX}")


def _open_safetensors(path: Path, read: Callable[[Any], T]) -> T:
    """The result of `read` on an open safetensors file. ValueError: the file is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return read(file)
    except (SafetensorError, OSError, TypeError, KeyError) as e:
        raise ValueError(
            f"{path.name} is not a valid safetensors file ({e}): download or copy it again"
        ) from None


def _tensor_names(file: Any) -> list[str]:
    return list(file.keys())


def _read_all(file: Any) -> Tensors:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    """Tensor name -> file name, which must be in the same folder as the index."""
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise ValueError(f"{index} has no weight_map of tensor names to file names")
    existing = {path.name for path in folder.iterdir()}
    for file in sorted(set(weight_map.values())):
        if file in ("", ".", "..") or "/" in file or "\\" in file or "\0" in file:
            raise ValueError(
                f"{index} points to {file!r}: expected the name of a file in the same folder"
            )
        if file not in existing or not (folder / file).is_file():
            raise ValueError(
                f"{index} names {file[:80]}, which is missing: copy it to the same folder"
            )
    return weight_map


def _indexed(folder: Path, index: str, contents: Mapping[Path, Collection[str]]) -> dict[str, Path]:
    """Tensor name -> its file by the index. ValueError: a file does not contain its tensors."""
    files = {name: folder / file for name, file in _weight_map(folder, index).items()}
    missing = sorted(name for name, file in files.items() if name not in contents[file])
    if missing:
        raise ValueError(f"{index} lists tensors that its files lack: {', '.join(missing)}")
    return files


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch
    except ImportError:
        raise extras.missing(f"{path.name}, a pickle,", "PyTorch", "peer") from None
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch may raise anything on damaged bytes
        reason = first_line(e)
        raise ValueError(f"{path.name} is not a file of tensors only: {reason}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()
    ):
        raise ValueError(f"{path.name} contains something other than named tensors")
    return {k: _to_numpy(v) for k, v in tensors.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    floating = tensor.is_floating_point()
    return (tensor.detach().float() if floating else tensor.detach()).numpy()
