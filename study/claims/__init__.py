"""The claims, in the order of the page."""

from __future__ import annotations

from study.claim import Claim
from study.claims.architecture import FAMILIES_COMPARED, LAYERS, MODERN, SHARING
from study.claims.data import BATCH, FORMAT, MASKS, PAIRS, TEXT
from study.claims.objectives import REPLACED, SPANS

CLAIMS: tuple[Claim, ...] = (
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
BY_LETTER = {claim.letter: claim for claim in CLAIMS}

# On an accelerator that is lent for minutes: what matters most first.
ORDER = ("h", "i", "b", "a", "g", "k", "j", "c", "d", "e", "f")
