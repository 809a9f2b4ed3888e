"""Answers to questions, decoded from the outputs of linear and joint heads."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax import tasks
from bert_jax.tasks import ContextWindow, EncodedExamples
from bert_jax.tasks.decode import decode_answers
from tests.helpers.labeled_rows import (
    KINDS,
    LATIN,
    LONG_CONTEXT,
    MIXED,
    SAMPLE,
    as_window,
    encode_windows,
    make_question,
    perfect_outputs,
    trained_tokenizer,
)


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
def test_best_answer_is_the_best_of_all_valid_spans_by_brute_force(seed: int) -> None:
    encoded = encode_windows(
        "bpe", [make_question(LONG_CONTEXT, "sat"), make_question(MIXED, "naïve")], length=60
    )
    outputs = random_outputs(encoded, np.random.default_rng(seed))
    best: list[tuple[float, str]] = [(-np.inf, "")] * 2
    for row, place, i, out in zip(
        encoded.rows,
        map(as_window, encoded.alignments),
        encoded.example_indices,
        outputs,
        strict=True,
    ):
        c = int(row["context"])
        for first in range(len(place.offsets)):
            for last in range(first, len(place.offsets)):
                score = float(out["start"][c + first]) + float(out["end"][c + last])
                if allowed(place, first, last) and score > best[i][0]:
                    begin, end = place.offsets[first, 0], place.offsets[last, 1]
                    best[i] = (score, encoded.examples[i].context[begin:end])  # type: ignore[union-attr]
    answers = tasks.decode_predictions(encoded, outputs)
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
    answer = " ".join(tokenizer.token(i) for i in ids[first : last + 1])
    answer = answer.replace(" ##", "").removeprefix("##")
    parts = core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(original))
    again = " ".join(part for part, _ in parts)
    letters = [i for i, c in enumerate(original) if c != " "]
    if again.count(answer) != 1 or len(letters) != len(again.replace(" ", "")):
        return None
    begin = len(again[: again.index(answer)].replace(" ", ""))
    return original[letters[begin] : letters[begin + len(answer.replace(" ", "")) - 1] + 1]


def test_answer_text_equals_that_of_get_final_text() -> None:
    rng, same = np.random.default_rng(0), 0
    lines = [line for line in SAMPLE.read_text(encoding="utf-8").splitlines() if len(line) > 80]
    for context in (lines[i][:400] for i in rng.integers(len(lines), size=100)):
        _, spans = trained_tokenizer("wordpiece").encode_with_offsets(context)
        for first in rng.integers(len(spans), size=5).tolist():
            last = min(len(spans) - 1, first + int(rng.integers(10)))
            original = projected(context, first, last)
            native = context[spans[first, 0] : spans[last, 1]]
            assert original in (None, " ".join(native.split()))
            same += original is not None
    assert same > 300


def test_null_score_is_the_minimum_over_windows() -> None:
    encoded = encode_windows("wordpiece", [make_question(LONG_CONTEXT, "cat number 23")], length=60)
    assert len(encoded.rows) > 2
    outputs = perfect_outputs(encoded, ())
    for k, out in enumerate(outputs):
        out["start"][0] = out["end"][0] = 9 + k  # the best span has 20
    ((_, decoded),) = decode_answers(encoded, outputs)
    assert decoded.null_score == pytest.approx(18 - 20)
    assert tasks.decode_predictions(encoded, outputs)[0]["answer"] == "cat number 23"

    def answer(threshold: float) -> dict[str, Any]:
        return tasks.decode_predictions(encoded, outputs, tasks.ANSWERABLE_LABELS, threshold)[0]

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
def test_joint_heads_give_the_best_valid_span_of_their_beam(seed: int) -> None:
    encoded = encode_windows(
        "unigram", [make_question(LONG_CONTEXT, "sat"), make_question(LATIN, "each")], length=60
    )
    outputs = joint(encoded, seed, k=30, m=30)
    best: list[tuple[float, str]] = [(-np.inf, "")] * 2
    nulls = [np.inf] * 2
    for place, i, out in zip(
        map(as_window, encoded.alignments), encoded.example_indices, outputs, strict=True
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
    decoded = decode_answers(encoded, outputs)
    assert [d.null_score for _, d in decoded] == nulls
    answers = tasks.decode_predictions(encoded, outputs)
    assert [a["answer"] for a in answers] == [text for _, text in best]
    answers = tasks.decode_predictions(encoded, outputs, tasks.ANSWERABLE_LABELS, threshold=0.0)
    right = [text if null <= 0 else "" for (_, text), null in zip(best, nulls, strict=True)]
    assert [a["answer"] for a in answers] == right


def test_beam_without_a_valid_span_gives_an_empty_answer() -> None:
    encoded = encode_windows("wordpiece", [make_question("the cat", "cat")])
    (out,) = joint(encoded, 0, k=1, m=1)
    out["start_at"][:] = 0
    (answer,) = tasks.decode_predictions(encoded, [out])
    assert answer["answer"] == ""


# ---- answers whose ends are inside words

INSIDE: list[tuple[str, ...]] = [  # a text, and answers in it
    ("She wrote “Don\u2019t!”—twice—in 1999\u20132000.", "Don", "1999", "twice", "2000"),
    ("(The 3rd-largest: $1.5million/yr…)", "3", "1.5", "million", "yr"),
    ("L\u2019État c\u2019est moi; Zu\u0308rich\u2019s Straße.", "État", "Zu\u0308rich", "Stra"),
    ("Ａ４紙は東京都の北にある。", "東京", "北", "４紙"),
    ("서울특별시에서 12km를 걸었다.", "서울", "12", "km"),
    ("हिन्दी में «नमस्ते»\u00a0कहा।", "नमस्ते", "कहा"),
    ("קו־אורך ٣٤\u066b٦° شمالاً", "אורך", "٣٤", "شمال"),
    ("👩\u200d🚀👨\u200d🚀 flew½mile", "👨\u200d🚀", "flew", "½"),
    ("ﬁnal ﬂoor, naïveté & co\u0301mo?", "ﬁn", "oor", "na", "co\u0301mo"),
    ("x²+y²=z²; a_b\u200bc\u3000d", "y²", "a", "c", "d"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_decodes_to_the_fewest_whole_pieces_around_it(kind: str) -> None:
    """Which are the answer itself where pieces begin and end at its ends."""
    examples = [make_question(text, answer) for text, *answers in INSIDE for answer in answers]
    encoded = encode_windows(kind, examples, train=True)
    decoded = tasks.decode_predictions(encoded, perfect_outputs(encoded, ()))
    exact = 0
    for e, place, found in zip(examples, encoded.alignments, decoded, strict=True):
        (gold,), spans = e.answers, as_window(place).offsets
        end = gold.start + len(gold.text)
        inside = spans[(spans[:, 0] < end) & (spans[:, 1] > gold.start)]
        assert (found["start"], found["end"]) == (inside[:, 0].min(), inside[:, 1].max())
        assert gold.text in found["answer"]
        exact += found["answer"] == gold.text
    assert 0.5 * len(examples) < exact < len(examples)
