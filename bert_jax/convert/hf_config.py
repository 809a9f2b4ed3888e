"""Hugging Face's config.json to `Encoder` and back, and the family of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from bert_jax import config
from bert_jax.config import Encoder, Experiment, Imported, Masked, ReplacedTokens, Supervised
from bert_jax.convert import hf_name_rules
from bert_jax.convert.hf_name_rules import Family
from bert_jax.utils.types import Json

# native field -> Hugging Face key with the same value
COMMON_FIELDS = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "heads": "num_attention_heads",
    "mlp_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "token_types": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
}
FAMILY_FIELDS = {
    "albert": {"embedding_size": "embedding_size", "groups": "num_hidden_groups"},
    "electra": {"embedding_size": "embedding_size"},
}
# values of missing keys: the defaults of the Hugging Face config classes
_BERT_DEFAULTS: Json = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
DEFAULTS: dict[str, Json] = {
    "bert": _BERT_DEFAULTS,
    "albert": _BERT_DEFAULTS
    | {
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_groups": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "roberta": _BERT_DEFAULTS | {"vocab_size": 50265, "pad_token_id": 1},
    "electra": _BERT_DEFAULTS
    | {
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
}
# keys without a native field -> the only value that can be imported
REQUIRED_VALUES: Json = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "inner_group_num": 1,
}
NATIVE_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
HF_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}

# fields without a counterpart in these Hugging Face families; they must have their defaults
NATIVE_ONLY_OPTIONS = ("pre_norm", "norm", "positions", "gated_mlp", "biases", "window")

BASE_CONFIGS = {
    "bert": config.BERT,
    "albert": config.ALBERT,
    "roberta": config.ROBERTA,
    "electra": config.ELECTRA,
}


def family_from_hf_config(hf: Json) -> Family:
    """The family that a config.json names. ValueError: an unknown one."""
    model_type = hf.get("model_type")
    if model_type is None:  # old files only name a class
        names = [str(a).lower() for a in _architectures(hf)]
        model_type = next(
            (f for f in hf_name_rules.FAMILIES if names and names[0].startswith(f)), None
        )
    if not isinstance(model_type, str) or model_type not in hf_name_rules.FAMILIES:
        raise ValueError(
            f"config.json has model_type {model_type!r}: expected one of "
            f"{', '.join(hf_name_rules.FAMILIES)} (SpanBERT's is bert); other architectures "
            "cannot be imported"
        )
    return hf_name_rules.FAMILIES[model_type]


def required_heads(family: Family, hf: Json) -> tuple[str, ...]:
    """The heads that the class in a config.json must have."""
    names = _architectures(hf)
    return family.classes.get(str(names[0]), ()) if names else ()


def _architectures(hf: Json) -> list[Any]:
    names = hf.get("architectures") or []
    return names if isinstance(names, list) else [names]


def encoder_from_hf_config(hf: Json) -> Encoder:
    """The `Encoder` of a config.json; fields without a key are as the family published them.

    ValueError: a value that is invalid or has no native counterpart.
    """
    family = family_from_hf_config(hf)
    hf = DEFAULTS[family.name] | {k: v for k, v in hf.items() if v is not None}
    for key, required in REQUIRED_VALUES.items():
        if hf.get(key, required) != required:
            raise ValueError(
                f"config.json has {key} {hf[key]!r}: only {required!r} can be imported"
            )
    fields = COMMON_FIELDS | FAMILY_FIELDS.get(family.name, {})
    values = {native: _number(hf, key) for native, key in fields.items()}
    if not isinstance(hf["hidden_act"], str) or hf["hidden_act"] not in NATIVE_ACTIVATIONS:
        expected = ", ".join(NATIVE_ACTIVATIONS)
        raise ValueError(f"config.json has hidden_act {hf['hidden_act']!r}: expected {expected}")
    # Hugging Face's RoBERTa counts positions from pad_token_id + 1.
    offset = values["pad_id"] + 1 if family is hf_name_rules.ROBERTA else 0
    return dataclasses.replace(
        BASE_CONFIGS[family.name].encoder,
        **values,
        activation=NATIVE_ACTIVATIONS[hf["hidden_act"]],
        position_offset=offset,
        max_length=_number(hf, "max_position_embeddings") - offset,
    )


def _number(hf: Json, key: str) -> Any:
    value, default = hf[key], DEFAULTS["albert"].get(key)
    types = (int, float) if isinstance(default, float) else (int,)
    if not isinstance(value, types) or isinstance(value, bool) or value < 0:
        raise ValueError(f"config.json has {key} {value!r}: expected a number, at least 0")
    return value if default is None else type(default)(value)


def build_experiment(
    family: Family, encoder: Encoder, heads: Collection[str], task: Supervised | None = None
) -> Experiment:
    """The family's base config with this encoder and the task's objective. Without a task, the
    objective follows from the heads."""
    base = dataclasses.replace(BASE_CONFIGS[family.name], encoder=encoder)
    if task is not None:
        return dataclasses.replace(base, objective=task)
    masked = {"bert": ({"mlm"}, {"mlm", "pooler", "pair"}), "roberta": ({"mlm"},)}
    masked["albert"] = masked["bert"]
    if set(heads) in masked.get(family.name, ()):
        assert isinstance(base.objective, Masked)
        objective = dataclasses.replace(base.objective, sentence_pair="pair" in heads)
    else:
        objective = Imported(family.name, **dict.fromkeys(heads, True))  # type: ignore[arg-type]
    return dataclasses.replace(base, objective=objective)


def hf_family(encoder: Encoder, objective: config.Objective) -> Family:
    """The Hugging Face family that computes the same as this encoder.

    ValueError: there is none.
    """
    if isinstance(objective, Imported):
        return hf_name_rules.FAMILIES[objective.family]
    projected = encoder.embedding_width != encoder.hidden_size
    if isinstance(objective, Supervised):
        family = hf_name_rules.FAMILIES[objective.family]
    elif isinstance(objective, ReplacedTokens):
        family = hf_name_rules.ELECTRA
    elif encoder.position_offset:
        family = hf_name_rules.ROBERTA
    else:
        family = (
            hf_name_rules.ALBERT if projected or encoder.groups is not None else hf_name_rules.BERT
        )
    if projected and not family.projection:
        raise ValueError(
            f"encoder.embedding_size is {encoder.embedding_size} and encoder.hidden_size "
            f"{encoder.hidden_size}: Hugging Face's {family.name} has no projection between them"
        )
    offset = encoder.pad_id + 1 if family is hf_name_rules.ROBERTA else 0
    if encoder.position_offset != offset:
        raise ValueError(
            f"encoder.position_offset is {encoder.position_offset}: Hugging Face's {family.name} "
            f"supports only {offset} with the padding id {encoder.pad_id}"
        )
    return family


def encoder_to_hf_config(
    family: Family, encoder: Encoder, name: str, heads: Collection[str]
) -> Json:
    """The config.json of an encoder in the class `name` with these heads. ValueError: the class
    does not support an option of the encoder."""
    for option in NATIVE_ONLY_OPTIONS:
        if getattr(encoder, option) != getattr(Encoder, option):
            raise ValueError(
                f"encoder.{option} is {getattr(encoder, option)}: Hugging Face's BERT, ALBERT, "
                "RoBERTa and ELECTRA do not support it, and its ModernBERT has no norm before the "
                "first layer; use export --format stablehlo or orbax"
            )
    fixed = [h for h in family.activation_fixed if h in heads]
    if encoder.activation != "gelu" and fixed:
        raise ValueError(
            f"encoder.activation is {encoder.activation}: Hugging Face's {name} supports only gelu "
            "in its head"
        )
    fields = COMMON_FIELDS | FAMILY_FIELDS.get(family.name, {})
    hf: Json = {"architectures": [name], "model_type": family.name}
    hf |= {key: getattr(encoder, native) for native, key in fields.items()}
    hf |= {
        "intermediate_size": encoder.mlp_width,
        "hidden_act": HF_ACTIVATIONS[encoder.activation],
        "max_position_embeddings": encoder.position_rows,
        "type_vocab_size": max(encoder.token_types, 1),
        "dtype": "float32",
    }
    if "embedding_size" in hf:
        hf["embedding_size"] = encoder.embedding_width
    if "num_hidden_groups" in hf:
        hf["num_hidden_groups"] = (
            encoder.num_groups if encoder.share_params == "all" else encoder.layers
        )
    return hf
