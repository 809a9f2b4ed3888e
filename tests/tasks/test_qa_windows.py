"""SQuAD windows: rows of questions, and the positions of answers in them."""

import json

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import Answer, QuestionExample
from bert_jax.tasks.qa_windows import IN_NO_WINDOW, covering_pieces
from tests.helpers.labeled_rows import (
    KINDS,
    QUESTIONS,
    as_window,
    encode_windows,
    make_question,
    perfect_outputs,
    trained_tokenizer,
)


@pytest.mark.parametrize("kind", KINDS)
def test_qa_rows_are_a_question_and_a_window_of_its_context(kind: str) -> None:
    """All parts together hold every piece; each has its best window once; questions are cut."""
    tokenizer, encoded = trained_tokenizer(kind), encode_windows(kind)
    for i, e in enumerate(QUESTIONS):
        ids, spans = tokenizer.encode_with_offsets(e.context)
        question = tokenizer.encode(e.question)[:64]
        covered, best = set(), np.zeros(len(ids), int)
        for j in (j for j, owner in enumerate(encoded.example_indices) if owner == i):
            row, place = encoded.rows[j], as_window(encoded.alignments[j])
            part = slice(place.begin, place.begin + len(place.offsets))
            assert row["tokens"].tolist() == tokenizer.build_row(question, ids[part])[0]
            assert row["first"] == len(question) + 2
            assert row["tokens"][row["context"] : -1].tolist() == ids[part]
            assert len(row["tokens"]) <= 100
            assert row["context"] == place.context_start
            assert (place.offsets == spans[part]).all()
            best[part] += place.max_context
            covered |= set(range(len(ids))[part])
        assert covered == set(range(len(ids)))
        assert (best == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_labeled_positions_decode_to_the_answer_text(kind: str) -> None:
    """Emoji, CJK, accents, ligatures, joiners; every window that holds the answer."""
    encoded = encode_windows(kind)
    answered = set()
    for row, place, i in zip(
        encoded.rows, encoded.alignments, encoded.example_indices, strict=True
    ):
        if row["start"] > 0:
            spans = as_window(place).offsets[row["start"] - row["context"] : row["end"] + 1]
            end = as_window(place).offsets[row["end"] - row["context"], 1]
            assert QUESTIONS[i].context[spans[0, 0] : end] == QUESTIONS[i].answers[0].text
            answered.add(i)
        else:
            assert row["start"] == row["end"] == 0
    assert answered == set(range(len(QUESTIONS)))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_at_the_answer_decode_to_the_answer(kind: str) -> None:
    encoded = encode_windows(kind)
    answers = tasks.decode_predictions(encoded, perfect_outputs(encoded, ()))
    assert json.loads(json.dumps(answers, allow_nan=False)) == answers
    assert [a["answer"] for a in answers] == [e.answers[0].text for e in QUESTIONS]
    parts = [e.context[a["start"] : a["end"]] for a, e in zip(answers, QUESTIONS, strict=True)]
    assert parts == [a["answer"] for a in answers]
    assert tasks.compute_metrics("qa", encoded, perfect_outputs(encoded, ())) == {
        "exact_match": 100,
        "f1": 100,
    }


def test_answer_inside_a_word_is_covered_by_the_fewest_pieces() -> None:
    spans = np.array([[0, 3], [3, 3], [3, 8], [9, 12]], np.int32)
    assert covering_pieces(spans, 0, 3) == (0, 0)
    assert covering_pieces(spans, 4, 10) == (2, 3)
    assert covering_pieces(spans, 2, 4) == (0, 2)
    assert covering_pieces(spans, 8, 9) is None


def test_training_skips_and_counts_questions_without_an_answer() -> None:
    examples = [
        QUESTIONS[0],
        QuestionExample("a", "q", "the cat"),
        QuestionExample("b", "q", "the cat", (Answer("dog", -1),)),
        QuestionExample("c", "q", "the cat", (), True),
        QuestionExample("d", "q", "the cat", (Answer("dog", -1), Answer("cat", 4))),
    ]
    encoded = encode_windows("wordpiece", examples, train=True)
    assert encoded.example_indices == [0, 3, 4]
    assert [int(row["impossible"]) for row in encoded.rows] == [0, 1, 0]
    assert encoded.rows[1]["start"] == 0 < encoded.rows[2]["start"]
    note = "questions whose answer was not found in the context, not trained on: 2"
    assert encoded.notes == [note]
    for_evaluation = encode_windows("wordpiece", examples)
    starts = [int(row["start"]) for row in for_evaluation.rows]
    assert starts[1:4] == [-1, -1, 0]  # without an answer, not impossible: in no loss
    assert for_evaluation.example_indices == [0, 1, 2, 3, 4]
    answers = tasks.decode_predictions(for_evaluation, perfect_outputs(for_evaluation, ()))
    assert all(answer["answer"] for answer in answers)


def test_empty_context_gives_an_empty_answer() -> None:
    encoded = encode_windows("wordpiece", [QuestionExample("a", "q", " ")])
    (answer,) = tasks.decode_predictions(encoded, perfect_outputs(encoded, ()))
    assert (answer["answer"], answer["start"], answer["candidates"]) == ("", None, [])


def test_a_question_longer_than_the_row_is_truncated_and_counted() -> None:
    long = make_question("a", "a", question="the cat " * 9)
    encoded = encode_windows("wordpiece", [long, make_question("a", "a")], length=12)
    assert encoded.example_indices == [0, 1]
    assert int(encoded.rows[0]["size"]) <= 12
    assert encoded.notes == ["questions longer than 4 pieces, truncated: 1"]
    with pytest.raises(ValueError, match="stride is 0: expected at least 1"):
        encode_windows("wordpiece", stride=0)


@pytest.mark.parametrize("length", [24, 64, 128, 384])
def test_every_answer_of_half_a_window_lies_in_a_window(length: int) -> None:
    """By default windows move on by at most half of their room; answers in none are counted."""
    answers = [" ".join(f"{i}" for i in range(k, k + 4)) for k in range(0, 290, 3)]
    context = " ".join(map(str, range(300)))
    questions = [make_question(context, answer) for answer in answers]
    encoded = encode_windows("wordpiece", questions, length, stride=None)
    held = {i for i, row in zip(encoded.example_indices, encoded.rows, strict=True) if row["end"]}
    assert (held, encoded.notes) == (set(range(len(answers))), [])
    wide = encode_windows("wordpiece", questions, length, stride=10**6)
    held = {i for i, row in zip(wide.example_indices, wide.rows, strict=True) if row["end"]}
    missing = len(answers) - len(held)
    assert [note.startswith(IN_NO_WINDOW) for note in wide.notes] == [True] * bool(missing)
    assert all(note.endswith(f": {missing}") for note in wide.notes)
    assert missing or length == 384
