"""The gradient of each objective reaches exactly the parameters that it should."""

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
from tests.helpers.marks import NIGHTLY

KEY = jax.random.key(0)


def gradients(config: Experiment, weights: dict[str, float] | None = None) -> dict[str, jax.Array]:
    """Name -> gradient of the loss, or of the terms in `weights`; without dropout."""
    objective = tiny_configs.build(config)
    params = tiny_configs.initial_params(config)
    weights = objective.weights if weights is None else weights

    def loss(p: dict, batch: dict) -> jax.Array:
        batch = objective.corrupt(batch, KEY)
        return objectives.total_loss(
            weights, objective.terms(p, batch, None), objective.counts(batch)
        )

    return pytree.flatten_with_names(jax.jit(jax.grad(loss))(params, tiny_configs.batch()))


@cache
def electra(term: str) -> dict[str, jax.Array]:
    return gradients(tiny_configs.FAMILIES["electra"], {term: 1.0})


@pytest.mark.slow_unless("roberta", "electra")
@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_the_gradient_reaches_every_parameter(family: str) -> None:
    for name, g in gradients(tiny_configs.FAMILIES[family]).items():
        assert g.any(), name


@pytest.mark.parametrize(
    ("term", "reached"), [("mlm_loss", {"mlm"}), ("pair_loss", {"pooler", "pair"})]
)
def test_a_term_reaches_only_its_own_head(term: str, reached: set[str]) -> None:
    heads = {"mlm", "pooler", "pair"}
    for name, g in gradients(tiny_configs.FAMILIES["bert"], {term: 1.0}).items():
        head = name.split("/")[0]
        assert head not in heads or bool(g.any()) == (head in reached), name


@pytest.mark.parametrize(
    ("term", "reached", "other"),
    [("mlm_loss", "generator", "discriminator"), ("rtd_loss", "discriminator", "generator")],
)
def test_electra_towers_share_only_the_embeddings(term: str, reached: str, other: str) -> None:
    for name, g in electra(term).items():
        if name.startswith(other):
            assert not g.any(), name
        else:
            assert name.startswith((reached, "embeddings"))
            assert g.any(), name


def test_shared_embeddings_get_the_sum_of_both_gradients() -> None:
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
def test_untied_embeddings_are_in_each_tower(tied: str, own: set[str]) -> None:
    config = replace(tiny_configs.FAMILIES["electra"], objective=dict(tied=tied))
    params = jax.eval_shape(tiny_configs.build(config).init, KEY)
    for tower in ("generator", "discriminator"):
        assert set(params[tower].get("embeddings", {})) == own
    assert set(params.get("embeddings", {})) == {"norm", "position", "type", "word"} - own


def test_a_correct_sample_counts_as_original() -> None:
    """A generator that always samples the original token replaces nothing."""
    objective = tiny_configs.build(tiny_configs.FAMILIES["electra"])
    batch = tiny_configs.corrupted_batch(tiny_configs.FAMILIES["electra"])
    logits = 1e4 * jax.nn.one_hot(batch["targets"], tiny_configs.V)
    sampled = objective.sample(logits, batch["sampling"])
    assert np.array_equal(objective.replace(batch, sampled), batch["labels"])


@pytest.mark.slow
def test_samples_follow_the_generators_distribution_at_masked_positions_only() -> None:
    objective = tiny_configs.build(tiny_configs.FAMILIES["electra"])
    batch = tiny_configs.corrupted_batch(tiny_configs.FAMILIES["electra"], 40)
    logits = jnp.broadcast_to(
        jnp.log(jnp.arange(1, tiny_configs.V + 1.0)), (*batch["masked"].shape, 64)
    )
    sampled = objective.sample(logits, batch["sampling"])
    tokens = np.asarray(objective.replace(batch, sampled))
    is_masked = np.zeros(tokens.shape, bool)
    r, p = np.nonzero(batch["weights"])
    is_masked[r, np.asarray(batch["masked"])[r, p]] = True
    assert np.array_equal(tokens[~is_masked], np.asarray(batch["labels"])[~is_masked])
    mean, p = tokens[is_masked].mean(), np.arange(1, 65) / np.arange(1, 65).sum()
    expected = p @ np.arange(64)
    deviation = np.sqrt(p @ (np.arange(64) - expected) ** 2 / is_masked.sum())
    assert abs(mean - expected) < 4 * deviation


COMBINATIONS = {  # any architecture with any objective
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


@pytest.mark.slow_unless("a BERT that shares attention")
@pytest.mark.parametrize("name", COMBINATIONS)
def test_any_architecture_goes_with_any_objective(name: str) -> None:
    assert all(g.any() for g in gradients(COMBINATIONS[name]).values())


# These have BERT's vocabulary loss.
CHUNKED = {"albert": NIGHTLY, "roberta": NIGHTLY, "spanbert": NIGHTLY}


@pytest.mark.slow_unless("bert")
@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=CHUNKED.get(f, ())) for f in sorted(tiny_configs.FAMILIES)]
)
def test_loss_chunks_change_neither_loss_nor_gradient(family: str) -> None:
    """ELECTRA's generator also samples the same tokens."""
    config = tiny_configs.FAMILIES[family]
    values = []
    for chunks in (1, 4):
        objective = tiny_configs.build(replace(config, run=dict(loss_chunks=chunks)))

        def loss(params: Any, objective: Any = objective) -> jax.Array:
            batch = objective.corrupt(tiny_configs.batch(8), KEY)
            terms = objective.terms(params, batch, KEY)
            return objectives.total_loss(objective.weights, terms, objective.counts(batch))

        values.append(jax.jit(jax.value_and_grad(loss))(tiny_configs.initial_params(config)))
    for whole, chunked in zip(*map(jax.tree.leaves, values), strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=1e-6)


def test_loss_chunks_never_hold_the_whole_logits() -> None:
    """16 chunks need at most a quarter of the memory for the vocabulary loss and its gradient."""
    v, e, rows, slots = 8192, 64, 64, 20
    head = LMHeadOutput(jnp.zeros((rows, slots, e)), jnp.zeros(v))
    targets, weights = jnp.zeros((rows, slots), jnp.int32), jnp.ones((rows, slots))

    def memory(chunks: int) -> int:
        def loss(features: jax.Array, table: jax.Array) -> jax.Array:
            output = head._replace(features=features)
            return vocabulary_loss(output, table, chunks, targets, weights)[0].total

        compiled = jax.jit(jax.grad(loss, (0, 1))).lower(head.features, jnp.zeros((v, e))).compile()
        return compiled.memory_analysis().temp_size_in_bytes  # type: ignore[union-attr]

    assert memory(16) <= memory(1) / 4
