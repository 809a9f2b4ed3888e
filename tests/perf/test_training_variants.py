"""What `bench` and `plan` compare adapters with, and what adapters cost."""

import math

import pytest

from bert_jax.config import Lora, replace
from bert_jax.model import lora
from bert_jax.perf import flops
from bert_jax.perf.param_table import parameter_table
from bert_jax.perf.training_variants import training_variants
from bert_jax.utils.pytree import count
from tests.helpers import tiny_configs

FAMILIES = tiny_configs.FAMILIES


def test_adapters_are_compared_with_all_parameters_and_with_frozen_layers() -> None:
    config = replace(FAMILIES["bert"], lora=dict(rank=2))
    variants = training_variants(config)
    assert list(variants) == ["all parameters", "optim.freeze embeddings,0-0"]
    assert not any(c.lora.enabled for c in variants.values())
    shared = training_variants(replace(FAMILIES["albert"], lora=dict(rank=2)))
    assert list(shared)[1] == "optim.freeze encoder"
    assert training_variants(FAMILIES["bert"]) == {}


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_an_adapter_has_two_flops_per_parameter_token_and_layer(family: str) -> None:
    config, adapters = FAMILIES[family], Lora(rank=3, targets="query,down")
    shapes = lora.adapter_shapes(adapters, tiny_configs.initial_params(config))
    per_group = sum(math.prod(shape) for shape in shapes.values()) / config.encoder.num_groups
    assert flops.adapters(config.encoder, adapters) == 2 * per_group * config.encoder.layers
    less = flops.model_per_token(replace(config, lora=dict(rank=1)), 32)
    assert less < flops.model_per_token(config, 32)


def test_the_parameter_table_shows_adapters_and_no_moments_of_the_base() -> None:
    params = tiny_configs.initial_params(FAMILIES["bert"])
    table = parameter_table(replace(FAMILIES["bert"], lora=dict(rank=2)))
    trained = count(lora.trained_shapes(Lora(rank=2), params))
    total = count(lora.split_base(params)[1]) + trained
    assert table["parameters"]["total"] == total
    assert table["bytes"]["state"] == 4 * (total + 2 * trained)
