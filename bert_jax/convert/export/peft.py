"""`export --format peft`: the adapters of a run, in the format of peft.

    adapter_config.json  adapter_model.safetensors  config.json  tokenizer files  README.md

`config.json` is that of the adapted model: it has the labels, which peft's own folders lack. The
heads were trained in full and are saved as peft's `modules_to_save`.

Where Hugging Face has one kernel for several of ours (ModernBERT's Wqkv and Wi), their k adapters
of rank r become one of rank k r, whose second factor has blocks of zeros. peft has one rank for all
kernels, so the others are padded with zeros, and alpha grows with the rank: no output changes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax import convert
from bert_jax.config import (
    DROPOUT_RATES,
    Contrastive,
    Encoder,
    Experiment,
    ReplacedTokens,
    Supervised,
    replace,
)
from bert_jax.convert.export.files import (
    ExportableModel,
    copy_tokenizer,
    write_json,
    write_tensors,
    write_text,
)
from bert_jax.convert.export.model_card import CardText, model_card
from bert_jax.convert.hf_layout import Tensors, unshare_layers
from bert_jax.convert.hf_name_rules import Family, ParamRule, full_names, param_rules
from bert_jax.convert.peft_config import PEFT_PREFIX, TASK_TYPES
from bert_jax.convert.peft_folder import HASH_KEY
from bert_jax.model import lora
from bert_jax.utils import hub
from bert_jax.utils.model_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Json

PEFT_CARD = CardText(
    "peft",
    ("lora",),
    "from peft import PeftModel\nfrom transformers import {auto_class}, AutoConfig\n\n"
    'config = AutoConfig.from_pretrained("FOLDER")\n'
    "base = {auto_class}.from_pretrained(BASE, config=config)\n"
    'model = PeftModel.from_pretrained(base, "FOLDER")\n',
)


def export_peft(model: ExportableModel, folder: Path, out: Path, base: str | None) -> list[str]:
    """Write the adapters of a model that was loaded from the run `folder`. `base` is the name or
    folder by which peft finds the base; None: as the run found it.

    ValueError: the run trained no adapters; a base that peft cannot open, or another model.
    """
    adapter = model.adapter
    if adapter is None:
        raise ValueError(
            f"{folder} has no adapters (lora.rank): expected a run that trained some; "
            "--format hf writes a whole model"
        )
    if isinstance(model.config.objective, ReplacedTokens):
        raise ValueError(
            "the adapters are of ELECTRA's two networks, and peft has models of one: export it "
            "with --format hf, which merges them"
        )
    base = hub.with_commit(adapter.base, adapter.commit) if base is None else base
    _check_base(model.config, base, str(adapter.config.base))
    config_json, tensors, left_out = convert.to_hf(model.config, model.params)
    family: Family = convert.hf_family(model.config.encoder, model.config.objective)
    leaves = {k: np.asarray(v) for k, v in flatten_with_names(adapter.params).items()}
    leaves = unshare_layers(family, model.config.encoder, leaves)
    rules = _adapted_rules(family, leaves)
    rank = adapter.config.rank * max(len(rule.natives) for rule in rules)
    prefix = family.prefix if config_json["architectures"][0].endswith("Model") else ""
    weights = {
        f"{name.removeprefix(prefix)}": array
        for rule in rules
        for name, array in _low_rank(rule, leaves, rank, model.config.encoder).items()
    }
    heads, modules = _heads(family, tensors)
    named = {f"{PEFT_PREFIX}{name}": x for name, x in (weights | heads).items()}
    name, revision = _name_and_revision(base)
    settings: Json = {
        "peft_type": "LORA",
        "task_type": _task_type(model.config),
        "base_model_name_or_path": name,
        "revision": revision,
        "r": rank,
        "lora_alpha": adapter.config.scale * rank,
        "lora_dropout": adapter.config.dropout,
        "target_modules": _target_pattern(family, rules),
        "modules_to_save": modules or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(out / ADAPTER_CONFIG, settings)
    write_json(out / "config.json", config_json)
    write_tensors(out / ADAPTER_WEIGHTS, named, **{HASH_KEY: str(adapter.config.base)})
    copy_tokenizer(folder, out, model.config.encoder)
    usage = PEFT_CARD.usage.replace("BASE", _base_arguments(name, revision))
    card = PEFT_CARD._replace(usage=usage)
    write_text(out / "README.md", model_card(model, folder, config_json, left_out, card))
    return left_out


def _check_base(run: Experiment, base: str, recorded: str) -> None:
    """ValueError: the base is no Hugging Face model, or is not that of the run."""
    path = hub.model_folder(base).path
    if not convert.is_hf_folder(path) or convert.is_peft_folder(path):
        raise ValueError(
            f"peft opens Hugging Face models, and the base {base} is none: write it with "
            f"bert-jax export {base} --format hf --out DIR, and give --base DIR"
        )
    experiment, params, _ = convert.read_hf_folder(path)
    lora.check_base(lora.split_base(params)[1], experiment.encoder.vocab_size, recorded, base)
    rates = {name: getattr(run.encoder, name) for name in DROPOUT_RATES}
    if replace(experiment.encoder, **rates) != run.encoder:
        raise ValueError(
            f"the run changed the encoder of {base} (its length or rotary positions), which an "
            "adapter does not hold: use --format hf"
        )


def _adapted_rules(family: Family, leaves: Tensors) -> list[ParamRule]:
    """The rules of the kernels with an adapter."""
    return [
        rule
        for rule in param_rules(family, {}, False)
        if rule.transpose and any(_leaf(name, lora.A) in leaves for name in rule.natives)
    ]


def _leaf(kernel: str, leaf: str) -> str:
    return f"{kernel.removesuffix('kernel')}{leaf}"


def _low_rank(rule: ParamRule, leaves: Tensors, rank: int, encoder: Encoder) -> Tensors:
    """lora_A (rank, in) and lora_B (out, rank) of each tensor of a rule, padded to `rank`."""
    first = next(n for n in rule.natives if _leaf(n, lora.A) in leaves)
    sets, width_in, own_rank = leaves[_leaf(first, lora.A)].shape
    widths = _output_widths(rule, encoder)
    out: Tensors = {}
    for i, name in enumerate(rule.hf_names(sets, encoder)):
        a = np.zeros((rank, width_in), np.float32)
        b = np.zeros((sum(widths), rank), np.float32)
        row = 0
        for n, native in enumerate(rule.natives):
            if _leaf(native, lora.A) in leaves:
                block = slice(n * own_rank, (n + 1) * own_rank)
                a[block] = leaves[_leaf(native, lora.A)][i].T
                b[row : row + widths[n], block] = leaves[_leaf(native, lora.B)][i].T
            row += widths[n]
        module = name.removesuffix(".weight")
        out |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    return out


def _output_widths(rule: ParamRule, encoder: Encoder) -> list[int]:
    """The outputs of the kernels that share a tensor."""
    is_wide = [name.endswith(("/up/kernel", "/gate/kernel")) for name in rule.natives]
    return [encoder.mlp_width if wide else encoder.hidden_size for wide in is_wide]


def _target_pattern(family: Family, rules: list[ParamRule]) -> str:
    """A regular expression that matches the names of the adapted modules, in any class. A list of
    endings would not do: BERT's `output.dense` also ends `attention.output.dense`."""
    modules = [r.hf.removeprefix(family.prefix).removesuffix(".weight") for r in rules]
    escaped = [re.escape(m).replace(re.escape("{i}"), r"\d+") for m in modules]
    return rf"(.*\.)?({'|'.join(escaped)})"


def _heads(family: Family, tensors: Tensors) -> tuple[Tensors, list[str]]:
    """The tensors of the heads by their names in the class, and the modules that they belong to:
    each name's first part, since peft adds a prefix to some of its own accord."""
    full = full_names(family, tensors)
    encoder = {
        name
        for rule in param_rules(family, {}, True)
        for name in rule.hf_names(len(tensors), _ANY_ENCODER)
    }
    by_name = {full[name]: array for name, array in tensors.items()}
    roots = {
        name: name.removeprefix(family.prefix).split(".")[0]
        for name in full.values()
        if name not in encoder
    }
    modules = sorted(set(roots.values()))
    for second, first in family.tied.items():  # peft copies a module with its tied tensors
        root = second.removeprefix(family.prefix).split(".")[0]
        if root in modules and first in by_name:
            roots[second], by_name[second] = root, by_name[first].copy()
    original = {name: tensor for tensor, name in full.items()}
    return {original.get(name, name): by_name[name] for name in roots}, modules


_ANY_ENCODER = Encoder()  # its norms do not matter for the names of more layers than there are


def _task_type(config: Experiment) -> str | None:
    if isinstance(config.objective, Contrastive):
        return "FEATURE_EXTRACTION"
    task = config.objective
    return TASK_TYPES.get(task.task_type) if isinstance(task, Supervised) else None


def _base_arguments(name: str, revision: str | None) -> str:
    """The base as `from_pretrained` takes it: the commit that the adapters belong to."""
    pinned = "" if revision is None else f", revision={json.dumps(revision)}"
    return json.dumps(name, ensure_ascii=False) + pinned


def _name_and_revision(base: str) -> tuple[str, Any]:
    """A MODEL as peft names it."""
    name = hub.parse_name(base)
    return (base, None) if name is None else (name.repo, name.revision)
