"""ELECTRA's two towers, which theirs keep in folders of their own, as one state."""

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
    """ELECTRA's two towers, imported apart, as one pre-training state.
    Embeddings that are equal become one.

    ValueError: not a discriminator and its generator, or a generator that `ReplacedTokens`
    cannot describe.
    """
    (ours, disc), (theirs, gen) = discriminator, generator
    if "rtd" not in disc or "mlm" not in gen:
        raise ValueError(
            f"given heads {_heads(disc)} and {_heads(gen)}: expected ELECTRA's discriminator "
            "(rtd), then its generator (mlm)"
        )
    a, b = (flatten_with_names(p["embeddings"]) for p in (disc, gen))
    same = {k for k in a if k in b and np.array_equal(a[k], b[k])}
    tied = "all" if same == set(a) == set(b) else "words" if "word" in same else "none"
    objective = ReplacedTokens(
        generator_size=theirs.encoder.hidden_size / ours.encoder.hidden_size,
        generator_layers=theirs.encoder.layers / ours.encoder.layers,
        tied=tied,
    )
    for name, (is_, asked) in _differences(objective.generator(ours.encoder), theirs.encoder):
        raise ValueError(
            f"the generator has encoder.{name} {asked}: a generator of this width beside this "
            f"discriminator has {is_}"
        )
    experiment = replace(
        hf_config.BASE_CONFIGS["electra"], encoder=ours.encoder, objective=objective
    )
    return experiment, electra.split_towers(gen, disc, tied)


def _heads(params: Params) -> str:
    return ", ".join(k for k in params if k in HEADS) or "none"


def _differences(a: Encoder, b: Encoder) -> list[tuple[str, tuple[Any, Any]]]:
    """Of what decides a network's function; widths may be given or follow."""
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
