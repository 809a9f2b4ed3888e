"""Examples to rows of tokens; `EncodedExamples` lists the fields of a row.

classification multilabel
regression                  [CLS] a [SEP]  or  [CLS] a [SEP] b [SEP]; long texts as in long_texts.py
tagging                     [CLS] words [SEP]; long examples in windows that overlap by half,
                            each word tagged in the window where it has the most context
choice    roberta and alike <s> question option </s> </s> passage </s>: the first 128 pieces
                            of question and option, passage truncated to the rest
          others            [CLS] passage [SEP] question option [SEP]: the last 128 pieces
qa                          [CLS] question [SEP] context [SEP] (qa_windows.py)
rerank                      [CLS] query [SEP] document [SEP] (rerank.py)

White space around a text is no part of it: byte-level BPE would encode it (fairseq,
multiprocessing_bpe_encoder.py, strips its lines, too).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from bert_jax.config import ROBERTA_LIKE, ModelType, Supervised, TaskType
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks.examples import (
    ChoiceExample,
    EncodedExamples,
    Example,
    QuestionExample,
    RerankExample,
    TaggingExample,
    TextExample,
    WordPositions,
)
from bert_jax.tasks.long_texts import Cut, Long, cut_text, long_notes, padded_count
from bert_jax.tasks.qa_windows import encode_questions, max_context_windows, sliding_windows
from bert_jax.tasks.rerank import encode_candidates
from bert_jax.tasks.rows import one_row, rows_in_one

MAX_OPTION_PIECES = 128  # of a question with its option (albert, race_utils.py; fairseq, RACE)
# A run of underscores is one blank. The one in max_length is none.
BLANK = re.compile(r"(?<!_)(?:__+|(?<![^\W_])_|_(?![^\W_]))(?!_)")


def with_swapped_pairs(examples: Sequence[Example]) -> list[Example]:
    """The examples, followed by each pair in the other order. ELECTRA trains so on MRPC and STS-B
    (configure_finetuning.py, double_unordered)."""
    pairs = [e for e in examples if isinstance(e, TextExample) and e.text_pair is not None]
    swapped = [TextExample(cast(str, e.text_pair), e.text, e.label) for e in pairs]
    return [*examples, *swapped]


def encode_for(
    objective: Supervised,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    length: int,
    *,
    train: bool = False,
) -> EncodedExamples:
    """`encode_examples` with the labels and options of an objective."""
    return encode_examples(
        objective.task_type,
        examples,
        tokenizer,
        length,
        objective.labels,
        train=train,
        family=objective.family,
        stride=objective.stride,
        long=objective.long,
        max_windows=objective.max_windows,
        max_documents=objective.max_documents,
        max_grade=objective.max_grade,
    )


def encode_examples(
    task_type: TaskType,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    length: int,
    labels: Sequence[str] = (),
    *,
    train: bool = False,
    family: ModelType = "bert",
    stride: int | None = None,
    long: Long = "truncate",
    max_windows: int = 8,
    max_documents: int = 8,
    max_grade: float = 1.0,
) -> EncodedExamples:
    """Rows of at most `length` tokens. An example has one row; those of rerank and long ones of
    tagging and qa have several. With `train`, rerank has one per query, and questions without a
    known answer and queries without a relevant candidate have none.

    `stride` counts pieces from one window of a context to the next (qa_windows.py). `long` and
    `max_windows` say what becomes of long texts (long_texts.py), `max_documents` and `max_grade`
    how candidates are trained on (rerank.py).

    ValueError: a length that leaves no room for text, a label that is not among `labels`.
    """
    capacity = tokenizer.special_tokens.text_capacity(length, 1 if task_type == "tagging" else 2)
    if capacity < 1:
        raise ValueError(f"length is {length}, which leaves no room for text: expected at least 8")
    numbers = {label: i for i, label in enumerate(labels)}
    if task_type == "qa":
        questions = cast("Sequence[QuestionExample]", examples)
        return encode_questions(questions, tokenizer, length, stride, train)
    if task_type == "tagging":
        return _encode_tagging(
            cast("Sequence[TaggingExample]", examples), tokenizer, capacity, numbers
        )
    if task_type == "choice":
        choices = cast("Sequence[ChoiceExample]", examples)
        return _encode_choices(choices, tokenizer, length, family in ROBERTA_LIKE)
    if task_type == "rerank":
        return encode_candidates(
            cast("Sequence[RerankExample]", examples),
            tokenizer,
            length,
            train=train,
            max_documents=max_documents,
            highest=max_grade,
        )
    texts = cast("Sequence[TextExample]", examples)
    return _encode_texts(task_type, texts, tokenizer, length, numbers, long, max_windows)


def _label_number(label: str, numbers: dict[str, int]) -> int:
    if label not in numbers:
        raise ValueError(f"unknown label {label!r:.60}: expected one of {', '.join(numbers)}")
    return numbers[label]


# ---- texts and pairs


def _encode_texts(
    task_type: TaskType,
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    length: int,
    numbers: dict[str, int],
    long: Long,
    max_windows: int,
) -> EncodedExamples:
    first = tokenizer.encode_batch([e.text.strip() for e in examples])
    second = tokenizer.encode_batch([(e.text_pair or "").strip() for e in examples])
    rows, too_long, cut = [], 0, 0
    causes: Counter[Cut] = Counter()
    for i, e in enumerate(examples):
        a, b = first[i], None if e.text_pair is None else second[i]
        capacity = tokenizer.special_tokens.text_capacity(length, 1 if b is None else 2)
        too_long += len(a) + len(b or []) > capacity
        parts, lost = cut_text(a, b, capacity, long, max_windows)
        causes.update(lost)
        cut += bool(lost)
        built = [tokenizer.build_row(*part) for part in parts]
        if long == "windows":
            built += [([], 0)] * (padded_count(len(built), max_windows) - len(built))
            row = rows_in_one(built, i)
        else:
            row = one_row(*built[0], i)
        rows.append(row | {"label": _text_label(task_type, e.label, numbers)})
    notes = long_notes(long, length, too_long, causes, max_windows)
    indices = list(range(len(rows)))
    return EncodedExamples(task_type, rows, indices, examples, num_truncated=cut, notes=notes)


def _text_label(task_type: TaskType, label: Any, numbers: dict[str, int]) -> Any:
    if task_type == "multilabel":
        return _label_vector(label, numbers)
    if task_type == "regression":
        return np.float32(np.nan if label is None else label)
    return np.int32(-1 if label is None else _label_number(str(label), numbers))


def _label_vector(labels: Any, numbers: dict[str, int]) -> np.ndarray:
    """int32 [n]: 1 for each label of a text; all -1 if its labels are unknown."""
    if labels is None:
        return np.full(len(numbers), -1, np.int32)
    vector = np.zeros(len(numbers), np.int32)
    vector[[_label_number(label, numbers) for label in labels]] = 1
    return vector


# ---- tagging


def _encode_tagging(
    examples: Sequence[TaggingExample],
    tokenizer: Tokenizer,
    capacity: int,
    numbers: dict[str, int],
) -> EncodedExamples:
    rows: list[dict[str, Any]] = []
    example_indices: list[int] = []
    alignments: list[WordPositions] = []
    for i, e in enumerate(examples):
        words = _word_pieces(e, tokenizer)
        pieces = [id for word in words for id in word]
        first_pieces = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
        windows = sliding_windows(len(pieces), capacity, max(1, capacity // 2))
        best = max_context_windows(len(pieces), windows)[first_pieces]
        for number, (begin, size) in enumerate(windows):
            row = one_row(*tokenizer.build_row(pieces[begin : begin + size]), len(rows))
            tagged = np.flatnonzero(best == number)
            positions = first_pieces[tagged] - begin + 1  # after [CLS]
            end = begin if not len(tagged) else first_pieces[tagged[-1]] + len(words[tagged[-1]])
            row["tags"] = np.full(row["size"], -1, np.int32)
            if e.tags is not None:
                tags = [e.tags[w] for w in tagged]
                row["tags"][positions] = [
                    -1 if t is None else _label_number(t, numbers) for t in tags
                ]
            rows.append(row)
            example_indices.append(i)
            alignments.append(WordPositions(tagged, positions, min(int(end) - begin, size) + 1))
    return EncodedExamples("tagging", rows, example_indices, examples, alignments)


def _word_pieces(example: TaggingExample, tokenizer: Tokenizer) -> list[list[int]]:
    """The pieces of each word. A word without pieces (a zero-width character) becomes the unknown
    token, so that words and tags stay aligned. Byte-level BPE needs the space before a word, where
    the text has one."""
    texts = [
        (" " if tokenizer.marks_spaces and example.space_before(i) else "") + word
        for i, word in enumerate(example.tokens)
    ]
    return [ids or [tokenizer.unk_id] for ids in tokenizer.encode_batch(texts)]


# ---- multiple choice


def _encode_choices(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, length: int, roberta: bool
) -> EncodedExamples:
    max_options = max((len(e.options) for e in examples), default=0)
    passages = tokenizer.encode_batch([e.text.strip() for e in examples])
    rows, truncated = [], 0
    for i, (e, passage) in enumerate(zip(examples, passages, strict=True)):
        texts = [_question_with_option(e.question, option) for option in e.options]
        queries = tokenizer.encode_batch(texts)
        options = [_option_row(passage, q, tokenizer, length, roberta) for q in queries]
        full_sizes = [len(tokenizer.build_row(passage, q)[0]) for q in queries]
        truncated += any(len(ids) < n for (ids, _), n in zip(options, full_sizes, strict=True))
        options += [([], 0)] * (max_options - len(options))
        label = np.int32(-1 if e.label is None else e.label)
        rows.append(rows_in_one(options, i) | {"label": label})
    notes = [f"examples longer than {length} tokens, truncated: {truncated}"] if truncated else []
    indices = list(range(len(rows)))
    return EncodedExamples("choice", rows, indices, examples, num_truncated=truncated, notes=notes)


def _question_with_option(question: str, option: str) -> str:
    """The option fills the question's blanks, or follows the question."""
    question, option = question.strip(), option.strip()
    filled, blanks = BLANK.subn(lambda _: option, question)
    return filled if blanks else f"{question} {option}"


def _option_row(
    passage: list[int], query: list[int], tokenizer: Tokenizer, length: int, roberta: bool
) -> tuple[list[int], int]:
    capacity = tokenizer.special_tokens.text_capacity(length, 2)
    max_query = min(MAX_OPTION_PIECES, capacity)
    if roberta:
        query = query[:max_query]
        return tokenizer.build_row(query, passage[: capacity - len(query)])
    query = query[-max_query:]
    return tokenizer.build_row(passage[: capacity - len(query)], query)
