"""Model outputs to predictions: labels, tags, options, and answers to questions.

An answer is cut out of the context as it is written, from the first character of its first piece
to the last character of its last piece. BERT's get_final_text arrives at the same text by
comparing the pieces with the words around them, and falls back to whole words where that fails.

An answer span begins in the window with the most context, does not end before it begins, and has
at most 30 pieces (bert, run_squad.py). With linear heads all such spans are compared; the original
codes pair the 20 best starts with the 20 best ends of a window and may find no span at all.
Scores are compared across windows without normalization.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import special

from bert_jax.tasks import multilabel
from bert_jax.tasks.entities import decode_entities
from bert_jax.tasks.examples import (
    ChoiceExample,
    ContextWindow,
    EncodedExamples,
    QuestionExample,
    TaggingExample,
    WordPositions,
)
from bert_jax.tasks.rerank import candidates_json
from bert_jax.tasks.tag_scheme import recognize_scheme

MAX_ANSWER_PIECES = 30
MAX_CANDIDATES = 20  # answers that are kept per question


def decode_predictions(
    encoded: EncodedExamples,
    outputs: Sequence[Any],
    labels: Sequence[str] = (),
    threshold: float = 0.0,
    thresholds: Sequence[float] = (),
) -> list[dict[str, Any]]:
    """One JSON object per example, in their order.

    classification  label  probability  probabilities {label: p}
    multilabel      labels, whose probability is above their threshold  probabilities {label: p}
    regression      label
    tagging         tokens  tags  probabilities [w]; of rows with a text: text  entities, each with
                    start  end  label  probability  text (entities.py)
    choice          label (the option's number)  option  probability  probabilities [c]
    rerank          scores  ranks, of the candidates in their order
    qa              id  answer  start  end (characters)  probability  candidates, the five best;
                    if the model has seen questions without an answer (`labels`), no_answer, its
                    probability; the answer is empty if its score is above `threshold`
    """
    examples, task_type = encoded.examples, encoded.task_type
    if task_type == "qa":
        questions = decode_answers(encoded, outputs)
        return [_answer_json(e, decoded, bool(labels), threshold) for e, decoded in questions]
    if task_type == "tagging":
        pairs = zip(examples, word_logits(encoded, outputs), strict=True)
        return [_tagging_json(cast(TaggingExample, e), logits, labels) for e, logits in pairs]
    if task_type == "multilabel":
        return [_multilabel_json(out, labels, thresholds) for out in outputs]
    if task_type == "regression":
        return [{"label": float(out)} for out in outputs]
    if task_type == "rerank":
        return candidates_json(encoded, outputs)
    if task_type == "choice":
        pairs = zip(examples, outputs, strict=True)
        return [_choice_json(cast(ChoiceExample, e), out) for e, out in pairs]
    return [_class_json(out, labels) for out in outputs]


def _class_json(logits: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    p = special.softmax(np.asarray(logits, np.float64)).tolist()
    best = int(np.argmax(p))
    by_label = dict(zip(labels, p, strict=True))
    return {"label": labels[best], "probability": p[best], "probabilities": by_label}


def _multilabel_json(
    logits: np.ndarray, labels: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    p = multilabel.probabilities(logits)
    chosen = np.flatnonzero(multilabel.is_predicted(p, thresholds))
    by_label = dict(zip(labels, p.tolist(), strict=True))
    return {"labels": [labels[int(i)] for i in chosen], "probabilities": by_label}


def _choice_json(e: ChoiceExample, logits: np.ndarray) -> dict[str, Any]:
    p = special.softmax(np.asarray(logits, np.float64)[: len(e.options)]).tolist()
    best = chosen_option(e, logits)
    chosen = {"label": best, "option": e.options[best], "probability": p[best]}
    return chosen | {"probabilities": p}


def chosen_option(e: ChoiceExample, logits: np.ndarray) -> int:
    """The number of the option with the largest logit."""
    return int(np.argmax(logits[: len(e.options)]))


def _tagging_json(e: TaggingExample, logits: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    if not e.tokens:
        empty = {"tokens": [], "tags": [], "probabilities": []}
        return empty if e.text is None else {"text": e.text, "entities": []}
    p = special.softmax(logits.astype(np.float64), axis=-1)
    tags = [labels[int(k)] for k in p.argmax(-1)]
    scheme = recognize_scheme(labels)
    if e.spans is not None and scheme is not None:
        entities = decode_entities(e, tags, p.max(-1).tolist(), scheme)
        return {"text": e.text, "entities": entities}
    return {"tokens": list(e.tokens), "tags": tags, "probabilities": p.max(-1).tolist()}


def word_logits(encoded: EncodedExamples, outputs: Sequence[Any]) -> list[np.ndarray]:
    """Per example, the logits of its words [w n], collected from its rows."""
    logits: list[list[tuple[int, np.ndarray]]] = [[] for _ in encoded.examples]
    for i, alignment, out in zip(encoded.example_indices, encoded.alignments, outputs, strict=True):
        words, positions, _ = cast(WordPositions, alignment)
        logits[i] += zip(words.tolist(), np.asarray(out)[positions], strict=True)
    return [np.array([x for _, x in sorted(pairs, key=lambda p: p[0])]) for pairs in logits]


# ---- answers to questions


class AnswerSpan(NamedTuple):
    """A possible answer: its score and its place in the context."""

    score: float
    begin: int  # characters of the context
    end: int


class DecodedQuestion(NamedTuple):
    """The best answers to a question, with distinct texts, best first, and the score of no answer:
    above a threshold (0 if none was tuned) the question has no answer.

    With linear heads `null_score` is the score of the span from [CLS] to [CLS] minus that of the
    best answer; with joint heads it is the classifier's logit. Both are the minimum over windows.
    """

    spans: list[AnswerSpan]
    null_score: float
    null_probability: float  # of no answer, compared with all answers


def decode_answers(
    encoded: EncodedExamples, outputs: Sequence[Any]
) -> list[tuple[QuestionExample, DecodedQuestion]]:
    """Each question with its answers, in their order. A question without rows, or whose context
    has no pieces, has no spans."""
    spans: list[list[AnswerSpan]] = [[] for _ in encoded.examples]
    nulls: list[float] = [np.inf for _ in encoded.examples]
    joint = bool(len(outputs)) and "answerable" in outputs[0]
    for i, alignment, out in zip(encoded.example_indices, encoded.alignments, outputs, strict=True):
        window = cast(ContextWindow, alignment)
        spans[i] += _joint_spans(window, out) if joint else _linear_spans(window, out)
        null = float(out["answerable"] if joint else out["start"][0] + out["end"][0])
        nulls[i] = min(nulls[i], null)
    decoded = []
    for example, candidates, null in zip(encoded.examples, spans, nulls, strict=True):
        question = cast(QuestionExample, example)
        best = list(_distinct_spans(question.context, candidates))
        decoded.append((question, _compare_with_null(best, null, joint)))
    return decoded


def _compare_with_null(best: list[AnswerSpan], null: float, joint: bool) -> DecodedQuestion:
    if not best:
        return DecodedQuestion([], np.inf, 1.0)
    if joint:
        return DecodedQuestion(best, null, float(special.expit(null)))
    scores = np.array([null, *(span.score for span in best)])
    return DecodedQuestion(best, null - best[0].score, float(special.softmax(scores)[0]))


def _linear_spans(window: ContextWindow, out: dict[str, np.ndarray]) -> Iterator[AnswerSpan]:
    """The best spans of a window."""
    n = len(window.offsets)
    inside = slice(window.context_start, window.context_start + n)
    visible, starts = _visible_pieces(window), np.asarray(out["start"], np.float64)[inside]
    start = np.where(window.max_context & visible, starts, -np.inf)
    end = np.where(visible, np.asarray(out["end"], np.float64)[inside], -np.inf)
    scores = np.full((min(MAX_ANSWER_PIECES, n), n), -np.inf)  # [pieces after the first, first]
    for extra in range(len(scores)):
        scores[extra, : n - extra] = start[: n - extra] + end[extra:]
    flat = scores.ravel()
    count = min(4 * MAX_CANDIDATES, len(flat))  # several may have the same text
    for index in np.argpartition(-flat, count - 1)[:count] if count else ():
        if np.isfinite(flat[index]):
            extra, first = divmod(int(index), n)
            yield _answer_span(window, float(flat[index]), first, first + extra)


def _joint_spans(window: ContextWindow, out: dict[str, np.ndarray]) -> Iterator[AnswerSpan]:
    """The valid spans of a window's beam."""
    n, visible = len(window.offsets), _visible_pieces(window)
    for k, start_position in enumerate(np.asarray(out["start_at"], int)):
        first = int(start_position) - window.context_start
        if not (0 <= first < n and window.max_context[first] and visible[first]):
            continue
        lasts = np.asarray(out["end_at"][k], int) - window.context_start
        for last, score in zip(lasts.tolist(), out["end"][k], strict=True):
            if first <= last < min(n, first + MAX_ANSWER_PIECES) and visible[last]:
                yield _answer_span(window, float(out["start"][k]) + float(score), first, last)


def _visible_pieces(window: ContextWindow) -> np.ndarray:
    """bool [n]: pieces that stand for at least one character, unlike a lone space marker."""
    return window.offsets[:, 0] < window.offsets[:, 1]


def _answer_span(window: ContextWindow, score: float, first: int, last: int) -> AnswerSpan:
    return AnswerSpan(score, int(window.offsets[first, 0]), int(window.offsets[last, 1]))


def _distinct_spans(context: str, spans: Sequence[AnswerSpan]) -> Iterator[AnswerSpan]:
    """The best span of each text, best first; ties go to the first in the context."""
    texts: set[str] = set()
    for span in sorted(spans, key=lambda s: (-s.score, s.begin, s.end)):
        text = context[span.begin : span.end]
        if text not in texts:
            texts.add(text)
            yield span
        if len(texts) == MAX_CANDIDATES:
            return


def _answer_json(
    e: QuestionExample, decoded: DecodedQuestion, nullable: bool, threshold: float
) -> dict[str, Any]:
    """The best answer and the candidates; the answer is empty if no answer is more likely.

    Probabilities are relative to all candidates and, if `nullable`, no answer.
    """
    no_answer = decoded.null_probability if nullable else 0.0
    scores = np.array([span.score for span in decoded.spans])
    p = special.softmax(scores) * (1 - no_answer) if len(scores) else scores
    candidates: list[dict[str, Any]] = [
        {"answer": e.context[s.begin : s.end], "start": s.begin, "end": s.end, "probability": x}
        for s, x in zip(decoded.spans, p.tolist(), strict=True)
    ]
    empty = {"answer": "", "start": None, "end": None, "probability": no_answer}
    is_null = not decoded.spans or (nullable and decoded.null_score > threshold)
    answer = empty if is_null else candidates[0]
    extra = {"no_answer": no_answer} if nullable else {}
    return {"id": e.id, **answer, **extra, "candidates": candidates[:5]}


def best_answer_text(e: QuestionExample, decoded: DecodedQuestion) -> str:
    """The best answer, even if no answer is more likely; "" if there are no spans."""
    return e.context[slice(*decoded.spans[0][1:])] if decoded.spans else ""
