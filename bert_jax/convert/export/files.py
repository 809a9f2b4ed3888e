"""Files that every export format writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file

from bert_jax import config, convert
from bert_jax.config import Encoder, Experiment
from bert_jax.convert.sentence_head import SentenceHead


class ExportableModel(Protocol):
    """The attributes of `bert_jax.load`'s result that an export needs."""

    @property
    def config(self) -> Experiment: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def step(self) -> int: ...
    @property
    def sentence(self) -> SentenceHead | None: ...
    @property
    def adapter(self) -> Any: ...  # inference.adapter.Adapter, or None


def copy_tokenizer(folder: Path, out: Path, encoder: Encoder) -> None:
    """Copy the tokenizer files of a run folder, imported folder or Hugging Face folder. A tokenizer
    trained by us gets the model's maximum length, and gives no token types if the model has none;
    others stay unchanged."""
    source = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    out.mkdir(exist_ok=True)
    for name in convert.TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if (source / "fingerprint.txt").is_file():  # written only by our `Tokenizer.save`
        settings = convert.read_json(out / "tokenizer_config.json")
        settings["model_max_length"] = encoder.max_length
        if not encoder.token_types:
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        write_json(out / "tokenizer_config.json", settings)


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})  # required by transformers
    path.chmod(0o644)  # save_file makes it readable by its owner only


def write_json(path: Path, values: dict[str, Any] | list[Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_special_ids(config_json: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """A config.json with the ids of special tokens that its class has fields for."""
    first, last = tokenizer.cls_id, tokenizer.sep_id
    if config_json["model_type"] in (*config.ROBERTA_LIKE, "albert"):
        return config_json | {"bos_token_id": first, "eos_token_id": last}
    if config_json["model_type"] == "modernbert":
        ids = dict.fromkeys(("bos_token_id", "cls_token_id"), first)
        ids |= dict.fromkeys(("eos_token_id", "sep_token_id"), last)
        return {"classifier_pooling": "mean"} | config_json | ids  # the published files' pooling
    return config_json
