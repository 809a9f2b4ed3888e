"""A rate of masking that changes with the step."""

from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.config import ALBERT, BERT, ROBERTA, SPANBERT, Masking, replace
from bert_jax.objectives import packing
from bert_jax.objectives.masking import (
    mask_tokens,
    max_packed_predictions,
    max_predictions,
    with_scheduled_rate,
)
from tests.helpers import tiny_configs
from tests.objectives.test_packing import batches

KEY = jax.random.key(0)
COUNTS = np.where(tiny_configs.SPECIAL, 0, np.arange(tiny_configs.V))
VOCABULARY = tiny_configs.VOCABULARY._replace(counts=COUNTS)
LAWS: dict[str, Masking] = {
    name: config.objective.masking  # type: ignore[union-attr]
    for name, config in dict(bert=BERT, albert=ALBERT, roberta=ROBERTA, spanbert=SPANBERT).items()
}


def masks(batch: Any, masking: Masking) -> Any:
    return jax.jit(lambda b: mask_tokens(b, masking, VOCABULARY, KEY))(batch)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("share", "rate"), [(0.0, 0.3125), (0.5, 0.25), (1.0, 0.1875), (7.0, 0.1875)]
)
def test_a_share_of_the_schedule_is_a_constant_rate(law: str, share: float, rate: float) -> None:
    """Its masks are those of that rate; the rates here are exact in single precision."""
    moving = replace(LAWS[law], rate=0.3125, final_rate=0.1875)
    fixed = masks(tiny_configs.batch(24), replace(LAWS[law], rate=rate))
    found = masks(with_scheduled_rate(tiny_configs.batch(24), moving, share), moving)
    np.testing.assert_array_equal(found["tokens"], fixed["tokens"])
    assert found["weights"].sum() == fixed["weights"].sum()


def test_without_a_step_the_rate_is_the_first() -> None:
    moving, first = Masking(rate=0.3125, final_rate=0.1875), Masking(rate=0.3125)
    scored, fixed = (
        masks(tiny_configs.batch(24), masking)["tokens"] for masking in (moving, first)
    )
    np.testing.assert_array_equal(scored, fixed)


def test_slots_are_enough_for_the_larger_rate() -> None:
    for a, b in ((0.15, 0.4), (0.4, 0.15)):
        moving, most = Masking(rate=a, final_rate=b), Masking(rate=0.4)
        assert max_predictions(moving, 64) == max_predictions(most, 64)
        assert max_packed_predictions(moving, 64, 4) == max_packed_predictions(most, 64, 4)


def test_packed_sequences_have_the_rate_of_their_row() -> None:
    moving = Masking(rate=0.3125, final_rate=0.1875)
    rows = packing.unpack(with_scheduled_rate(batches()[0], moving, 0.5))
    alone = packing.unpack(batches()[0])
    np.testing.assert_array_equal(
        masks(rows, moving)["tokens"], masks(alone, Masking(rate=0.25))["tokens"]
    )


def test_a_constant_rate_adds_nothing_to_the_batch() -> None:
    batch = tiny_configs.batch()
    assert with_scheduled_rate(batch, Masking(), 0.5) is batch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(final_rate=1.0), "masking.final_rate is 1.0: expected 0 < x < 1"),
        (
            dict(final_rate=0.1, num_static_masks=10),
            "masking.num_static_masks is 10: static masks have one rate",
        ),
    ],
)
def test_impossible_rates_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masking(**change)
