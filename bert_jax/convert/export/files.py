"""What every format writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file

from bert_jax import convert
from bert_jax.config import Experiment


class ExportableModel(Protocol):
    """What `bert_jax.load` returns, as far as an export goes."""

    @property
    def config(self) -> Experiment: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def step(self) -> int: ...


def copy_tokenizer(folder: Path, out: Path, longest: int) -> None:
    """The tokenizer of a run, an imported or a Hugging Face folder, file by file. In one that
    was trained here the longest text becomes the model's; others are left as they were."""
    source = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    out.mkdir(exist_ok=True)
    for name in convert.TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if (source / "fingerprint.txt").is_file():  # which only our own `Tokenizer.save` writes
        settings = convert.read_json(out / "tokenizer_config.json")
        write_json(out / "tokenizer_config.json", settings | {"model_max_length": longest})


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})  # transformers insists on a format
    path.chmod(0o644)  # the library makes files that only their owner reads


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
