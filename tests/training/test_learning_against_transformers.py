# ruff: noqa: E402  what follows is skipped where the peers are absent
"""50 steps here and in PyTorch from the same weights, on the same batches and masks, dropout
off, each side with its own rendering of the published optimiser: the same loss curve."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bert_jax import convert, objectives, optim
from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, Optim
from tests.helpers import hf_reference

pytestmark = pytest.mark.peer

STEPS, BATCHES, TOLERANCE = 50, 5, 1e-3
QUICK: dict[str, Any] = dict(warmup_steps=5, peak_lr=2e-3)


class Published:
    """The optimisers over PyTorch tensors, from common section 7's formulas."""

    def __init__(self, named: dict[str, Any], config: Optim) -> None:
        self.named, self.c = named, config
        self.m, self.v = ({k: torch.zeros_like(p) for k, p in named.items()} for _ in "mv")

    def rate(self, t: int) -> float:
        w, total = self.c.warmup_steps, STEPS
        if self.c.schedule == "electra":
            return self.c.peak_lr * (1 - t / total) * min(1, t / w)
        if self.c.schedule == "roberta":
            return self.c.peak_lr * (t / w if t <= w else 1 - (t - w) / (total - w))
        return self.c.peak_lr * (t / w if t < w else 1 - t / total)

    @torch.no_grad()
    def step(self, t: int) -> None:
        c, grads = self.c, {k: p.grad for k, p in self.named.items()}
        if c.clip_norm is not None:
            size = torch.sqrt(sum((g * g).sum() for g in grads.values()))
            grads = {k: g * min(1.0, c.clip_norm / float(size)) for k, g in grads.items()}
        for name, p in self.named.items():
            weight = not any(s in name for s in ("bias", "LayerNorm", "layer_norm"))
            m, v, g = self.m[name], self.v[name], grads[name]
            m.mul_(c.b1).add_((1 - c.b1) * g)
            v.mul_(c.b2).add_((1 - c.b2) * g * g)
            update = m / (v.sqrt() + c.eps)
            if c.name == "fairseq_adam":
                p.mul_(1 - self.rate(t) * c.weight_decay)
                update *= (1 - c.b2 ** (t + 1)) ** 0.5 / (1 - c.b1 ** (t + 1))
            elif weight:
                update += c.weight_decay * p
            if c.name == "lamb" and weight and p.norm() > 0 and update.norm() > 0:
                update *= p.norm() / update.norm()
            p.sub_(self.rate(t) * update)


def batches(config: Any) -> list[dict[str, np.ndarray]]:
    return [hf_reference.make_batch(config, 100 + i, rows=6) for i in range(BATCHES)]


def our_step(built: Any, config: Optim) -> Any:
    transform = optim.optimizer(config, STEPS)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        def loss(p: Any) -> jax.Array:
            return objectives.total_loss(
                built.weights, built.terms(p, batch, None), built.counts(batch)
            )

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step, transform.init


def assert_same_curve(native: list[float], hf: list[float]) -> None:
    a, b = np.array(native), np.array(hf)
    assert b[-BATCHES:].mean() < 0.95 * b[:BATCHES].mean(), "nothing was learned"
    error = (np.abs(a - b) / b).max()
    print(f"largest relative error: {error:.1e} of {STEPS} losses")  # shown by pytest -rP
    assert error <= TOLERANCE


@pytest.mark.slow_unless("roberta-base2")
@pytest.mark.parametrize(
    ("kind", "base"), [("bert", BERT), ("albert", ALBERT), ("roberta", ROBERTA)]
)
def test_masked_families(kind: str, base: Any) -> None:
    model = hf_reference.make_model(kind, hf_reference.odd_config(kind, 3), 3, scale=None)
    experiment, params = hf_reference.to_native(model)
    changes = QUICK | (dict(peak_lr=5e-2) if kind == "albert" else {})
    config = dataclasses.replace(base.optim, **changes)
    step, init = our_step(objectives.build(experiment), config)
    published = Published(dict(model.named_parameters()), config)
    state, curves = init(params), ([], [])
    rows = batches(model.config)
    for t in range(STEPS):
        one = rows[t % BATCHES]
        params, state, value = step(params, state, {k: jnp.asarray(v) for k, v in one.items()})
        model.zero_grad()
        loss = hf_reference.pretraining_loss(model, one)
        loss.backward()
        published.step(t)
        curves[0].append(float(value))
        curves[1].append(loss.item())
    assert_same_curve(*curves)


@pytest.mark.slow
def test_electra() -> None:
    """One optimiser over both towers and the embeddings that they share; the tokens that our
    generator sampled are handed to the peer's discriminator."""
    config = hf_reference.odd_config(
        "electra", 3, hidden_size=64, num_attention_heads=4, intermediate_size=256
    )
    small = hf_reference.odd_config(
        "electra_generator",
        3,
        **{
            k: getattr(config, k)
            for k in (
                "vocab_size",
                "num_hidden_layers",
                "embedding_size",
                "max_position_embeddings",
            )
        },
        hidden_size=16,
        num_attention_heads=1,
        intermediate_size=64,
    )
    disc = hf_reference.make_model("electra", config, 3, scale=None)
    gen = hf_reference.make_model("electra_generator", small, 4, scale=None)
    # The generator may sample the padding token; theirs would give its row no gradient for that.
    disc.electra.embeddings.word_embeddings.padding_idx = None
    gen.electra.embeddings = disc.electra.embeddings
    gen.generator_lm_head.weight = disc.electra.embeddings.word_embeddings.weight
    experiment, params = convert.join_electra(
        hf_reference.to_native(disc), hf_reference.to_native(gen)
    )
    assert experiment.objective.tied == "all"  # type: ignore[union-attr]
    built = objectives.build(experiment)
    tuned = dataclasses.replace(ELECTRA.optim, **QUICK)
    step, init = our_step(built, tuned)

    @jax.jit
    def sampled(params: Any, batch: Any) -> jax.Array:
        network, tower = built.mask_filler(params)
        out: Any = network.apply({"params": tower}, batch)
        logits = out["mlm"].logits(tower["embeddings"]["word"])
        return built.replace(batch, built.sample(logits, batch["sampling"]))  # type: ignore[attr-defined]

    named = {id(p): (n, p) for m in (gen, disc) for n, p in m.named_parameters()}
    published = Published({f"{i} {n}": p for i, (n, p) in enumerate(named.values())}, tuned)
    rows, state, curves = batches(config), init(params), ([], [])
    for t in range(STEPS):
        one = rows[t % BATCHES]
        keys = np.random.default_rng(t).integers(0, 2**32, (6, 2)).astype(np.uint32)
        batch = {k: jnp.asarray(v) for k, v in {**one, "sampling": keys}.items()}
        tokens = np.asarray(sampled(params, batch))
        params, state, value = step(params, state, batch)
        gen.zero_grad()
        disc.zero_grad()
        loss = hf_reference.pretraining_loss(gen, one) + 50 * hf_reference.pretraining_loss(
            disc, one, tokens
        )
        loss.backward()
        published.step(t)
        curves[0].append(float(value))
        curves[1].append(loss.item())
    assert_same_curve(*curves)
