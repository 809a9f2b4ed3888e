# ruff: noqa: E402  what follows is skipped where the peers are absent
"""Outputs and the gradient of every parameter equal those of transformers, float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from bert_jax import convert, objectives
from bert_jax.config import Encoder, Imported
from bert_jax.convert.hf_name_rules import FAMILIES, param_rules
from bert_jax.model import AttentionMask, EncoderInputs
from bert_jax.model.block import Attention, Mlp
from bert_jax.model.encoder import Embeddings
from bert_jax.objectives import losses
from tests.helpers import hf_reference
from tests.helpers.hf_fixtures import network

pytestmark = pytest.mark.peer

MODULE, WHOLE = 1e-5, 1e-4
KINDS = ["bert", "albert", "roberta", "electra", "electra_generator"]
SEEDS = [0, 1]


def on_device(one: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v) for k, v in one.items()}


def our_loss(experiment: Any, one: dict[str, np.ndarray]) -> Any:
    """params -> the loss, by the objective's own terms and by the losses of a lone tower."""
    batch = on_device(one)
    if not isinstance(experiment.objective, Imported):
        built = objectives.build(experiment)
        return lambda p: objectives.total_loss(
            built.weights, built.terms(p, batch, None), built.counts(batch)
        )

    def lone(params: Any) -> jax.Array:
        out: Any = network(experiment, params).apply({"params": params}, batch)
        if "mlm" in out:
            logits = out["mlm"].logits(params["embeddings"]["word"])
            return losses.cross_entropy(logits, batch["targets"], batch["weights"])[0].value
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        keep = jnp.asarray(hf_reference.real(one), jnp.float32)
        return losses.sigmoid_cross_entropy(out["rtd"], labels, keep).value

    return lone


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    worst = hf_reference.errors(ours, theirs)
    name = max(worst, key=worst.__getitem__)
    assert worst[name] <= tolerance, f"{name} is off by {worst[name]:.1e}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_model(kind: str, seed: int) -> None:
    made = hf_reference.model(kind, hf_reference.odd_config(kind, seed), seed)
    one = hf_reference.batch(made.config, seed)
    experiment, params = hf_reference.imported(made)
    made.zero_grad()
    loss = hf_reference.loss(made, one, one["tokens"] if kind == "electra" else None)
    loss.backward()
    value, grads = jax.jit(jax.value_and_grad(our_loss(experiment, one)))(params)
    assert hf_reference.error(value, loss.detach().numpy()) <= WHOLE
    assert_close(convert.to_hf(experiment, grads).tensors, hf_reference.gradients(made), WHOLE)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_layer_and_head(kind: str, seed: int) -> None:
    made = hf_reference.model(kind, hf_reference.odd_config(kind, seed), seed)
    one = hf_reference.batch(made.config, seed)
    experiment, params = hf_reference.imported(made)
    with torch.no_grad():
        theirs = hf_reference.call(made, one, output_hidden_states=True)
    out: Any = jax.jit(network(experiment, params).apply)({"params": params}, on_device(one))
    keep = hf_reference.real(one)
    for i, layer in enumerate(theirs.hidden_states):
        if layer.shape[-1] == out["layers"].shape[-1]:  # theirs starts before the projection
            assert hf_reference.error(out["layers"][i][keep], layer.numpy()[keep]) <= WHOLE
    if "mlm" in out:
        logits = out["mlm"].logits(params["embeddings"]["word"])
        full = theirs["logits" if "logits" in theirs else "prediction_logits"].numpy()
        assert (
            hf_reference.error(logits, np.take_along_axis(full, one["masked"][..., None], 1))
            <= WHOLE
        )
    for name in {"seq_relationship_logits", "sop_logits"} & set(theirs):
        assert hf_reference.error(out["pair"], theirs[name].numpy()) <= WHOLE
    if "rtd" in out:
        assert hf_reference.error(out["rtd"][keep], theirs.logits.numpy()[keep]) <= WHOLE


# ---- module by module: the output and the gradient of (output x a random direction)


class Module:
    """A part of a peer's model: its parameters by their full names, as our tree of leaves."""

    def __init__(self, kind: str, seed: int, *prefixes: str) -> None:
        self.made = hf_reference.model(kind, hf_reference.odd_config(kind, seed), seed)
        self.encoder_table = getattr(self.made, self.made.base_model_prefix)
        self.config: Encoder = hf_reference.imported(self.made)[0].encoder
        self.one = hf_reference.batch(self.made.config, seed)
        self.keep = hf_reference.real(self.one)
        shape = (*self.one["tokens"].shape, self.config.hidden_size)
        self.x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        family = FAMILIES[self.made.config.model_type]
        self.rules = {
            r.hf.replace("{i}", "0"): r
            for r in param_rules(family, family.head_table(family.heads), True)
        }
        self.hf_names = [n for n in self.rules if n.startswith(prefixes)]

    def tree(self, p: dict[str, Any]) -> Any:
        rules = self.rules
        flat = {rules[n].native: x.T if rules[n].transpose else x for n, x in p.items()}
        return traverse_util.unflatten_dict(flat, sep="/")

    def error(self, ours: Any, theirs: Any, x: np.ndarray | None, keep: np.ndarray) -> float:
        """Largest error of the output, of the input's gradient and of every parameter's.

        `ours(tree, x)` and `theirs(x)` give the same array where `keep`.
        """
        named = dict(self.made.named_parameters())
        seen = None if x is None else torch.from_numpy(x).requires_grad_()
        expected = theirs(seen)
        direction = np.random.default_rng(0).normal(size=tuple(expected.shape)).astype(np.float32)
        direction *= keep.reshape(keep.shape + (1,) * (direction.ndim - keep.ndim))
        (expected * torch.from_numpy(direction)).sum().backward()

        def value(p: Any, x: Any) -> Any:
            y = ours(self.tree(p), x)
            return (y * direction).sum(), y

        params = {n: jnp.asarray(named[n].detach().numpy()) for n in self.hf_names}
        (_, got), (grads, back) = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(
            params, jnp.zeros(()) if x is None else x
        )
        worst = [hf_reference.error(got[keep], expected.detach().numpy()[keep])]
        worst += [hf_reference.error(back, seen.grad.numpy())] if seen is not None else []  # type: ignore[union-attr]
        theirs_by_name = {n: named[n].grad.numpy() for n in self.hf_names}
        ours_by_name = {n: np.asarray(g) for n, g in grads.items()}
        return max([*worst, *hf_reference.errors(ours_by_name, theirs_by_name).values()])


def sight(m: Module) -> AttentionMask:
    return AttentionMask(jnp.asarray(m.keep, jnp.int32), packed=False)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings(kind: str, seed: int) -> None:
    family = kind.removesuffix("_generator")
    m = Module(kind, seed, f"{family}.embeddings.")
    at = jnp.broadcast_to(jnp.arange(m.keep.shape[1]), m.keep.shape)
    x = EncoderInputs(jnp.asarray(m.one["tokens"]), jnp.asarray(m.one["types"]), at, sight(m))
    ids, types = (torch.tensor(m.one[k]).long() for k in ("tokens", "types"))

    def ours(tree: Any, _: Any) -> Any:
        return Embeddings(m.config).apply({"params": tree["embeddings"]}, x)

    theirs = lambda _: m.encoder_table.embeddings(input_ids=ids, token_type_ids=types)  # noqa: E731
    assert m.error(ours, theirs, None, m.keep) <= MODULE


def first_layer(kind: str, body: Any) -> tuple[Any, str]:
    family = kind.removesuffix("_generator")
    if kind == "albert":
        layer = body.encoder.albert_layer_groups[0].albert_layers[0]
        return layer, "albert.encoder.albert_layer_groups.0.albert_layers.0."
    return body.encoder.layer[0], f"{family}.encoder.layer.0."


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_attention_layer(kind: str, seed: int) -> None:
    m = Module(kind, seed)
    layer, prefix = first_layer(kind, m.encoder_table)
    m.hf_names = [n for n in m.rules if n.startswith(f"{prefix}attention.")]
    hidden = torch.from_numpy(np.where(m.keep, 0.0, -1e9).astype(np.float32))[:, None, None]

    def ours(tree: Any, x: Any) -> Any:
        params = tree["encoder"]["layers"]["attention"]
        return Attention(m.config).apply({"params": params}, x, sight(m))

    theirs = lambda x: layer.attention(x, attention_mask=hidden)[0]  # noqa: E731
    assert m.error(ours, theirs, m.x, m.keep) <= MODULE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mlp(kind: str, seed: int) -> None:
    m = Module(kind, seed)
    layer, prefix = first_layer(kind, m.encoder_table)
    m.hf_names = [n for n in m.rules if n.startswith(prefix) and ".attention." not in n]
    if kind == "albert":
        theirs = lambda x: layer.full_layer_layer_norm(layer.ff_chunk(x) + x)  # noqa: E731
    else:
        theirs = lambda x: layer.output(layer.intermediate(x), x)  # noqa: E731

    def ours(tree: Any, x: Any) -> Any:
        return Mlp(m.config).apply({"params": tree["encoder"]["layers"]["mlp"]}, x)

    assert m.error(ours, theirs, m.x, m.keep) <= MODULE


# where each head stands there: prefix of its parameters, and how it is called
THERE: dict[tuple[str, str], tuple[str, Any]] = {
    ("bert", "mlm"): ("cls.predictions.", lambda m: m.cls.predictions),
    ("bert", "pooler"): ("bert.pooler.", lambda m: m.bert.pooler),
    ("bert", "pair"): ("cls.seq_relationship.", lambda m: m.cls.seq_relationship),
    ("albert", "mlm"): ("predictions.", lambda m: m.predictions),
    ("albert", "pooler"): (
        "albert.pooler.", lambda m: lambda x: m.albert.pooler_activation(m.albert.pooler(x[:, 0])),
    ),
    ("albert", "pair"): ("sop_classifier.", lambda m: m.sop_classifier),
    ("roberta", "mlm"): ("lm_head.", lambda m: m.lm_head),
    ("electra_generator", "mlm"): (
        "generator_", lambda m: lambda x: m.generator_lm_head(m.generator_predictions(x)),
    ),
    ("electra", "rtd"): ("discriminator_", lambda m: m.discriminator_predictions),
}  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "head"), THERE)
def test_heads(kind: str, head: str, seed: int) -> None:
    prefix, theirs = THERE[kind, head]
    table = [f"{kind.removesuffix('_generator')}.embeddings.word_"] if head == "mlm" else []
    m = Module(kind, seed, prefix, *table)
    everywhere = np.broadcast_to(np.arange(m.x.shape[1]), m.x.shape[:2])
    batch = {"masked": jnp.asarray(everywhere)}
    x = m.x[:, 0].copy() if head == "pair" else m.x
    keep = np.ones(x.shape[: 2 if head in ("mlm", "rtd") else 1], bool)

    def ours(tree: Any, x: Any) -> Any:
        out = {"pooler" if head == "pair" else "hidden": x}
        y: Any = convert.HEADS[head](m.config).apply({"params": tree[head]}, out, batch)
        return y.logits(tree["embeddings"]["word"]) if head == "mlm" else y

    assert m.error(ours, theirs(m.made), x, keep) <= MODULE
