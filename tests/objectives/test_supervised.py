"""Fine-tuning objectives: padding counts nowhere, and joint spans equal the published ones."""

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

from bert_jax import config, objectives
from bert_jax.config import Experiment, Supervised, replace
from bert_jax.distributed import sharding
from bert_jax.model import Network
from bert_jax.model.task_heads import task_heads
from bert_jax.utils import pytree
from tests.helpers import tiny_configs

KINDS: list[Any] = ["classification", "multilabel", "regression", "tagging", "choice", "qa"]
LABELS = ("a", "b", "c")
CASES = [*itertools.product(["bert"], KINDS), ("albert", "qa"), ("electra", "qa")]
KEY = jax.random.key(0)


def finetune_config(family: str, kind: Any, **changes: Any) -> Experiment:
    labels = LABELS if kind in ("classification", "multilabel", "tagging") else ()
    objective = config.supervised_objective(family, kind, labels, **changes)
    return replace(tiny_configs.without_dropout(tiny_configs.FAMILIES[family]), objective=objective)


@cache
def model(family: str, kind: Any) -> tuple[Any, Any]:
    """The objective, and parameters large enough that every part has an effect."""
    objective = objectives.build(finetune_config(family, kind))
    params = jax.jit(objective.init)(KEY)
    keys = iter(jax.random.split(KEY, 99))
    return objective, jax.tree.map(
        lambda p: p + 0.2 * jax.random.normal(next(keys), p.shape), params
    )


@pytest.mark.parametrize("kind", ["regression", "tagging", "qa"])
def test_outputs_of_a_bfloat16_network_are_not_rounded_to_bfloat16(kind: Any) -> None:
    """A regression of years would else give multiples of 8."""
    config = finetune_config("bert", kind)
    task: Any = config.objective
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(2, 3, config.encoder.hidden_size)), jnp.bfloat16)
    out = {"hidden": hidden, "pooler": hidden[:, 0]}
    make: Any = list(task_heads(task).values())[-1]
    head = make(config=config.encoder, dtype=jnp.bfloat16)
    batch = {"size": jnp.array([3, 3])}
    logits, _ = head.init_with_output(KEY, out, batch)
    for x in jax.tree.leaves(logits):
        assert x.dtype == jnp.float32
        assert not np.array_equal(x, x.astype(jnp.bfloat16).astype(jnp.float32))


def rows(kind: str, n: int = 6) -> dict[str, jax.Array]:
    """Rows whose second segment is the document; some have no label or no answer."""
    batch = {k: v for k, v in tiny_configs.batch(n).items() if k != "pair"}
    rng, size = np.random.default_rng(1), np.asarray(batch["size"])
    first = np.asarray(batch["first"])
    label = rng.integers(0, 3, n)
    batch["context"] = batch["first"]
    if kind == "regression":
        batch["label"] = jnp.asarray(rng.normal(size=n), jnp.float32).at[2].set(jnp.nan)
    elif kind == "tagging":
        tags = rng.integers(-1, 3, batch["tokens"].shape)
        batch["tags"] = jnp.asarray(
            np.where(np.arange(tiny_configs.LENGTH) < size[:, None], tags, -1)
        )
    elif kind == "qa":
        ends = np.sort(rng.integers(first, size - 1, (2, n)), axis=0)
        no_answer = np.arange(n) % 3 == 1
        batch["impossible"] = jnp.asarray(no_answer & (np.arange(n) > 1), jnp.int32)
        ends = (jnp.asarray(np.where(no_answer, 0, e)) for e in ends)
        batch["start"], batch["end"] = (e.at[2].set(-1) for e in ends)
    elif kind == "choice":
        options = [tiny_configs.batch(n, i * n) for i in range(3)]
        batch |= {k: jnp.stack([o[k] for o in options], 1) for k in ("tokens", "size", "first")}
        batch["label"] = jnp.asarray(label)
    elif kind == "multilabel":
        batch["label"] = jnp.asarray(rng.integers(0, 2, (n, 3))).at[2].set(-1)
    else:
        batch["label"] = jnp.asarray(label).at[2].set(-1)
    integers = {k: v for k, v in batch.items() if v.dtype != jnp.float32}
    return batch | {k: jnp.asarray(v, jnp.int32) for k, v in integers.items()}


@cache
def terms(case: tuple[str, Any]) -> Any:
    objective, _ = model(*case)
    return jax.jit(lambda p, b: (objective.terms(p, b, None), objective.counts(b)))


def values(case: tuple[str, Any], batch: Any) -> Any:
    """Total and count of every term."""
    means, counts = terms(case)(model(*case)[1], batch)
    assert float(counts["task_loss"]) == float(means["task_loss"].count)
    return {name: (float(t.total), float(t.count)) for name, t in means.items()}


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    return all(np.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.slow_unless("case1", "case2", "case4")
@pytest.mark.parametrize("case", CASES)
def test_micro_batches_add_up_and_padding_counts_nowhere(case: tuple[str, Any]) -> None:
    """Three rows at a time, cut to the longest one, with two rows of padding."""
    batch, sums = rows(case[1]), None
    length = int(batch["size"].max())
    for i in (0, 3):
        part = {}
        for name, x in batch.items():
            x = x[i : i + 3, ..., :length] if name in ("tokens", "tags") else x[i : i + 3]
            fill = -1 if name in ("tags", "label") and x.dtype == jnp.int32 else 0
            wide = [(0, 2)] + [(0, 0)] * (x.ndim - 1)
            part[name] = jnp.pad(x, wide, constant_values=fill)
        new = values(case, part)
        sums = new if sums is None else {k: np.add(sums[k], new[k]) for k in new}
    assert sums is not None
    for name, whole in values(case, batch).items():
        assert close(sums[name], whole)


@pytest.mark.parametrize("kind", ["classification", "regression", "qa", "multilabel"])
def test_a_row_without_a_label_is_in_no_loss(kind: str) -> None:
    assert values(("bert", kind), rows(kind))["task_loss"][1] == 5  # of 6 rows


def test_a_missing_option_has_probability_zero() -> None:
    batch = rows("choice")
    padded = {k: jnp.concatenate([x, 0 * x[:, :1]], 1) for k, x in batch.items() if x.ndim > 1}
    expected, loss = (values(("bert", "choice"), b) for b in (batch, {**batch, **padded}))
    assert close(loss["task_loss"], expected["task_loss"])
    objective, params = model("bert", "choice")
    out = jax.jit(objective.outputs)(params, {**batch, **padded})
    assert np.isneginf(out[:, 3]).all()
    assert np.isfinite(out[:, :3]).all()


def test_regression_trains_on_scaled_labels_and_returns_their_unit() -> None:
    batch = rows("regression")
    plain, params = model("bert", "regression")
    scaled = objectives.build(finetune_config("bert", "regression", scale=5.0))
    a, b = (jax.jit(o.outputs)(params, batch) for o in (scaled, plain))
    assert np.allclose(a, 5 * b)
    loss = jax.jit(scaled.terms)(params, {**batch, "label": 5 * batch["label"]}, None)["task_loss"]
    assert close([loss.total, loss.count], values(("bert", "regression"), batch)["task_loss"])


@pytest.mark.slow_unless("case0", "case1", "case2", "case3")
@pytest.mark.parametrize("case", [*CASES, ("roberta", "classification"), ("electra", "tagging")])
def test_the_gradient_reaches_every_parameter(case: tuple[str, Any]) -> None:
    objective, params = model(*case)
    batch = rows(case[1])

    def loss(p: Any) -> jax.Array:
        return objectives.total_loss(
            objective.weights, objective.terms(p, batch, None), objective.counts(batch)
        )

    for name, g in pytree.flatten_with_names(jax.jit(jax.grad(loss))(params)).items():
        assert g.any() or name.endswith("key/bias"), name


# ---- joint spans, an independent implementation


def dense(p: Any, x: Any) -> Any:
    return x @ p["kernel"] + p.get("bias", 0.0)


def gelu(x: Any) -> Any:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def norm(p: Any, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]


class JointSpans:
    """The joint spans of one row in float64."""

    def __init__(self, family: str, p: Any, h: Any, size: int, context: int) -> None:
        self.albert, self.p, self.h = family == "albert", p, h
        at = np.arange(len(h))
        last = size - 1 if self.albert else size  # ALBERT's p_mask also excludes the last [SEP]
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


def spans(family: str, batch: Any) -> list[JointSpans]:
    objective, params = model(family, "qa")
    network, _ = objective.encoder(params)
    encoder = {k: params[k] for k in ("embeddings", "encoder")}
    out: Any = jax.jit(Network(network.config).apply)({"params": encoder}, batch)
    hidden, p = np.float64(out["hidden"]), jax.tree.map(np.float64, params["span"])
    sizes, contexts = np.asarray(batch["size"]), np.asarray(batch["context"])
    return [JointSpans(family, p, *row) for row in zip(hidden, sizes, contexts, strict=True)]


@pytest.mark.parametrize("family", ["albert", "electra"])
def test_joint_span_loss_is_the_published_one(family: str) -> None:
    batch = rows("qa")
    labels = {k: np.asarray(batch[k]) for k in ("start", "end", "impossible")}
    loss = 0.0
    for row, start, end, impossible in zip(spans(family, batch), *labels.values(), strict=True):
        if start < 0:  # it has no label
            continue
        impossible = max(impossible, start == 0) if family == "albert" else impossible
        ends = log_softmax(row.start)[start] + log_softmax(row.end(start))[end]
        sign = 1 if impossible else -1
        loss += -0.5 * ends + 0.5 * np.log1p(np.exp(-sign * row.answerable()))
    total, count = values((family, "qa"), batch)["task_loss"]
    assert count == 5
    assert abs(total - loss) <= 1e-5 * loss


@pytest.mark.parametrize(("family", "beam"), [("albert", 5), ("electra", 20)])
def test_joint_span_search_is_the_published_one(family: str, beam: int) -> None:
    batch = rows("qa")
    objective, params = model(family, "qa")
    out = jax.tree.map(np.asarray, jax.jit(objective.outputs)(params, batch))
    assert out["end"].shape == (6, beam, beam)
    for i, row in enumerate(spans(family, batch)):
        log_p = log_softmax(row.start)
        k = min(beam, row.allowed.sum())
        assert out["start_at"][i][:k].tolist() == np.argsort(-log_p)[:k].tolist()
        assert np.allclose(out["start"][i][:k], np.sort(log_p)[::-1][:k], atol=1e-4)
        assert abs(out["answerable"][i] - row.answerable()) <= 1e-4
        for j in range(k):
            ends = log_softmax(row.end(out["start_at"][i, j]))
            assert np.allclose(out["end"][i, j][:k], np.sort(ends)[::-1][:k], atol=1e-4)
            assert np.allclose(ends[out["end_at"][i, j][:k]], out["end"][i, j][:k], atol=1e-4)


def test_starts_are_positions_that_may_answer() -> None:
    batch = rows("qa")
    objective, params = model("albert", "qa")
    at = np.asarray(jax.jit(objective.outputs)(params, batch)["start_at"])[:, :4]
    context, size = (np.asarray(batch[k])[:, None] for k in ("context", "size"))
    inside = (at >= context) & (at < size - 1)
    assert (inside | (at == 0)).all()


# ---- configs, initialization, learning rates and sharding


def test_parameter_shapes_are_the_caller_s_own_also_where_labels_are_a_list() -> None:
    labels: Any = ["no", "yes"]  # as a config file may write them
    objective = Supervised(task="classification", labels=labels)
    experiment = replace(tiny_configs.FAMILIES["bert"], objective=objective)
    shapes = objectives.param_shapes(experiment)
    shapes.pop("encoder")
    again = objectives.param_shapes(replace(experiment, objective=dict(labels=tuple(labels))))
    assert again.keys() - shapes.keys() == {"encoder"}


def test_each_family_has_its_published_head() -> None:
    for family, kind, head, span, init, dropout in [
        ("bert", "classification", "pooler", "linear", "same", 0.1),
        ("spanbert", "qa", "pooler", "linear", "same", 0.1),
        ("albert", "qa", "pooler", "joint", "same", 0.1),
        ("roberta", "choice", "pooler", "linear", "same", 0.0),
        ("electra", "classification", "first", "joint", "glorot", 0.1),
        ("electra", "tagging", "first", "joint", "glorot", 0.0),
    ]:
        task = config.supervised_objective(family, kind)  # type: ignore[arg-type]
        assert (task.head, task.span, task.init, task.dropout) == (head, span, init, dropout)
    assert config.supervised_objective("albert", "qa", unanswerable=False).span == "linear"
    assert config.supervised_objective("electra", "stsb").scale == 5.0
    assert config.supervised_objective("bert", "stsb").scale == 1.0
    assert config.supervised_objective("spanbert", "mnli").family == "bert"
    with pytest.raises(ValueError, match="family is 'gpt': expected bert"):
        config.supervised_objective("gpt", "qa")


def test_the_last_layer_of_electra_has_glorot_initialization() -> None:
    objective = objectives.build(finetune_config("electra", "classification"))
    kernel = np.asarray(jax.jit(objective.init)(KEY)["label"]["dense"]["kernel"])
    bound = math.sqrt(6 / sum(kernel.shape))
    assert 0.8 * bound < np.abs(kernel).max() <= bound


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_a_partition_spec(case: tuple[str, Any]) -> None:
    mesh = sharding.abstract_mesh(config.Mesh(data=1, fsdp=2, tensor=2))
    for head in ("pooler", "first", "gelu"):
        objective = objectives.build(replace(finetune_config(*case), objective=dict(head=head)))
        for name, leaf in pytree.flatten_with_names(jax.eval_shape(objective.init, KEY)).items():
            assert isinstance(sharding.partition_spec(name, leaf.shape, mesh), PartitionSpec)


@pytest.mark.parametrize("changes", [dict(dropout=1.0), dict(scale=0.0)])
def test_invalid_dropout_and_scale_are_rejected(changes: Any) -> None:
    with pytest.raises(ValueError, match=r"objective\.(dropout|scale) is"):
        Supervised(**changes)


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("classification", ["prediction", "label"]),
        ("tagging", ["prediction", "tag"]),
    ],
)
def test_joint_spans_leave_the_heads_of_other_tasks_alone(task: Any, names: list[str]) -> None:
    """ELECTRA's objective has joint spans for every task, and only questions use them."""
    objective = Supervised(task=task, family="electra", head="prediction", span="joint")
    assert list(task_heads(objective)) == names
