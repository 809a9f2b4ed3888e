"""What runs cost, by the formula of ELECTRA's efficiency claims (bert_jax/flops.py).

Equal FLOPs are those of `published` with a look-up that costs nothing, since none of these
models multiplies by one-hot; the sum as it was published is shown beside it. Both are of real
tokens: rows differ in how much of them is padding, which teaches nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from bert_jax.config import Experiment
from bert_jax.perf import flops


class Cost(NamedTuple):
    """FLOPs of a whole run."""

    published: float  # look-ups as products, as the paper has it
    sparse: float  # look-ups for nothing: what is held equal
    products: float  # matrix products alone, padding's too, backward twice forward: for the clock

    @staticmethod
    def of(experiment: Experiment, length: int, tokens: float) -> Cost:
        """Of rows of `length`, in which so many tokens are real, together."""
        places = experiment.run.steps * experiment.data.batch_size * length
        return Cost(
            flops.published(experiment, length) * tokens,
            published(experiment, length) * tokens,
            flops.model(experiment, length) * places,
        )


def published(experiment: Experiment, length: int) -> float:
    """FLOPs of a token in training, with look-ups for nothing."""
    return flops.published(experiment, length, "sparse")
