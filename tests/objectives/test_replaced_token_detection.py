"""The variants that ELECTRA's paper compares with replaced-token detection."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import replace
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.replaced_token_detection import (
    DISCRIMINATOR_HEADS,
    copy_gated_loss,
    masked_positions,
)
from bert_jax.perf import flops
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.tiny_configs import (
    FAMILIES,
    LENGTH,
    SPECIAL,
    V,
    build,
    corrupted_batch,
    initial_params,
    without_dropout,
)

VARIANTS = ("rtd", "rtd_masked", "replace_mlm", "all_tokens_mlm")


def f32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def variant(target: str, **objective: Any) -> Any:
    config = without_dropout(FAMILIES["electra"])
    return replace(config, objective=dict(target=target, generator_size=0.5, **objective))


def setup(target: str, **objective: Any) -> tuple[Any, Any, Any]:
    config = variant(target, **objective)
    return build(config), initial_params(config), corrupted_batch(config, seed=1)


def loss_terms(objective: Any, params: Any, rows: Any) -> Any:
    """Without dropout."""
    return jax.jit(lambda p, r: objective.terms(p, r, None))(params, rows)


@pytest.mark.slow
def test_masked_positions_are_those_of_the_predictions() -> None:
    _, _, rows = setup("rtd_masked")
    expected = np.zeros_like(rows["labels"])
    for i, (positions, weights) in enumerate(zip(rows["masked"], rows["weights"], strict=True)):
        expected[i, positions[weights > 0]] = 1
    np.testing.assert_array_equal(masked_positions(rows), expected)


@pytest.mark.parametrize("chunks", [1, 2])
def test_copy_gated_loss_is_its_formula(chunks: int) -> None:
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
    label_p = np.take_along_axis(p, labels[..., None], -1)[..., 0]

    loss, accuracy = copy_gated_loss(
        LMHeadOutput(f32(features), f32(bias)),
        f32(copy),
        f32(table),
        chunks,
        {"tokens": jnp.asarray(tokens), "labels": jnp.asarray(labels)},
        f32(weights),
    )
    np.testing.assert_allclose(loss.total, -(np.log(label_p) * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(accuracy.total, ((p.argmax(-1) == labels) * weights).sum())
    assert float(loss.count) == float(accuracy.count) == weights.sum()


@pytest.mark.slow_unless("rtd_masked")
@pytest.mark.parametrize("target", VARIANTS)
def test_counts_equal_the_counts_of_the_loss_terms(target: str) -> None:
    electra, params, rows = setup(target)
    terms, counts = loss_terms(electra, params, rows), electra.counts(rows)
    assert set(counts) == set(electra.weights)
    for name, count in counts.items():
        assert float(terms[name].count) == float(count)
    num_tokens = int(rows["size"].sum())
    name = "rtd_loss" if target.startswith("rtd") else "restored_loss"
    all_positions = target in ("rtd", "all_tokens_mlm")
    assert float(counts[name]) == (num_tokens if all_positions else float(rows["weights"].sum()))


@pytest.mark.slow
def test_special_and_unknown_tokens_do_not_count_in_the_auc() -> None:
    """They are never replaced, so to know them takes no context."""
    objective, params, rows = setup("rtd")
    assert isinstance(objective, objectives.ReplacedTokensObjective)
    assert objective.vocabulary is not None
    unknown = int(np.asarray(rows["labels"])[0, 3])
    vocabulary = objective.vocabulary._replace(unk_id=unknown)
    objective = dataclasses.replace(objective, vocabulary=vocabulary)
    histogram = loss_terms(objective, params, rows)["rtd_auc"]
    labels = np.asarray(rows["labels"])
    real = np.arange(labels.shape[1]) < np.asarray(rows["size"])[:, None]
    special = SPECIAL[labels] | (labels == unknown)
    assert (real & special).any()
    assert float(histogram.negatives.sum() + histogram.positives.sum()) == (real & ~special).sum()


def test_rtd_masked_is_rtd_without_the_other_positions() -> None:
    rtd, params, rows = setup("rtd")
    rtd_masked = build(variant("rtd_masked"))
    every, masked = (loss_terms(o, params, rows) for o in (rtd, rtd_masked))
    assert float(masked["rtd_recall"].count) == float(every["rtd_recall"].count)
    assert float(masked["rtd_loss"].total) < float(every["rtd_loss"].total)
    np.testing.assert_array_equal(masked["mlm_loss"].total, every["mlm_loss"].total)


@pytest.mark.slow
def test_replace_mlm_predicts_the_original_tokens_from_the_samples() -> None:
    electra, params, rows = setup("replace_mlm")
    assert isinstance(electra, objectives.ReplacedTokensObjective)
    recorded: dict[str, Any] = {}

    def replace_and_record(batch: Any, sampled: Any) -> Any:
        recorded["sampled"] = sampled
        recorded["tokens"] = objectives.ReplacedTokensObjective.replace(electra, batch, sampled)
        return recorded["tokens"]

    object.__setattr__(electra, "replace", replace_and_record)
    terms = electra.terms(params, rows, None)
    at_masked = jnp.take_along_axis(recorded["tokens"], rows["masked"], -1)
    assert jnp.where(rows["weights"] > 0, at_masked == recorded["sampled"], True).all()
    network, tower = electra.encoder(params)
    head: Any = network.apply({"params": tower}, {**rows, "tokens": recorded["tokens"]})
    logits = head["mlm"].logits(tower["embeddings"]["word"])
    log_p = jax.nn.log_softmax(logits)
    target_log_p = jnp.take_along_axis(log_p, rows["targets"][..., None], -1)[..., 0]
    expected = -(target_log_p * rows["weights"]).sum()
    np.testing.assert_allclose(terms["restored_loss"].total, expected, rtol=1e-5)


@pytest.mark.slow_unless("rtd_masked", "replace_mlm", "all_tokens_mlm")
@pytest.mark.parametrize("target", VARIANTS)
def test_the_loss_reaches_every_parameter(target: str) -> None:
    electra, params, rows = setup(target)
    counts = electra.counts(rows)

    def loss(params: Any) -> jax.Array:
        return objectives.total_loss(
            electra.weights, electra.terms(params, rows, jax.random.key(2)), counts
        )

    for name, gradient in flatten_with_names(jax.jit(jax.grad(loss))(params)).items():
        assert jnp.abs(gradient).sum() > 0, name


def test_predicting_tokens_costs_more_flops_than_detecting_them() -> None:
    for count in (flops.published_per_token, flops.model_per_token):
        configs = {n: replace(variant(n), encoder=dict(vocab_size=1000)) for n in VARIANTS}
        cost = {target: count(config, LENGTH) for target, config in configs.items()}
        assert cost["rtd_masked"] == cost["rtd"] < cost["replace_mlm"] < cost["all_tokens_mlm"]


def test_a_discriminator_has_only_the_heads_of_its_target() -> None:
    for target, heads in DISCRIMINATOR_HEADS.items():
        _, params, _ = setup(target)
        present = {h for h in ("mlm", "rtd") if h in params["discriminator"]}
        assert present == set(heads)
        assert params["embeddings"]["word"].shape[0] == V
