"""Adapters: what they compute, how they are shared, and what they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Experiment, Lora, replace
from bert_jax.model import lora
from bert_jax.objectives.base import with_heads
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import tiny_configs

FAMILIES = tiny_configs.FAMILIES
MODERN = dict(gated_mlp=True, activation="gelu", pre_norm=True, first_norm=False)
CONFIGS = {
    "bert": FAMILIES["bert"],
    "albert": FAMILIES["albert"],
    "a group shares attention": replace(
        FAMILIES["bert"], encoder=dict(groups=1, share_params="attention")
    ),
    "modern": replace(FAMILIES["bert"], encoder=MODERN),
}


def adapted(config: Experiment, rank: int = 3) -> tuple[Experiment, Any, Any]:
    """The config with adapters, and random ones beside a random base."""
    config = replace(config, lora=dict(rank=rank, alpha=6.0))
    params = tiny_configs.initial_params(replace(config, lora=Lora()))
    adapters = lora.init_adapters(config.lora, params, jax.random.key(1))
    keys = iter(jax.random.split(jax.random.key(2), 100))
    adapters = jax.tree.map(lambda x: 0.1 * jax.random.normal(next(keys), x.shape), adapters)
    return config, params, adapters


@pytest.mark.slow_unless("bert", "albert", "a group shares attention")
@pytest.mark.parametrize("name", CONFIGS)
def test_merged_equals_unmerged(name: str) -> None:
    """For a kernel per layer, shared by all layers, shared in part, and gated."""
    config, params, adapters = adapted(CONFIGS[name])
    network, _ = tiny_configs.build(config).encoder(params)
    apply = jax.jit(lambda p: with_heads(network).apply({"params": p}, tiny_configs.batch()))
    whole = lora.join(adapters, params)
    hidden, merged = (apply(p)["hidden"] for p in (whole, lora.merge(whole, config.lora)))  # type: ignore[index]
    assert np.abs(hidden - apply(params)["hidden"]).max() > 0.1  # type: ignore[index]
    np.testing.assert_allclose(hidden, merged, atol=3e-6)  # of numbers up to 4


def test_new_adapters_change_nothing_and_their_input_has_dropout() -> None:
    config = replace(tiny_configs.without_dropout(FAMILIES["bert"]), lora=dict(rank=2, dropout=0.5))
    params = tiny_configs.initial_params(replace(config, lora=Lora()))
    network = with_heads(tiny_configs.build(config).encoder(params)[0])
    new = lora.init_adapters(config.lora, params, jax.random.key(1))
    ones = jax.tree.map(jnp.ones_like, new)

    @jax.jit
    def apply(adapters: Any, key: Any) -> Any:
        rngs = {"dropout": key}
        variables = {"params": lora.join(adapters, params)}
        return network.apply(variables, tiny_configs.batch(2), rngs=rngs)["hidden"]  # type: ignore[index]

    a, b = jax.random.split(jax.random.key(0))
    assert (apply(new, a) == apply(new, b)).all()
    assert not (apply(ones, a) == apply(ones, b)).all()


def test_shared_layers_share_adapters_and_groups_of_targets_take_what_is_there() -> None:
    shapes = lora.adapter_shapes(Lora(rank=2), tiny_configs.initial_params(FAMILIES["albert"]))
    assert shapes["encoder/layers/attention/query/lora_a"] == (1, 24, 2)
    assert shapes["encoder/layers/mlp/down/lora_b"] == (1, 2, 24)
    assert len(shapes) == 12  # no gate
    chosen = Lora(rank=2, targets="query, value")
    params = tiny_configs.initial_params(FAMILIES["bert"])
    names = {n.split("/")[3] for n in lora.adapter_shapes(chosen, params)}
    assert names == {"query", "value"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(rank=0), "lora.rank is 0: expected at least 1"),
        (dict(rank=-4), "lora.rank is -4"),
        (
            dict(rank=25),
            "lora.rank is 25: expected at most 24, the smaller side",
        ),
        (dict(rank=2, targets="gate"), "the layers have no kernel gate: expected some of down"),
        (dict(rank=2, targets="wqkv"), "lora.targets has 'wqkv': expected some of query"),
        (dict(rank=2, targets=""), "lora.targets has ''"),
        (dict(rank=2, dropout=1.0), "lora.dropout is 1.0"),
        (dict(rank=2, alpha=0.0), "lora.alpha is 0.0"),
    ],
)
def test_adapters_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lora.adapter_shapes(Lora(**fields), tiny_configs.initial_params(FAMILIES["bert"]))


@pytest.mark.parametrize(
    "field", [dict(optim=dict(freeze="encoder")), dict(run=dict(init_layers=1, init="m"))]
)
def test_adapters_exclude_other_ways_to_freeze(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave one of the two out"):
        replace(FAMILIES["bert"], lora=dict(rank=2), **field)


def test_the_hash_of_a_base_reads_every_number_and_no_padding() -> None:
    base = lora.split_base(tiny_configs.initial_params(FAMILIES["bert"]))[1]
    flat = flatten_with_names(base)
    assert all(n.startswith(("embeddings/", "encoder/")) for n in flat)
    tables = dict.fromkeys(
        ("embeddings/word", "embeddings/word_difference"), flat["embeddings/word"]
    )
    flat |= tables  # the second is ELECTRA's, with gradient-disentangled embeddings
    base = lora.unflatten(flat)
    padded = flat | {name: jnp.pad(table, [(0, 3), (0, 0)]) for name, table in tables.items()}
    assert lora.base_hash(lora.unflatten(padded), 64) == lora.base_hash(base, 64)
    name = "encoder/layers/mlp/down/bias"
    other = flat | {name: flat[name].at[1, 5].add(1e-7)}
    assert lora.base_hash(lora.unflatten(other), 64) != lora.base_hash(base, 64)
