"""A masking rate that changes with the step."""

from typing import Any

import jax
import numpy as np
import pytest

from bert_jax.config import ALBERT, BERT, ROBERTA, SPANBERT, Masking, replace
from bert_jax.objectives import packing
from bert_jax.objectives.masking import mask_tokens
from bert_jax.objectives.masking_budget import (
    max_packed_predictions,
    with_scheduled_rate,
)
from tests.helpers import tiny_configs
from tests.objectives.test_packing import batches

KEY = jax.random.key(0)
COUNTS = np.where(tiny_configs.SPECIAL, 0, np.arange(tiny_configs.V))
VOCABULARY = tiny_configs.VOCABULARY._replace(counts=COUNTS)
MASKINGS: dict[str, Masking] = {
    name: config.objective.masking  # type: ignore[union-attr]
    for name, config in dict(bert=BERT, albert=ALBERT, roberta=ROBERTA, spanbert=SPANBERT).items()
}


def masks(batch: Any, masking: Masking) -> Any:
    return jax.jit(lambda b: mask_tokens(b, masking, VOCABULARY, KEY))(batch)


@pytest.mark.parametrize(
    ("family", "share", "rate"),
    [
        *((family, 0.5, 0.25) for family in MASKINGS),
        *(("bert", share, rate) for share, rate in ((0.0, 0.3125), (1.0, 0.1875), (7.0, 0.1875))),
    ],
)
def test_masks_at_a_share_of_the_schedule_are_those_of_its_rate(
    family: str, share: float, rate: float
) -> None:
    """The rates here are exact in single precision."""
    scheduled = replace(MASKINGS[family], rate=0.3125, final_rate=0.1875)
    fixed = masks(tiny_configs.batch(24), replace(MASKINGS[family], rate=rate))
    masked = masks(with_scheduled_rate(tiny_configs.batch(24), scheduled, share), scheduled)
    np.testing.assert_array_equal(masked["tokens"], fixed["tokens"])
    assert masked["weights"].sum() == fixed["weights"].sum()


def test_without_a_step_the_rate_is_the_first() -> None:
    scheduled, first = Masking(rate=0.3125, final_rate=0.1875), Masking(rate=0.3125)
    without_step, fixed = (
        masks(tiny_configs.batch(24), masking)["tokens"] for masking in (scheduled, first)
    )
    np.testing.assert_array_equal(without_step, fixed)


def test_prediction_slots_fit_the_larger_rate() -> None:
    for a, b in ((0.15, 0.4), (0.4, 0.15)):
        scheduled, larger = Masking(rate=a, final_rate=b), Masking(rate=0.4)
        assert scheduled.num_slots(64) == larger.num_slots(64)
        assert max_packed_predictions(scheduled, 64, 4) == max_packed_predictions(larger, 64, 4)


def test_packed_sequences_have_the_rate_of_their_row() -> None:
    scheduled = Masking(rate=0.3125, final_rate=0.1875)
    sequences = packing.unpack(with_scheduled_rate(batches()[0], scheduled, 0.5))
    fixed = packing.unpack(batches()[0])
    np.testing.assert_array_equal(
        masks(sequences, scheduled)["tokens"], masks(fixed, Masking(rate=0.25))["tokens"]
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
def test_invalid_rates_are_rejected(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masking(**change)
