# ruff: noqa: E402  what follows is skipped where the peers are absent
"""Outputs and the gradients of all parameters equal those of transformers, in float32."""

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
from bert_jax.convert.hf_families import FAMILIES
from bert_jax.convert.hf_name_rules import param_rules
from bert_jax.model import AttentionMask, EncoderInputs
from bert_jax.model.block import Attention, Mlp
from bert_jax.model.encoder import Embeddings
from bert_jax.objectives import losses
from tests.helpers import hf_reference
from tests.helpers.hf_fixtures import make_network

pytestmark = pytest.mark.peer

MODULE, WHOLE = 1e-5, 1e-4
KINDS = ["bert", "albert", "roberta", "electra", "electra_generator"]
SEEDS = [0, 1]


def on_device(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v) for k, v in batch.items()}


def native_loss(experiment: Any, batch: dict[str, np.ndarray]) -> Any:
    """params -> the loss, from the objective's terms or, for one ELECTRA tower, from its head."""
    batch = on_device(batch)
    if not isinstance(experiment.objective, Imported):
        objective = objectives.build(experiment)
        return lambda p: objectives.total_loss(
            objective.weights, objective.terms(p, batch, None), objective.counts(batch)
        )

    def tower_loss(params: Any) -> jax.Array:
        out: Any = make_network(experiment, params).apply({"params": params}, batch)
        if "mlm" in out:
            logits = out["mlm"].logits(params["embeddings"]["word"])
            return losses.cross_entropy(logits, batch["targets"], batch["weights"])[0].value
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        is_real = jnp.asarray(hf_reference.is_real(batch), jnp.float32)
        return losses.sigmoid_cross_entropy(out["rtd"], labels, is_real).value

    return tower_loss


def assert_close(native: Any, hf: Any, tolerance: float) -> None:
    worst = hf_reference.relative_errors(native, hf)
    name = max(worst, key=worst.__getitem__)
    print(f"largest relative error: {worst[name]:.1e} in {name}")  # shown by pytest -rP
    assert worst[name] <= tolerance


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_all_gradients_equal_transformers(kind: str, seed: int) -> None:
    model = hf_reference.make_model(kind, hf_reference.odd_config(kind, seed), seed)
    batch = hf_reference.make_batch(model.config, seed)
    experiment, params = hf_reference.to_native(model)
    model.zero_grad()
    loss = hf_reference.pretraining_loss(
        model, batch, batch["tokens"] if kind == "electra" else None
    )
    loss.backward()
    value, grads = jax.jit(jax.value_and_grad(native_loss(experiment, batch)))(params)
    assert hf_reference.relative_error(value, loss.detach().numpy()) <= WHOLE
    assert_close(convert.to_hf(experiment, grads).tensors, hf_reference.gradients(model), WHOLE)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_and_heads_equal_transformers(kind: str, seed: int) -> None:
    model = hf_reference.make_model(kind, hf_reference.odd_config(kind, seed), seed)
    batch = hf_reference.make_batch(model.config, seed)
    experiment, params = hf_reference.to_native(model)
    with torch.no_grad():
        hf = hf_reference.forward(model, batch, output_hidden_states=True)
    out: Any = jax.jit(make_network(experiment, params).apply)({"params": params}, on_device(batch))
    keep = hf_reference.is_real(batch)
    ours: dict[str, Any] = {}
    theirs: dict[str, np.ndarray] = {}
    for i, layer in enumerate(hf.hidden_states):
        # In transformers layer 0 is before the projection to the hidden size.
        if layer.shape[-1] == out["layers"].shape[-1]:
            ours[f"layer {i}"], theirs[f"layer {i}"] = out["layers"][i][keep], layer.numpy()[keep]
    if "mlm" in out:
        ours["mlm"] = out["mlm"].logits(params["embeddings"]["word"])
        full = hf["logits" if "logits" in hf else "prediction_logits"].numpy()
        theirs["mlm"] = np.take_along_axis(full, batch["masked"][..., None], 1)
    for name in {"seq_relationship_logits", "sop_logits"} & set(hf):
        ours["pair"], theirs["pair"] = out["pair"], hf[name].numpy()
    if "rtd" in out:
        ours["rtd"], theirs["rtd"] = out["rtd"][keep], hf.logits.numpy()[keep]
    assert_close(ours, theirs, WHOLE)


# ---- module by module: the output and the gradient of (output x a random direction)


class Module:
    """A part of a transformers model, whose parameters are given by their full names."""

    def __init__(self, kind: str, seed: int, *prefixes: str) -> None:
        self.model = hf_reference.make_model(kind, hf_reference.odd_config(kind, seed), seed)
        self.encoder_table = getattr(self.model, self.model.base_model_prefix)
        self.config: Encoder = hf_reference.to_native(self.model)[0].encoder
        self.batch = hf_reference.make_batch(self.model.config, seed)
        self.keep = hf_reference.is_real(self.batch)
        shape = (*self.batch["tokens"].shape, self.config.hidden_size)
        self.x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        family = FAMILIES[self.model.config.model_type]
        self.rules = {
            r.hf.replace("{i}", "0"): r
            for r in param_rules(family, family.head_table(family.heads), True)
        }
        self.hf_names = [n for n in self.rules if n.startswith(prefixes)]

    def tree(self, p: dict[str, Any]) -> Any:
        rules = self.rules
        flat = {rules[n].natives[0]: x.T if rules[n].transpose else x for n, x in p.items()}
        return traverse_util.unflatten_dict(flat, sep="/")

    def error(self, native: Any, hf: Any, x: np.ndarray | None, keep: np.ndarray) -> float:
        """The largest error of the output, of the input's gradient and of all parameters'.

        `native(tree, x)` and `hf(x)` should return the same array where `keep`.
        """
        named = dict(self.model.named_parameters())
        hf_x = None if x is None else torch.from_numpy(x).requires_grad_()
        expected = hf(hf_x)
        direction = np.random.default_rng(0).normal(size=tuple(expected.shape)).astype(np.float32)
        direction *= keep.reshape(keep.shape + (1,) * (direction.ndim - keep.ndim))
        (expected * torch.from_numpy(direction)).sum().backward()

        def value(p: Any, x: Any) -> Any:
            y = native(self.tree(p), x)
            return (y * direction).sum(), y

        params = {n: jnp.asarray(named[n].detach().numpy()) for n in self.hf_names}
        (_, out), (grads, x_grad) = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(
            params, jnp.zeros(()) if x is None else x
        )
        worst = [hf_reference.relative_error(out[keep], expected.detach().numpy()[keep])]
        worst += (
            [hf_reference.relative_error(x_grad, hf_x.grad.numpy())] if hf_x is not None else []
        )  # type: ignore[union-attr]
        hf_grads = {n: named[n].grad.numpy() for n in self.hf_names}
        native_grads = {n: np.asarray(g) for n, g in grads.items()}
        return max([*worst, *hf_reference.relative_errors(native_grads, hf_grads).values()])


def attention_mask(m: Module) -> AttentionMask:
    return AttentionMask(jnp.asarray(m.keep, jnp.int32), packed=False)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_equal_transformers(kind: str, seed: int) -> None:
    family = kind.removesuffix("_generator")
    m = Module(kind, seed, f"{family}.embeddings.")
    at = jnp.broadcast_to(jnp.arange(m.keep.shape[1]), m.keep.shape)
    x = EncoderInputs(
        jnp.asarray(m.batch["tokens"]), jnp.asarray(m.batch["types"]), at, attention_mask(m)
    )
    ids, types = (torch.tensor(m.batch[k]).long() for k in ("tokens", "types"))

    def native(tree: Any, _: Any) -> Any:
        return Embeddings(m.config).apply({"params": tree["embeddings"]}, x)

    hf = lambda _: m.encoder_table.embeddings(input_ids=ids, token_type_ids=types)  # noqa: E731
    assert m.error(native, hf, None, m.keep) <= MODULE


def first_layer(kind: str, body: Any) -> tuple[Any, str]:
    family = kind.removesuffix("_generator")
    if kind == "albert":
        layer = body.encoder.albert_layer_groups[0].albert_layers[0]
        return layer, "albert.encoder.albert_layer_groups.0.albert_layers.0."
    return body.encoder.layer[0], f"{family}.encoder.layer.0."


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_transformers(kind: str, seed: int) -> None:
    m = Module(kind, seed)
    layer, prefix = first_layer(kind, m.encoder_table)
    m.hf_names = [n for n in m.rules if n.startswith(f"{prefix}attention.")]
    hidden = torch.from_numpy(np.where(m.keep, 0.0, -1e9).astype(np.float32))[:, None, None]

    def native(tree: Any, x: Any) -> Any:
        params = tree["encoder"]["layers"]["attention"]
        return Attention(m.config).apply({"params": params}, x, attention_mask(m))

    hf = lambda x: layer.attention(x, attention_mask=hidden)[0]  # noqa: E731
    assert m.error(native, hf, m.x, m.keep) <= MODULE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mlp_equals_transformers(kind: str, seed: int) -> None:
    m = Module(kind, seed)
    layer, prefix = first_layer(kind, m.encoder_table)
    m.hf_names = [n for n in m.rules if n.startswith(prefix) and ".attention." not in n]
    if kind == "albert":
        hf = lambda x: layer.full_layer_layer_norm(layer.ff_chunk(x) + x)  # noqa: E731
    else:
        hf = lambda x: layer.output(layer.intermediate(x), x)  # noqa: E731

    def native(tree: Any, x: Any) -> Any:
        return Mlp(m.config).apply({"params": tree["encoder"]["layers"]["mlp"]}, x)

    assert m.error(native, hf, m.x, m.keep) <= MODULE


# the heads in transformers: the prefix of their parameters, and how they are called
HF_HEADS: dict[tuple[str, str], tuple[str, Any]] = {
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
@pytest.mark.parametrize(("kind", "head"), HF_HEADS)
def test_heads_equal_transformers(kind: str, head: str, seed: int) -> None:
    prefix, hf = HF_HEADS[kind, head]
    table = [f"{kind.removesuffix('_generator')}.embeddings.word_"] if head == "mlm" else []
    m = Module(kind, seed, prefix, *table)
    everywhere = np.broadcast_to(np.arange(m.x.shape[1]), m.x.shape[:2])
    batch = {"masked": jnp.asarray(everywhere)}
    x = m.x[:, 0].copy() if head == "pair" else m.x
    keep = np.ones(x.shape[: 2 if head in ("mlm", "rtd") else 1], bool)

    def native(tree: Any, x: Any) -> Any:
        out = {"pooler" if head == "pair" else "hidden": x}
        y: Any = convert.HEADS[head](m.config).apply({"params": tree[head]}, out, batch)
        return y.logits(tree["embeddings"]["word"]) if head == "mlm" else y

    assert m.error(native, hf(m.model), x, keep) <= MODULE
