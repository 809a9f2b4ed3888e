"""Examples to rows of tokens; see `Encoded` for what is in them.

classification regression   [CLS] a [SEP]  or  [CLS] a [SEP] b [SEP], cut from the end of
                            the longer one
tagging                     [CLS] words [SEP]; long ones in windows that overlap by half,
                            each word tagged where it has the most context
choice    roberta           <s> question option </s> </s> passage </s>: the first 128
                            pieces of the question with its option, passage cut to the rest
          others            [CLS] passage [SEP] question option [SEP]: the last 128 of them
qa                          [CLS] question [SEP] context [SEP] (questions.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np

from bert_jax.config import TaskType
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.tasks import qa_windows
from bert_jax.tasks.examples import (
    ChoiceExample,
    EncodedExamples,
    Example,
    TaggingExample,
    TextExample,
    WordPositions,
)
from bert_jax.tasks.windows import max_context_windows, sliding_windows

Family = Literal["bert", "albert", "roberta", "electra"]
MAX_QUESTION_PIECES = (
    128  # pieces of a question with its option (albert, race_utils.py; fairseq, RACE)
)


def with_swapped_pairs(examples: Sequence[Example]) -> list[Example]:
    """The examples, and behind them each pair once more in the other order: ELECTRA trains so
    on mrpc and stsb (configure_finetuning.py, double_unordered)."""
    pairs = [e for e in examples if isinstance(e, TextExample) and e.text_pair is not None]
    again = [TextExample(cast(str, e.text_pair), e.text, e.label) for e in pairs]
    return [*examples, *again]


def encode_examples(
    task_type: TaskType,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    length: int,
    labels: Sequence[str] = (),
    *,
    train: bool = False,
    family: Family = "bert",
    stride: int = 128,
) -> EncodedExamples:
    """Rows of at most `length` tokens. Each example has one row, but for tagging and qa, where
    long ones have several; in training (`train`) questions whose answer is not known have none.

    `stride` counts pieces from one window of a context to the next.

    ValueError: a length that leaves no room for text, a label that is none of `labels`.
    """
    room = tokenizer.special_tokens.text_capacity(length, 1 if task_type == "tagging" else 2)
    if room < 1:
        raise ValueError(f"length {length} leaves no room for text: give at least 8")
    if task_type == "qa":
        asked = cast("Sequence[Question]", examples)
        return qa_windows.encode_questions(asked, tokenizer, length, stride, train)
    if task_type == "tagging":
        return _tagged(cast("Sequence[Tagged]", examples), tokenizer, room, _numbers(labels))
    if task_type == "choice":
        return _choices(cast("Sequence[Choice]", examples), tokenizer, length, family == "roberta")
    return _texts(task_type, cast("Sequence[Text]", examples), tokenizer, length, _numbers(labels))


def _numbers(labels: Sequence[str]) -> dict[str, int]:
    return {label: i for i, label in enumerate(labels)}


def _number(label: str, numbers: dict[str, int]) -> int:
    if label not in numbers:
        raise ValueError(f"unknown label {label!r:.60}: expected one of {', '.join(numbers)}")
    return numbers[label]


def _row(tokens: Sequence[int], first: int, number: int) -> dict[str, Any]:
    ids = np.array(tokens, np.int32)
    sizes = {"size": np.int32(len(ids)), "first": np.int32(first), "row": np.int32(number)}
    return {"tokens": ids, **sizes}


# ---- texts and pairs


def _texts(
    task_type: TaskType,
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    length: int,
    numbers: dict[str, int],
) -> EncodedExamples:
    first = tokenizer.encode_batch([e.text for e in examples])
    second = tokenizer.encode_batch([e.text_pair or "" for e in examples])
    rows, cut = [], 0
    for i, e in enumerate(examples):
        b = None if e.text_pair is None else second[i]
        room = tokenizer.special_tokens.text_capacity(length, 1 if b is None else 2)
        cut += len(first[i]) + len(b or []) > room
        row = _row(*tokenizer.build_row(*truncate_pair(first[i], b, room)), i)
        if task_type == "regression":
            row["label"] = np.float32(0 if e.label is None else e.label)
        else:
            row["label"] = np.int32(-1 if e.label is None else _number(str(e.label), numbers))
        rows.append(row)
    owner = list(range(len(rows)))
    return EncodedExamples(
        task_type, rows, owner, examples, num_truncated=cut, notes=_notes(cut, length)
    )


def _notes(cut: int, length: int) -> list[str]:
    return [f"examples longer than {length} tokens, cut: {cut}"] if cut else []


def truncate_pair(
    a: list[int], b: list[int] | None, room: int
) -> tuple[list[int], list[int] | None]:
    """Both within `room` together: pieces go one by one from the end of the longer, of equals
    from the second (bert, run_classifier.py)."""
    if b is None:
        return a[:room], None
    over = max(0, len(a) + len(b) - room)
    gap = len(a) - len(b)
    level = min(over, abs(gap))  # taken before both are equally long
    rest = over - level
    from_a, from_b = rest // 2, rest - rest // 2
    if gap > 0:
        from_a += level
    else:
        from_b += level
    return a[: len(a) - from_a], b[: len(b) - from_b]


# ---- words


def _tagged(
    examples: Sequence[TaggingExample], tokenizer: Tokenizer, room: int, numbers: dict[str, int]
) -> EncodedExamples:
    rows: list[dict[str, Any]] = []
    owner: list[int] = []
    places: list[WordPositions] = []
    for i, e in enumerate(examples):
        words = _word_pieces(e.tokens, tokenizer)
        pieces = [id for word in words for id in word]
        firsts = np.cumsum([0, *map(len, words)])[:-1].astype(np.int32)
        found = sliding_windows(len(pieces), room, max(1, room // 2))
        best = max_context_windows(len(pieces), found)[firsts]
        for number, (begin, size) in enumerate(found):
            row = _row(*tokenizer.build_row(pieces[begin : begin + size]), len(rows))
            mine = np.flatnonzero(best == number)
            at = firsts[mine] - begin + 1  # behind [CLS]
            row["tags"] = np.full(row["size"], -1, np.int32)
            if e.tags is not None:
                row["tags"][at] = [_number(e.tags[w], numbers) for w in mine]
            rows.append(row)
            owner.append(i)
            places.append(WordPositions(mine, at))
    return EncodedExamples("tagging", rows, owner, examples, places)


def _word_pieces(words: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The pieces of each word; a word that has none (a zero-width character) is unknown, so
    that words and tags stay together. Byte-level BPE sees the space before a word."""
    space = " " if tokenizer.kind == "bpe" else ""
    texts = [(space if i else "") + word for i, word in enumerate(words)]
    return [ids or [tokenizer.unk_id] for ids in tokenizer.encode_batch(texts)]


# ---- options


def _choices(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, length: int, roberta: bool
) -> EncodedExamples:
    most = max((len(e.options) for e in examples), default=0)
    passages = tokenizer.encode_batch([e.text for e in examples])
    rows, cut = [], 0
    for i, (e, passage) in enumerate(zip(examples, passages, strict=True)):
        asked = tokenizer.encode_batch([_asked(e.question, option) for option in e.options])
        options = [_option(passage, a, tokenizer, length, roberta) for a in asked]
        whole = [len(tokenizer.build_row(passage, a)[0]) for a in asked]
        cut += any(len(ids) < n for (ids, _), n in zip(options, whole, strict=True))
        options += [([], 0)] * (most - len(options))
        rows.append(
            {
                "tokens": [np.array(ids, np.int32) for ids, _ in options],
                "size": np.array([len(ids) for ids, _ in options], np.int32),
                "first": np.array([first for _, first in options], np.int32),
                "row": np.int32(i),
                "label": np.int32(-1 if e.label is None else e.label),
            }
        )
    owner = list(range(len(rows)))
    return EncodedExamples(
        "choice", rows, owner, examples, num_truncated=cut, notes=_notes(cut, length)
    )


def _asked(question: str, option: str) -> str:
    """The option fills the question's blank, or follows it."""
    return question.replace("_", option) if "_" in question else f"{question} {option}"


def _option(
    passage: list[int], asked: list[int], tokenizer: Tokenizer, length: int, roberta: bool
) -> tuple[list[int], int]:
    room = tokenizer.special_tokens.text_capacity(length, 2)
    most = min(MAX_QUESTION_PIECES, room)
    if roberta:
        asked = asked[:most]
        return tokenizer.build_row(asked, passage[: room - len(asked)])
    asked = asked[-most:]
    return tokenizer.build_row(passage[: room - len(asked)], asked)
