"""Each objective's gradient reaches exactly the parameters that it should."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import Experiment, Masking, replace
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.base import vocabulary_loss
from bert_jax.utils import pytree
from tests.helpers import tiny_configs

KEY = jax.random.key(0)


def gradients(config: Experiment, weights: dict[str, float] | None = None) -> dict[str, jax.Array]:
    """Name -> gradient of the loss, or of the terms given alone; dropout off."""
    objective = tiny_configs.build(config)
    params = jax.jit(objective.init)(KEY)
    weights = objective.weights if weights is None else weights

    def loss(p: dict, batch: dict) -> jax.Array:
        batch = objective.corrupt(batch, KEY)
        return objectives.total(weights, objective.terms(p, batch, None), objective.counts(batch))

    return pytree.flatten_with_names(jax.jit(jax.grad(loss))(params, tiny_configs.batch()))


@cache
def electra(term: str) -> dict[str, jax.Array]:
    return gradients(tiny_configs.FAMILIES["electra"], {term: 1.0})


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_every_parameter_is_reached(family: str) -> None:
    for name, g in gradients(tiny_configs.FAMILIES[family]).items():
        assert g.any(), name


@pytest.mark.parametrize(
    ("term", "only"), [("mlm_loss", {"mlm"}), ("pair_loss", {"pooler", "pair"})]
)
def test_a_term_reaches_its_own_head_alone(term: str, only: set[str]) -> None:
    heads = {"mlm", "pooler", "pair"}
    for name, g in gradients(tiny_configs.FAMILIES["bert"], {term: 1.0}).items():
        head = name.split("/")[0]
        assert head not in heads or bool(g.any()) == (head in only), name


@pytest.mark.parametrize(
    ("term", "reached", "other"),
    [("mlm_loss", "generator", "discriminator"), ("rtd_loss", "discriminator", "generator")],
)
def test_electras_towers_meet_in_the_embeddings_alone(term: str, reached: str, other: str) -> None:
    for name, g in electra(term).items():
        if name.startswith(other):
            assert not g.any(), name
        else:
            assert name.startswith((reached, "embeddings"))
            assert g.any(), name


def test_the_shared_embeddings_take_both_gradients() -> None:
    both = gradients(tiny_configs.FAMILIES["electra"])["embeddings/word"]
    parts = [electra("mlm_loss")["embeddings/word"], electra("rtd_loss")["embeddings/word"]]
    assert np.allclose(both, parts[0] + 50 * parts[1], atol=1e-6 * np.abs(both).max())


@pytest.mark.parametrize(
    ("tied", "own"),
    [
        ("all", set()),
        ("words", {"norm", "position", "type"}),
        ("none", {"norm", "position", "type", "word"}),
    ],
)
def test_what_is_not_tied_lies_in_each_tower(tied: str, own: set[str]) -> None:
    config = replace(tiny_configs.FAMILIES["electra"], objective=dict(tied=tied))
    params = jax.eval_shape(tiny_configs.build(config).init, KEY)
    for tower in ("generator", "discriminator"):
        assert set(params[tower].get("embeddings", {})) == own
    assert set(params.get("embeddings", {})) == {"norm", "position", "type", "word"} - own


def test_a_right_guess_is_an_original() -> None:
    """A generator that always samples the true token leaves nothing to find."""
    objective = tiny_configs.build(tiny_configs.FAMILIES["electra"])
    batch = objective.corrupt(tiny_configs.batch(), KEY)
    sure = 1e4 * jax.nn.one_hot(batch["targets"], tiny_configs.V)
    sampled = objective.sample(sure, batch["sampling"])
    assert np.array_equal(objective.replace(batch, sampled), batch["labels"])


def test_samples_follow_the_generator_and_only_where_it_was_asked() -> None:
    objective = tiny_configs.build(tiny_configs.FAMILIES["electra"])
    batch = objective.corrupt(tiny_configs.batch(40), KEY)
    logits = jnp.broadcast_to(
        jnp.log(jnp.arange(1, tiny_configs.V + 1.0)), (*batch["masked"].shape, 64)
    )
    sampled = objective.sample(logits, batch["sampling"])
    tokens = np.asarray(objective.replace(batch, sampled))
    asked = np.zeros(tokens.shape, bool)
    r, p = np.nonzero(batch["weights"])
    asked[r, np.asarray(batch["masked"])[r, p]] = True
    assert np.array_equal(tokens[~asked], np.asarray(batch["labels"])[~asked])
    mean, law = tokens[asked].mean(), np.arange(1, 65) / np.arange(1, 65).sum()
    expected = law @ np.arange(64)
    deviation = np.sqrt(law @ (np.arange(64) - expected) ** 2 / asked.sum())
    assert abs(mean - expected) < 4 * deviation


ODD = {  # any architecture with any objective: one-line changes
    "a RoBERTa with sentence order": replace(
        tiny_configs.FAMILIES["roberta"], objective=dict(sentence_pair=True)
    ),
    "an ELECTRA that shares layers": replace(
        tiny_configs.FAMILIES["electra"], encoder=dict(groups=1)
    ),
    "an ELECTRA over spans": replace(
        tiny_configs.FAMILIES["electra"],
        objective=dict(
            masking=Masking(
                granularity="span", max_ngram=10, budget="ceil", mask_prob=1.0, random_prob=0.0
            )
        ),
    ),
    "a BERT that shares attention": replace(
        tiny_configs.FAMILIES["bert"], encoder=dict(groups=1, share_params="attention")
    ),
    "a BERT that shares its MLPs": replace(
        tiny_configs.FAMILIES["bert"], encoder=dict(groups=1, share_params="mlp")
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_any_architecture_goes_with_any_objective(name: str) -> None:
    assert all(g.any() for g in gradients(ODD[name]).values())


@pytest.mark.parametrize("family", sorted(tiny_configs.FAMILIES))
def test_a_loss_in_pieces_is_the_same_loss(family: str) -> None:
    """And has the same gradient; ELECTRA's generator samples the same tokens."""
    config = tiny_configs.FAMILIES[family]
    values = []
    for pieces in (1, 4):
        objective = tiny_configs.build(replace(config, run=dict(loss_chunks=pieces)))
        params, batch = objective.init(KEY), objective.corrupt(tiny_configs.batch(8), KEY)

        def loss(params: Any, objective: Any = objective, batch: Any = batch) -> jax.Array:
            terms = objective.terms(params, batch, KEY)
            return objectives.total(objective.weights, terms, objective.counts(batch))

        values.append(jax.jit(jax.value_and_grad(loss))(params))
    for whole, pieced in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(pieced, whole, rtol=1e-4, atol=1e-6)


def test_whole_logits_are_never_there() -> None:
    """A quarter of the memory for the loss over the vocabulary and its gradient, in 16 pieces."""
    v, e, rows, slots = 8192, 64, 64, 20
    head = LMHeadOutput(jnp.zeros((rows, slots, e)), jnp.zeros(v))
    targets, weights = jnp.zeros((rows, slots), jnp.int32), jnp.ones((rows, slots))

    def memory(pieces: int) -> int:
        def loss(features: jax.Array, table: jax.Array) -> jax.Array:
            given = head._replace(features=features)
            return vocabulary_loss(given, table, pieces, targets, weights)[0].total

        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(head.features, jnp.zeros((v, e))).compile()
        return compiled.memory_analysis().temp_size_in_bytes  # type: ignore[union-attr]

    assert memory(16) <= memory(1) / 4
