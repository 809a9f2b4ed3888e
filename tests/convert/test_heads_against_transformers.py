# ruff: noqa: E402  what follows is skipped where the peers are absent
"""Fine-tuned heads beside transformers' classes: outputs, losses, gradients, and the way there
and back."""

from __future__ import annotations

import itertools
import logging
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")

from bert_jax import config, convert, load, objectives, optim
from bert_jax.config import Supervised, replace
from bert_jax.convert.export import export_model
from bert_jax.data.tokenization import tokenizer as tokenizers
from tests.helpers import hf_reference
from tests.helpers.hf_fixtures import LoadedModel, random_params, write_hf_folder
from tests.helpers.tiny_configs import FAMILIES as SMALL

pytestmark = pytest.mark.peer

TOLERANCE = 1e-5
CLASSES = {
    "classification": "SequenceClassification",
    "multilabel": "SequenceClassification",
    "regression": "SequenceClassification",
    "tagging": "TokenClassification",
    "choice": "MultipleChoice",
    "qa": "QuestionAnswering",
}
FAMILIES = ["bert", "albert", "roberta", "electra"]
CASES = [
    (family, kind)
    for family, kind in itertools.product(FAMILIES, CLASSES)
    if kind != "multilabel" or family == "bert"  # the head is that of classification
]
NAMED = ("classification", "multilabel", "tagging")
LABELS = ("no", "perhaps", "yes")


@cache
def hf_model(family: str, kind: str) -> Any:
    """A random model of odd sizes with three labels, or the one number of a regression."""
    named = LABELS[:1] if kind == "regression" else LABELS
    labels: dict[str, Any] = dict(id2label=dict(enumerate(named)))
    labels |= dict(label2id={name: i for i, name in enumerate(named)})
    rate = "classifier_dropout_prob" if family == "albert" else "classifier_dropout"
    if kind == "choice":
        own = {"electra": "summary_last_dropout", "roberta": "hidden_dropout_prob"}
        rate = own.get(family, rate)
    labels = labels if kind in (*NAMED, "regression") else {}
    labels |= dict(problem_type="multi_label_classification") if kind == "multilabel" else {}
    sizes = hf_reference.odd_config(family, 3, **labels, **{rate: 0.2})
    torch.manual_seed(4)
    model = getattr(T, f"{family.capitalize()}For{CLASSES[kind]}")(sizes)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.15) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def rows(hf: Any, kind: str) -> dict[str, np.ndarray]:
    """Six rows with labels; spans in full ones, as theirs admits padding for an answer."""
    one, rng = hf_reference.make_batch(hf.config, 5, rows=6), np.random.default_rng(6)
    length = one["tokens"].shape[1]
    if kind == "qa":
        one["size"] = np.full(6, length, np.int32)
        one["tokens"] = rng.integers(2, hf.config.vocab_size, (6, length)).astype(np.int32)
        one["start"], one["end"] = rng.integers(0, length, (2, 6)).astype(np.int32)
    elif kind == "tagging":
        tagged = hf_reference.is_real(one) & (rng.random((6, length)) < 0.6)
        one["tags"] = np.where(tagged, rng.integers(0, 3, (6, length)), -1).astype(np.int32)
    elif kind == "regression":
        one["label"] = rng.normal(size=6).astype(np.float32)
    elif kind == "classification":
        one["label"] = rng.integers(0, 3, 6).astype(np.int32)
    elif kind == "multilabel":
        one["label"] = rng.integers(0, 2, (6, 3)).astype(np.int32)
    else:
        one = {k: one[k].reshape(2, 3, *one[k].shape[1:]) for k in ("tokens", "size", "first")}
        one["label"] = np.array([2, 0], np.int32)
        at = np.arange(length)
        types = (at >= one["first"][..., None]) & (at < one["size"][..., None])
        one["types"] = types * (hf.config.type_vocab_size - 1)
    return one


def call(hf: Any, one: dict[str, np.ndarray]) -> Any:
    long = lambda x: torch.tensor(x).long()  # noqa: E731
    labels = {k: long(one[k]) for k in ("start", "end") if k in one}
    targets = {f"{k}_positions": v for k, v in labels.items()}
    if "tags" in one:
        targets = {"labels": long(np.where(one["tags"] < 0, -100, one["tags"]))}
    elif "label" in one:
        number = one["label"].dtype == np.float32 or one["label"].ndim == 2
        targets = {"labels": torch.tensor(one["label"]).float() if number else long(one["label"])}
    real = np.arange(one["tokens"].shape[-1]) < one["size"][..., None]
    return hf(
        input_ids=long(one["tokens"]),
        attention_mask=long(real),
        token_type_ids=long(one["types"]),
        **targets,
    )


def outputs_of(out: Any, one: dict[str, np.ndarray]) -> dict[str, Any]:
    """Their logits as ours are laid out, the padding cut off."""
    if "start_logits" in out:
        return {k: out[f"{k}_logits"].detach().numpy() for k in ("start", "end")}
    logits = out.logits.detach().numpy()
    if "tags" in one:
        logits = logits[hf_reference.is_real(one)]
    return {"logits": logits[:, 0] if logits.shape[-1] == 1 else logits}


def native_outputs(objective: Any, params: Any, one: dict[str, np.ndarray]) -> dict[str, Any]:
    out = jax.jit(objective.outputs)(params, {k: jnp.asarray(v) for k, v in one.items()})
    if isinstance(out, dict):
        return out
    return {"logits": out[hf_reference.is_real(one)] if "tags" in one else out}


def without_slope(hf: Any, kind: str) -> list[str]:
    """Biases that add one number to all that a softmax compares: no gradient in exact
    arithmetic."""
    if kind == "choice":
        return ["classifier.bias"]
    if kind != "qa":
        return []
    last = ("output.LayerNorm.bias", "full_layer_layer_norm.bias")
    norms = [n for n, _ in hf.named_parameters() if n.endswith(last)]
    return ["qa_outputs.bias", *norms[-1:]]


@pytest.mark.slow_unless(
    "bert-multilabel",
    "bert-regression",
    "albert-qa",
    "roberta-classification",
    "electra-tagging",
    "electra-choice",
)
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_outputs_loss_and_gradients_equal_transformers(family: str, kind: str) -> None:
    hf = hf_model(family, kind)
    one = rows(hf, kind)
    experiment, params = hf_reference.to_native(hf)
    objective = objectives.build(experiment)
    assert isinstance(experiment.objective, Supervised)
    assert experiment.objective.task_type == kind
    hf.zero_grad()
    hf_out = call(hf, one)
    hf_out.loss.backward()
    expected, native = outputs_of(hf_out, one), native_outputs(objective, params, one)
    for name, logits in expected.items():
        assert hf_reference.relative_error(native[name], logits) <= TOLERANCE

    batch = {k: jnp.asarray(v) for k, v in one.items()}

    def loss(params: Any) -> jax.Array:
        terms = objective.terms(params, batch, None)
        return objectives.total_loss(objective.weights, terms, objective.counts(batch))

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert hf_reference.relative_error(value, hf_out.loss.detach().numpy()) <= TOLERANCE
    slopes, expected = convert.to_hf(experiment, grads).tensors, hf_reference.gradients(hf)
    for free in without_slope(hf, kind):
        scale = np.abs(expected[free.replace("bias", "weight")]).max()
        assert np.abs(slopes.pop(free) - expected.pop(free)).max() <= TOLERANCE * scale
    worst = hf_reference.relative_errors(slopes, expected)
    assert max(worst.values()) <= TOLERANCE, max(worst, key=worst.__getitem__)


@pytest.mark.slow_unless("classification")
@pytest.mark.parametrize("kind", ["classification", "tagging", "multilabel"])
def test_class_weights_smoothing_and_frozen_layers_equal_pytorch(kind: str) -> None:
    """The loss of a whole model and the gradients of what is not frozen."""
    hf, one, weights = hf_model("bert", kind), rows(hf_model("bert", kind), kind), (0.5, 2.0, 1.25)
    experiment, params = hf_reference.to_native(hf)
    objective = objectives.build(
        replace(experiment, objective=dict(label_weights=weights, label_smoothing=0.1))
    )
    frozen = [p for n, p in hf.named_parameters() if ".embeddings." in n or ".layer.0." in n]
    hf.zero_grad()
    for p in frozen:
        p.requires_grad_(False)
    gold = torch.tensor(one["tags" if kind == "tagging" else "label"])
    logits = call(hf, one).logits.flatten(0, -2)
    if kind == "multilabel":
        hf_loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, gold * 0.9 + 0.05, pos_weight=torch.tensor(weights)
        )
    else:
        hf_loss = torch.nn.functional.cross_entropy(
            logits,
            gold.long().flatten(),
            torch.tensor(weights),
            ignore_index=-1,
            label_smoothing=0.1,
        )
    hf_loss.backward()
    expected = hf_reference.gradients(hf)
    for p in frozen:  # the model is shared by tests
        p.requires_grad_(True)

    batch = {k: jnp.asarray(v) for k, v in one.items()}

    def loss(params: Any) -> jax.Array:
        terms = objective.terms(params, batch, None)
        return objectives.total_loss(objective.weights, terms, objective.counts(batch))

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert hf_reference.relative_error(value, hf_loss.detach().numpy()) <= TOLERANCE
    depth = optim.network_depth(experiment)
    grads = optim.zero_frozen("embeddings,0", depth, grads)
    slopes = convert.to_hf(experiment, grads).tensors
    zero = {name for name, x in slopes.items() if not np.any(x)}
    assert {n for n in slopes if ".embeddings." in n or ".layer.0." in n} <= zero
    for name in zero:
        assert not np.any(expected.pop(name))
        slopes.pop(name)
    worst = hf_reference.relative_errors(slopes, expected)
    assert max(worst.values()) <= TOLERANCE, max(worst, key=worst.__getitem__)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_export_and_import_is_identical(family: str, kind: str) -> None:
    hf_tuned = hf_model(family, kind)
    hf, tensors = hf_reference.config_json(hf_tuned), hf_reference.tensors(hf_tuned)
    experiment, params = convert.from_hf(hf, tensors)
    written, back, left_out = convert.to_hf(experiment, params)
    assert not left_out
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[k], tensors[k]) for k in tensors)
    again = type(hf_tuned.config)(**written).to_dict()
    for key, value in hf_tuned.config.to_dict().items():
        if key not in ("architectures", "dtype", "problem_type"):
            assert again[key] == value, key
    if kind in NAMED:
        assert experiment.objective.labels == LABELS  # type: ignore[union-attr]
    assert experiment.objective.dropout == 0.2  # type: ignore[union-attr]


def fine_tuned(family: str, kind: Any, folder: Path, **changes: Any) -> LoadedModel:
    """A model of ours with random parameters and the head of its family."""
    write_hf_folder(folder)
    tokenizer = tokenizers.load_tokenizer(folder)
    task = "stsb" if kind == "regression" else kind
    labels = LABELS if kind in NAMED else ()
    changes |= dict(thresholds=(0.25, 0.5, 0.75)) if kind == "multilabel" else {}
    objective = config.supervised_objective(family, task, labels, unanswerable=False, **changes)
    encoder = replace(SMALL[family].encoder, vocab_size=tokenizer.vocab_size)
    if family == "roberta":  # the tokenizer pads with 0
        encoder = replace(encoder, pad_id=0, position_offset=1)
    experiment = replace(SMALL[family], encoder=encoder, objective=objective)
    return LoadedModel(experiment, random_params(experiment), tokenizer, 7)


@pytest.mark.slow_unless(
    "bert-multilabel",
    "albert-choice",
    nightly=(
        "roberta-classification",
        "roberta-regression",
        "roberta-tagging",
        "albert-regression",
    ),
)
@pytest.mark.parametrize(("family", "kind"), [*CASES, ("spanbert", "qa")])
def test_export_opens_in_transformers_without_warnings(
    family: str, kind: str, tmp_path: Path, caplog: Any
) -> None:
    """Also ELECTRA's linear head, which theirs has no class for, and STS-B's scale."""
    changes = dict(span="linear") if kind == "qa" else {}
    model = fine_tuned(family, kind, tmp_path / "hf", **changes)
    assert export_model(model, tmp_path / "hf", "hf", tmp_path / "out") == []
    T.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        reader = getattr(T, f"AutoModelFor{CLASSES[kind]}")
        hf, info = reader.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert not caplog.records, caplog.text
    one = rows(hf.eval(), kind)
    if model.config.encoder.token_types < 2:
        one["types"] = np.zeros_like(one["types"])
    hf_outputs = outputs_of(call(hf, one), one)
    native = native_outputs(objectives.build(model.config), model.params, one)
    for name, logits in hf_outputs.items():
        assert hf_reference.relative_error(native[name], logits) <= TOLERANCE
    if kind in NAMED:
        assert tuple(hf.config.id2label.values()) == LABELS
    if kind == "regression":
        assert hf.config.problem_type == "regression"
    if kind == "multilabel":
        assert hf.config.problem_type == "multi_label_classification"
        assert load(tmp_path / "out").task.thresholds == (0.25, 0.5, 0.75)
    card = (tmp_path / "out/README.md").read_text()
    assert f"AutoModelFor{CLASSES[kind]}.from_pretrained" in card
    assert "no, perhaps, yes" in card or kind not in NAMED
    assert ("no 0.2500, perhaps 0.5000, yes 0.7500" in card) == (kind == "multilabel")
