"""SQuAD's official metrics, versions 1.1 and 2.0 (evaluate-v1.1.py, evaluate-v2.0.py).

No maintained library has them without downloading the script at run time.
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
    """The text in lower case, without ASCII punctuation and articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(gold: str, predicted: str) -> float:
    return float(normalize_answer(gold) == normalize_answer(predicted))


def token_f1(gold: str, predicted: str, both_empty: float = 1.0) -> float:
    """F1 of two bags of words. If both are empty it is 1 in version 2.0 and 0 in version 1.1."""
    a, b = normalize_answer(gold).split(), normalize_answer(predicted).split()
    if not a and not b:
        return both_empty
    common = (Counter(a) & Counter(b)).total()
    return 2 * common / (len(a) + len(b))


def squad_scores(
    questions: Sequence[QuestionExample],
    predicted: Sequence[str],
    nulls: Sequence[float] | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """`exact_match` and `f1`, in percent like the script's output. A question counts with the
    gold answer that gives the best score.

    If some questions have no answer, or `nulls` are given, version 2.0 is computed. Then
    `predicted` holds the best answer of every question and `nulls` the score of no answer, which
    is predicted above `threshold` (`nulls` None: never). The result also has both metrics over the
    questions with an answer (`answered_`) and without (`unanswered_`) and, with nulls,
    `best_exact_match` and `best_f1`, each at its best threshold, and `threshold`, the one of
    `best_f1`.
    """
    if nulls is None and not any(e.impossible for e in questions):
        golds = [[a.text for a in e.answers] for e in questions]
        return {
            "exact_match": _percent(_best_scores(exact_match, golds, predicted)),
            "f1": _percent(
                _best_scores(lambda g, t: token_f1(g, t, both_empty=0.0), golds, predicted)
            ),
        }
    # answers that normalize to nothing do not count; if none is left, the empty one does
    golds = [[a.text for a in e.answers if normalize_answer(a.text)] or [""] for e in questions]
    possible = np.array([not e.impossible for e in questions])
    blank = np.array([not text for text in predicted])
    metrics: dict[str, float] = {}
    for name, measure in (("exact_match", exact_match), ("f1", token_f1)):
        raw = _best_scores(measure, golds, predicted)
        scores = raw if nulls is None else np.where(np.array(nulls) > threshold, ~possible, raw)
        metrics[name] = _percent(scores)
        for part, mask in (("answered", possible), ("unanswered", ~possible)):
            metrics |= {f"{part}_{name}": _percent(scores[mask])} if mask.any() else {}
        if nulls is not None and not possible.all():  # else never to abstain is best
            best, best_threshold = best_null_threshold(np.array(nulls), raw, possible, blank)
            metrics |= {f"best_{name}": best, "threshold": best_threshold}
    return metrics


def best_null_threshold(
    nulls: np.ndarray, raw: np.ndarray, possible: np.ndarray, blank: np.ndarray
) -> tuple[float, float]:
    """The best mean score in percent, and its threshold: questions whose null score is at most
    the threshold are answered. If answering none is best, it is below all null scores. It is always
    finite, unlike the null score of a context without pieces."""
    order = np.argsort(nulls, kind="stable")
    # what answering each question adds to the score of answering none
    gains = np.where(possible, raw, np.where(blank, 0.0, -1.0))[order]
    totals = np.cumsum([float((~possible).sum()), *gains])
    best = int(np.argmax(totals))
    threshold = np.nextafter(nulls[order[0]], -np.inf) if best == 0 else nulls[order[best - 1]]
    largest = np.finfo(np.float64).max
    return 100 * float(totals[best]) / len(nulls), float(np.clip(threshold, -largest, largest))


def _best_scores(
    measure: Callable[[str, str], float], golds: Sequence[Sequence[str]], predicted: Sequence[str]
) -> np.ndarray:
    pairs = zip(golds, predicted, strict=True)
    return np.array([max(measure(gold, text) for gold in answers) for answers, text in pairs])


def _percent(scores: np.ndarray) -> float:
    return 100 * float(np.mean(scores))
