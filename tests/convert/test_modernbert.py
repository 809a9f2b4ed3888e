# ruff: noqa: E402  what follows is skipped where the peers are absent
"""ModernBERT in both directions: on random odd sizes outputs and the gradients of all parameters
equal transformers'; export after import is bit for bit; keys of config.json."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")

from bert_jax import convert, objectives
from bert_jax.config import Imported, Masked, Supervised
from bert_jax.convert import hf_config
from tests.helpers import hf_reference

pytestmark = pytest.mark.peer

MODULE, WHOLE = 1e-5, 1e-4
LENGTH = 40


def random_config(seed: int, **changes: Any) -> Any:
    """Odd sizes, both rotary bases; windows longer than a row for odd seeds."""
    rng = np.random.default_rng(seed)
    heads = int(rng.integers(2, 5))
    rope = {
        layer_type: dict(rope_type="default", rope_theta=float(rng.integers(50, 5000)))
        for layer_type in ("full_attention", "sliding_attention")
    }
    sizes: dict[str, Any] = dict(
        vocab_size=int(rng.integers(40, 90)) | 1,
        hidden_size=heads * 2 * int(rng.integers(3, 8)),
        intermediate_size=int(rng.integers(20, 70)) | 1,
        num_hidden_layers=int(rng.integers(4, 8)),
        num_attention_heads=heads,
        max_position_embeddings=LENGTH,
        local_attention=200 if seed % 2 else 2 * int(rng.integers(2, 6)),
        rope_parameters=rope,
        **dict.fromkeys([f"{n}_token_id" for n in ("pad", "bos", "cls", "eos", "sep")], 0),
    )
    return T.ModernBertConfig(**(sizes | changes), attn_implementation="eager")


def random_model(name: str, config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model: Any = getattr(T, name)(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p)) if p.ndim == 1 else p.normal_(std=0.15)
    return model.eval()


def round_trip(hf: Any) -> tuple[Any, Any]:
    config, tensors = hf_reference.config_json(hf), hf_reference.tensors(hf)
    experiment, params = convert.from_hf(config, tensors)
    written, back, left_out = convert.to_hf(experiment, params)
    assert not left_out
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (back[name].shape, back[name].dtype) == (tensor.shape, tensor.dtype)
        assert back[name].tobytes() == tensor.tobytes(), name
    again = type(hf.config)(**written).to_dict()
    derived = ("architectures", "dtype", "problem_type", "label2id", "classifier_pooling")
    for key, value in hf.config.to_dict().items():
        known = not key.endswith("token_id") or key == "pad_token_id"
        assert value is None or key in derived or not known or again[key] == value, key
    return experiment, jax.tree.map(jnp.asarray, params)


def batch_of(config: Any, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    size = np.array([LENGTH, 23, 9])
    real = np.arange(LENGTH) < size[:, None]
    tokens = np.where(real, rng.integers(1, config.vocab_size, (3, LENGTH)), 0)
    masked = np.stack([np.sort(rng.choice(n, 5, replace=False)) for n in size])
    targets = rng.integers(1, config.vocab_size, (3, 5))
    batch = dict(tokens=tokens, size=size, first=size, masked=masked, targets=targets)
    return {k: v.astype(np.int32) for k, v in batch.items()}


def assert_gradients(experiment: Any, grads: Any, hf: Any) -> None:
    errors = {}
    slopes, expected = convert.to_hf(experiment, grads).tensors, hf_reference.gradients(hf)
    for name, error in hf_reference.relative_errors(slopes, expected).items():
        if name.endswith("Wqkv.bias"):  # the key's part has no gradient in exact arithmetic
            error = abs(slopes[name] - expected[name]).max() / abs(expected[name]).max()
        errors[name] = error
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= WHOLE, (worst, errors[worst])


BIASED = dict(attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True)


@pytest.mark.parametrize(
    ("seed", "options"),
    [(0, dict(decoder_bias=False)), (1, BIASED), pytest.param(2, {}, marks=pytest.mark.slow)],
)
def test_masked_model_equals_transformers(seed: int, options: dict[str, Any]) -> None:
    hf = random_model("ModernBertForMaskedLM", random_config(seed, **options), seed)
    experiment, params = round_trip(hf)
    assert isinstance(experiment.objective, Masked)
    batch = batch_of(hf.config, seed)
    out = hf(
        input_ids=torch.tensor(batch["tokens"]).long(),
        attention_mask=torch.tensor(np.arange(LENGTH) < batch["size"][:, None]).long(),
        output_hidden_states=True,
    )
    rows, at = np.arange(3)[:, None], batch["masked"]
    targets = torch.tensor(batch["targets"]).long()
    hf_loss = torch.nn.functional.cross_entropy(
        out.logits[rows, at].reshape(15, -1), targets.reshape(-1)
    )
    hf_loss.backward()
    network, _ = objectives.build(experiment).mask_filler(params)
    network = network.clone(return_layers=True)

    def f(params: Any) -> Any:
        out: Any = network.apply({"params": params}, {k: jnp.asarray(v) for k, v in batch.items()})
        logits = out["mlm"].logits(params["embeddings"]["word"])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)
        return -chosen.mean(), (out["layers"], logits)

    (loss, (layers, logits)), grads = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
    keep = np.arange(LENGTH) < batch["size"][:, None]
    for native, theirs in zip(layers, out.hidden_states, strict=True):
        assert hf_reference.relative_error(native[keep], theirs.detach().numpy()[keep]) <= MODULE
    assert hf_reference.relative_error(logits, out.logits.detach().numpy()[rows, at]) <= MODULE
    assert hf_reference.relative_error(loss, hf_loss.detach().numpy()) <= MODULE
    assert_gradients(experiment, grads, hf)


LABELS: dict[str, Any] = dict(id2label={0: "no", 1: "perhaps", 2: "yes"})
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("SequenceClassification", LABELS | dict(classifier_pooling="mean")),
    "regression": ("SequenceClassification", dict(num_labels=1, classifier_pooling="cls")),
    "multilabel": (
        "SequenceClassification", LABELS | dict(problem_type="multi_label_classification"),
    ),
    "tagging": ("TokenClassification", LABELS),
    "qa": ("QuestionAnswering", {}),
    "choice": ("MultipleChoice", dict(classifier_pooling="mean")),
}  # fmt: skip


SLOW = ("regression", "multilabel", "choice")  # the class of classification, or its head


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=[pytest.mark.slow] * (t in SLOW)) for t in HEADS]
)
def test_task_heads_equal_transformers(task: str) -> None:
    """Outputs, and the gradients of their sum against random directions."""
    name, options = HEADS[task]
    config = random_config(4, num_hidden_layers=4, classifier_dropout=0.25, **options)
    hf = random_model(f"ModernBertFor{name}", config)
    experiment, params = round_trip(hf)
    objective = objectives.build(experiment)
    assert isinstance(experiment.objective, Supervised)
    assert (experiment.objective.task_type, experiment.objective.dropout) == (task, 0.25)
    assert experiment.objective.pooling == config.classifier_pooling
    batch = {k: v for k, v in batch_of(config, 5).items() if k in ("tokens", "size", "first")}
    real = np.arange(LENGTH) < batch["size"][:, None]
    as_rows = (lambda x: x[None]) if task == "choice" else (lambda x: x)
    out = hf(
        input_ids=torch.tensor(as_rows(batch["tokens"])).long(),
        attention_mask=torch.tensor(as_rows(real)).long(),
    )
    theirs = [out.start_logits, out.end_logits] if task == "qa" else [out.logits]
    keep = real if task in ("tagging", "qa") else slice(None)
    rng = np.random.default_rng(6)
    directions = [rng.normal(size=tuple(t[keep].shape)).astype(np.float32) for t in theirs]
    sum(
        (t[keep] * torch.tensor(d)).sum() for t, d in zip(theirs, directions, strict=True)
    ).backward()

    def f(params: Any) -> Any:
        rows = {k: jnp.asarray(as_rows(v)) for k, v in batch.items()}
        ours: Any = objective.outputs(params, rows)
        ours = [ours["start"], ours["end"]] if task == "qa" else [ours]
        ours = [x[keep].reshape(d.shape) for x, d in zip(ours, directions, strict=True)]
        return sum((x * d).sum() for x, d in zip(ours, directions, strict=True)), ours

    (_, ours), grads = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
    for x, t in zip(ours, theirs, strict=True):
        assert hf_reference.relative_error(x, t[keep].detach().numpy().reshape(x.shape)) <= MODULE
    assert_gradients(experiment, grads, hf)


def test_bare_model_has_no_heads_and_no_prefix() -> None:
    experiment, params = round_trip(random_model("ModernBertModel", random_config(3)))
    assert experiment.objective == Imported("modernbert")
    layers = experiment.encoder.layers
    assert params["encoder"]["layers"]["attention"]["norm"]["scale"].shape[0] == layers - 1


# ---- config.json


def encoder_of(**keys: Any) -> Any:
    return hf_config.encoder_from_hf_config({"model_type": "modernbert", **keys})


def test_both_spellings_of_the_config_are_read() -> None:
    every = ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"] * 2
    new = encoder_of(
        num_hidden_layers=8,
        layer_types=every,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
        },
    )
    old = encoder_of(
        num_hidden_layers=8,
        global_attn_every_n_layers=4,
        global_rope_theta=80_000.0,
        local_rope_theta=20_000,
        position_embedding_type="sans_pos",
        reference_compile=True,
        sparse_prediction=False,
        mask_token_id=4,
    )
    assert new == old
    assert (old.global_every, old.rotary_theta, old.local_rotary_theta) == (4, 8e4, 2e4)
    base = encoder_of()
    assert (base.rotary_theta, base.local_rotary_theta, base.window) == (160_000, 10_000, 64)
    assert encoder_of(local_rope_theta=None).local_rotary_theta == 160_000


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(new_gate=True), "has the keys new_gate, which no ModernBERT"),
        (dict(local_attention=0), "local_attention 0: expected at least 2"),
        (dict(rope_scaling={"type": "yarn"}), "rope_scaling"),
        (
            dict(rope_parameters={"full_attention": {"rope_type": "yarn", "rope_theta": 1e4}}),
            "rope_type 'yarn' for full_attention",
        ),
        (
            dict(num_hidden_layers=3, layer_types=["full_attention"] * 2 + ["sliding_attention"]),
            "layer_types without a regular pattern",
        ),
        (dict(rope_parameters={"full_attention": 3}), "full_attention': 3}: expected an object"),
        (dict(global_rope_theta=True), "rope_theta of full_attention True: expected a number"),
        (dict(num_hidden_layers=1), "layers is 1 and encoder.first_norm is False"),
        (dict(tie_word_embeddings=False), "tie_word_embeddings"),
        (dict(norm_bias="no"), "norm_bias 'no': expected true or false"),
        (dict(hidden_activation="mish"), "hidden_activation 'mish'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_of(**keys)
