"""The hypotheses, in the order of the page."""

from __future__ import annotations

from study.hypotheses.architecture import FAMILIES_COMPARED, LAYERS, MODERN, SHARING
from study.hypotheses.data import BATCH, FORMAT, MASKS, PAIRS, TEXT
from study.hypotheses.objectives import REPLACED, SPANS

HYPOTHESES = (
    *(SHARING, PAIRS, MASKS, FORMAT, BATCH, TEXT, SPANS, REPLACED),
    *(FAMILIES_COMPARED, LAYERS, MODERN),
)
BY_LETTER = {hypothesis.letter: hypothesis for hypothesis in HYPOTHESES}

# The order on an accelerator with limited time: the most important first.
GPU_ORDER = ("h", "i", "b", "a", "g", "k", "j", "c", "d", "e", "f")
