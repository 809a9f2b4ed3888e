"""ELECTRA: join a discriminator and a generator, which Hugging Face keeps in separate folders."""

from __future__ import annotations

from typing import Any

import numpy as np

from bert_jax.config import Encoder, Experiment, ReplacedTokens, replace
from bert_jax.convert import hf_config
from bert_jax.convert.heads import HEADS
from bert_jax.model import electra
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Params


def join_electra(
    discriminator: tuple[Experiment, Params], generator: tuple[Experiment, Params]
) -> tuple[Experiment, Params]:
    """An imported discriminator and generator as one pre-training state. Equal embeddings are
    shared.

    ValueError: not a discriminator and its generator, or a generator that `ReplacedTokens`
    cannot describe.
    """
    (disc_config, disc), (gen_config, gen) = discriminator, generator
    if "rtd" not in disc or "mlm" not in gen:
        raise ValueError(
            f"found the heads {_heads(disc)} and {_heads(gen)}: expected ELECTRA's discriminator "
            "(rtd), then its generator (mlm)"
        )
    a, b = (flatten_with_names(p["embeddings"]) for p in (disc, gen))
    equal = {k for k in a if k in b and np.array_equal(a[k], b[k])}
    tied = "all" if equal == set(a) == set(b) else "words" if "word" in equal else "none"
    objective = ReplacedTokens(
        generator_size=gen_config.encoder.hidden_size / disc_config.encoder.hidden_size,
        generator_layers=gen_config.encoder.layers / disc_config.encoder.layers,
        tied=tied,
    )
    expected = objective.generator(disc_config.encoder)
    for name, (value, actual) in _differences(expected, gen_config.encoder):
        raise ValueError(
            f"the generator has encoder.{name} {actual}: expected {value} for this generator width "
            "and this discriminator"
        )
    experiment = replace(
        hf_config.BASE_CONFIGS["electra"], encoder=disc_config.encoder, objective=objective
    )
    return experiment, electra.split_towers(gen, disc, tied)


def _heads(params: Params) -> str:
    return ", ".join(k for k in params if k in HEADS) or "none"


def _differences(a: Encoder, b: Encoder) -> list[tuple[str, tuple[Any, Any]]]:
    """Differences in the fields and derived sizes that define what a network computes."""
    pairs = {
        name: (getattr(a, name), getattr(b, name))
        for name in (
            "hidden_size",
            "layers",
            "heads",
            "mlp_width",
            "embedding_width",
            "vocab_size",
            "max_length",
            "token_types",
            "activation",
            "layer_norm_eps",
            "pad_id",
        )
    }
    return [(k, v) for k, v in pairs.items() if v[0] != v[1]]
