"""The files of a Hugging Face folder: JSON, safetensors, and pickles if these are allowed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.convert.hf_layout import Tensors
from bert_jax.utils import extras
from bert_jax.utils.errors import first_line
from bert_jax.utils.model_files import INDEX, PICKLE, PICKLE_INDEX, WEIGHTS
from bert_jax.utils.types import Json

logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_json(path: Path) -> Json:
    """The JSON object of a file. ValueError: not readable, or not an object."""
    values = read_json_value(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} contains {type(values).__name__}: expected a JSON object")
    return values


def optional_json(path: Path) -> Json:
    """As `read_json`; empty without the file."""
    return read_json(path) if path.is_file() else {}


def read_json_value(path: Path) -> Any:
    """What a JSON file holds. ValueError: not readable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not readable JSON: {e}") from None


def read_tensors(folder: Path, allow_pickle: bool = False) -> Tensors:
    """All tensors of the folder, from one file or from the files of an index."""
    pickles = _pickles(folder) if allow_pickle and not _has_safetensors(folder) else []
    if pickles:
        tensors = {file: _read_pickle(file) for file in pickles}
        if folder / PICKLE in tensors:
            return tensors[folder / PICKLE]
        files = _indexed(folder, PICKLE_INDEX, tensors)
    else:
        files = tensor_files(folder)
        tensors = {file: open_safetensors(file, read_all) for file in sorted(set(files.values()))}
    return {name: tensors[file][name] for name, file in files.items()}


def _has_safetensors(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / WEIGHTS).is_file()


def _pickles(folder: Path) -> list[Path]:
    if _is_single(folder, PICKLE, PICKLE_INDEX):
        return [folder / PICKLE]
    if (folder / PICKLE_INDEX).is_file():
        return sorted({folder / file for file in _weight_map(folder, PICKLE_INDEX).values()})
    return []


def _is_single(folder: Path, file: str, index: str) -> bool:
    """Whether the weights are in one file, which counts beside an index, as in transformers."""
    single = (folder / file).is_file()
    if single and (folder / index).is_file():
        logger.warning(
            "%s has %s and %s: the first is read, as in transformers", folder, file, index
        )
    return single


def tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> its safetensors file; only headers are read."""
    if _is_single(folder, WEIGHTS, INDEX):
        return dict.fromkeys(open_safetensors(folder / WEIGHTS, _tensor_names), folder / WEIGHTS)
    if (folder / INDEX).is_file():
        files = sorted(set(_weight_map(folder, INDEX).values()))
        return _indexed(
            folder, INDEX, {folder / f: open_safetensors(folder / f, _tensor_names) for f in files}
        )
    if pickles := _pickles(folder):
        raise ValueError(
            f"the only weights are in {pickles[0].name}, a pickle, which could run code: "
            "convert it to safetensors, or import it with --allow-pickle (PyTorch then reads "
            "tensors only)"
        )
    raise ValueError(
        f"no weights: expected {WEIGHTS} or {INDEX} (a pickle is downloaded from the Hub only by "
        "bert-jax import --allow-pickle)"
    )


def open_safetensors(path: Path, read: Callable[[Any], T]) -> T:
    """The result of `read` on an open safetensors file. ValueError: the file is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return read(file)
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as e:
        # AttributeError: a type that NumPy lacks, such as float8
        raise ValueError(
            f"{path.name} is not a valid safetensors file ({e}): download or copy it again"
        ) from None


def _tensor_names(file: Any) -> list[str]:
    return list(file.keys())


def read_all(file: Any) -> Tensors:
    """All tensors of an open safetensors file."""
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    """Tensor name -> file name, which must be in the same folder as the index."""
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise ValueError(
            f"{index} has no weight_map of tensor names to file names; download or copy it again"
        )
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
        raise ValueError(
            f"{index} lists tensors that its files lack: {', '.join(missing)}; download or copy "
            "the folder again"
        )
    return files


def _read_pickle(path: Path) -> Tensors:
    try:
        import torch
    except ImportError:
        raise extras.missing(f"{path.name}, a pickle,", "PyTorch", "peer") from None
    refuse_old_torch(torch.__version__)
    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch may raise anything on damaged bytes
        reason = first_line(e)
        raise ValueError(
            f"{path.name} is not a file of tensors only: {reason}; convert it to safetensors"
        ) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()
    ):
        raise ValueError(
            f"{path.name} contains something other than named tensors; convert them to safetensors"
        )
    return {k: _to_numpy(v) for k, v in tensors.items()}


def refuse_old_torch(version: str) -> None:
    """ValueError: a PyTorch before 2.6, whose `weights_only` could run code (CVE-2025-32434)."""
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (2, 6):
        raise ValueError(
            f"PyTorch is {version}, whose loader may run code of a pickle: expected 2.6 or later; "
            "upgrade it, or convert the file to safetensors"
        )


def _to_numpy(tensor: Any) -> np.ndarray:
    floating = tensor.is_floating_point()
    return (tensor.detach().float() if floating else tensor.detach()).numpy()
