"""`export`: write a model in a format that other programs read, to a new folder.

peft       adapter_config.json  adapter_model.safetensors   the adapters of a run (lora.rank)
hf         config.json  model.safetensors  tokenizer files  README.md   opens in transformers
sentence-transformers   the same of the encoder alone, with modules.json and its folders
orbax      params/  config.json  tokenizer/                             a plain parameter tree
stablehlo  model.stablehlo  model.safetensors  signature.json  tokenizer/  README.md
onnx       model.onnx  config.json  tokenizer files  README.md          runs in onnxruntime

A vocabulary that was padded for sharding is cut to `encoder.vocab_size` before, when the checkpoint
is read (`checkpoint/vocab_padding.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import orbax.checkpoint as ocp

from bert_jax import config, convert
from bert_jax.convert.export.files import (
    ExportableModel,
    copy_tokenizer,
    with_special_ids,
    write_json,
    write_pipeline,
    write_tensors,
    write_text,
)
from bert_jax.convert.export.model_card import (
    SENTENCE_CARD,
    TRANSFORMERS_CARD,
    CardText,
    final_metrics,
    model_card,
)
from bert_jax.convert.export.onnx_file import (
    DEFAULT_OPTIONS,
    OnnxOptions,
    check_onnx,
    export_onnx,
)
from bert_jax.convert.export.peft import export_peft
from bert_jax.convert.export.sentence_transformers import write_sentence_head
from bert_jax.convert.export.stablehlo import export_network, export_stablehlo
from bert_jax.convert.sentence_head import SentenceHead
from bert_jax.utils import io

__all__ = [
    "EXPORTERS",
    "ExportableModel",
    "Format",
    "OnnxOptions",
    "check_onnx",
    "export_model",
    "export_network",
    "final_metrics",
]

Format = Literal["hf", "peft", "sentence-transformers", "orbax", "stablehlo", "onnx"]


SENTENCE_MODULES = "what makes sentence vectors: pooling, prompts and further layers"


def export_model(
    model: ExportableModel,
    folder: str | Path,
    format: Format,
    out: str | Path,
    part: str | None = None,
    base: str | None = None,
    onnx: OnnxOptions = DEFAULT_OPTIONS,
) -> list[str]:
    """Write `model`, which was loaded from `folder`, to `out`. Returns the names of parameters
    that the format cannot represent.

    `part` is ELECTRA's `discriminator` or `generator`; the default is the discriminator, for
    `orbax` both. `base` is the name or folder by which peft finds the base of adapters; the default
    is that of the run. `onnx` holds the options of that format. `out` is written completely or not
    at all.

    ValueError: `out` is not empty, an unknown format, or a model that the format cannot represent.
    """
    out = Path(out)
    if format not in get_args(Format):
        raise ValueError(f"format is {format!r}: expected {', '.join(get_args(Format))}")
    if base is not None and format != "peft":
        raise ValueError(f"a base is given for the format {format}: it is for peft alone")
    if part is not None and format == "peft":
        raise ValueError(f"the part {part} is given for the format peft, which has none")
    with io.atomic_dir(out) as new:
        if format == "onnx":
            return export_onnx(model, Path(folder), new, part, onnx)
        if format == "peft":
            left_out = export_peft(model, Path(folder), new, base)
        else:
            left_out = EXPORTERS[format](model, Path(folder), new, part)
    in_config = isinstance(model.config.objective, config.Contrastive) and format == "orbax"
    if model.sentence is None or in_config or format == "sentence-transformers":
        return left_out
    return [*left_out, f"{SENTENCE_MODULES} (--format sentence-transformers keeps them)"]


# ---- Hugging Face


def _hf(model: ExportableModel, folder: Path, out: Path, part: str | None) -> list[str]:
    encoder, *_ = convert.select_network(model.config, model.params, part)
    return _write_hf(model, encoder, folder, out, convert.to_hf(model.config, model.params, part))


def _sentence_transformers(
    model: ExportableModel, folder: Path, out: Path, part: str | None
) -> list[str]:
    """The encoder and its pooler alone: the library reads no other head."""
    encoder, _, network = convert.select_network(model.config, model.params, part)
    family: Any = convert.hf_family(encoder, model.config.objective).name
    kept = {name: network[name] for name in ("embeddings", "encoder", "pooler") if name in network}
    imported = config.Imported(family, pooler="pooler" in kept)
    experiment = config.replace(model.config, encoder=encoder, objective=imported)
    hf = convert.to_hf(experiment, kept)
    left_out = _write_hf(model, encoder, folder, out, hf, SENTENCE_CARD)
    head = model.sentence or SentenceHead()
    write_sentence_head(head, out, encoder.hidden_size, encoder.max_length)
    return left_out + sorted(set(network) - set(kept))


def _write_hf(
    model: ExportableModel,
    encoder: config.Encoder,
    folder: Path,
    out: Path,
    hf: convert.HfModel,
    card: CardText = TRANSFORMERS_CARD,
) -> list[str]:
    config_json, tensors, left_out = hf
    config_json = with_special_ids(config_json, model.tokenizer)
    write_json(out / "config.json", config_json)
    write_tensors(out / "model.safetensors", tensors)
    copy_tokenizer(folder, out, encoder)
    text = model_card(model, folder, config_json, left_out, card, encoder)
    write_text(out / "README.md", text)
    return left_out


# ---- Orbax


def _orbax(model: ExportableModel, folder: Path, out: Path, part: str | None) -> list[str]:
    experiment, params = model.config, model.params
    if part is not None:
        # One network is an encoder with a head, like an imported folder.
        encoder, heads, params = convert.select_network(experiment, params, part)
        imported = config.Imported("electra", **dict.fromkeys(heads, True))  # type: ignore[arg-type]
        experiment = config.replace(experiment, encoder=encoder, objective=imported)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((out / "params").absolute(), params)
    config.save_config(experiment, out / "config.json")
    copy_tokenizer(folder, out / "tokenizer", model.config.encoder)
    write_pipeline(model.tokenizer, out / "tokenizer")
    return []


EXPORTERS: dict[str, Callable[[ExportableModel, Path, Path, str | None], list[str]]] = {
    "hf": _hf,
    "sentence-transformers": _sentence_transformers,
    "orbax": _orbax,
    "stablehlo": export_stablehlo,
}
