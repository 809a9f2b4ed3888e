"""Folders of sentence-transformers, written by hand around a recorded encoder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.helpers.hf_fixtures import write_hf_folder

PREFIX = "sentence_transformers.models"


def write_sentence_folder(
    folder: Path,
    pooling: dict[str, Any],
    dense: tuple[np.ndarray, np.ndarray | None] | None = None,
    settings: dict[str, Any] | None = None,
    modules: Sequence[str] = ("Normalize",),
    **encoder: Any,
) -> Path:
    """An encoder, Pooling, a Dense layer with a tanh if its kernel [i o] and bias are given, and
    `modules`, whose folders are missing as that of Normalize often is."""
    write_hf_folder(folder)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    names = ["Transformer", "Pooling", *(["Dense"] if dense else []), *modules]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"{PREFIX}.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    _write(folder / "modules.json", entries)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 16} | encoder)
    _write(folder / "config_sentence_transformers.json", settings or {})
    (folder / "1_Pooling").mkdir()
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": width} | pooling)
    if dense:
        (folder / "2_Dense").mkdir()
        sizes = dict(zip(("in_features", "out_features"), dense[0].shape, strict=True))
        _write(folder / "2_Dense/config.json", sizes | {"bias": dense[1] is not None})
        tensors = {"linear.weight": np.ascontiguousarray(dense[0].T), "linear.bias": dense[1]}
        tensors = {name: x for name, x in tensors.items() if x is not None}
        save_file(tensors, folder / "2_Dense/model.safetensors")
    return folder


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))
