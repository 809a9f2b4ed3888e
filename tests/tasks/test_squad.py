"""Extractive question answering: windows and answers."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax import tasks
from bert_jax.tasks import Answer, ContextWindow, EncodedExamples, QuestionExample
from bert_jax.tasks.decode import decode_answers
from bert_jax.tasks.qa_windows import covering_pieces
from tests.helpers.labeled_rows import (
    KINDS,
    SAMPLE,
    make_question,
    perfect_outputs,
    trained_tokenizer,
)

REAL = os.environ.get("BERT_JAX_TASKS")  # a folder with SQuAD files in its folder qa

LATIN = "Zoë's cafe\u0301 (in Zürich) sold 1,000 “fish”, \xa0$12.50 each."
MIXED = "In 北京 the 👩\u200d👧🏽 family ate ﬁsh and 한국어 노래 हिन्दी; naïve\u2028İstanbul."
LONG = " ".join(f"the cat number {i} sat" for i in range(40))
ASKED = [
    make_question(LATIN, "cafe\u0301"),
    make_question(LATIN, "Zoë"),
    make_question(LATIN, "$12.50"),
    make_question(LATIN, "“fish”"),
    make_question(LATIN, "1,000"),
    make_question(MIXED, "北京", question="어디?"),
    make_question(MIXED, "👩\u200d👧🏽"),
    make_question(MIXED, "ﬁsh and 한국어 노래"),
    make_question(MIXED, "naïve\u2028İstanbul"),
    make_question(LONG, "the cat number 0"),
    make_question(LONG, "cat number 23"),
    make_question(LONG, "number 39 sat"),
    make_question("one", "one", question="the cat sat on a mat " * 40),
]


def encode(kind: str, examples: Any = ASKED, length: int = 100, **more: Any) -> EncodedExamples:
    return tasks.encode_examples(
        "qa", examples, trained_tokenizer(kind), length, **{"stride": 16} | more
    )


def window(place: Any) -> ContextWindow:
    assert isinstance(place, ContextWindow)
    return place


# ---- rows


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_a_question_and_a_part_of_its_context(kind: str) -> None:
    """All parts together hold every piece; each has its best window once; questions are cut."""
    tokenizer, encoded = trained_tokenizer(kind), encode(kind)
    for i, e in enumerate(ASKED):
        ids, spans = tokenizer.encode_with_offsets(e.context)
        question = tokenizer.encode(e.question)[:64]
        seen, best = set(), np.zeros(len(ids), int)
        for j in (j for j, owner in enumerate(encoded.example_indices) if owner == i):
            row, place = encoded.rows[j], window(encoded.alignments[j])
            part = slice(place.begin, place.begin + len(place.offsets))
            assert row["tokens"].tolist() == tokenizer.build_row(question, ids[part])[0]
            assert row["first"] == len(question) + 2
            assert row["tokens"][row["context"] : -1].tolist() == ids[part]
            assert len(row["tokens"]) <= 100
            assert row["context"] == place.context_start
            assert (place.offsets == spans[part]).all()
            best[part] += place.max_context
            seen |= set(range(len(ids))[part])
        assert seen == set(range(len(ids)))
        assert (best == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gold_spans_decode_to_the_gold_text(kind: str) -> None:
    """Emoji, CJK, accents, ligatures, joiners; every window that holds the answer."""
    encoded = encode(kind)
    found = set()
    for row, place, i in zip(
        encoded.rows, encoded.alignments, encoded.example_indices, strict=True
    ):
        if row["start"] > 0:
            spans = window(place).offsets[row["start"] - row["context"] : row["end"] + 1]
            end = window(place).offsets[row["end"] - row["context"], 1]
            assert ASKED[i].context[spans[0, 0] : end] == ASKED[i].answers[0].text
            found.add(i)
        else:
            assert row["start"] == row["end"] == 0
    assert found == set(range(len(ASKED)))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_say_the_answer_give_it_back(kind: str) -> None:
    encoded = encode(kind)
    answers = tasks.decode_predictions("qa", encoded, perfect_outputs(encoded, ()))
    assert json.loads(json.dumps(answers, allow_nan=False)) == answers
    assert [a["answer"] for a in answers] == [e.answers[0].text for e in ASKED]
    parts = [e.context[a["start"] : a["end"]] for a, e in zip(answers, ASKED, strict=True)]
    assert parts == [a["answer"] for a in answers]
    assert tasks.compute_metrics("qa", encoded, perfect_outputs(encoded, ())) == {
        "exact_match": 100,
        "f1": 100,
    }


def test_an_answer_inside_a_word_takes_the_fewest_pieces_around_it() -> None:
    spans = np.array([[0, 3], [3, 3], [3, 8], [9, 12]], np.int32)
    assert covering_pieces(spans, 0, 3) == (0, 0)
    assert covering_pieces(spans, 4, 10) == (2, 3)
    assert covering_pieces(spans, 2, 4) == (0, 2)
    assert covering_pieces(spans, 8, 9) is None


def test_training_leaves_out_questions_without_an_answer_and_counts_them() -> None:
    examples = [
        ASKED[0],
        QuestionExample("a", "q", "the cat"),
        QuestionExample("b", "q", "the cat", (Answer("dog", -1),)),
        QuestionExample("c", "q", "the cat", (), True),
        QuestionExample("d", "q", "the cat", (Answer("dog", -1), Answer("cat", 4))),
    ]
    encoded = encode("wordpiece", examples, train=True)
    assert encoded.example_indices == [0, 3, 4]
    assert [int(row["impossible"]) for row in encoded.rows] == [0, 1, 0]
    assert encoded.rows[1]["start"] == 0 < encoded.rows[2]["start"]
    note = "questions whose answer was not found in the context, not trained on: 2"
    assert encoded.notes == [note]
    asked = encode("wordpiece", examples)
    assert asked.example_indices == [0, 1, 2, 3, 4]
    answers = tasks.decode_predictions("qa", asked, perfect_outputs(asked, ()))
    assert all(answer["answer"] for answer in answers)


def test_an_empty_context_has_an_empty_answer() -> None:
    encoded = encode("wordpiece", [QuestionExample("a", "q", " ")])
    (answer,) = tasks.decode_predictions("qa", encoded, perfect_outputs(encoded, ()))
    assert (answer["answer"], answer["start"], answer["candidates"]) == ("", None, [])


def test_windows_need_room_and_a_stride() -> None:
    with pytest.raises(
        ValueError, match="length is 12, which leaves no room for the context after a question"
    ):
        encode("wordpiece", [make_question("a", "a", question="the cat " * 9)], length=12)
    with pytest.raises(ValueError, match="stride is 0: expected at least 1"):
        encode("wordpiece", stride=0)


# ---- answers


def random_outputs(encoded: EncodedExamples, rng: np.random.Generator) -> list[Any]:
    sizes = [int(row["size"]) for row in encoded.rows]
    return [{k: rng.normal(size=n).astype(np.float32) for k in ("start", "end")} for n in sizes]


def allowed(place: ContextWindow, first: int, last: int) -> bool:
    """Begins at its best window, ends inside, has 1 to 30 pieces, stands for something."""
    n = len(place.offsets)
    if not (0 <= first <= last < n and last - first < 30 and place.max_context[first]):
        return False
    return all(place.offsets[at, 0] < place.offsets[at, 1] for at in (first, last))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_best_answer_is_the_best_of_all_allowed_spans(seed: int) -> None:
    encoded = encode("bpe", [make_question(LONG, "sat"), make_question(MIXED, "naïve")], length=60)
    outputs = random_outputs(encoded, np.random.default_rng(seed))
    best: list[tuple[float, str]] = [(-np.inf, "")] * 2
    for row, place, i, out in zip(
        encoded.rows, map(window, encoded.alignments), encoded.example_indices, outputs, strict=True
    ):
        c = int(row["context"])
        for first in range(len(place.offsets)):
            for last in range(first, len(place.offsets)):
                score = float(out["start"][c + first]) + float(out["end"][c + last])
                if allowed(place, first, last) and score > best[i][0]:
                    begin, end = place.offsets[first, 0], place.offsets[last, 1]
                    best[i] = (score, encoded.examples[i].context[begin:end])  # type: ignore[union-attr]
    answers = tasks.decode_predictions("qa", encoded, outputs)
    assert [a["answer"] for a in answers] == [text for _, text in best]
    for answer, (question, decoded) in zip(answers, decode_answers(encoded, outputs), strict=True):
        texts = [question.context[s.begin : s.end] for s in decoded.spans]
        assert len(set(texts)) == len(texts) == 20
        assert decoded.spans == sorted(decoded.spans, key=lambda s: -s.score)
        assert [c["answer"] for c in answer["candidates"]] == texts[:5]
        assert answer["probability"] == max(c["probability"] for c in answer["candidates"])


def projected(context: str, first: int, last: int) -> str | None:
    """BERT's way from pieces to text (spec: get_final_text): the words around the pieces are
    split again, and letters counted without spaces. None where that fails or is ambiguous."""
    tokenizer = trained_tokenizer("wordpiece")
    core: Any = tokenizer._backend.core
    ids, spans = tokenizer.encode_with_offsets(context)
    words = [m.span() for m in re.finditer(r"[^ \t\r\n\u202f]+", context)]
    around = [context[a:b] for a, b in words if b > spans[first, 0] and a < spans[last, 1]]
    original = " ".join(around)
    said = " ".join(tokenizer.token(i) for i in ids[first : last + 1])
    said = said.replace(" ##", "").removeprefix("##")
    parts = core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(original))
    again = " ".join(part for part, _ in parts)
    letters = [i for i, c in enumerate(original) if c != " "]
    if again.count(said) != 1 or len(letters) != len(again.replace(" ", "")):
        return None
    begin = len(again[: again.index(said)].replace(" ", ""))
    return original[letters[begin] : letters[begin + len(said.replace(" ", "")) - 1] + 1]


def test_the_text_of_an_answer_is_what_the_original_makes_of_its_pieces() -> None:
    rng, same = np.random.default_rng(0), 0
    lines = [line for line in SAMPLE.read_text(encoding="utf-8").splitlines() if len(line) > 80]
    for context in (lines[i][:400] for i in rng.integers(len(lines), size=100)):
        _, spans = trained_tokenizer("wordpiece").encode_with_offsets(context)
        for first in rng.integers(len(spans), size=5).tolist():
            last = min(len(spans) - 1, first + int(rng.integers(10)))
            theirs = projected(context, first, last)
            ours = context[spans[first, 0] : spans[last, 1]]
            assert theirs in (None, " ".join(ours.split()))
            same += theirs is not None
    assert same > 300


def test_no_answer_competes_by_the_least_null_score_of_the_windows() -> None:
    encoded = encode("wordpiece", [make_question(LONG, "cat number 23")], length=60)
    assert len(encoded.rows) > 2
    outputs = perfect_outputs(encoded, ())
    for k, out in enumerate(outputs):
        out["start"][0] = out["end"][0] = 9 + k  # the best span has 20
    ((_, decoded),) = decode_answers(encoded, outputs)
    assert decoded.null_score == pytest.approx(18 - 20)
    assert tasks.decode_predictions("qa", encoded, outputs)[0]["answer"] == "cat number 23"

    def answer(threshold: float) -> dict[str, Any]:
        return tasks.decode_predictions("qa", encoded, outputs, tasks.ANSWERABLE_LABELS, threshold)[
            0
        ]

    assert answer(0)["answer"] == answer(-2)["answer"] == "cat number 23"
    none = answer(-2.1)
    assert (none["answer"], none["start"]) == ("", None)
    assert none["probability"] == none["no_answer"] < 0.5
    total = none["no_answer"] + sum(c["probability"] for c in none["candidates"])
    assert total == pytest.approx(1, abs=1e-3)


def joint(encoded: EncodedExamples, seed: int, k: int = 6, m: int = 4) -> list[Any]:
    """Beams over any positions of a row, as a network would give them."""
    rng, outputs = np.random.default_rng(seed), []
    for row in encoded.rows:
        n = int(row["size"])
        start, end = rng.normal(size=n), rng.normal(size=(n, n))
        at = np.argsort(-start)[:k]
        end_at = np.argsort(-end[at], axis=1)[:, :m]
        outputs.append(
            {
                "start": start[at].astype(np.float32),
                "start_at": at.astype(np.int32),
                "end": np.take_along_axis(end[at], end_at, 1).astype(np.float32),
                "end_at": end_at.astype(np.int32),
                "answerable": np.float32(rng.normal()),
            }
        )
    return outputs


@pytest.mark.parametrize("seed", range(5))
def test_joint_heads_answer_with_the_best_allowed_span_of_their_beams(seed: int) -> None:
    encoded = encode(
        "unigram", [make_question(LONG, "sat"), make_question(LATIN, "each")], length=60
    )
    outputs = joint(encoded, seed, k=30, m=30)
    best: list[tuple[float, str]] = [(-np.inf, "")] * 2
    nulls = [np.inf] * 2
    for place, i, out in zip(
        map(window, encoded.alignments), encoded.example_indices, outputs, strict=True
    ):
        nulls[i] = min(nulls[i], float(out["answerable"]))
        for k, first in enumerate(out["start_at"] - place.context_start):
            for last, end in zip(
                out["end_at"][k] - place.context_start, out["end"][k], strict=True
            ):
                score = float(out["start"][k]) + float(end)
                if allowed(place, int(first), int(last)) and score > best[i][0]:
                    begin, stop = place.offsets[first, 0], place.offsets[last, 1]
                    best[i] = (score, encoded.examples[i].context[begin:stop])  # type: ignore[union-attr]
    found = decode_answers(encoded, outputs)
    assert [d.null_score for _, d in found] == nulls
    answers = tasks.decode_predictions("qa", encoded, outputs)
    assert [a["answer"] for a in answers] == [text for _, text in best]
    answers = tasks.decode_predictions(
        "qa", encoded, outputs, tasks.ANSWERABLE_LABELS, threshold=0.0
    )
    right = [text if null <= 0 else "" for (_, text), null in zip(best, nulls, strict=True)]
    assert [a["answer"] for a in answers] == right


def test_a_beam_without_any_span_has_an_empty_answer() -> None:
    encoded = encode("wordpiece", [make_question("the cat", "cat")])
    (out,) = joint(encoded, 0, k=1, m=1)
    out["start_at"][:] = 0
    (answer,) = tasks.decode_predictions("qa", encoded, [out])
    assert answer["answer"] == ""


# ---- real data


@pytest.mark.skipif(REAL is None, reason="BERT_JAX_TASKS names no folder of task data")
@pytest.mark.parametrize("kind", KINDS)
def test_real_answers_come_back_wherever_pieces_begin_and_end_with_them(kind: str) -> None:
    read = tasks.read_dataset("qa", Path(str(REAL)) / "qa")
    examples: Any = [e for split in read.splits.values() for e in split]
    encoded = encode(kind, examples, 384, stride=128, train=True)
    exact, found = 0, set()
    for row, place, i in zip(
        encoded.rows, encoded.alignments, encoded.example_indices, strict=True
    ):
        if row["start"] and i not in found:
            spans, answer = window(place).offsets, examples[i].answers[0]
            begin = spans[row["start"] - row["context"], 0]
            end = spans[row["end"] - row["context"], 1]
            text = examples[i].context[begin:end]
            gold = answer.text.strip()
            assert gold in text
            if text != gold:  # only because no piece begins or ends there
                at = answer.start + len(answer.text) - len(answer.text.lstrip())
                assert at not in spans[:, 0] or at + len(gold) not in spans[:, 1]
            exact += text == gold
            found.add(i)
    assert len(found) == len(examples)
    assert exact > 0.99 * len(examples)
