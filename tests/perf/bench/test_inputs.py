"""Random rows have the form of real ones."""

import itertools
from contextlib import ExitStack
from typing import Any

import jax
import pytest

from bert_jax import objectives
from bert_jax.config import Supervised, replace
from bert_jax.perf.bench import inputs
from tests.helpers import tiny_configs

TINY = replace(tiny_configs.FAMILIES["bert"], run=dict(steps=100))


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_random_rows_are_full_and_have_no_special_token(family: str) -> None:
    with ExitStack() as stack:
        random = inputs.random_inputs(tiny_configs.FAMILIES[family], stack)
        pool = random.pool()
    assert random.vocabulary is not None
    for batch in pool:
        assert inputs.real_tokens(batch) == batch["tokens"].size == 8 * tiny_configs.LENGTH
        assert not random.vocabulary.special[batch["tokens"]].any()
    assert any((a["tokens"] != b["tokens"]).any() for a, b in itertools.pairwise(pool))


@pytest.mark.parametrize("task", ["classification", "regression", "tagging", "choice", "qa"])
def test_random_rows_of_fine_tuning_have_labels(task: Any) -> None:
    config = replace(TINY, objective=Supervised(task=task))
    batch = inputs.labeled(config)
    objective = objectives.build(config)
    key = jax.random.key(0)
    params = jax.eval_shape(objective.init, key)
    terms = jax.eval_shape(objective.terms, params, batch, key)
    assert terms["task_loss"].total.shape == ()
