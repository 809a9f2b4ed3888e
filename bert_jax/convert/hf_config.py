"""Their config.json and our `Encoder`, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from bert_jax import config
from bert_jax.config import Encoder, Experiment, Imported, Masked, ReplacedTokens, Supervised
from bert_jax.convert import hf_name_rules
from bert_jax.convert.hf_name_rules import Family
from bert_jax.utils.types import Json

# our field -> their key, where the values are the same
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
# what a config.json that leaves a key out stands for: the defaults of their config classes
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
# what we have no counterpart for: key -> the only value that we can stand for
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

# ours that none of these families of theirs has
NATIVE_ONLY_OPTIONS = ("pre_norm", "norm", "positions", "gated_mlp", "biases", "window")

BASE_CONFIGS = {
    "bert": config.BERT,
    "albert": config.ALBERT,
    "roberta": config.ROBERTA,
    "electra": config.ELECTRA,
}


def family_from_hf_config(hf: Json) -> Family:
    """The family that a config.json names."""
    kind = hf.get("model_type")
    if kind is None:  # old files do not say, but name a class
        names = [str(a).lower() for a in _architectures(hf)]
        kind = next((f for f in hf_name_rules.FAMILIES if names and names[0].startswith(f)), None)
    if not isinstance(kind, str) or kind not in hf_name_rules.FAMILIES:
        raise ValueError(
            f"config.json has model_type {kind!r}: expected one of "
            f"{', '.join(hf_name_rules.FAMILIES)} "
            "(SpanBERT's is bert); other architectures cannot be imported"
        )
    return hf_name_rules.FAMILIES[kind]


def required_heads(family: Family, hf: Json) -> tuple[str, ...]:
    """Heads that the class a config.json names cannot do without."""
    names = _architectures(hf)
    return family.classes.get(str(names[0]), ()) if names else ()


def _architectures(hf: Json) -> list[Any]:
    names = hf.get("architectures") or []
    return names if isinstance(names, list) else [names]


def encoder_from_hf_config(hf: Json) -> Encoder:
    """Their numbers as our `Encoder`; what they do not say is as the family published it."""
    family = family_from_hf_config(hf)
    hf = DEFAULTS[family.name] | {k: v for k, v in hf.items() if v is not None}
    for key, only in REQUIRED_VALUES.items():
        if hf.get(key, only) != only:
            raise ValueError(f"config.json has {key} {hf[key]!r}: only {only!r} can be imported")
    fields = COMMON_FIELDS | FAMILY_FIELDS.get(family.name, {})
    made = {ours: _number(hf, theirs) for ours, theirs in fields.items()}
    if not isinstance(hf["hidden_act"], str) or hf["hidden_act"] not in NATIVE_ACTIVATIONS:
        expected = ", ".join(NATIVE_ACTIVATIONS)
        raise ValueError(f"config.json has hidden_act {hf['hidden_act']!r}: expected {expected}")
    # Their RoBERTa counts positions from the row after the padding token's.
    offset = made["pad_id"] + 1 if family is hf_name_rules.ROBERTA else 0
    return dataclasses.replace(
        BASE_CONFIGS[family.name].encoder,
        **made,
        activation=NATIVE_ACTIVATIONS[hf["hidden_act"]],
        position_offset=offset,
        max_length=_number(hf, "max_position_embeddings") - offset,
    )


def _number(hf: Json, key: str) -> Any:
    value, like = hf[key], DEFAULTS["albert"].get(key)
    kinds = (int, float) if isinstance(like, float) else (int,)
    if not isinstance(value, kinds) or isinstance(value, bool) or value < 0:
        raise ValueError(f"config.json has {key} {value!r}: expected a number, at least 0")
    return value if like is None else type(like)(value)


def build_experiment(
    family: Family, encoder: Encoder, heads: Collection[str], task: Supervised | None = None
) -> Experiment:
    """The family's base with this encoder, and the task's objective, or one that the heads make
    up."""
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
    """The family of theirs that computes what a network of ours does.

    ValueError: none does.
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
            f"encoder.embedding_size {encoder.embedding_size} beside encoder.hidden_size "
            f"{encoder.hidden_size}: Hugging Face's {family.name} has no projection between them"
        )
    offset = encoder.pad_id + 1 if family is hf_name_rules.ROBERTA else 0
    if encoder.position_offset != offset:
        raise ValueError(
            f"encoder.position_offset is {encoder.position_offset}: Hugging Face's {family.name} "
            f"can only have {offset} with the padding id {encoder.pad_id}"
        )
    return family


def encoder_to_hf_config(
    family: Family, encoder: Encoder, name: str, heads: Collection[str]
) -> Json:
    """The config.json of an encoder in a class that holds these heads. ValueError: the encoder
    has what that class has not."""
    for option in NATIVE_ONLY_OPTIONS:
        if getattr(encoder, option) != getattr(Encoder, option):
            raise ValueError(
                f"encoder.{option} is {getattr(encoder, option)}: Hugging Face's BERT, ALBERT, "
                "RoBERTa and ELECTRA have no such thing, and its ModernBERT no norm before the "
                "first layer; export --format stablehlo or orbax holds it"
            )
    fixed = [h for h in family.activation_fixed if h in heads]
    if encoder.activation != "gelu" and fixed:
        raise ValueError(
            f"encoder.activation is {encoder.activation}: Hugging Face's {name} can only have "
            "gelu in its head"
        )
    fields = COMMON_FIELDS | FAMILY_FIELDS.get(family.name, {})
    hf: Json = {"architectures": [name], "model_type": family.name}
    hf |= {theirs: getattr(encoder, ours) for ours, theirs in fields.items()}
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
