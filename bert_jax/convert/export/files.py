"""Files that every export format writes."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import processors

from bert_jax import config, convert
from bert_jax.config import Encoder, Experiment
from bert_jax.convert.sentence_head import SentenceHead
from bert_jax.data.tokenization import folder_settings
from bert_jax.data.tokenization.pretrained import FINGERPRINT_FILE, inner_folder
from bert_jax.data.tokenization.special_tokens import read_template


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
    trained by us gets the model's maximum length, and gives token types if the model has them;
    others stay unchanged."""
    source = inner_folder(folder)
    out.mkdir(exist_ok=True)
    for name in convert.TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    folder_settings.keep_class(source, out)
    if (source / FINGERPRINT_FILE).is_file():  # written only by our `Tokenizer.save`
        settings = convert.read_json(out / "tokenizer_config.json")
        settings["model_max_length"] = encoder.max_length
        types = ["token_type_ids"] if encoder.token_types > 1 else []
        settings["model_input_names"] = ["input_ids", *types, "attention_mask"]
        if types and not folder_settings.gives_types(out, settings):
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # RobertaTokenizer has one type
            _give_token_types(out / "tokenizer.json")
        write_json(out / "tokenizer_config.json", settings)


def _give_token_types(file: Path) -> None:
    """Let a tokenizer.json give the second text type 1, and the special token before it if there
    are two, as our rows have it."""
    spec = convert.read_json(file)
    old = spec["post_processor"]
    template = read_template(old)
    assert template is not None
    cls, sep, core = template.cls, template.sep, tokenizers.Tokenizer.from_str(json.dumps(spec))
    second = f"{sep}:1 $B:1" if template.doubled else "$B:1"
    core.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 {second} {sep}:1",
        special_tokens=[(token, core.token_to_id(token)) for token in (cls, sep)],
    )
    new = json.loads(core.to_str())["post_processor"]
    if old["type"] == "RobertaProcessing":  # it trims offsets, too
        offsets = json.loads(processors.ByteLevel(trim_offsets=True).__getstate__())
        new = {"type": "Sequence", "processors": [offsets, new]}
    elif old["type"] == "Sequence":
        new = old | {"processors": [new if read_template(p) else p for p in old["processors"]]}
    write_json(file, spec | {"post_processor": new})


def write_pipeline(tokenizer: Any, out: Path) -> None:
    """Write tokenizer.json for programs that read nothing else, where the folder has none."""
    if not (out / "tokenizer.json").is_file():
        with tempfile.TemporaryDirectory() as temporary:
            tokenizer.save(temporary)
            shutil.copyfile(Path(temporary) / "tokenizer.json", out / "tokenizer.json")


def write_tensors(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> None:
    save_file(tensors, path, metadata={"format": "pt", **metadata})  # required by transformers
    path.chmod(0o644)  # save_file makes it readable by its owner only


def write_json(path: Path, values: dict[str, Any] | list[Any]) -> None:
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, with `?` for what is no character: half of a surrogate pair in a foreign prompt,
    or a byte in the name of a folder that is not UTF-8."""
    path.write_text(text, encoding="utf-8", errors="replace")


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
