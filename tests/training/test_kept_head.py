"""A fine-tuned model that is fine-tuned further keeps its head where the task is the same."""

import re
from typing import Any

import numpy as np
import pytest

from bert_jax import config, objectives
from bert_jax.config import FINETUNE, Experiment, Supervised
from bert_jax.inference.model import Model
from bert_jax.tasks import ANSWERABLE_LABELS
from bert_jax.training import kept_head, warm_start
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.hf_fixtures import random_params

ENCODER = dict(layers=1, hidden_size=8, heads=1, vocab_size=11, max_length=8)


def experiment(**objective: Any) -> Experiment:
    return config.replace(FINETUNE, encoder=ENCODER, objective=objective)


def transferred(old: Experiment, new: Experiment) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The old parameters, what the new run takes of them, and the message."""
    params = random_params(old)
    like = objectives.param_shapes(new)
    decision = kept_head.decide(old.objective, new.objective, "runs/a")
    model = Model(old, params, None)  # type: ignore[arg-type]
    result = warm_start.transfer_params(model, like, decision)
    return flatten_with_names(params), result.params, result.head


@pytest.mark.parametrize("task", ["classification", "tagging", "multilabel"])
def test_a_head_of_the_same_labels_is_kept_and_reordered_by_name(task: Any) -> None:
    old = experiment(task=task, labels=("a", "b", "c"))
    before, after, message = transferred(old, experiment(task=task, labels=("c", "a", "b")))
    head = "tag" if task == "tagging" else "label"
    for leaf in ("kernel", "bias"):
        name = f"{head}/dense/{leaf}"
        assert np.array_equal(after[name], before[name][..., [2, 0, 1]])
    assert message == (
        "the head of runs/a is kept: same task and labels (in another order); --new-head trains a "
        "new one"
    )
    before, after, _ = transferred(old, old)
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("task", ["regression", "qa", "choice"])
def test_a_head_without_label_names_is_kept(task: Any) -> None:
    before, after, message = transferred(experiment(task=task), experiment(task=task))
    assert before.keys() == after.keys()
    assert message == "the head of runs/a is kept: same task; --new-head trains a new one"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (dict(task="classification", labels=("a", "b")), dict(task="sst2", labels=("a", "b"))),
        (dict(task="regression", labels=("score",)), dict(task="stsb")),
        (dict(task="qa"), dict(task="qa", labels=ANSWERABLE_LABELS)),
    ],
)
def test_a_head_is_kept_whatever_its_task_is_called(old: Any, new: Any) -> None:
    """A model of Hugging Face does not say which GLUE task it is for, nor whether all questions
    have an answer; it may name a number."""
    before, after, message = transferred(experiment(**old), experiment(**new))
    assert ("and labels" in message) == (old["task"] == "classification")
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(new_head=True), "--new-head is given"),
        (dict(labels=("a", "b", "x")), r"its labels are others \(only it has c; it lacks x\)"),
        (dict(task="tagging"), "its task type is classification, here tagging"),
        (dict(head="first"), "its head is pooler, here first"),
    ],
)
def test_otherwise_the_head_is_new_and_the_reason_is_said(change: dict, reason: str) -> None:
    old = dict(task="classification", labels=("a", "b", "c"))
    _, after, message = transferred(experiment(**old), experiment(**old | change))
    assert not [name for name in after if name.startswith(("label/", "tag/"))]
    assert re.search(reason, message)
    assert message.startswith("the head of runs/a is not used, a new one is trained: ")


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("tagging", dict(head="gelu", span="linear"), dict(head="first", span="joint")),
        ("classification", dict(span="linear", pooling="mean"), dict(span="joint")),
        ("qa", dict(head="prediction", pooling="mean"), dict(head="prediction")),
        ("choice", dict(scale=5.0), {}),
    ],
)
def test_fields_that_a_task_does_not_use_decide_nothing(task: Any, old: dict, new: dict) -> None:
    """An imported ELECTRA has a GELU head and linear spans, a new run of it joint spans."""
    configs = [experiment(task=task, **fields).objective for fields in (old, new)]
    assert kept_head.decide(*configs, "m").kept


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("qa", dict(span="linear"), dict(span="joint")),
        ("regression", dict(scale=5.0), {}),
        ("classification", dict(head="prediction", pooling="mean"), dict(head="prediction")),
        ("tagging", dict(head="prediction"), {}),
    ],
)
def test_fields_that_a_task_uses_decide(task: Any, old: dict, new: dict) -> None:
    configs = [experiment(task=task, **fields).objective for fields in (old, new)]
    assert not kept_head.decide(*configs, "m").kept


def test_a_pretrained_model_has_no_head_to_keep() -> None:
    assert kept_head.decide(config.BERT.objective, Supervised(), "m") == kept_head.NO_HEAD
