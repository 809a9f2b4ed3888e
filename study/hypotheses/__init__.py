"""The hypotheses by letter. Which of them a preset asks is in presets.py."""

from __future__ import annotations

from collections.abc import Iterable

from study.hypotheses.architecture import FAMILIES_COMPARED, LAYERS, MODERN, SHARING
from study.hypotheses.data import BATCH, FORMAT, MASKS, PAIRS, TEXT
from study.hypotheses.objectives import REPLACED, SPANS
from study.hypothesis import Hypothesis
from study.presets import PRESETS

HYPOTHESES = (
    *(SHARING, PAIRS, MASKS, FORMAT, BATCH, TEXT, SPANS, REPLACED),
    *(FAMILIES_COMPARED, LAYERS, MODERN),
)
BY_LETTER = {hypothesis.letter: hypothesis for hypothesis in HYPOTHESES}


def hypotheses_at(scale: str, letters: Iterable[str] | None = None) -> list[Hypothesis]:
    """The hypotheses of a preset in its order, or those with the given letters, as the preset
    runs them.

    ValueError: a letter that the preset does not ask.
    """
    available = PRESETS[scale].hypotheses
    selected = list(available if letters is None else letters)
    if unknown := [letter for letter in selected if letter not in available]:
        expected = ", ".join(available)
        raise ValueError(
            f"--only has {unknown[0]!r}: expected letters of {expected} at --scale {scale}"
        )
    return [BY_LETTER[letter].at_scale(scale) for letter in selected]


def left_out(scale: str) -> list[Hypothesis]:
    """The hypotheses that a preset is too small to decide."""
    return [h for h in HYPOTHESES if h.letter not in PRESETS[scale].hypotheses]
