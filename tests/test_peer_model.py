# ruff: noqa: E402  what follows is skipped where the peers are absent
"""Outputs and the gradient of every parameter equal those of transformers, float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import peers

from bert_jax import convert, losses, objectives
from bert_jax.config import Encoder, Imported
from bert_jax.model import Network
from bert_jax.model.encoder import Attention, Embeddings, Inputs, Mlp

pytestmark = pytest.mark.peer

MODULE, WHOLE = 1e-5, 1e-4
KINDS = ["bert", "albert", "roberta", "electra", "electra_generator"]
SEEDS = [0, 1]


def network(experiment: Any) -> Network:
    """Of the imported model; a lone tower's objective has nothing to build a loss from."""
    objective = experiment.objective
    if isinstance(objective, Imported):
        heads = {h: convert.HEADS[h] for h in objective.heads}
        return Network(experiment.encoder, heads, keep=True)
    built = objectives.build(experiment)
    return Network(experiment.encoder, built.network.heads, keep=True)  # type: ignore[attr-defined]


def on_device(one: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v) for k, v in one.items()}


def our_loss(experiment: Any, one: dict[str, np.ndarray]) -> Any:
    """params -> the loss, by the objective's own terms and by the losses of a lone tower."""
    batch, net = on_device(one), network(experiment)
    if not isinstance(experiment.objective, Imported):
        built = objectives.build(experiment)
        return lambda p: objectives.total(
            built.weights, built.terms(p, batch, None), built.counts(batch)
        )

    def lone(params: Any) -> jax.Array:
        out: Any = net.apply({"params": params}, batch)
        if "mlm" in out:
            logits = losses.project(*out["mlm"], params["embeddings"]["word"])
            return losses.cross_entropy(logits, batch["targets"], batch["weights"])[0].value
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        keep = jnp.asarray(peers.real(one), jnp.float32)
        return losses.sigmoid_cross_entropy(out["rtd"], labels, keep).value

    return lone


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    worst = peers.errors(ours, theirs)
    name = max(worst, key=worst.__getitem__)
    assert worst[name] <= tolerance, f"{name} is off by {worst[name]:.1e}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_model(kind: str, seed: int) -> None:
    made = peers.model(kind, peers.odd_config(kind, seed), seed)
    one = peers.batch(made.config, seed)
    experiment, params = peers.imported(made)
    made.zero_grad()
    loss = peers.loss(made, one, one["tokens"] if kind == "electra" else None)
    loss.backward()
    value, grads = jax.jit(jax.value_and_grad(our_loss(experiment, one)))(params)
    assert peers.error(value, loss.detach().numpy()) <= WHOLE
    assert_close(convert.to_hf(experiment, grads).tensors, peers.gradients(made), WHOLE)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_layer_and_head(kind: str, seed: int) -> None:
    made = peers.model(kind, peers.odd_config(kind, seed), seed)
    one = peers.batch(made.config, seed)
    experiment, params = peers.imported(made)
    with torch.no_grad():
        theirs = peers.call(made, one, output_hidden_states=True)
    out: Any = jax.jit(network(experiment).apply)({"params": params}, on_device(one))
    keep = peers.real(one)
    for i, layer in enumerate(theirs.hidden_states):
        if layer.shape[-1] == out["layers"].shape[-1]:  # theirs starts before the projection
            assert peers.error(out["layers"][i][keep], layer.numpy()[keep]) <= WHOLE
    if "mlm" in out:
        logits = losses.project(*out["mlm"], params["embeddings"]["word"])
        full = theirs["logits" if "logits" in theirs else "prediction_logits"].numpy()
        assert peers.error(logits, np.take_along_axis(full, one["masked"][..., None], 1)) <= WHOLE
    for name in {"seq_relationship_logits", "sop_logits"} & set(theirs):
        assert peers.error(out["pair"], theirs[name].numpy()) <= WHOLE
    if "rtd" in out:
        assert peers.error(out["rtd"][keep], theirs.logits.numpy()[keep]) <= WHOLE


# ---- module by module: the output and the gradient of (output x a random direction)


def compare(
    ours: Any, params: Any, x: np.ndarray | None, theirs: Any, module: Any, keep: np.ndarray
) -> float:
    """Largest error of the output, of the input's gradient and of every parameter's.

    `ours(params, x)` and `theirs(x)` give the same array; `params` are under their names.
    """
    module.zero_grad()
    seen = None if x is None else torch.from_numpy(x).requires_grad_()
    expected = theirs(seen)
    direction = np.random.default_rng(0).normal(size=tuple(expected.shape)).astype(np.float32)
    direction *= keep.reshape(keep.shape + (1,) * (direction.ndim - keep.ndim))
    (expected * torch.from_numpy(direction)).sum().backward()

    def value(p: Any, x: Any) -> Any:
        y = ours(p, x)
        return (y * direction).sum(), y

    which = 0 if x is None else (0, 1)
    (_, got), grads = jax.jit(jax.value_and_grad(value, which, has_aux=True))(params, x)
    worst = [peers.error(got[keep], expected.detach().numpy()[keep])]
    if seen is not None:
        grads, to_input = grads
        worst.append(peers.error(to_input, seen.grad.numpy()))  # type: ignore[union-attr]
    by_name = peers.errors({k: np.asarray(v) for k, v in grads.items()}, peers.gradients(module))
    return max([*worst, *by_name.values()])


def parts(kind: str, seed: int) -> tuple[Any, Encoder, Any, dict[str, np.ndarray], np.ndarray]:
    made = peers.model(kind, peers.odd_config(kind, seed), seed)
    one = peers.batch(made.config, seed)
    experiment, _ = peers.imported(made)
    x = np.random.default_rng(seed).normal(
        size=(*one["tokens"].shape, made.config.hidden_size)
    ).astype(np.float32)  # fmt: skip
    return made, experiment.encoder, getattr(made, made.base_model_prefix), one, x


def affine(p: Any, name: str) -> dict[str, Any]:
    return {"kernel": p[f"{name}.weight"].T, "bias": p[f"{name}.bias"]}


def norm(p: Any, name: str) -> dict[str, Any]:
    return {"scale": p[f"{name}.weight"], "bias": p[f"{name}.bias"]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings(kind: str, seed: int) -> None:
    _, c, body, one, _ = parts(kind, seed)
    at = jnp.broadcast_to(jnp.arange(one["tokens"].shape[1]), one["tokens"].shape)
    x = Inputs(jnp.asarray(one["tokens"]), jnp.asarray(one["types"]), at, jnp.ones((1, 1, 1), bool))

    def ours(p: Any, _: Any) -> Any:
        tables = {k: p[f"{v}_embeddings.weight"] for k, v in
                  (("word", "word"), ("position", "position"), ("type", "token_type"))}  # fmt: skip
        tree = {**tables, "norm": norm(p, "LayerNorm")}
        return Embeddings(c).apply({"params": tree}, x)

    ids, types = (torch.from_numpy(one[k]).long() for k in ("tokens", "types"))
    module = body.embeddings
    theirs = lambda _: module(input_ids=ids, token_type_ids=types)  # noqa: E731
    params = peers.tensors(module)
    assert compare(ours, params, None, theirs, module, peers.real(one)) <= MODULE


def layer_of(kind: str, body: Any) -> Any:
    if kind == "albert":
        return body.encoder.albert_layer_groups[0].albert_layers[0]
    return body.encoder.layer[0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_attention_layer(kind: str, seed: int) -> None:
    _, c, body, one, x = parts(kind, seed)
    module, keep = layer_of(kind, body).attention, peers.real(one)
    names = ("query", "key", "value", "dense", "LayerNorm") if kind == "albert" else (
        "self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")  # fmt: skip

    def ours(p: Any, x: Any) -> Any:
        q, k, v, out, ln = names
        tree = {"query": affine(p, q), "key": affine(p, k), "value": affine(p, v),
                "out": affine(p, out), "norm": norm(p, ln)}  # fmt: skip
        return Attention(c).apply({"params": tree}, x, jnp.asarray(keep)[:, None])

    hidden = torch.from_numpy(np.where(keep, 0.0, -1e9).astype(np.float32))[:, None, None]
    theirs = lambda x: module(x, attention_mask=hidden)[0]  # noqa: E731
    assert compare(ours, peers.tensors(module), x, theirs, module, keep) <= MODULE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_mlp(kind: str, seed: int) -> None:
    _, c, body, one, x = parts(kind, seed)
    layer = layer_of(kind, body)
    if kind == "albert":
        names = ("ffn", "ffn_output", "full_layer_layer_norm")
        module = torch.nn.ModuleDict({n: getattr(layer, n) for n in names})
        theirs = lambda x: layer.full_layer_layer_norm(layer.ff_chunk(x) + x)  # noqa: E731
    else:
        names = ("up.dense", "down.dense", "down.LayerNorm")
        module = torch.nn.ModuleDict({"up": layer.intermediate, "down": layer.output})
        theirs = lambda x: layer.output(layer.intermediate(x), x)  # noqa: E731

    def ours(p: Any, x: Any) -> Any:
        up, down, ln = names
        tree = {"up": affine(p, up), "down": affine(p, down), "norm": norm(p, ln)}
        return Mlp(c).apply({"params": tree}, x)

    params = peers.tensors(module)
    assert compare(ours, params, x, theirs, module, peers.real(one)) <= MODULE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("kind", "head"),
    [("bert", "mlm"), ("bert", "pooler"), ("bert", "pair"), ("albert", "mlm"),
     ("albert", "pooler"), ("albert", "pair"), ("roberta", "mlm"),
     ("electra_generator", "mlm"), ("electra", "rtd")],
)  # fmt: skip
def test_heads(kind: str, head: str, seed: int) -> None:
    made, c, body, _, x = parts(kind, seed)
    everywhere = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    batch = {"masked": jnp.asarray(everywhere)}
    keep, theirs = np.ones(x.shape[:2], bool), None
    if head == "mlm" and kind == "electra_generator":
        names = ("a.dense", "a.LayerNorm", "b.bias", "b.weight")
        module = torch.nn.ModuleDict({"a": made.generator_predictions,
                                      "b": made.generator_lm_head})  # fmt: skip
        theirs = lambda x: made.generator_lm_head(made.generator_predictions(x))  # noqa: E731
    elif head == "mlm":
        module, names = {
            "bert": (getattr(made, "cls", None), ("predictions.transform.dense",
                     "predictions.transform.LayerNorm", "predictions.bias",
                     "predictions.decoder.weight")),
            "albert": (getattr(made, "predictions", None),
                       ("dense", "LayerNorm", "bias", "decoder.weight")),
            "roberta": (getattr(made, "lm_head", None),
                        ("dense", "layer_norm", "bias", "decoder.weight")),
        }[kind]  # fmt: skip
        module = module.predictions if kind == "bert" else module
        names = tuple(n.removeprefix("predictions.") for n in names)
    elif head == "pooler":
        x, keep = x[:, :3].copy(), np.ones(x.shape[0], bool)
        module = body.pooler
        names = ("weight", "bias") if kind == "albert" else ("dense.weight", "dense.bias")
        if kind == "albert":
            theirs = lambda x: body.pooler_activation(module(x[:, 0]))  # noqa: E731
    elif head == "pair":
        x, keep = x[:, 0].copy(), np.ones(x.shape[0], bool)
        module, names = {
            "bert": (getattr(getattr(made, "cls", None), "seq_relationship", None), ("",)),
            "albert": (getattr(made, "sop_classifier", None), ("classifier.",)),
        }[kind]
    else:
        module, names = made.discriminator_predictions, ("dense", "dense_prediction")
    assert module is not None

    def ours(p: Any, x: Any) -> Any:
        if head == "mlm":
            d, n, bias, table = names
            tree = {"dense": affine(p, d), "norm": norm(p, n), "bias": p[bias]}
            features, b = convert.HEADS[head](c).apply({"params": tree}, {"hidden": x}, batch)
            return losses.project(features, b, p[table])  # type: ignore[arg-type]
        if head == "pooler":
            tree = {"dense": {"kernel": p[names[0]].T, "bias": p[names[1]]}}
        elif head == "pair":
            tree = {"dense": {"kernel": p[f"{names[0]}weight"].T, "bias": p[f"{names[0]}bias"]}}
        else:
            tree = {"dense": affine(p, names[0]), "out": affine(p, names[1])}
        out = {"pooler" if head == "pair" else "hidden": x}
        return convert.HEADS[head](c).apply({"params": tree}, out, batch)

    assert compare(ours, peers.tensors(module), x, theirs or module, module, keep) <= MODULE
