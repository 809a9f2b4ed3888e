"""ModernBERT's config.json (`model_type: modernbert`) to `Encoder` and back.

Two spellings are read, and both are written, so that older readers open an export:

    files on the Hub                                    transformers 5
    global_rope_theta  local_rope_theta                 rope_parameters
    global_attn_every_n_layers                          layer_types

Every key that is neither understood nor listed as ignored is refused by name. Source:
`configuration_modernbert.py` of transformers 5 and 4.48.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import Any

from bert_jax.config import MODERNBERT, Encoder
from bert_jax.convert.hf_config_keys import (
    HF_ACTIVATIONS,
    check_required,
    read_activation,
    read_number,
)
from bert_jax.convert.hf_modernbert_keys import (
    BIASES,
    DEFAULTS,
    FIELDS,
    GLOBAL_EVERY,
    GLOBAL_THETA,
    IGNORED,
    KNOWN,
    LAYER_KEYS,
    LOCAL_THETA,
    REQUIRED,
)
from bert_jax.utils.types import Json

logger = logging.getLogger(__name__)


def encoder_from_json(hf: Json) -> Encoder:
    """The `Encoder` of a ModernBERT's config.json.

    ValueError: names a key without a meaning here, or with a value that cannot be imported.
    """
    given = {k: v for k, v in hf.items() if v is not None}
    _check_keys(given)
    values = DEFAULTS | given
    check_required(values, REQUIRED)
    fields: Json = {f: read_number(values, key, DEFAULTS[key]) for f, key in FIELDS.items()}
    fields |= {f: _boolean(values, key) for f, key in BIASES.items()}
    activation = read_activation(values, "hidden_activation")
    head_activation = read_activation(values, "classifier_activation")
    window = int(read_number(values, "local_attention", 128)) // 2
    if window < 1:
        raise ValueError(
            f"config.json has local_attention {values['local_attention']}: expected at least 2, "
            "which is a window of 1 token to each side"
        )
    theta, local_theta = _thetas(hf)
    # attention_dropout has two places; hidden states have no dropout
    return dataclasses.replace(
        MODERNBERT.encoder,
        **fields,
        attention_output_dropout=fields["attention_dropout"],
        activation=activation,
        head_activation=None if head_activation == activation else head_activation,
        window=window,
        global_every=_global_every(given, fields["layers"]),
        rotary_theta=theta,
        local_rotary_theta=local_theta,
    )


def _check_keys(given: Json) -> None:
    unknown = sorted(k for k in given if k not in KNOWN and k not in IGNORED and not _is_id(k))
    if unknown:
        raise ValueError(
            f"config.json has the keys {', '.join(unknown)}, which no ModernBERT of transformers "
            "has: they may change what the model computes; remove them if they do not"
        )
    ignored = sorted(k for k in given if k in IGNORED and "dtype" not in k)
    if ignored:
        _tell_once(", ".join(ignored))


@functools.cache
def _tell_once(keys: str) -> None:
    """A command may read a folder's config.json several times."""
    logger.info("keys of config.json that change no output, ignored: %s", keys)


def _is_id(key: str) -> bool:
    return key.endswith("_token_id")


def _boolean(values: Json, key: str) -> bool:
    if not isinstance(values[key], bool):
        raise ValueError(f"config.json has {key} {values[key]!r}: expected true or false")
    return values[key]


def _thetas(hf: Json) -> tuple[float, float]:
    """The rotary base of global and of local layers. `rope_parameters` counts if it is there."""
    old = {
        "full_attention": hf.get("global_rope_theta"),
        "sliding_attention": hf.get("local_rope_theta"),
    }
    if old["full_attention"] is None:
        old["full_attention"] = GLOBAL_THETA
    if old["sliding_attention"] is None:  # an explicit null: the base of global layers
        same = "local_rope_theta" in hf and hf.get("rope_parameters") is None
        old["sliding_attention"] = old["full_attention"] if same else LOCAL_THETA
    new = hf.get("rope_parameters") or {}
    objects = isinstance(new, dict) and all(isinstance(v or {}, dict) for v in new.values())
    if not objects or not set(new) <= set(old):
        raise ValueError(
            f"config.json has rope_parameters {new!r:.200}: expected an object with "
            "full_attention and sliding_attention, each an object"
        )
    return _theta(new, "full_attention", old), _theta(new, "sliding_attention", old)


def _theta(new: Json, layer_type: str, old: Json) -> float:
    parameters = new.get(layer_type) or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ValueError(
            f"config.json has rope_type {kind!r} for {layer_type}: only 'default' can be imported"
        )
    unknown = sorted(set(parameters) - {"rope_type", "type", "rope_theta"})
    if unknown:
        raise ValueError(
            f"config.json has rope_parameters.{layer_type}.{unknown[0]}: expected only rope_type "
            "and rope_theta"
        )
    name = f"rope_theta of {layer_type}"
    return float(read_number({name: parameters.get("rope_theta", old[layer_type])}, name, 1.0))


def _global_every(given: Json, layers: int) -> int:
    """Every how many layers one is global. ValueError: `layer_types` has no regular pattern."""
    every = int(read_number({"global_attn_every_n_layers": GLOBAL_EVERY} | given, LAYER_KEYS[0], 1))
    types = given.get("layer_types")
    if types is None:
        if every < 1:
            raise ValueError(f"config.json has {LAYER_KEYS[0]} {every}: expected at least 1")
        return every
    if not isinstance(types, list) or len(types) != layers:
        raise ValueError(
            f"config.json has layer_types {types!r:.80}: expected one for each of the {layers} "
            "layers"
        )
    for n in (every, *range(1, layers + 1)):
        if n and types == layer_types(layers, n):
            return n
    raise ValueError(
        "config.json has layer_types without a regular pattern: expected full_attention for the "
        "first and every N-th layer after it, and sliding_attention for all others"
    )


def layer_types(layers: int, every: int) -> list[str]:
    """transformers 5's spelling of `global_every`."""
    return ["sliding_attention" if i % every else "full_attention" for i in range(layers)]


# ---- native to Hugging Face


def unsupported_option(encoder: Encoder) -> str | None:
    """Why ModernBERT's format cannot represent the encoder; None if it can."""
    like = MODERNBERT.encoder
    expected: dict[str, Any] = {
        name: getattr(like, name)
        for name in ("pre_norm", "first_norm", "norm", "positions", "gated_mlp", "token_types")
    }
    expected |= dict(position_offset=0, share_params="all", embedding_width=encoder.hidden_size)
    for name, value in expected.items():
        if getattr(encoder, name) != value:
            return f"encoder.{name} is {getattr(encoder, name)}, and ModernBERT has {value}"
    if encoder.num_groups != encoder.layers:
        return f"encoder.groups is {encoder.groups}, and ModernBERT has one set for each layer"
    return None


def encoder_to_json(encoder: Encoder, name: str) -> Json:
    """The config.json of the class `name`. ValueError: ModernBERT has no such option."""
    reason = unsupported_option(encoder)
    if reason is not None:
        raise ValueError(f"{reason}: use export --format onnx, stablehlo or orbax")
    hf: Json = {"architectures": [name], "model_type": "modernbert"}
    hf |= {key: getattr(encoder, field) for field, key in FIELDS.items()}
    hf |= {key: _bias(encoder, field) for field, key in BIASES.items()}
    every = encoder.global_every if encoder.window is not None else 1
    thetas = encoder.rotary_theta, encoder.local_rotary_theta or encoder.rotary_theta
    embedding_dropout = encoder.embedding_dropout
    hf |= {
        "intermediate_size": encoder.mlp_width,
        "embedding_dropout": encoder.dropout if embedding_dropout is None else embedding_dropout,
        "hidden_activation": HF_ACTIVATIONS[encoder.activation],
        "classifier_activation": HF_ACTIVATIONS[encoder.head_activation or encoder.activation],
        "local_attention": 2 * (encoder.window or encoder.max_length),
        "global_attn_every_n_layers": every,
        "layer_types": layer_types(encoder.layers, every),
        "global_rope_theta": thetas[0],
        "local_rope_theta": thetas[1],
        "rope_parameters": {
            layer_type: {"rope_type": "default", "rope_theta": theta}
            for layer_type, theta in zip(
                ("full_attention", "sliding_attention"), thetas, strict=True
            )
        },
        "tie_word_embeddings": True,
        "position_embedding_type": "absolute",
        "dtype": "float32",
    }
    return hf


def lost_dropout_rates(encoder: Encoder) -> list[str]:
    """The dropout rates that have no key in config.json; they change no output."""
    output = encoder.attention_output_dropout
    lost = {
        "encoder.dropout": encoder.dropout != 0,
        "encoder.attention_output_dropout": output not in (None, encoder.attention_dropout),
    }
    return [field for field, is_lost in lost.items() if is_lost]


def _bias(encoder: Encoder, field: str) -> bool:
    own = getattr(encoder, field)
    return encoder.biases if own is None else own
