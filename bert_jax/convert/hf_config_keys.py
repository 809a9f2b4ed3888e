"""Keys of Hugging Face's config.json for the BERT-like families: native fields, defaults, required
values. ModernBERT's are in hf_modernbert_keys.py."""

from __future__ import annotations

from bert_jax.config import ModelType
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
FAMILY_FIELDS: dict[ModelType, dict[str, str]] = {
    "albert": {
        **COMMON_FIELDS,
        "embedding_size": "embedding_size",
        "groups": "num_hidden_groups",
    },
    "electra": {**COMMON_FIELDS, "embedding_size": "embedding_size"},
    "distilbert": {
        "layers": "n_layers",
        "hidden_size": "dim",
        "heads": "n_heads",
        "mlp_size": "hidden_dim",
        "vocab_size": "vocab_size",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
        "pad_id": "pad_token_id",
    },
}
# other names of a family's keys; both given, these count, as in transformers
ALIASES: dict[ModelType, dict[str, str]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }
}
# fields that a family has no key for -> their only value
FIXED_FIELDS: dict[ModelType, Json] = {
    "distilbert": {"token_types": 0, "layer_norm_eps": 1e-12, "model_type": "distilbert"},
    "xlm-roberta": {"model_type": "xlm-roberta"},
    "camembert": {"model_type": "camembert"},
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
DEFAULTS: dict[ModelType, Json] = {
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
    "xlm-roberta": _BERT_DEFAULTS | {"pad_token_id": 1},
    "camembert": _BERT_DEFAULTS | {"pad_token_id": 1},
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "max_position_embeddings": 512,
        "initializer_range": 0.02,
        "pad_token_id": 0,
    },
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


def architecture(hf: Json) -> str | None:
    """The class that a config.json names: the first of a list, or a single name."""
    names = hf.get("architectures") or [None]
    name = names[0] if isinstance(names, list) else names
    return None if name is None else str(name)


def activation_key(family: ModelType) -> str:
    """The key of the activation function."""
    return {"distilbert": "activation", "modernbert": "hidden_activation"}.get(family, "hidden_act")


def read_activation(hf: Json, key: str) -> str:
    """The native name of an activation. ValueError: one that there is not."""
    if not isinstance(hf[key], str) or hf[key] not in NATIVE_ACTIVATIONS:
        expected = ", ".join(NATIVE_ACTIVATIONS)
        raise ValueError(f"config.json has {key} {hf[key]!r}: expected {expected}")
    return NATIVE_ACTIVATIONS[hf[key]]


def read_number(hf: Json, key: str, default: int | float) -> int | float:
    """A number of the type of `default`. ValueError: anything else, or a negative number."""
    value, types = hf[key], (int, float) if isinstance(default, float) else (int,)
    if not isinstance(value, types) or isinstance(value, bool) or value < 0:
        raise ValueError(f"config.json has {key} {value!r}: expected a number, at least 0")
    return type(default)(value)


def check_required(hf: Json, required: Json) -> None:
    """Raise ValueError if a key has another value than the only one that can be imported."""
    for key, value in required.items():
        if hf.get(key, value) != value:
            raise ValueError(f"config.json has {key} {hf[key]!r}: only {value!r} can be imported")
