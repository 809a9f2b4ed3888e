"""Examples to rows and back: what goes in as a label comes out as a prediction."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax import tasks
from bert_jax.tasks import (
    ChoiceExample,
    EncodedExamples,
    QuestionExample,
    TaggingExample,
    TextExample,
)
from bert_jax.tasks.encode import _question_with_option
from bert_jax.tasks.qa_windows import max_context_windows, sliding_windows
from tests.helpers.labeled_rows import (
    KINDS,
    WORDS,
    perfect_outputs,
    score_perfect,
    trained_tokenizer,
)

LONG = " ".join(WORDS * 5)
EXAMPLES: dict[str, list[Any]] = {
    "classification": [
        TextExample("", None, "b"),
        TextExample(LONG, LONG, "a"),
        TextExample("the cat", "", "c"),
    ],
    "regression": [
        TextExample(LONG, None, -1.5),
        TextExample("a", "b", 2.0),
        TextExample("the cat", "sat", 0.0),
    ],
    "tagging": [
        TaggingExample(tuple(WORDS * 5), tuple("abcde"[i % 5] for i in range(len(WORDS) * 5))),
        TaggingExample(("the",), ("b",)),
        TaggingExample((), ()),
    ],
    "choice": [
        ChoiceExample(LONG, "where _ sat?", ("the cat", LONG), 1),
        ChoiceExample("the cat", "who?", ("a", "b", "c"), 2),
    ],
}
LABELS = ("a", "b", "c", "d", "e")
CASES = [(task, kind) for task in sorted(EXAMPLES) for kind in KINDS]


def encode(
    task: Any, kind: str, examples: Any = None, length: int = 24, **more: Any
) -> EncodedExamples:
    examples = EXAMPLES[task] if examples is None else examples
    return tasks.encode_examples(task, examples, trained_tokenizer(kind), length, LABELS, **more)


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_row_is_the_text_with_special_tokens(task: str, kind: str) -> None:
    tokenizer, encoded = trained_tokenizer(kind), encode(task, kind)
    assert [row["row"] for row in encoded.rows] == list(range(len(encoded.rows)))
    for row in encoded.rows:
        parts = zip(
            row["tokens"] if task == "choice" else [row["tokens"]],
            np.atleast_1d(row["size"]),
            np.atleast_1d(row["first"]),
            strict=True,
        )
        for tokens, size, first in parts:
            assert tokens.dtype == np.int32
            assert len(tokens) == size <= 24
            if size:
                assert tokens[0] == tokenizer.cls_id
                assert tokens[first - 1] == tokens[-1] == tokenizer.sep_id
                assert 2 <= first <= size


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_outputs_equal_to_the_labels_have_perfect_metrics(task: Any, kind: str) -> None:
    encoded = encode(task, kind)
    scores = score_perfect(task, encoded, LABELS)
    assert scores
    assert all(value == pytest.approx(1) for value in scores.values())
    predictions = tasks.decode_predictions(encoded, perfect_outputs(encoded, LABELS), LABELS)
    assert json.loads(json.dumps(predictions, allow_nan=False)) == predictions
    field = "tags" if task == "tagging" else "label"
    right = [getattr(e, field) for e in EXAMPLES[task]]
    predicted = [tuple(f[field]) if task == "tagging" else f[field] for f in predictions]
    assert predicted == right


def test_unknown_labels_are_refused_and_missing_labels_marked() -> None:
    with pytest.raises(ValueError, match="unknown label 'z': expected one of a, b"):
        encode("classification", "bpe", [TextExample("a", None, "z")])
    encoded = encode("classification", "bpe", [TextExample("a")])
    assert encoded.rows[0]["label"] == -1
    assert encode("tagging", "bpe", [TaggingExample(("a",))]).rows[0]["tags"].tolist() == [-1] * 3
    assert np.isnan(encode("regression", "bpe", [TextExample("a")]).rows[0]["label"])


def test_truncated_texts_are_counted() -> None:
    fits, long = TextExample("the cat", "sat"), TextExample(LONG, "the")
    encoded = encode(
        "classification", "bpe", [fits, long, TextExample("a", LONG), TextExample(LONG)]
    )
    assert encoded.num_truncated == 3
    assert encoded.notes == ["examples longer than 24 tokens, truncated: 3"]
    encoded = encode("choice", "bpe")
    assert encoded.num_truncated == 1
    assert encode("classification", "bpe", [fits]).notes == []
    assert encode("tagging", "bpe").num_truncated == 0  # long ones have windows
    questions = QuestionExample("a", LONG * 3, "the cat"), QuestionExample("b", "the", LONG)
    assert tasks.encode_examples("qa", questions, trained_tokenizer("bpe"), 100).num_truncated == 1


def test_length_without_room_for_text_is_refused() -> None:
    with pytest.raises(ValueError, match="length is 3, which leaves no room"):
        encode("classification", "wordpiece", length=3)


def test_swapped_pairs_are_appended() -> None:
    pair, single = TextExample("a", "b", 1.0), TextExample("a", None, 0.0)
    assert tasks.with_swapped_pairs([pair, single]) == [pair, single, TextExample("b", "a", 1.0)]


# ---- words


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [5, 9, 24, 200])
def test_every_word_gets_one_tag_at_its_first_piece(kind: str, length: int) -> None:
    """Whatever the length; words without pieces are unknown ones."""
    words = ("the", "\u200b", "Zürich", "a", "") * 4
    tags = tuple(LABELS[i % 5] for i in range(len(words)))
    tokenizer = trained_tokenizer(kind)
    encoded = encode("tagging", kind, [TaggingExample(words, tags)], length)
    tags_of_words = []
    for row, place in zip(encoded.rows, encoded.alignments, strict=True):
        assert place is not None
        tagged = np.flatnonzero(row["tags"] >= 0)
        assert tagged.tolist() == place[1].tolist()
        tags_of_words += [(int(w), int(row["tags"][at])) for w, at in zip(*place[:2], strict=True)]
        for w, at in zip(*place[:2], strict=True):
            space = " " if kind == "bpe" and w else ""
            first = (tokenizer.encode(space + words[w]) or [tokenizer.unk_id])[0]
            assert row["tokens"][at] == first
    assert sorted(tags_of_words) == [(i, i % 5) for i in range(len(words))]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_sliding_windows_cover_every_piece_and_each_has_one_max_context(
    size: int, room: int, stride: int
) -> None:
    windows = sliding_windows(size, room, stride)
    assert all(length <= room for _, length in windows)
    begins = [begin for begin, _ in windows]
    assert begins == [k * min(room, stride) for k in range(len(windows))]
    best = max_context_windows(size, windows)
    for piece in range(size):
        scores = [
            min(piece - b, b + n - 1 - piece) + 0.01 * n if b <= piece < b + n else -1
            for b, n in windows
        ]
        assert best[piece] == int(np.argmax(scores))
        assert max(scores) >= 0


# ---- options


def test_choice_rows_of_roberta_and_of_other_families() -> None:
    """ALBERT: passage, then question and option, of which the last pieces stay; RoBERTa: the
    other way round, and the first."""
    tok = trained_tokenizer("wordpiece")
    e = ChoiceExample("the cat sat", "a _ mat", ("in", " ".join(["the"] * 140)))
    passage, question = tok.encode(e.text), tok.encode("a in mat")
    row = encode("choice", "wordpiece", [e], 200).rows[0]
    assert row["tokens"][0].tolist() == tok.build_row(passage, question)[0]
    long = tok.encode(f"a {e.options[1]} mat")
    assert row["tokens"][1].tolist() == tok.build_row(passage, long[-128:])[0]
    row = encode("choice", "wordpiece", [e], 200, family="roberta").rows[0]
    assert row["tokens"][0].tolist() == tok.build_row(question, passage)[0]
    assert row["tokens"][1].tolist() == tok.build_row(long[:128], passage)[0]
    plain = ChoiceExample("the cat", "on?", ("a", "in"))
    row = encode("choice", "wordpiece", [plain]).rows[0]
    assert (
        row["tokens"][1].tolist() == tok.build_row(tok.encode("the cat"), tok.encode("on? in"))[0]
    )


@pytest.mark.parametrize("task", ["classification", "choice", "qa"])
def test_white_space_around_a_text_is_no_part_of_it(task: str) -> None:
    """For byte-level BPE, as in fairseq, and so for all kinds."""
    padded: Any = {
        "classification": TextExample("\tthe cat \u3000", " sat\n", "a"),
        "choice": ChoiceExample(" the cat ", " who? ", ("\na ", " b"), 1),
        "qa": QuestionExample("1", " who?\n", "the cat"),
    }
    plain: Any = {
        "classification": TextExample("the cat", "sat", "a"),
        "choice": ChoiceExample("the cat", "who?", ("a", "b"), 1),
        "qa": QuestionExample("1", "who?", "the cat"),
    }
    for kind in KINDS:
        a, b = (encode(task, kind, [e[task]]).rows[0]["tokens"] for e in (padded, plain))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_missing_options_have_no_tokens() -> None:
    rows = encode("choice", "wordpiece").rows
    assert [len(row["tokens"]) for row in rows] == [3, 3]
    assert rows[0]["size"][2] == rows[0]["first"][2] == len(rows[0]["tokens"][2]) == 0
    logits = [np.array([0, 1, 9], np.float32)] * 2  # that of a missing option is not looked at
    predictions = tasks.decode_predictions(encode("choice", "wordpiece"), logits)
    assert [f["label"] for f in predictions] == [1, 2]
    assert len(predictions[0]["probabilities"]) == 2


@pytest.mark.parametrize(
    ("question", "filled"),
    [
        ("where _ sat?", "where the cat sat?"),
        ("where ____ sat?", "where the cat sat?"),
        ("It was____.", "It wasthe cat."),
        ("It was____that sat", "It wasthe catthat sat"),
        ("a__b", "athe catb"),
        ("_is and is_", "the catis and isthe cat"),
        ("_", "the cat"),
        ("_ and _", "the cat and the cat"),
        ("Who?", "Who? the cat"),
        ("What is max_length?", "What is max_length? the cat"),
    ],
)
def test_an_option_fills_the_blanks_of_its_question(question: str, filled: str) -> None:
    assert _question_with_option(question, "the cat") == filled
