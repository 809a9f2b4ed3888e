"""Embeddings that generator and discriminator share, and gradient-disentangled ones above all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import convert, objectives
from bert_jax.config import replace
from bert_jax.convert.resize import resize_position_embeddings, resize_token_embeddings
from bert_jax.model import electra
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import tiny_configs

DISENTANGLED = ("disentangled", "modern_electra")


def random_like(params: Any) -> Any:
    """Parameters in which no difference table is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(tree, [jax.random.normal(k, x.shape) for k, x in pairs])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["disentangled", pytest.param("modern_electra", marks=pytest.mark.slow)]
)
def test_only_the_generators_loss_moves_the_shared_tables(name: str) -> None:
    """Exactly zero, and not zero for the differences; and the other way round."""
    config = tiny_configs.ALL[name]
    objective, params = tiny_configs.build(config), tiny_configs.initial_params(config)
    rows = tiny_configs.corrupted_batch(config)

    def losses(params: Any) -> tuple[jax.Array, jax.Array]:
        terms = objective.terms(params, rows, jax.random.key(2))
        return terms["mlm_loss"].value, terms["rtd_loss"].value

    jacobian = jax.jit(jax.jacrev(losses))(params)
    generators, discriminators = (flatten_with_names(g) for g in jacobian)
    shared = [k for k in generators if k.startswith("embeddings/")]
    assert shared == [f"embeddings/{t}" for t in sorted(params["embeddings"])]
    for table in shared:
        difference = f"discriminator/{table}{electra.DIFFERENCE}"
        assert generators[table].any(), table
        assert not discriminators[table].any(), table
        assert discriminators[difference].any(), difference
        assert not generators[difference].any(), difference


@pytest.mark.slow_unless("disentangled")
@pytest.mark.parametrize("name", DISENTANGLED)
def test_towers_start_with_equal_tables_and_norms_of_their_own(name: str) -> None:
    params = jax.jit(tiny_configs.build(tiny_configs.ALL[name]).init)(jax.random.key(0))
    towers = [electra.merge_tower(params, t)["embeddings"] for t in ("generator", "discriminator")]
    for table in electra.tables({"embeddings": towers[0]}):
        assert jnp.array_equal(towers[0][table], towers[1][table]), table
    assert params["generator"]["embeddings"].keys() == {"norm"}
    assert params["embeddings"].keys() == electra.tables({"embeddings": towers[0]}).keys()


@pytest.mark.slow_unless("words", "none", "gradient_disentangled")
@pytest.mark.parametrize("tied", electra.IS_SHARED)
def test_merged_towers_are_those_that_were_split(tied: str) -> None:
    config = replace(tiny_configs.FAMILIES["electra"], objective=dict(tied="none"))
    params = random_like(objectives.param_shapes(config))
    split = electra.split_towers(params["generator"], params["discriminator"], tied)
    assert electra.is_disentangled(split) == (tied == "gradient_disentangled")
    merged = electra.merge_tower(split, "discriminator")
    assert jax.tree.structure(merged) == jax.tree.structure(params["discriminator"])
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(params["discriminator"]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "part", "class_name", "left_out"),
    [
        ("disentangled", "discriminator", "ElectraForPreTraining", 0),
        ("disentangled", "generator", "ElectraForMaskedLM", 0),
        ("modern_electra", "discriminator", "ModernBertModel", 3),  # the head, which has no class
        ("modern_electra", "generator", "ModernBertForMaskedLM", 0),
    ],
)
def test_an_export_has_the_sums_of_the_tables(
    name: str, part: str, class_name: str, left_out: int
) -> None:
    config = tiny_configs.ALL[name]
    params = random_like(objectives.param_shapes(config))
    hf, tensors, lost = convert.to_hf(config, params, part)
    assert hf["architectures"] == [class_name]
    assert len([n for n in lost if n.startswith("rtd/")]) == left_out
    word = params["embeddings"]["word"]
    if part == "discriminator":
        word = word + params["discriminator"]["embeddings"]["word_difference"]
    name = next(
        n for n in tensors if n.endswith(("word_embeddings.weight", "tok_embeddings.weight"))
    )
    np.testing.assert_array_equal(tensors[name], word)


def test_a_narrow_generator_trains_and_modernberts_format_refuses_it() -> None:
    config = replace(tiny_configs.ALL["modern_electra"], objective=dict(generator_size=0.5))
    encoder = config.objective.generator(config.encoder)  # type: ignore[union-attr]
    assert (encoder.hidden_size, encoder.mlp_width, encoder.layers) == (12, 10, 2)
    params = objectives.param_shapes(config)
    assert "projection" in params["generator"]["encoder"]
    with pytest.raises(ValueError, match="modernbert has no projection between them"):
        convert.to_hf(config, params, "generator")


def test_new_pieces_and_positions_have_sums_as_well() -> None:
    """A new piece is the mean of those it replaces in both tables, or differs by zero."""
    config = tiny_configs.ALL["disentangled"]
    params = random_like(objectives.param_shapes(config))
    v = tiny_configs.V
    before = electra.merge_tower(params, "discriminator")["embeddings"]
    longer, params = resize_position_embeddings(config, params, 40)
    _, params = resize_token_embeddings(longer, params, v, v + 2, replaced=[[5, 7]])
    after = electra.merge_tower(params, "discriminator")["embeddings"]
    np.testing.assert_allclose(
        after["word"][v], before["word"][np.array([5, 7])].mean(0), atol=1e-6
    )
    np.testing.assert_array_equal(after["word"][v + 1], params["embeddings"]["word"][v + 1])
    np.testing.assert_array_equal(after["position"][32:], before["position"][:8])
