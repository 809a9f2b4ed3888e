"""What ELECTRA's paper compares replaced tokens with: fewer places, or words in place of a bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import replace
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import denoising
from bert_jax.objectives.losses import project
from bert_jax.objectives.replaced_token_detection import DISCRIMINATOR
from bert_jax.perf import flops
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.tiny_configs import FAMILIES, LENGTH, V, batch, build, without_dropout

VARIANTS = ("rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm")


def f32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def variant(learn: str, **objective: Any) -> Any:
    electra = without_dropout(FAMILIES["electra"])
    return replace(electra, objective=dict(target=learn, generator_size=0.5, **objective))


def begun(learn: str, **objective: Any) -> tuple[Any, Any, Any]:
    made = build(variant(learn, **objective))
    rows = made.corrupt(batch(), jax.random.key(1))
    return made, made.init(jax.random.key(0)), rows


def test_at_masked_are_the_places_of_predictions() -> None:
    _, _, rows = begun("rtd_masked")
    expected = np.zeros_like(rows["labels"])
    for i, (places, weights) in enumerate(zip(rows["masked"], rows["weights"], strict=True)):
        expected[i, places[weights > 0]] = 1
    np.testing.assert_array_equal(denoising.at_masked(rows), expected)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_copy_gate_mixes_the_token_that_stands_there_into_the_law(pieces: int) -> None:
    rng = np.random.default_rng(0)
    b, n, e, v = 2, 5, 3, 7
    features, table = rng.normal(size=(b, n, e)), rng.normal(size=(v, e))
    bias, copy = rng.normal(size=v), rng.normal(size=(b, n))
    tokens, labels = rng.integers(0, v, (2, b, n))
    labels[0, :3] = tokens[0, :3]
    weights = rng.integers(0, 2, (b, n)).astype(float)

    logits = features @ table.T + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gate = 1 / (1 + np.exp(-copy))
    p *= 1 - gate[..., None]
    np.put_along_axis(
        p,
        tokens[..., None],
        np.take_along_axis(p, tokens[..., None], -1) + gate[..., None],
        -1,
    )
    chosen = np.take_along_axis(p, labels[..., None], -1)[..., 0]

    loss, right = denoising.with_copies(
        LMHeadOutput(f32(features), f32(bias)),
        f32(copy),
        f32(table),
        pieces,
        {"tokens": jnp.asarray(tokens), "labels": jnp.asarray(labels)},
        f32(weights),
    )
    np.testing.assert_allclose(loss.total, -(np.log(chosen) * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(right.total, ((p.argmax(-1) == labels) * weights).sum())
    assert float(loss.count) == float(right.count) == weights.sum()


@pytest.mark.parametrize("learn", VARIANTS)
def test_the_places_counted_are_those_of_the_loss(learn: str) -> None:
    made, params, rows = begun(learn)
    terms, counts = made.terms(params, rows, None), made.counts(rows)
    assert set(counts) == set(made.weights)
    for name, count in counts.items():
        assert float(terms[name].count) == float(count)
    real = int(rows["size"].sum())
    name = "rtd_loss" if learn.startswith("rtd") else "restored_loss"
    everywhere = learn in ("rtd", "all_tokens_mlm")
    assert float(counts[name]) == (real if everywhere else float(rows["weights"].sum()))


def test_rtd_on_masked_tokens_is_rtd_with_the_other_places_left_out() -> None:
    whole, params, rows = begun("rtd")
    part = build(variant("rtd_masked"))
    every, masked = (o.terms(params, rows, None) for o in (whole, part))
    assert float(masked["rtd_recall"].count) == float(every["rtd_recall"].count)
    assert float(masked["rtd_loss"].total) < float(every["rtd_loss"].total)
    np.testing.assert_array_equal(masked["mlm_loss"].total, every["mlm_loss"].total)


def test_replace_mlm_predicts_from_the_samples_of_the_generator() -> None:
    made, params, rows = begun("replace_mlm")
    assert isinstance(made, objectives.ReplacedTokensObjective)
    seen: dict[str, Any] = {}

    def replaced(given: Any, sampled: Any) -> Any:
        seen["sampled"] = sampled
        seen["tokens"] = objectives.ReplacedTokensObjective.replace(made, given, sampled)
        return seen["tokens"]

    object.__setattr__(made, "replace", replaced)
    terms = made.terms(params, rows, None)
    there = jnp.take_along_axis(seen["tokens"], rows["masked"], -1)
    assert jnp.where(rows["weights"] > 0, there == seen["sampled"], True).all()
    network, tower = made.encoder(params)
    head: Any = network.apply({"params": tower}, {**rows, "tokens": seen["tokens"]})
    logits = project(head["mlm"].features, head["mlm"].bias, tower["embeddings"]["word"])
    law = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(law, rows["targets"][..., None], -1)[..., 0]
    expected = -(chosen * rows["weights"]).sum()
    np.testing.assert_allclose(terms["restored_loss"].total, expected, rtol=1e-5)


@pytest.mark.parametrize("learn", VARIANTS)
def test_the_loss_reaches_every_parameter(learn: str) -> None:
    made, params, rows = begun(learn)
    counts = made.counts(rows)

    def loss(params: Any) -> jax.Array:
        return objectives.total(made.weights, made.terms(params, rows, jax.random.key(2)), counts)

    for name, gradient in flatten_with_names(jax.jit(jax.grad(loss))(params)).items():
        assert jnp.abs(gradient).sum() > 0, name


def test_words_cost_more_than_bits_and_all_tokens_more_than_masked_ones() -> None:
    for count in (flops.published, flops.model):
        real = {n: replace(variant(n), encoder=dict(vocab_size=1000)) for n in VARIANTS}
        cost = {learn: count(config, LENGTH) for learn, config in real.items()}
        assert cost["rtd_masked"] == cost["rtd"] < cost["replace_mlm"] < cost["all_tokens_mlm"]


def test_a_restoring_discriminator_has_no_more_heads_than_it_learns_by() -> None:
    for learn, heads in DISCRIMINATOR.items():
        _, params, _ = begun(learn)
        there = {h for h in ("mlm", "rtd") if h in params["discriminator"]}
        assert there == set(heads)
        assert params["embeddings"]["word"].shape[0] == V
