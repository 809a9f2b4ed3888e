"""Scores of starts and ends to answers, over all windows of a question.

An answer is cut out of the context as it is written, from the first character of its first
piece to the last of its last. BERT's get_final_text arrives at the same text by comparing the
pieces with the words around them, and falls back to whole words where that fails.

A span begins where its window shows the most context, does not end before it begins, and has
at most 30 pieces (bert, run_squad.py). With linear heads all such spans are compared; the
originals pair the 20 best starts with the 20 best ends of a window and may find no span at
all. Scores are compared across windows as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import special

from bert_jax.tasks.examples import ContextWindow, EncodedExamples, QuestionExample

MAX_ANSWER_PIECES = 30
MAX_CANDIDATES = 20  # answers that are kept


class AnswerSpan(NamedTuple):
    score: float
    begin: int  # characters of the context
    end: int


class DecodedQuestion(NamedTuple):
    """The best answers to a question, of distinct texts, best first, and how much likelier
    none is: above a threshold (0 if none was searched for) the question has no answer.

    `null` is, of linear heads, the score of [CLS] to [CLS] less that of the best answer, of
    joint ones the logit of the classifier; both are those of the least null window.
    """

    spans: list[AnswerSpan]
    null_score: float
    null_probability: float  # of no answer, where answers and none are compared


def decode_answers(
    encoded: EncodedExamples, outputs: Sequence[Any]
) -> list[tuple[QuestionExample, DecodedQuestion]]:
    """Each question with what was found for it, in their order. A question without rows, or
    whose context has no pieces, has no spans."""
    spans: list[list[AnswerSpan]] = [[] for _ in encoded.examples]
    nulls: list[float] = [np.inf for _ in encoded.examples]
    joint = bool(len(outputs)) and "answerable" in outputs[0]
    for i, place, out in zip(encoded.example_indices, encoded.alignments, outputs, strict=True):
        window = cast(ContextWindow, place)
        spans[i] += _joint(window, out) if joint else _linear(window, out)
        null = float(out["answerable"] if joint else out["start"][0] + out["end"][0])
        nulls[i] = min(nulls[i], null)
    found = []
    for example, some, null in zip(encoded.examples, spans, nulls, strict=True):
        question = cast(QuestionExample, example)
        best = list(_distinct(question.context, some))
        found.append((question, _against_none(best, null, joint)))
    return found


def _against_none(best: list[AnswerSpan], null: float, joint: bool) -> DecodedQuestion:
    if not best:
        return DecodedQuestion([], np.inf, 1.0)
    if joint:
        return DecodedQuestion(best, null, float(special.expit(null)))
    scores = np.array([null, *(span.score for span in best)])
    return DecodedQuestion(best, null - best[0].score, float(special.softmax(scores)[0]))


def _linear(window: ContextWindow, out: dict[str, np.ndarray]) -> Iterator[AnswerSpan]:
    """The best spans of a window."""
    n = len(window.spans)
    inside = slice(window.context, window.context + n)
    real = _real(window)
    start = np.where(window.best & real, np.asarray(out["start"], np.float64)[inside], -np.inf)
    end = np.where(real, np.asarray(out["end"], np.float64)[inside], -np.inf)
    scores = np.full((min(MAX_ANSWER_PIECES, n), n), -np.inf)  # [pieces beyond the first, first]
    for more in range(len(scores)):
        scores[more, : n - more] = start[: n - more] + end[more:]
    flat = scores.ravel()
    most = min(4 * MAX_CANDIDATES, len(flat))  # some will have the same text
    for at in np.argpartition(-flat, most - 1)[:most] if most else ():
        if np.isfinite(flat[at]):
            more, first = divmod(int(at), n)
            yield _span(window, float(flat[at]), first, first + more)


def _joint(window: ContextWindow, out: dict[str, np.ndarray]) -> Iterator[AnswerSpan]:
    """The spans of a window's beam that can be answers."""
    n, real = len(window.spans), _real(window)
    for k, at in enumerate(np.asarray(out["start_at"], int)):
        first = int(at) - window.context
        if not (0 <= first < n and window.best[first] and real[first]):
            continue
        lasts = np.asarray(out["end_at"][k], int) - window.context
        for last, score in zip(lasts.tolist(), out["end"][k], strict=True):
            if first <= last < min(n, first + MAX_ANSWER_PIECES) and real[last]:
                yield _span(window, float(out["start"][k]) + float(score), first, last)


def _real(window: ContextWindow) -> np.ndarray:
    """bool [n]: pieces that stand for some character, unlike a lone mark of a space."""
    return window.spans[:, 0] < window.spans[:, 1]


def _span(window: ContextWindow, score: float, first: int, last: int) -> AnswerSpan:
    return AnswerSpan(float(score), int(window.spans[first, 0]), int(window.spans[last, 1]))


def _distinct(context: str, spans: Sequence[AnswerSpan]) -> Iterator[AnswerSpan]:
    """The best of each text, best first; of equals the first in the context."""
    seen: set[str] = set()
    for span in sorted(spans, key=lambda s: (-s.score, s.begin, s.end)):
        text = context[span.begin : span.end]
        if text not in seen:
            seen.add(text)
            yield span
        if len(seen) == MAX_CANDIDATES:
            return


def answer_json(
    e: QuestionExample, decoded: DecodedQuestion, nullable: bool, threshold: float
) -> dict[str, Any]:
    """An answer and its runners-up; the answer is empty where none is likelier.

    Probabilities are those among the candidates and, `nullable`, no answer.
    """
    none = decoded.null_probability if nullable else 0.0
    scores = np.array([span.score for span in decoded.spans])
    shares = special.softmax(scores) * (1 - none) if len(scores) else scores
    candidates: list[dict[str, Any]] = [
        {"answer": e.context[s.begin : s.end], "start": s.begin, "end": s.end, "probability": p}
        for s, p in zip(decoded.spans, shares.tolist(), strict=True)
    ]
    empty = {"answer": "", "start": None, "end": None, "probability": none}
    found = empty if is_null(decoded, nullable, threshold) else candidates[0]
    extra = {"no_answer": none} if nullable else {}
    return {"id": e.id, **found, **extra, "candidates": candidates[:5]}


def is_null(decoded: DecodedQuestion, nullable: bool, threshold: float) -> bool:
    return not decoded.spans or (nullable and decoded.null_score > threshold)


def best_answer_text(e: QuestionExample, decoded: DecodedQuestion) -> str:
    """The best answer, whether or not none is likelier."""
    return e.context[slice(*decoded.spans[0][1:])] if decoded.spans else ""
