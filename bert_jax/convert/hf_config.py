"""Hugging Face's config.json to `Encoder` and back, and the family of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from bert_jax import config
from bert_jax.config import (
    ROBERTA_LIKE,
    Contrastive,
    Encoder,
    Experiment,
    Imported,
    Masked,
    ModelType,
    ReplacedTokens,
    Supervised,
)
from bert_jax.convert import hf_families, hf_modernbert
from bert_jax.convert.hf_config_keys import (
    ALIASES,
    COMMON_FIELDS,
    DEFAULTS,
    FAMILY_FIELDS,
    FIXED_FIELDS,
    HF_ACTIVATIONS,
    REQUIRED_VALUES,
    activation_key,
    architecture,
    check_required,
    read_activation,
    read_number,
)
from bert_jax.convert.hf_name_rules import Family
from bert_jax.utils.types import Json

# fields without a counterpart in the BERT-like families; they must have their defaults
NATIVE_ONLY_OPTIONS = (
    "pre_norm",
    "norm",
    "positions",
    "gated_mlp",
    "biases",
    "attention_biases",
    "mlp_biases",
    "norm_biases",
    "head_biases",
    "vocab_bias",
    "head_activation",
    "window",
)

BASE_CONFIGS: dict[ModelType, Experiment] = {
    "bert": config.BERT,
    "albert": config.ALBERT,
    "roberta": config.ROBERTA,
    "electra": config.ELECTRA,
    "xlm-roberta": config.ROBERTA,
    "camembert": config.ROBERTA,
    "distilbert": config.replace(config.BERT, objective=dict(sentence_pair=False)),
    "modernbert": config.MODERNBERT,
}
# the heads of each family whose objective is the base config's
MASKED_HEADS: dict[ModelType, tuple[set[str], ...]] = {
    "bert": ({"mlm"}, {"mlm", "pooler", "pair"}),
    "albert": ({"mlm"}, {"mlm", "pooler", "pair"}),
    **dict.fromkeys((*ROBERTA_LIKE, "distilbert", "modernbert"), ({"mlm"},)),  # type: ignore[dict-item]
}


def family_from_hf_config(hf: Json) -> Family:
    """The family that a config.json names. ValueError: an unknown one."""
    families: dict[str, Family] = dict(hf_families.FAMILIES.items())
    model_type = hf.get("model_type")
    if model_type is None:  # old files only name a class
        name = (architecture(hf) or "").lower()
        model_type = next((f for f in families if name.startswith(f.replace("-", ""))), None)
    if not isinstance(model_type, str) or model_type not in families:
        raise ValueError(
            f"config.json has model_type {model_type!r}: expected one of {', '.join(families)} "
            "(SpanBERT's is bert); other architectures cannot be imported"
        )
    return families[model_type]


def required_heads(family: Family, hf: Json) -> tuple[str, ...]:
    """The heads that the class in a config.json must have."""
    return family.classes.get(architecture(hf) or "", ())


def encoder_from_hf_config(hf: Json) -> Encoder:
    """The `Encoder` of a config.json; fields without a key are as the family published them.

    ValueError: a value that is invalid or has no native counterpart.
    """
    family = family_from_hf_config(hf)
    if family is hf_families.MODERNBERT:
        return hf_modernbert.encoder_from_json(hf)
    defaults = DEFAULTS[family.name]
    hf = defaults | {k: v for k, v in hf.items() if v is not None}
    hf |= {key: hf[k] for k, key in ALIASES.get(family.name, {}).items() if k in hf}
    check_required(hf, REQUIRED_VALUES)
    fields = FAMILY_FIELDS.get(family.name, COMMON_FIELDS)
    values: Json = {native: read_number(hf, key, defaults[key]) for native, key in fields.items()}
    # Hugging Face's RoBERTa counts positions from pad_token_id + 1.
    offset = values["pad_id"] + 1 if family.name in ROBERTA_LIKE else 0
    return dataclasses.replace(
        BASE_CONFIGS[family.name].encoder,
        **values,
        **FIXED_FIELDS.get(family.name, {}),
        activation=read_activation(hf, activation_key(family.name)),
        position_offset=offset,
        max_length=int(read_number(hf, "max_position_embeddings", 512)) - offset,
    )


def build_experiment(
    family: Family, encoder: Encoder, heads: Collection[str], task: Supervised | None = None
) -> Experiment:
    """The family's base config with this encoder and the task's objective. Without a task, the
    objective follows from the heads."""
    base = dataclasses.replace(BASE_CONFIGS[family.name], encoder=encoder)
    if task is not None:
        return dataclasses.replace(base, objective=task)
    if set(heads) in MASKED_HEADS.get(family.name, ()):
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
        return hf_families.FAMILIES[objective.family]
    family = _choose_family(encoder, objective)
    if encoder.embedding_width != encoder.hidden_size and not family.projection:
        raise ValueError(
            f"encoder.embedding_size is {encoder.embedding_size} and encoder.hidden_size "
            f"{encoder.hidden_size}: Hugging Face's {family.name} has no projection between them"
        )
    offset = encoder.pad_id + 1 if family.name in ROBERTA_LIKE else 0
    if encoder.position_offset != offset:
        raise ValueError(
            f"encoder.position_offset is {encoder.position_offset}: Hugging Face's {family.name} "
            f"supports only {offset} with the padding id {encoder.pad_id}"
        )
    return family


def _choose_family(encoder: Encoder, objective: config.Objective) -> Family:
    if isinstance(objective, Supervised | Contrastive):
        return hf_families.FAMILIES[objective.family]
    unprojected = dataclasses.replace(encoder, embedding_size=None)
    if hf_modernbert.unsupported_option(unprojected) is None:
        return hf_families.MODERNBERT  # `hf_family` refuses a projection
    if isinstance(objective, ReplacedTokens):
        return hf_families.ELECTRA
    if encoder.model_type is not None:
        return hf_families.FAMILIES[encoder.model_type]
    if encoder.position_offset:
        return hf_families.ROBERTA
    shared = encoder.embedding_width != encoder.hidden_size or encoder.groups is not None
    return hf_families.ALBERT if shared else hf_families.BERT


def lost_dropout_rates(family: Family, encoder: Encoder) -> list[str]:
    """The dropout rates that have no key in config.json; they change no output."""
    if family is hf_families.MODERNBERT:
        return hf_modernbert.lost_dropout_rates(encoder)
    same = (None, encoder.dropout)
    lost = {
        "encoder.embedding_dropout": encoder.embedding_dropout not in same,
        "encoder.attention_output_dropout": encoder.attention_output_dropout not in same,
        "encoder.mlp_dropout": encoder.mlp_dropout != 0,
    }
    return [field for field, is_lost in lost.items() if is_lost]


def encoder_to_hf_config(
    family: Family, encoder: Encoder, name: str, heads: Collection[str]
) -> Json:
    """The config.json of an encoder in the class `name` with these heads. ValueError: the class
    does not support an option of the encoder."""
    if family is hf_families.MODERNBERT:
        return hf_modernbert.encoder_to_json(encoder, name)
    reason = hf_modernbert.unsupported_option(encoder)
    for option in NATIVE_ONLY_OPTIONS:
        if getattr(encoder, option) != getattr(Encoder, option):
            raise ValueError(
                f"encoder.{option} is {getattr(encoder, option)}: Hugging Face's {family.name} "
                f"does not support it, nor is this a ModernBERT ({reason}); use export --format "
                "onnx, stablehlo or orbax"
            )
    for option, value in FIXED_FIELDS.get(family.name, {}).items():
        if getattr(encoder, option) != value:
            raise ValueError(
                f"encoder.{option} is {getattr(encoder, option)}: Hugging Face's {family.name} "
                f"supports only {value}; use export --format onnx, stablehlo or orbax"
            )
    fixed = [h for h in family.activation_fixed if h in heads]
    if encoder.activation != "gelu" and fixed:
        raise ValueError(
            f"encoder.activation is {encoder.activation}: Hugging Face's {name} supports only gelu "
            "in its head"
        )
    fields = FAMILY_FIELDS.get(family.name, COMMON_FIELDS)
    hf: Json = {"architectures": [name], "model_type": family.name}
    hf |= {key: getattr(encoder, native) for native, key in fields.items()}
    hf |= {
        fields["mlp_size"]: encoder.mlp_width,
        activation_key(family.name): HF_ACTIVATIONS[encoder.activation],
        "max_position_embeddings": encoder.position_rows,
        "dtype": "float32",
    }
    if "token_types" in fields:
        hf["type_vocab_size"] = max(encoder.token_types, 1)
    if "embedding_size" in hf:
        hf["embedding_size"] = encoder.embedding_width
    if "num_hidden_groups" in hf:
        hf["num_hidden_groups"] = (
            encoder.num_groups if encoder.share_params == "all" else encoder.layers
        )
    return hf
