"""`export`: write a model in a format that other programs read, to a new folder.

hf         config.json  model.safetensors  tokenizer files  README.md   opens in transformers
orbax      params/  config.json  tokenizer/                             a plain parameter tree
stablehlo  model.stablehlo  model.safetensors  signature.json  tokenizer/  README.md

A vocabulary that was padded for sharding is cut to `encoder.vocab_size` before, when the checkpoint
is read (`checkpoint/vocab_padding.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import orbax.checkpoint as ocp

from bert_jax import config, convert
from bert_jax.convert.export.files import ExportableModel, copy_tokenizer, write_json, write_tensors
from bert_jax.convert.export.model_card import final_metrics, model_card
from bert_jax.convert.export.stablehlo import export_network, export_stablehlo
from bert_jax.utils import io

__all__ = [
    "EXPORTERS",
    "ExportableModel",
    "Format",
    "export_model",
    "export_network",
    "final_metrics",
]

Format = Literal["hf", "orbax", "stablehlo"]


def export_model(
    model: ExportableModel,
    folder: str | Path,
    format: Format,
    out: str | Path,
    part: str | None = None,
) -> list[str]:
    """Write `model`, which was loaded from `folder`, to `out`. Returns the names of parameters
    that the format cannot represent.

    `part` is ELECTRA's `discriminator` or `generator`; the default is the discriminator, for
    `orbax` both. `out` is written completely or not at all. ValueError: `out` is not empty, an
    unknown format, or a model that the format cannot represent.
    """
    out = Path(out)
    if format not in EXPORTERS:
        raise ValueError(f"format is {format!r}: expected {', '.join(EXPORTERS)}")
    with io.atomic_dir(out) as new:
        return EXPORTERS[format](model, Path(folder), new, part)


# ---- Hugging Face


def _hf(model: ExportableModel, folder: Path, out: Path, part: str | None) -> list[str]:
    config_json, tensors, left_out = convert.to_hf(model.config, model.params, part)
    if config_json["model_type"] in (*config.ROBERTA_LIKE, "albert"):
        config_json |= {
            "bos_token_id": model.tokenizer.cls_id,
            "eos_token_id": model.tokenizer.sep_id,
        }
    write_json(out / "config.json", config_json)
    write_tensors(out / "model.safetensors", tensors)
    copy_tokenizer(folder, out, model.config.encoder.max_length)
    text = model_card(model, folder, config_json, left_out)
    # errors="replace": labels may contain unpaired surrogates, which UTF-8 cannot encode
    (out / "README.md").write_text(text, encoding="utf-8", errors="replace")
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
    copy_tokenizer(folder, out / "tokenizer", model.config.encoder.max_length)
    return []


EXPORTERS: dict[str, Callable[[ExportableModel, Path, Path, str | None], list[str]]] = {
    "hf": _hf,
    "orbax": _orbax,
    "stablehlo": export_stablehlo,
}
