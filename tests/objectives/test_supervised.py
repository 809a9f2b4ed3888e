"""Heads of fine-tuning: what counts, what does not, and the joint spans beside the papers."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy.special import erf, log_softmax, softmax

from bert_jax import config, objectives, optim
from bert_jax.config import Experiment, Supervised, replace
from bert_jax.distributed import sharding
from bert_jax.model import Network
from bert_jax.utils import pytree
from tests.helpers import tiny_configs

KINDS: list[Any] = ["classification", "regression", "tagging", "choice", "qa"]
LABELS = ("a", "b", "c")
CASES = [*itertools.product(["bert"], KINDS), ("albert", "qa"), ("electra", "qa")]
KEY = jax.random.key(0)


def tuned(family: str, kind: Any, **changes: Any) -> Experiment:
    labels = LABELS if kind in ("classification", "tagging") else ()
    objective = config.supervised_objective(family, kind, labels, **changes)
    return replace(tiny_configs.without_dropout(tiny_configs.FAMILIES[family]), objective=objective)


@cache
def model(family: str, kind: Any) -> tuple[Any, Any]:
    """The objective and its parameters, loud enough that every part shows."""
    objective = objectives.build(tuned(family, kind))
    drawn = jax.jit(objective.init)(KEY)
    keys = iter(jax.random.split(KEY, 99))
    louder = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(next(keys), p.shape), drawn)
    return objective, louder


def rows(kind: str, n: int = 6) -> dict[str, jax.Array]:
    """Rows whose second segment is the document; some have no label, or no answer."""
    one = {k: v for k, v in tiny_configs.batch(n).items() if k != "pair"}
    rng, size, first = np.random.default_rng(1), np.asarray(one["size"]), np.asarray(one["first"])
    label = rng.integers(0, 3, n)
    one["context"] = one["first"]
    if kind == "regression":
        one["label"] = jnp.asarray(rng.normal(size=n), jnp.float32)
    elif kind == "tagging":
        tags = rng.integers(-1, 3, one["tokens"].shape)
        one["tags"] = jnp.asarray(
            np.where(np.arange(tiny_configs.LENGTH) < size[:, None], tags, -1)
        )
    elif kind == "qa":
        ends = np.sort(rng.integers(first, size - 1, (2, n)), axis=0)
        none = np.arange(n) % 3 == 1
        one["impossible"] = jnp.asarray(none & (np.arange(n) > 1), jnp.int32)
        one["start"], one["end"] = (jnp.asarray(np.where(none, 0, e)) for e in ends)
    elif kind == "choice":
        many = [tiny_configs.batch(n, i * n) for i in range(3)]
        one |= {k: jnp.stack([m[k] for m in many], 1) for k in ("tokens", "size", "first")}
        one["label"] = jnp.asarray(label)
    else:
        one["label"] = jnp.asarray(label).at[2].set(-1)
    whole = {k: v for k, v in one.items() if v.dtype != jnp.float32}
    return one | {k: jnp.asarray(v, jnp.int32) for k, v in whole.items()}


@cache
def terms(case: tuple[str, Any]) -> Any:
    objective, _ = model(*case)
    return jax.jit(lambda p, b: (objective.terms(p, b, None), objective.counts(b)))


def values(case: tuple[str, Any], batch: Any) -> Any:
    """Total and count of every term."""
    made, counts = terms(case)(model(*case)[1], batch)
    assert float(counts["task_loss"]) == float(made["task_loss"].count)
    return {name: (float(t.total), float(t.count)) for name, t in made.items()}


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    return all(np.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_parts_add_up_and_what_fills_up_counts_nowhere(case: tuple[str, Any]) -> None:
    """Three rows at a time, cut to the longest, with two that are all padding."""
    batch, sums = rows(case[1]), None
    length = int(batch["size"].max())
    for i in (0, 3):
        part = {}
        for name, x in batch.items():
            x = x[i : i + 3, ..., :length] if name in ("tokens", "tags") else x[i : i + 3]
            fill = -1 if name in ("tags", "label") and x.dtype == jnp.int32 else 0
            wide = [(0, 2)] + [(0, 0)] * (x.ndim - 1)
            part[name] = jnp.pad(x, wide, constant_values=fill)
        got = values(case, part)
        sums = got if sums is None else {k: np.add(sums[k], got[k]) for k in got}
    assert sums is not None
    for name, whole in values(case, batch).items():
        assert close(sums[name], whole)


def test_an_option_that_is_not_there_has_no_chance() -> None:
    batch = rows("choice")
    more = {k: jnp.concatenate([x, 0 * x[:, :1]], 1) for k, x in batch.items() if x.ndim > 1}
    expected, got = (values(("bert", "choice"), b) for b in (batch, {**batch, **more}))
    assert close(got["task_loss"], expected["task_loss"])
    objective, params = model("bert", "choice")
    out = jax.jit(objective.outputs)(params, {**batch, **more})
    assert np.isneginf(out[:, 3]).all()
    assert np.isfinite(out[:, :3]).all()


def test_a_number_is_learned_in_its_scale_and_told_in_its_unit() -> None:
    batch = rows("regression")
    plain, params = model("bert", "regression")
    fives = objectives.build(tuned("bert", "regression", scale=5.0))
    a, b = (jax.jit(o.outputs)(params, batch) for o in (fives, plain))
    assert np.allclose(a, 5 * b)
    loss = jax.jit(fives.terms)(params, {**batch, "label": 5 * batch["label"]}, None)["task_loss"]
    assert close([loss.total, loss.count], values(("bert", "regression"), batch)["task_loss"])


@pytest.mark.parametrize("case", [*CASES, ("roberta", "classification"), ("electra", "tagging")])
def test_every_parameter_is_reached(case: tuple[str, Any]) -> None:
    objective, params = model(*case)
    batch = rows(case[1])

    def loss(p: Any) -> jax.Array:
        return objectives.total_loss(
            objective.weights, objective.terms(p, batch, None), objective.counts(batch)
        )

    for name, g in pytree.flatten_with_names(jax.jit(jax.grad(loss))(params)).items():
        assert g.any() or name.endswith("key/bias"), name


# ---- joint spans, written once more after the papers


def dense(p: Any, x: Any) -> Any:
    return x @ p["kernel"] + p.get("bias", 0.0)


def gelu(x: Any) -> Any:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def norm(p: Any, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]


class Spans:
    """One row's joint spans in float64."""

    def __init__(self, family: str, p: Any, h: Any, size: int, context: int) -> None:
        self.albert, self.p, self.h = family == "albert", p, h
        at = np.arange(len(h))
        last = size - 1 if self.albert else size  # ALBERT's p_mask has the last [SEP] too
        self.allowed = (at == 0) | ((at >= context) & (at < last))
        self.start = self.masked(dense(p["start"], h)[:, 0])

    def masked(self, logits: Any) -> Any:
        return np.where(self.allowed, logits, -1e30)

    def end(self, start: int) -> Any:
        states = np.broadcast_to(self.h[start], self.h.shape)
        f = dense(self.p["end_first"], np.concatenate([states, self.h], axis=1))
        f = norm(self.p["end_norm"], np.tanh(f)) if self.albert else gelu(f)
        return self.masked(dense(self.p["end"], f)[:, 0])

    def answerable(self) -> float:
        f = np.concatenate([self.h[0], softmax(self.start) @ self.h])
        f = (np.tanh if self.albert else gelu)(dense(self.p["answerable_first"], f))
        return dense(self.p["answerable"], f)[0]


def spans(family: str, batch: Any) -> list[Spans]:
    objective, params = model(family, "qa")
    network, _ = objective.encoder(params)
    bare = {k: params[k] for k in ("embeddings", "encoder")}
    out: Any = jax.jit(Network(network.config).apply)({"params": bare}, batch)
    hidden, p = np.float64(out["hidden"]), jax.tree.map(np.float64, params["span"])
    sizes, contexts = np.asarray(batch["size"]), np.asarray(batch["context"])
    return [Spans(family, p, *row) for row in zip(hidden, sizes, contexts, strict=True)]


@pytest.mark.parametrize("family", ["albert", "electra"])
def test_joint_spans_are_trained_as_published(family: str) -> None:
    batch = rows("qa")
    told = {k: np.asarray(batch[k]) for k in ("start", "end", "impossible")}
    loss = 0.0
    for row, start, end, none in zip(spans(family, batch), *told.values(), strict=True):
        none = max(none, start == 0) if family == "albert" else none
        ends = log_softmax(row.start)[start] + log_softmax(row.end(start))[end]
        sign = 1 if none else -1
        loss += -0.5 * ends + 0.5 * np.log1p(np.exp(-sign * row.answerable()))
    total, count = values((family, "qa"), batch)["task_loss"]
    assert count == 6
    assert abs(total - loss) <= 1e-5 * loss


@pytest.mark.parametrize(("family", "beam"), [("albert", 5), ("electra", 20)])
def test_joint_spans_are_searched_as_published(family: str, beam: int) -> None:
    batch = rows("qa")
    objective, params = model(family, "qa")
    out = jax.tree.map(np.asarray, jax.jit(objective.outputs)(params, batch))
    assert out["end"].shape == (6, beam, beam)
    for i, row in enumerate(spans(family, batch)):
        log_p = log_softmax(row.start)
        most = min(beam, row.allowed.sum())
        assert out["start_at"][i][:most].tolist() == np.argsort(-log_p)[:most].tolist()
        assert np.allclose(out["start"][i][:most], np.sort(log_p)[::-1][:most], atol=1e-4)
        assert abs(out["answerable"][i] - row.answerable()) <= 1e-4
        for j in range(most):
            ends = log_softmax(row.end(out["start_at"][i, j]))
            assert np.allclose(out["end"][i, j][:most], np.sort(ends)[::-1][:most], atol=1e-4)
            assert np.allclose(ends[out["end_at"][i, j][:most]], out["end"][i, j][:most], atol=1e-4)


def test_starts_are_chosen_among_what_may_answer() -> None:
    batch = rows("qa")
    objective, params = model("albert", "qa")
    at = np.asarray(jax.jit(objective.outputs)(params, batch)["start_at"])[:, :4]
    context, size = (np.asarray(batch[k])[:, None] for k in ("context", "size"))
    inside = (at >= context) & (at < size - 1)
    assert (inside | (at == 0)).all()


# ---- what stands beside the head


def test_each_family_has_the_head_that_it_was_published_with() -> None:
    for family, kind, head, span, init, dropout in [
        ("bert", "classification", "pooler", "linear", "same", 0.1),
        ("spanbert", "qa", "pooler", "linear", "same", 0.1),
        ("albert", "qa", "pooler", "joint", "same", 0.1),
        ("roberta", "choice", "pooler", "linear", "same", 0.0),
        ("electra", "classification", "first", "joint", "glorot", 0.1),
        ("electra", "tagging", "first", "joint", "glorot", 0.0),
    ]:
        made = config.supervised_objective(family, kind)  # type: ignore[arg-type]
        assert (made.head, made.span, made.init, made.dropout) == (head, span, init, dropout)
    assert config.supervised_objective("albert", "qa", unanswerable=False).span == "linear"
    assert config.supervised_objective("electra", "stsb").scale == 5.0
    assert config.supervised_objective("bert", "stsb").scale == 1.0
    assert config.supervised_objective("spanbert", "mnli").family == "bert"
    with pytest.raises(ValueError, match="family is 'gpt': expected bert"):
        config.supervised_objective("gpt", "qa")


def test_electras_last_layer_is_drawn_by_glorot() -> None:
    objective = objectives.build(tuned("electra", "classification"))
    kernel = np.asarray(jax.jit(objective.init)(KEY)["label"]["dense"]["kernel"])
    bound = math.sqrt(6 / sum(kernel.shape))
    assert 0.8 * bound < np.abs(kernel).max() <= bound


def test_layer_rates_are_electras() -> None:
    """Its published numbers: 1 for the head, .64 for the top layer, .055 and .044 below."""
    rate = optim.layerwise_lr_decay(0.8, 12)
    heads = (
        "pooler/dense/kernel",
        "label/dense/kernel",
        "label/first/bias",
        "tag/dense/bias",
        "span/end_first/kernel",
    )
    assert all(rate(name, (5, 5)) == 1.0 for name in heads)
    layers = np.ravel(rate("encoder/layers/mlp/up/kernel", (12, 5, 5)))
    assert np.allclose(layers[[-1, 0]], [0.64, 0.055], atol=5e-4)
    assert abs(float(rate("embeddings/word", (5, 5))) - 0.044) < 5e-4  # type: ignore[arg-type]
    assert rate("encoder/projection/kernel", (5, 5)) == rate("embeddings/word", (5, 5))


@pytest.mark.parametrize("case", CASES)
def test_a_rule_lays_out_every_leaf(case: tuple[str, Any]) -> None:
    mesh = sharding.abstract_mesh(config.Mesh(data=1, fsdp=2, tensor=2))
    for head in ("pooler", "first", "gelu"):
        made = objectives.build(replace(tuned(*case), objective=dict(head=head)))
        for name, leaf in pytree.flatten_with_names(jax.eval_shape(made.init, KEY)).items():
            assert isinstance(sharding.partition_spec(name, leaf.shape, mesh), PartitionSpec)


@pytest.mark.parametrize("changes", [dict(dropout=1.0), dict(scale=0.0)])
def test_numbers_that_make_no_sense_are_refused(changes: Any) -> None:
    with pytest.raises(ValueError, match=r"objective\.(dropout|scale) is"):
        Supervised(**changes)
