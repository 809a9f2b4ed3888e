"""Optimizers and schedules in float64, from the published formulas, and parameters for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT, Optim
from bert_jax.optim import num_layer_axes, optimizer
from bert_jax.utils.pytree import flatten_with_names

SHAPES = {
    "embeddings": {"word": (11, 4), "norm": {"scale": (4,)}},
    "encoder": {
        "layers": {
            "attention": {"query": {"kernel": (3, 4, 4), "bias": (3, 4)}},
            "attention_norm": {"scale": (3, 4)},
            "own": {"mlp": {"up": {"kernel": (3, 2, 4, 8), "bias": (3, 2, 8)}}},
        }
    },
    "mlm": {"bias": (11,)},
}
NAMES = ["bert_adam", "lamb", "fairseq_adam", "adamw", "stable_adamw"]
PUBLISHED = [e.optim for e in (BERT, ALBERT, ROBERTA, ELECTRA, SPANBERT)]


def normal(seed, scale=1.0):
    rng = np.random.default_rng(seed)

    def draw(shape):
        return jnp.array(np.float32(scale * rng.normal(size=shape)))

    return jax.tree.map(draw, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def steady(**changes):
    """A config whose first update already moves: no warm-up, no clipping."""
    return Optim(**({"peak_lr": 1e-2, "warmup_steps": 0, "clip_norm": None} | changes))


@functools.cache
def compiled(config, steps):
    opt = optimizer(config, steps)

    def step(carry, grads):
        params, state = carry
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p, g: jax.lax.scan(step, (p, opt.init(p)), g)[0][0])


def run(config, params, gradients, steps):
    """Parameters after one update per gradient, all in one compiled scan."""
    return compiled(config, steps)(params, jax.tree.map(lambda *g: np.stack(g), *gradients))


def first(opt, params, grads):
    """The first update, and the state after it."""
    return jax.jit(lambda p, g: opt.update(g, opt.init(p), p))(params, grads)


def rate(c, t, T):
    """The published schedules in plain Python."""
    w, peak, left = c.warmup_steps, c.peak_lr, max(1 - t / T, 0)
    if c.schedule == "electra":
        return peak * left * min(1, t / w if w else 1)
    if t < w or (c.schedule != "bert" and t == w > 0):
        return peak * t / w
    if c.schedule == "roberta" and t < T:
        return peak * (1 - (t - w) / (T - w))
    return peak * left


def reference(c, params, gradients, steps):
    """Parameters after one update per gradient, in float64, one separate layer at a time."""
    out, gradients = {}, [flatten_with_names(g) for g in gradients]
    for name, leaf in flatten_with_names(params).items():
        axes, weight = num_layer_axes(name), "norm" not in name and not name.endswith("bias")
        p = np.float64(leaf).reshape(-1, *leaf.shape[axes:])  # layers first
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, grads in enumerate(gradients):
            g, lr = np.float64(grads[name]).reshape(p.shape), rate(c, t, steps)
            m, v = c.b1 * m + (1 - c.b1) * g, c.b2 * v + (1 - c.b2) * g * g
            m1, v1 = 1 - c.b1 ** (t + 1), 1 - c.b2 ** (t + 1)
            wd = c.weight_decay if weight or c.decay == "all" else 0.0
            if c.name == "fairseq_adam":
                p = p - lr * wd * p
                p = p - lr * np.sqrt(v1) / m1 * m / (np.sqrt(v) + c.eps)
                continue
            u = m / (np.sqrt(v) + c.eps)
            if c.name in ("adamw", "stable_adamw"):
                u = m / m1 / (np.sqrt(v / v1) + c.eps)
            u = u + wd * p
            for i in range(len(p)):
                ratio = 1.0
                if c.name == "lamb" and weight:
                    ratio = np.linalg.norm(p[i]) / np.linalg.norm(u[i])
                if c.name == "stable_adamw":
                    rms = np.sqrt((g[i] ** 2 / np.maximum(v[i] / v1, c.eps**2)).mean())
                    ratio = 1 / max(1, rms)
                p[i] -= lr * ratio * u[i]
        out[name] = p.reshape(leaf.shape)
    return out


def assert_close(actual, expected, tolerance):
    for name, leaf in flatten_with_names(actual).items():
        error = np.abs(np.float64(leaf) - expected[name]).max() / np.abs(expected[name]).max()
        assert error < tolerance, (name, error)
