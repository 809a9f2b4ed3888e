"""Frozen parameters keep every bit, cost no state, and change nothing for the others."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax import optim
from bert_jax.config import Experiment, Optim, replace
from bert_jax.config.freeze import parse_freeze
from bert_jax.utils.pytree import flatten_with_names

DEPTH = optim.Depth(4)
KERNEL, OWN = "encoder/layers/mlp/up/kernel", "encoder/layers/own/up/kernel"
SHAPES = {"embeddings/word": (5, 3), KERNEL: (4, 3, 3), OWN: (2, 2, 3, 3), "pooler/kernel": (3, 3)}


def tree(seed: int) -> Any:
    rng, out = np.random.default_rng(seed), {}
    for name, shape in SHAPES.items():
        inner = out
        *folders, leaf = name.split("/")
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = jnp.asarray(rng.normal(size=shape), jnp.float32)
    return out


def train(config: Optim, grads_of: Any = lambda g: g) -> tuple[Any, Any]:
    """Three updates of four layers; a negative zero is among the frozen numbers."""
    params = tree(0)
    params["embeddings"]["word"] = params["embeddings"]["word"].at[0].set(-0.0)
    params["encoder"]["layers"]["mlp"]["up"]["kernel"] *= jnp.array([-0.0, 1, 1, 1])[:, None, None]
    tx = optim.optimizer(config, 10, optim.layerwise_lr_decay(0.5, DEPTH), DEPTH)

    @jax.jit
    def run(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        for g in grads:
            updates, state = tx.update(grads_of(g), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    return run(params, [tree(step) for step in range(1, 4)])


@pytest.mark.parametrize("name", ["lamb", "muon"])
def test_frozen_rows_keep_every_bit_and_others_move_as_without_them(name: Any) -> None:
    """Without `freeze`, gradients of 0 at the frozen rows give the same update to the others."""
    config = Optim(name=name, warmup_steps=1, freeze="embeddings,0-1")
    zeroed = lambda g: optim.zero_frozen(config.freeze, DEPTH, g)  # noqa: E731
    before, (after, state) = train(replace(config, peak_lr=0.0))[0], train(config)
    other, _ = train(replace(config, freeze=None), zeroed)
    b, a, o = (flatten_with_names(x) for x in (before, after, other))
    frozen = {"embeddings/word": np.s_[:], KERNEL: np.s_[:2], OWN: np.s_[0]}
    for leaf, rows in frozen.items():
        assert np.asarray(a[leaf][rows]).tobytes() == np.asarray(b[leaf][rows]).tobytes()
    for leaf, rows in {KERNEL: np.s_[2:], OWN: np.s_[1], "pooler/kernel": np.s_[:]}.items():
        np.testing.assert_allclose(a[leaf][rows], o[leaf][rows], rtol=1e-6)
        assert (a[leaf][rows] != b[leaf][rows]).all()
    sizes = {k: x.shape for k, x in flatten_with_names(moments(state).m).items()}
    assert sizes == {KERNEL: (2, 3, 3), OWN: (1, 2, 3, 3), "pooler/kernel": (3, 3)}
    assert int(optim.updates_done(state)) == 3


def moments(state: Any) -> optim.Moments:
    leaves = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, optim.Moments))
    return next(s for s in leaves if isinstance(s, optim.Moments))


def test_encoder_freezes_all_but_the_heads() -> None:
    frozen = {
        name: bool(optim.is_frozen(parse_freeze("encoder"), DEPTH, name, shape).all())
        for name, shape in {**SHAPES, "encoder/norm/scale": (3,), "label/dense/bias": (2,)}.items()
    }
    free = {name for name, is_ in frozen.items() if not is_}
    assert free == {"pooler/kernel", "label/dense/bias"}
    assert optim.frozen_counts("0", DEPTH, tree(0)) == (9 + 9, 15 + 36 + 36 + 9)


def test_numbers_are_those_of_the_discriminator() -> None:
    frozen = parse_freeze("0")
    assert not optim.is_frozen(frozen, DEPTH, f"generator/{KERNEL}", (3, 2, 2)).any()
    assert optim.is_frozen(frozen, DEPTH, f"discriminator/{KERNEL}", (4, 2, 2)).tolist() == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("freeze", "layers", "message"),
    [
        ("0-4", 4, "names layer 4: the model has layers 0 to 3"),
        ("1", 8, "some of the layers 0 to 1, which share their parameters"),
    ],
)
def test_layers_that_cannot_be_frozen_are_named(freeze: str, layers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.is_frozen(parse_freeze(freeze), optim.Depth(layers), KERNEL, (4, 3, 3))


def test_the_layer_without_a_first_norm_shares_none_with_the_second() -> None:
    """Of two layers, one has a norm before its attention; without `first_norm`, the second."""
    norm = "encoder/layers/attention/norm/scale"
    depth = optim.Depth(2, first_norm=False)
    frozen = [optim.is_frozen(parse_freeze(n), depth, norm, (1, 3)).tolist() for n in "01"]
    assert frozen == [[False], [True]]
    with pytest.raises(ValueError, match="some of the layers 0 to 1, which share"):
        optim.is_frozen(parse_freeze("0"), optim.Depth(2), norm, (1, 3))


@pytest.mark.parametrize("text", ["embedding", "5-0", "", "0,,1", "-1"])
def test_an_unreadable_field_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"optim\.freeze has '.*': expected"):
        replace(Experiment(), optim=dict(freeze=text))


@pytest.mark.peer
def test_clipping_and_adamw_equal_pytorch_with_frozen_parameters() -> None:
    """Of four layers two have `requires_grad = False` there."""
    torch = pytest.importorskip("torch")
    config = Optim(name="adamw", peak_lr=1e-2, warmup_steps=0, freeze="0,2", decay="all")
    config = replace(config, schedule="trapezoid", cooldown_ratio=0.0)
    start = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    params: Any = {"encoder": {"layers": {"kernel": jnp.asarray(start)}}}
    theirs = [torch.nn.Parameter(torch.tensor(x), i % 2 == 1) for i, x in enumerate(start)]
    peer = torch.optim.AdamW(theirs, lr=1e-2, eps=config.eps, weight_decay=config.weight_decay)
    tx = optim.optimizer(config, 100, depth=DEPTH)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(3):
        g = 5 * np.random.default_rng(step).normal(size=(4, 3, 3)).astype(np.float32)
        grads = {"encoder": {"layers": {"kernel": jnp.asarray(g)}}}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for p, x in zip(theirs, g, strict=True):
            p.grad = torch.tensor(x) if p.requires_grad else None
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        peer.step()
    expected = np.stack([p.detach().numpy() for p in theirs])
    ours = params["encoder"]["layers"]["kernel"]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
