"""SQuAD windows: questions as rows, with long contexts in overlapping windows.

    [CLS] question [SEP] part of the context [SEP]

The tokenizer gives the character offsets of each piece (data/tokenization/offsets.py), so answers
are aligned exactly with every kind of tokenizer. The original codes go from white-space words to
pieces and back by comparing strings (BERT's get_final_text, ALBERT's longest common subsequence);
where that fails they take the whole word or drop the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks.examples import ContextWindow, EncodedExamples, QuestionExample
from bert_jax.tasks.rows import one_row

MAX_QUESTION_PIECES = 64  # bert, run_squad.py
MIN_CONTEXT_PIECES = 32  # that a long question leaves, or half of a short row
STRIDE = 128  # bert, run_squad.py
TRUNCATED = "questions longer than {} pieces, truncated"
IN_NO_WINDOW = (
    "questions whose answer lies in no window as a whole, so it cannot be found; choose a larger "
    "data.length or a smaller objective.stride"
)
SKIPPED = "questions whose answer was not found in the context, not trained on"


def sliding_windows(size: int, capacity: int, stride: int) -> list[tuple[int, int]]:
    """(begin, length) of windows of at most `capacity` pieces that cover `size` pieces. Each
    begins `stride` after the one before (bert, run_squad.py). An empty text has one empty
    window."""
    windows = [(0, min(size, capacity))]
    while sum(windows[-1]) < size:
        begin = windows[-1][0] + min(windows[-1][1], stride)
        windows.append((begin, min(capacity, size - begin)))
    return windows


def max_context_windows(size: int, windows: list[tuple[int, int]]) -> np.ndarray:
    """int [size]: the window in which each piece has the most context. A piece's context is the
    smaller number of pieces on either side plus a hundredth of the window's length; ties go to
    the first window (bert, run_squad.py)."""
    pieces = np.arange(size)
    best = np.zeros(size, np.int32)
    max_context = np.full(size, -np.inf)
    for number, (begin, length) in enumerate(windows):
        inside = (pieces >= begin) & (pieces < begin + length)
        context = np.minimum(pieces - begin, begin + length - 1 - pieces) + 0.01 * length
        better = inside & (context > max_context)
        best[better], max_context[better] = number, context[better]
    return best


def encode_questions(
    examples: Sequence[QuestionExample],
    tokenizer: Tokenizer,
    length: int,
    stride: int | None,
    train: bool,
) -> EncodedExamples:
    """The rows of all windows of all questions. A window that does not hold the whole answer has
    start and end 0, like impossible questions (bert, run_squad.py keeps both). A question without
    an answer that is not impossible has -1, which is in no loss.

    Questions are truncated to 64 pieces, and further where less than 32 pieces and less than half
    of the row were left for the context. Each window begins `stride` pieces after the one before;
    None means 128, or half of the room for the context if that is less, so that every answer of up
    to half a window lies in one.

    ValueError: a stride below 1.
    """
    if stride is not None and stride < 1:
        raise ValueError(f"stride is {stride}: expected at least 1")
    rows: list[dict[str, Any]] = []
    example_indices: list[int] = []
    alignments: list[ContextWindow] = []
    contexts: dict[str, tuple[list[int], np.ndarray]] = {}
    questions = tokenizer.encode_batch([e.question.strip() for e in examples])
    room = tokenizer.special_tokens.text_capacity(length, 2)
    max_question = max(1, min(MAX_QUESTION_PIECES, max(room // 2, room - MIN_CONTEXT_PIECES)))
    skipped = in_no_window = 0
    for i, (e, question) in enumerate(zip(examples, questions, strict=True)):
        if e.context not in contexts:
            contexts[e.context] = tokenizer.encode_with_offsets(e.context)
        ids, offsets = contexts[e.context]
        answer = _answer_pieces(e, offsets)
        if train and answer is None and not e.impossible:
            skipped += 1
            continue
        question = question[:max_question]
        windows = _window_rows(question, ids, offsets, tokenizer, length, stride, len(rows))
        known = answer is not None or e.impossible
        positions = [
            _answer_positions(answer, window) if known else (-1, -1) for _, window in windows
        ]
        in_no_window += answer is not None and (0, 0) in positions and len(set(positions)) == 1
        for (row, window), (start, end) in zip(windows, positions, strict=True):
            labels = {"start": start, "end": end, "impossible": e.impossible}
            rows.append(row | {name: np.int32(value) for name, value in labels.items()})
            example_indices.append(i)
            alignments.append(window)
    truncated = sum(len(ids) > max_question for ids in questions)
    counts = {
        SKIPPED: skipped,
        TRUNCATED.format(max_question): truncated,
        IN_NO_WINDOW: in_no_window,
    }
    notes = [f"{what}: {n}" for what, n in counts.items() if n]
    return EncodedExamples(
        "qa", rows, example_indices, examples, alignments, num_truncated=truncated, notes=notes
    )


def _window_rows(
    question: list[int],
    ids: list[int],
    offsets: np.ndarray,
    tokenizer: Tokenizer,
    length: int,
    stride: int | None,
    rows_before: int,
) -> list[tuple[dict[str, Any], ContextWindow]]:
    capacity = tokenizer.special_tokens.text_capacity(length, 2) - len(question)
    if capacity < 1:
        raise ValueError(f"length is {length}, which leaves no room for a context: choose a larger")
    windows = sliding_windows(len(ids), capacity, stride or min(STRIDE, max(1, capacity // 2)))
    best = max_context_windows(len(ids), windows)
    rows = []
    for number, (begin, size) in enumerate(windows):
        tokens, first = tokenizer.build_row(question, ids[begin : begin + size])
        context_start = len(tokens) - 1 - size
        row = one_row(tokens, first, rows_before + number)
        row["context"] = np.int32(context_start)
        part = slice(begin, begin + size)
        window = ContextWindow(begin, context_start, offsets[part], best[part] == number)
        rows.append((row, window))
    return rows


def _answer_pieces(e: QuestionExample, offsets: np.ndarray) -> tuple[int, int] | None:
    """First and last piece of the first answer that is in the context."""
    for text, start in e.answers:
        begin = start + len(text) - len(text.lstrip())
        end = start + len(text.rstrip())
        pieces = covering_pieces(offsets, begin, end) if start >= 0 else None
        if pieces is not None:
            return pieces
    return None


def covering_pieces(offsets: np.ndarray, begin: int, end: int) -> tuple[int, int] | None:
    """First and last of the fewest pieces that cover the characters from `begin` to `end`; None
    if there are none because the tokenizer's clean-up dropped the characters."""
    inside = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < end))
    inside = inside[offsets[inside, 0] < offsets[inside, 1]]
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _answer_positions(answer: tuple[int, int] | None, window: ContextWindow) -> tuple[int, int]:
    """Start and end of the answer in the row; 0, 0 if the window does not hold all of it."""
    if answer is None:
        return 0, 0
    start, end = answer[0] - window.begin, answer[1] - window.begin
    if start < 0 or end >= len(window.offsets):
        return 0, 0
    return window.context_start + start, window.context_start + end
