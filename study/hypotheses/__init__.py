"""The claims, in the order of the page."""

from __future__ import annotations

from study.hypotheses.architecture import FAMILIES_COMPARED, LAYERS, MODERN, SHARING
from study.hypotheses.data import BATCH, FORMAT, MASKS, PAIRS, TEXT
from study.hypotheses.objectives import REPLACED, SPANS
from study.hypothesis import Hypothesis

HYPOTHESES: tuple[Hypothesis, ...] = (
    SHARING,
    PAIRS,
    MASKS,
    FORMAT,
    BATCH,
    TEXT,
    SPANS,
    REPLACED,
    FAMILIES_COMPARED,
    LAYERS,
    MODERN,
)
BY_LETTER = {claim.letter: claim for claim in HYPOTHESES}

# On an accelerator that is lent for minutes: what matters most first.
ORDER = ("h", "i", "b", "a", "g", "k", "j", "c", "d", "e", "f")
