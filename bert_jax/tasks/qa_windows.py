"""Questions to rows: the context in windows, answers as pieces of it.

    [CLS] question [SEP] part of the context [SEP]

Where pieces stand in the context comes from the tokenizer (text/spans.py), so no alignment is
guessed and nothing depends on the kind of tokenizer. The originals go from white-space words to
pieces and back by comparing strings (BERT's get_final_text, ALBERT's longest common
subsequence), and take the whole word, or drop the question, where that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks.examples import ContextWindow, EncodedExamples, QuestionExample
from bert_jax.tasks.windows import max_context_windows, sliding_windows

MAX_QUESTION_PIECES = 64  # pieces of a question (bert, run_squad.py)
TRUNCATED = f"questions longer than {MAX_QUESTION_PIECES} pieces, cut"
UNTRAINED = "questions without an answer that could be found, not trained on"


def encode_questions(
    examples: Sequence[QuestionExample], tokenizer: Tokenizer, length: int, stride: int, train: bool
) -> EncodedExamples:
    """Rows of all windows of all questions. A window that does not hold the whole answer has
    start and end 0, as impossible questions have (bert, run_squad.py keeps them too).

    ValueError: a length or a stride that leaves no room for the context.
    """
    if stride < 1:
        raise ValueError(f"stride {stride}: expected at least 1")
    rows: list[dict[str, Any]] = []
    owner: list[int] = []
    places: list[ContextWindow] = []
    contexts: dict[str, tuple[list[int], np.ndarray]] = {}
    asked = tokenizer.encode_batch([e.question for e in examples])
    left_out = 0
    for i, e in enumerate(examples):
        if e.context not in contexts:
            contexts[e.context] = tokenizer.encode_with_offsets(e.context)
        ids, spans = contexts[e.context]
        answer = _answer(e, spans)
        if train and answer is None and not e.impossible:
            left_out += 1
            continue
        for row, place in _windows(
            asked[i][:MAX_QUESTION_PIECES], ids, spans, tokenizer, length, stride
        ):
            start, end = _labels(answer, place)
            row |= {"start": np.int32(start), "end": np.int32(end)}
            row |= {"impossible": np.int32(e.impossible), "row": np.int32(len(rows))}
            rows.append(row)
            owner.append(i)
            places.append(place)
    cut = sum(len(ids) > MAX_QUESTION_PIECES for ids in asked)
    notes = [f"{what}: {n}" for what, n in ((UNTRAINED, left_out), (TRUNCATED, cut)) if n]
    return EncodedExamples("qa", rows, owner, examples, places, num_truncated=cut, notes=notes)


def _windows(
    asked: list[int],
    ids: list[int],
    spans: np.ndarray,
    tokenizer: Tokenizer,
    length: int,
    stride: int,
) -> list[tuple[dict[str, Any], ContextWindow]]:
    room = tokenizer.special_tokens.text_capacity(length, 2) - len(asked)
    if room < 1:
        raise ValueError(
            f"length {length} leaves no room behind a question of {len(asked)} pieces: give more"
        )
    found = sliding_windows(len(ids), room, stride)
    best = max_context_windows(len(ids), found)
    made = []
    for number, (begin, size) in enumerate(found):
        tokens, first = tokenizer.build_row(asked, ids[begin : begin + size])
        context = len(tokens) - 1 - size
        row = {
            "tokens": np.array(tokens, np.int32),
            "size": np.int32(len(tokens)),
            "first": np.int32(first),
            "context": np.int32(context),
        }
        part = slice(begin, begin + size)
        made.append((row, ContextWindow(begin, context, spans[part], best[part] == number)))
    return made


def _answer(e: QuestionExample, spans: np.ndarray) -> tuple[int, int] | None:
    """First and last piece of the first answer that is in the context."""
    for text, start in e.answers:
        begin = start + len(text) - len(text.lstrip())
        found = covering_pieces(spans, begin, start + len(text.rstrip())) if start >= 0 else None
        if found is not None:
            return found
    return None


def covering_pieces(spans: np.ndarray, begin: int, end: int) -> tuple[int, int] | None:
    """First and last of the fewest pieces that cover these characters; None where there are
    none (the clean-up dropped them)."""
    inside = np.flatnonzero((spans[:, 1] > begin) & (spans[:, 0] < end))
    inside = inside[spans[inside, 0] < spans[inside, 1]]
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _labels(answer: tuple[int, int] | None, place: ContextWindow) -> tuple[int, int]:
    if answer is None:
        return 0, 0
    start, end = answer[0] - place.begin, answer[1] - place.begin
    if start < 0 or end >= len(place.spans):
        return 0, 0
    return place.context + start, place.context + end
