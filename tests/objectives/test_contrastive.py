"""Losses of sentence encoders: those of sentence-transformers, and what is no negative."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import BERT, Contrastive, replace
from bert_jax.objectives import ContrastiveObjective, total_loss

B, C, D = 6, 2, 8


def build(**fields: Any) -> ContrastiveObjective:
    objective: Any = Contrastive(**{"loss": "ranking"} | fields)
    built = objectives.build(replace(BERT, objective=objective))
    assert isinstance(built, ContrastiveObjective)
    return built


def outputs() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = {"query": (B, D), "documents": (B, C, D)}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


def batch(**changes: Any) -> dict[str, Any]:
    """Rows of different texts: query i has the number i, its documents 100 i + 50 + k."""
    documents = np.arange(B)[:, None] * 100 + 50 + np.arange(C)
    fields = {
        "query_text": np.arange(B),
        "query_size": np.full(B, 3),
        "document_text": documents,
        "document_size": np.full((B, C), 3),
        "positives": documents[:, :1],
        "position": np.arange(B),
        "score": np.linspace(-0.5, 1, B, dtype=np.float32),
    }
    return {name: jnp.asarray(x) for name, x in (fields | changes).items()}


def loss_of(objective: ContrastiveObjective, out: Any, rows: Any, params: Any = None) -> jax.Array:
    terms = objective.coupled_terms(params or {}, out, rows)
    return total_loss(objective.weights, terms, objective.counts(rows))


def reference(torch: Any, name: str, a: Any, documents: Any, score: Any) -> Any:
    """The loss as sentence-transformers computes it, written in PyTorch: a scale of 20, and a
    margin of .5."""
    F = torch.nn.functional
    b = documents[:, 0]
    cosine = F.cosine_similarity(a, b)
    if name in ("ranking", "symmetric", "matryoshka"):
        total = 0.0
        for size in (3, D) if name == "matryoshka" else (D,):
            columns = F.normalize(documents[..., :size].transpose(0, 1).reshape(-1, size), dim=-1)
            scores = F.normalize(a[:, :size], dim=-1) @ columns.T * 20
            target = torch.arange(B)
            total = total + F.cross_entropy(scores, target)
        if name == "symmetric":
            total = (total + F.cross_entropy(scores[:, :B].T, target)) / 2
        return total
    if name == "cosine":
        return F.mse_loss(cosine, score)
    if name == "margin":
        label, distance = (score > 0).float(), 1 - cosine
        return 0.5 * (label * distance**2 + (1 - label) * F.relu(0.5 - distance) ** 2).mean()
    gaps = (cosine[:, None] - cosine[None, :]) * 20
    gaps = gaps - (1 - (score[:, None] < score[None, :]).float()) * 1e12
    return torch.logsumexp(torch.cat((torch.zeros(1), gaps.view(-1))), dim=0)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ranking", {}),
        ("symmetric", {"symmetric": True}),
        ("matryoshka", {"dimensions": (3,)}),
        ("cosine", {"loss": "cosine"}),
        ("margin", {"loss": "margin"}),
        ("cosent", {"loss": "cosent"}),
    ],
)
def test_loss_and_gradient_are_those_of_sentence_transformers(name: str, fields: dict) -> None:
    import torch

    rows = batch()
    if name == "margin":
        rows["score"] = (rows["score"] > 0).astype(jnp.float32)
    objective, out = build(**fields), outputs()
    loss, grads = jax.jit(jax.value_and_grad(lambda out: loss_of(objective, out, rows)))(out)
    peer = {k: torch.tensor(np.asarray(x), requires_grad=True) for k, x in out.items()}
    score = torch.tensor(np.asarray(rows["score"]))
    expected = reference(torch, name, peer["query"], peer["documents"], score)
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    for key, x in peer.items():
        assert np.allclose(grads[key], x.grad, atol=1e-5 * float(x.grad.abs().max()) + 1e-8)


def test_a_false_negative_has_no_part_in_the_loss() -> None:
    """Query 0 is not ranked below its own text, its positive in another row, or another positive
    that the data names for it; the log counts them. Without the mask it is."""
    texts = np.array(batch()["document_text"])
    texts[1, 0], texts[2, 1], texts[3, 1] = 50, 0, 77  # positive of 0, text of 0, named
    positives = np.full((B, 2), -1)
    positives[:, 0] = texts[:, 0]
    positives[0, 1] = 77
    rows, out = batch(document_text=texts, positives=positives), outputs()

    masked = [(1, 0), (2, 1), (3, 1)]
    gradient = jax.grad(lambda q: loss_of(build(), out | {"query": q}, rows))(out["query"])[0]
    moved = out["documents"]
    for i, k in masked:
        moved = moved.at[i, k].add(5.0)
    with_moved = {"query": out["query"], "documents": moved}
    again = jax.grad(lambda q: loss_of(build(), with_moved | {"query": q}, rows))(out["query"])[0]
    assert np.array_equal(gradient, again)
    terms = build().coupled_terms({}, out, rows)
    assert float(terms["false_negatives"].total) == 4  # row 1 has the positive of row 0 as its own
    unmasked = build(mask_false_negatives=False)
    assert loss_of(unmasked, out, rows) > loss_of(build(), out, rows)
    plain = jax.grad(lambda q: loss_of(unmasked, out | {"query": q}, rows))(out["query"])[0]
    assert not np.allclose(plain, gradient)


def test_equal_vectors_find_nothing() -> None:
    """An encoder that gives all texts one vector does not have the positive first."""
    terms = build().coupled_terms({}, jax.tree.map(jnp.ones_like, outputs()), batch())
    assert float(terms["task_accuracy"].value) == 0
    assert float(terms["candidates"].value) == B * C
    assert float(terms["task_loss"].value) == pytest.approx(np.log(B * C), rel=1e-6)


def test_a_missing_hard_negative_is_no_document() -> None:
    size = np.full((B, C), 3)
    size[:, 1] = 0
    out = outputs()
    only_positives = {"query": out["query"], "documents": out["documents"][:, :1]}
    rows = batch()
    fewer = rows | {k: rows[k][:, :1] for k in ("document_text", "document_size")}
    assert float(loss_of(build(), out, batch(document_size=size))) == pytest.approx(
        float(loss_of(build(), only_positives, fewer)), rel=1e-6
    )


def test_similarities_in_chunks_are_those_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    f = jax.value_and_grad(lambda o: loss_of(build(symmetric=True), o, batch()))
    whole = jax.jit(f)(outputs())
    monkeypatch.setattr("bert_jax.objectives.contrastive.ROWS_PER_CHUNK", 2)
    parts = jax.jit(lambda o: f(o))(outputs())  # traced anew
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_learned_temperature_scales_similarities() -> None:
    learned, fixed = build(learn_temperature=True), build(temperature=0.2)
    params = {"temperature": jnp.float32(np.log(5.0))}
    assert float(loss_of(learned, outputs(), batch(), params)) == pytest.approx(
        float(loss_of(fixed, outputs(), batch())), rel=1e-6
    )
    gradient = jax.grad(lambda p: loss_of(learned, outputs(), batch(), p))(params)
    assert abs(float(gradient["temperature"])) > 1e-3


def test_a_temperature_below_its_limit_can_rise_again() -> None:
    """The loss is that of the limit, and its gradient reaches the parameter."""
    learned, low = build(learn_temperature=True), jnp.float32(np.log(100) + 0.1)
    loss, gradient = jax.value_and_grad(
        lambda t: loss_of(learned, outputs(), batch(), {"temperature": t})
    )(low)
    limit = loss_of(build(temperature=0.01), outputs(), batch())
    assert float(loss) == pytest.approx(float(limit), rel=1e-6)
    assert float(gradient) > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "objective.temperature is 0.0: expected above 0"),
        ({"margin": 3.0}, "objective.margin is 3.0"),
        ({"dimensions": (0,)}, "objective.dimensions"),
        ({"max_negatives": -1}, "objective.max_negatives is -1"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Contrastive(**fields)
