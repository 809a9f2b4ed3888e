# ruff: noqa: E402  what follows is skipped where the peers are absent
"""XLM-RoBERTa, CamemBERT and DistilBERT: the same network as RoBERTa and BERT under other names.
Outputs, losses and all gradients equal transformers'; export after import is bit for bit."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")

from bert_jax import convert, objectives
from bert_jax.config import Imported, Supervised
from bert_jax.convert.hf_families import FAMILIES
from tests.helpers import hf_reference

pytestmark = pytest.mark.peer

TOLERANCE = 1e-5
MODELS = {"xlm-roberta": "XLMRoberta", "camembert": "Camembert", "distilbert": "DistilBert"}
TASKS = {
    "classification": "SequenceClassification",
    "tagging": "TokenClassification",
    "choice": "MultipleChoice",
    "qa": "QuestionAnswering",
}
# the other classes of RoBERTa's siblings differ in their names only
CASES = [
    ("distilbert", "classification"),
    ("xlm-roberta", "classification"),
    *(
        pytest.param(family, task, marks=pytest.mark.slow)
        for family, task in [
            ("distilbert", "tagging"),
            ("distilbert", "choice"),
            ("distilbert", "qa"),
            ("camembert", "choice"),
        ]
    ),
]


@cache
def masked_model(family: str) -> Any:
    return hf_reference.make_model(family, hf_reference.odd_config(family, 1), 1)


def by_saved_names(hf: Any, tensors: Any) -> Any:
    """Tied tensors once, by the names in a saved file."""
    tied = FAMILIES[hf.config.model_type].tied
    return {tied.get(name, name): tensor for name, tensor in tensors.items()}


def assert_round_trip(hf: Any) -> tuple[Any, Any]:
    config, tensors = hf_reference.config_json(hf), by_saved_names(hf, hf_reference.tensors(hf))
    experiment, params = convert.from_hf(config, tensors)
    written, back, left_out = convert.to_hf(experiment, params)
    assert not left_out
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (back[name].shape, back[name].dtype) == (tensor.shape, tensor.dtype)
        assert back[name].tobytes() == tensor.tobytes(), name
    again = type(hf.config)(**written).to_dict()
    derived = ("architectures", "dtype", "problem_type", "label2id")
    for key, value in hf.config.to_dict().items():
        assert value is None or key in derived or again[key] == value, key
    return experiment, params


@pytest.mark.parametrize("family", MODELS)
def test_masked_model_equals_transformers(family: str) -> None:
    hf = masked_model(family)
    experiment, params = assert_round_trip(hf)
    batch = hf_reference.make_batch(hf.config, 2)
    hf.zero_grad()
    out = hf_reference.forward(hf, batch, output_hidden_states=True)
    hf_loss = hf_reference.masked_loss(out.logits, batch)
    hf_loss.backward()
    objective = objectives.build(experiment)
    arrays = {k: jnp.asarray(v) for k, v in batch.items()}
    network, _ = objective.mask_filler(params)
    network = network.clone(return_layers=True)

    def f(params: Any) -> Any:
        terms = objective.terms(params, arrays, None)
        loss = objectives.total_loss(objective.weights, terms, objective.counts(arrays))
        return loss, network.apply({"params": params}, arrays)["layers"]  # type: ignore[index]

    (loss, layers), grads = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
    assert hf_reference.relative_error(loss, hf_loss.detach().numpy()) <= TOLERANCE
    keep = hf_reference.is_real(batch)
    for ours, theirs in zip(layers, out.hidden_states, strict=True):
        assert hf_reference.relative_error(ours[keep], theirs.detach().numpy()[keep]) <= TOLERANCE
    slopes = convert.to_hf(experiment, grads).tensors
    errors = hf_reference.relative_errors(slopes, by_saved_names(hf, hf_reference.gradients(hf)))
    errors = {k: v for k, v in errors.items() if "k_lin.bias" not in k}  # zero in exact arithmetic
    assert max(errors.values()) <= TOLERANCE, max(errors, key=errors.__getitem__)


@pytest.mark.parametrize(("family", "task"), CASES)
def test_task_heads_equal_transformers(family: str, task: str) -> None:
    labels = dict(id2label={0: "no", 1: "perhaps", 2: "yes"}) if task != "qa" else {}
    config = hf_reference.odd_config(family, 3, **(labels if task != "choice" else {}))
    torch.manual_seed(4)
    hf = getattr(T, f"{MODELS[family]}For{TASKS[task]}")(config).eval()
    with torch.no_grad():
        for p in hf.parameters():
            p.normal_(std=0.15) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    experiment, params = assert_round_trip(hf)
    assert isinstance(experiment.objective, Supervised)
    assert experiment.objective.task_type == task
    batch = hf_reference.make_batch(hf.config, 5)
    arrays = {k: jnp.asarray(batch[k]) for k in ("tokens", "size", "first")}
    options = {k: v[None] if task == "choice" else v for k, v in arrays.items()}
    ours: Any = jax.jit(objectives.build(experiment).outputs)(params, options)
    long = lambda x: torch.tensor(np.asarray(x)).long()  # noqa: E731
    real = np.arange(arrays["tokens"].shape[1]) < batch["size"][:, None]
    inputs = [options["tokens"], real[None] if task == "choice" else real]
    with torch.no_grad():
        out = hf(input_ids=long(inputs[0]), attention_mask=long(inputs[1]))
    if task == "qa":
        for end in ("start", "end"):
            theirs = out[f"{end}_logits"].numpy()[real]
            assert hf_reference.relative_error(ours[end][real], theirs) <= TOLERANCE
        return
    keep = real if task == "tagging" else slice(None)
    assert hf_reference.relative_error(ours[keep], out.logits.numpy()[keep]) <= TOLERANCE


def test_old_files_without_a_model_type_are_recognized() -> None:
    hf = masked_model("xlm-roberta")
    config = hf_reference.config_json(hf)
    config.pop("model_type")
    experiment, _ = convert.from_hf(config, hf_reference.tensors(hf))
    assert experiment.encoder.position_offset == hf.config.pad_token_id + 1


def test_bare_distilbert_has_no_heads() -> None:
    hf = masked_model("distilbert").distilbert
    experiment, params = assert_round_trip(hf)
    assert experiment.objective == Imported("distilbert")
    assert "type" not in params["embeddings"]
