"""adapter_config.json of peft: which adapters can be read, and what they scale by.

Source: `peft/tuners/lora/config.py` of peft 0.21. A key that is not known and has a value could
change what the adapter computes, so it is refused by name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bert_jax.convert.hf_name_rules import Family
from bert_jax.utils.model_files import ADAPTER_CONFIG, CONFIG
from bert_jax.utils.types import Json, is_number

PEFT_PREFIX = "base_model.model."  # of every name in a peft folder's weights
TASK_TYPES = {  # `Supervised.task_type` -> peft's
    "classification": "SEQ_CLS",
    "multilabel": "SEQ_CLS",
    "regression": "SEQ_CLS",
    "tagging": "TOKEN_CLS",
    "qa": "QUESTION_ANS",
}
CLASS_TASKS = {"SEQ_CLS": "classification", "TOKEN_CLS": "tagging", "QUESTION_ANS": "qa"}
# keys that change nothing, because the names and shapes of the weights say it
INERT = (
    "peft_type",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "bias",
    "init_lora_weights",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "qalora_group_size",
)
PLAIN_INITS = (True, False, None, "gaussian")  # others change the base, too


def check_settings(settings: Json) -> None:
    """ValueError: names a feature of peft that bert_jax does not read."""
    expected: dict[str, tuple[Any, ...]] = {
        "peft_type": ("LORA",),
        "bias": ("none", None),
        "init_lora_weights": PLAIN_INITS,
    }
    wrong = [k for k, values in expected.items() if settings.get(k, values[0]) not in values]
    wrong += [k for k, value in settings.items() if k not in INERT and value]
    if wrong:
        shown = ", ".join(f"{k} {settings[k]!r:.60}" for k in wrong[:3])
        raise ValueError(
            f"{ADAPTER_CONFIG} has {shown}: expected a plain LoRA adapter; merge this one with "
            "peft (merge_and_unload) and load the merged folder"
        )


def scale(settings: Json) -> float:
    """The factor of the adapters' product. ValueError: no positive rank, no finite alpha."""
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"{ADAPTER_CONFIG} has r {rank!r}: expected a rank of at least 1")
    if not is_number(alpha) or not math.isfinite(alpha):  # type: ignore[arg-type]
        raise ValueError(f"{ADAPTER_CONFIG} has lora_alpha {alpha!r}: expected a number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)  # type: ignore[operator]


def class_name(settings: Json, family: Family) -> str | None:
    """The Hugging Face class that the adapter was trained in; None if it does not say."""
    task = CLASS_TASKS.get(str(settings.get("task_type")))
    if task is not None:
        return family.tasks[task].name  # type: ignore[index]
    mapping = settings.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    return name if isinstance(name, str) else None


def base_name(settings: Json, folder: Path) -> str:
    """The MODEL that the adapter belongs to: a name on the Hub, or a folder, which may be relative
    to the working directory or to the adapter's; of two, the first that has a config.json.
    ValueError: none is named."""
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{ADAPTER_CONFIG} has no base_model_name_or_path: write the name or the folder of the "
            "model that the adapter was trained on"
        )
    folders = [path for path in (Path(base).expanduser(), folder / base) if path.is_dir()]
    if folders:
        return str(next((p for p in folders if (p / CONFIG).is_file()), folders[0]))
    return base if not revision else f"hf:{base.removeprefix('hf:')}@{revision}"
