"""Read a folder of peft: its LoRA adapter merged into its base, as Hugging Face tensors.

    adapter_config.json  adapter_model.safetensors  [config.json]  [tokenizer files]

The base is the model that adapter_config.json names. Merging happens under Hugging Face's names,
so that fused kernels (ModernBERT's Wqkv) and adapted heads need no rule of their own:

    base_model.model.MODULE.lora_A.weight (r in)  lora_B.weight (out r)  added to MODULE.weight
    base_model.model.MODULE.weight                                       a trained head's own
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_jax.convert import hf_config, peft_config
from bert_jax.convert.hf_config_keys import architecture
from bert_jax.convert.hf_layout import Tensors
from bert_jax.convert.hf_name_rules import Family, full_names
from bert_jax.convert.hf_params import from_hf
from bert_jax.convert.hf_weights import open_safetensors, read_all, read_json, read_tensors
from bert_jax.model import lora
from bert_jax.utils import hub
from bert_jax.utils.model_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    TOKENIZER_FILES,
)
from bert_jax.utils.types import Json

logger = logging.getLogger(__name__)

HASH_KEY = "base_sha256"  # in the metadata of the weights that we write


class PeftWeights(NamedTuple):
    """The tensors of an adapter by the names of its Hugging Face class."""

    a: Tensors  # module -> (r, in)
    b: Tensors  # module -> (out, r)
    heads: Tensors  # tensors that replace those of the base
    base_hash: str | None  # of a folder that we wrote


def is_peft_folder(folder: Path) -> bool:
    """Whether the folder has peft's adapter_config.json."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_peft(folder: Path, allow_pickle: bool = False) -> tuple[Json, Tensors, Path]:
    """config.json and tensors of the adapted model, merged, and the folder of its tokenizer. With
    `allow_pickle` the base may be a pickle.

    ValueError: an adapter that is not plain LoRA, no base, another base, tensors that do not fit.
    """
    settings = read_json(folder / ADAPTER_CONFIG)
    peft_config.check_settings(settings)
    scale = peft_config.scale(settings)
    weights = _read_weights(folder)
    name = peft_config.base_name(settings, folder)
    logger.info("%s: an adapter of %s, which is read, too", folder, name)
    base = hub.model_folder(name, allow_pickle).path
    if is_peft_folder(base) or not (base / CONFIG).is_file():
        raise ValueError(f"its base {base} is no Hugging Face folder with {CONFIG}")
    base_json = read_json(base / CONFIG)
    if "encoder" in base_json:
        raise ValueError(f"its base {base} is a run folder: expected a Hugging Face folder")
    family, tensors = hf_config.family_from_hf_config(base_json), read_tensors(base, allow_pickle)
    _check_base(weights.base_hash, base, base_json, tensors)
    own = folder / CONFIG
    hf = read_json(own) if own.is_file() else _derived_config(settings, family, base_json, weights)
    merged = _merge(family, hf, base_json, tensors, weights, scale)
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return hf, merged, folder if has_tokenizer else base


def _read_weights(folder: Path) -> PeftWeights:
    """ValueError: a missing or damaged file, a tensor that is not of plain LoRA."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise ValueError(f"no {ADAPTER_WEIGHTS}: save the adapter with safe_serialization=True")
    metadata, tensors = open_safetensors(path, lambda f: (f.metadata() or {}, read_all(f)))
    a, b, heads = Tensors(), Tensors(), Tensors()
    for name, array in tensors.items():
        module = name.removeprefix(peft_config.PEFT_PREFIX)
        if module.endswith(".lora_A.weight"):
            a[module.removesuffix(".lora_A.weight")] = array
        elif module.endswith(".lora_B.weight"):
            b[module.removesuffix(".lora_B.weight")] = array
        elif "lora_" in module or not name.startswith(peft_config.PEFT_PREFIX):
            raise ValueError(f"{ADAPTER_WEIGHTS} has {name}, which is not of a plain LoRA adapter")
        else:
            heads[module.replace(".modules_to_save.", ".")] = array
    if unpaired := sorted(set(a) ^ set(b)):
        raise ValueError(
            f"{ADAPTER_WEIGHTS} has only one of lora_A and lora_B for {unpaired[0]}; download or "
            "copy it again"
        )
    if not a:
        raise ValueError(f"{ADAPTER_WEIGHTS} has no lora_A and lora_B; download or copy it again")
    return PeftWeights(a, b, heads, metadata.get(HASH_KEY))


def _check_base(recorded: str | None, base: Path, base_json: Json, tensors: Tensors) -> None:
    if recorded is None:
        return
    experiment, params = from_hf(base_json, tensors)
    lora.check_base(
        lora.split_base(params)[1], experiment.encoder.vocab_size, recorded, f"its base {base}"
    )


def _derived_config(settings: Json, family: Family, base_json: Json, weights: PeftWeights) -> Json:
    """The config.json of the adapted model where the folder has none: the base's, with the class
    that peft recorded and as many labels as the head has."""
    name = peft_config.class_name(settings, family)
    if name is None:
        return base_json
    hf = {**base_json, "architectures": [name]}
    outputs = [
        len(array)
        for tensor, array in weights.heads.items()
        if tensor.endswith(("classifier.weight", "classifier.out_proj.weight"))
        and not tensor.endswith("pre_classifier.weight")
    ]
    if outputs and len(hf.get("id2label") or ()) != outputs[0]:
        hf["id2label"] = {str(i): f"LABEL_{i}" for i in range(outputs[0])}
        hf.pop("label2id", None)
    return hf


def _merge(
    family: Family, hf: Json, base_json: Json, base: Tensors, weights: PeftWeights, scale: float
) -> Tensors:
    """The tensors of the adapted model by their full names."""
    full = {name: base[original] for original, name in full_names(family, base).items()}
    name = architecture(hf)
    if name != architecture(base_json):  # heads of another class
        tables = [task.table for task in family.tasks.values() if task.name == name]
        modules = tuple(f"{module}." for table in tables for module in table)
        full = {k: v for k, v in full.items() if k.startswith((family.prefix, *modules))}
    kernels = [f"{module}.weight" for module in weights.a]
    names = full_names(family, [*kernels, *weights.heads])
    full |= {names[name]: array for name, array in weights.heads.items() if name in names}
    problems = []
    for module, a in weights.a.items():
        name, b = names[f"{module}.weight"], weights.b[module]
        kernel = full.get(name)
        if kernel is None:
            problems.append(f"no {name}")
        elif a.ndim != 2 or b.ndim != 2 or kernel.shape != (b.shape[0], a.shape[1]):
            problems.append(f"{name} {list(kernel.shape)}, adapter {list(b.shape)} {list(a.shape)}")
        elif a.shape[0] != b.shape[1]:
            problems.append(f"{name}: ranks {a.shape[0]} and {b.shape[1]}")
        else:
            low_rank = b.astype(np.float64) @ a.astype(np.float64)
            full[name] = (kernel.astype(np.float64) + scale * low_rank).astype(np.float32)
    if problems:
        raise ValueError(f"the adapter does not fit its base: {'; '.join(problems[:5])}")
    return full
