"""SQuAD's official scoring, versions 1.1 and 2.0 (evaluate-v1.1.py, evaluate-v2.0.py).

No library that is kept up has it without downloading the script at run time.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from bert_jax.tasks.examples import QuestionExample

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(gold: str, given: str) -> float:
    return float(normalize_answer(gold) == normalize_answer(given))


def token_f1(gold: str, given: str, both_empty: float = 1.0) -> float:
    """F1 of two bags of words. If both are empty it is 1 in version 2.0, 0 in 1.1."""
    a, b = normalize_answer(gold).split(), normalize_answer(given).split()
    if not a and not b:
        return both_empty
    common = (Counter(a) & Counter(b)).total()
    return 2 * common / (len(a) + len(b))


def squad_scores(
    questions: Sequence[QuestionExample],
    given: Sequence[str],
    nulls: Sequence[float] | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """`exact_match` and `f1`, in per cent as the script prints them; a question counts with
    the gold answer that suits best.

    Questions that have no answer make it version 2.0. Then `given` are the answers whether or
    not there is one, and `nulls` how much likelier none is, which is given above `threshold`
    (None: never). There are also both scores over the questions with an answer (`answered_`)
    and without (`unanswered_`); and, with nulls, `best_exact_match` and `best_f1`, which the
    best threshold for each reaches, and `threshold`, the one for `best_f1`.
    """
    if not any(e.impossible for e in questions):
        golds = [[a.text for a in e.answers] for e in questions]
        return {
            "exact_match": _percent(_best(exact_match, golds, given)),
            "f1": _percent(_best(lambda g, t: token_f1(g, t, both_empty=0.0), golds, given)),
        }
    # answers that normalise to nothing do not count; where none is left, the empty one does
    golds = [[a.text for a in e.answers if normalize_answer(a.text)] or [""] for e in questions]
    possible = np.array([not e.impossible for e in questions])
    blank = np.array([not text for text in given])
    found: dict[str, float] = {}
    for name, measure in (("exact_match", exact_match), ("f1", token_f1)):
        raw = _best(measure, golds, given)
        scores = raw if nulls is None else np.where(np.array(nulls) > threshold, ~possible, raw)
        found[name] = _percent(scores)
        for part, some in (("answered", possible), ("unanswered", ~possible)):
            found |= {f"{part}_{name}": _percent(scores[some])} if some.any() else {}
        if nulls is not None:
            best, at = best_null_threshold(np.array(nulls), raw, possible, blank)
            found |= {f"best_{name}": best, "threshold": at}
    return found


def best_null_threshold(
    nulls: np.ndarray, raw: np.ndarray, possible: np.ndarray, blank: np.ndarray
) -> tuple[float, float]:
    """The best mean score in per cent, and the threshold that gives it: questions whose null
    score is not above it are answered. Where answering nothing is best it is below all."""
    order = np.argsort(nulls, kind="stable")
    # from no answer at all, question by question: what its answer gains
    gains = np.where(possible, raw, np.where(blank, 0.0, -1.0))[order]
    totals = np.cumsum([float((~possible).sum()), *gains])
    best = int(np.argmax(totals))
    at = np.nextafter(nulls[order[0]], -np.inf) if best == 0 else nulls[order[best - 1]]
    return 100 * float(totals[best]) / len(nulls), float(at)


def _best(
    measure: Callable[[str, str], float], golds: Sequence[Sequence[str]], given: Sequence[str]
) -> np.ndarray:
    pairs = zip(golds, given, strict=True)
    return np.array([max(measure(gold, text) for gold in some) for some, text in pairs])


def _percent(scores: np.ndarray) -> float:
    return 100 * float(np.mean(scores))
