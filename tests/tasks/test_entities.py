"""Entities by characters become tags of words, and come back as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks.entities import word_spans
from tests.helpers.labeled_rows import (
    KINDS,
    perfect_outputs,
    score_perfect,
    trained_tokenizer,
    write_task_dir,
)


def row(text: str, *entities: tuple[str, str]) -> dict[str, Any]:
    found = [
        {"start": text.index(e), "end": text.index(e) + len(e), "label": k} for e, k in entities
    ]
    return {"text": text, "entities": found}


ROWS = [
    row("Ada met Tom Reed.", ("Ada", "PER"), ("Tom Reed", "PER")),
    row("(Zoë's cafe\u0301) in Zürich,  1,000 km", ("Zoë", "PER"), ("Zürich", "LOC")),
    row("我在北京 met Ada", ("北京", "LOC"), ("Ada", "PER")),
    row(" no entity "),
    row(""),
]


@pytest.mark.parametrize("kind", KINDS)
def test_entities_survive_encoding_and_decoding(kind: str, tmp_path: Path) -> None:
    data = tasks.read_dataset("tagging", write_task_dir(tmp_path, ROWS))
    assert data.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    encoded = tasks.encode_examples(
        "tagging", data.splits["dev"], trained_tokenizer(kind), 64, data.labels
    )
    outputs = [20 * x for x in perfect_outputs(encoded, data.labels)]
    predicted = tasks.decode_predictions(encoded, outputs, data.labels)
    plain = [
        {k: [{n: e[n] for n in ("start", "end", "label")} for e in v] if k == "entities" else v
         for k, v in p.items()}
        for p in predicted
    ]  # fmt: skip
    assert plain == ROWS
    first = predicted[0]["entities"][1]
    assert first["text"] == "Tom Reed"
    assert first["probability"] == pytest.approx(1, abs=1e-6)
    assert score_perfect("tagging", encoded, data.labels)["f1"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "हिन्दी भाषा",
        "தமிழ் மொழி",
        "مُحَمَّد رَسُول",
        "שָׁלוֹם עוֹלָם",
        "বাংলা ভাষা",
        "co\u00adoperate क\u094d\u200dष",
        "cafe\u0301 ❤\ufe0f",
    ],
)
def test_marks_and_joiners_do_not_split_words(text: str) -> None:
    assert [text[begin:end] for begin, end in word_spans(text)] == text.split()


def test_marks_belong_to_the_character_before_them() -> None:
    assert [end - begin for begin, end in word_spans("ที่นี่")] == [3, 3]


def test_words_cover_every_visible_character() -> None:
    text = "Ada's co-op, 北京x naïve\u2028कि ok!"
    words = [text[begin:end] for begin, end in word_spans(text)]
    assert "".join(words) == "".join(text.split())
    assert words[:7] == ["Ada", "'", "s", "co", "-", "op", ","]
    assert words[7:10] == ["北", "京", "x"]


def test_misaligned_and_overlapping_entities_are_counted(tmp_path: Path) -> None:
    text = "Ada met Tom Reed."
    spans = [(0, 2, "A"), (8, 16, "B"), (12, 16, "C"), (3, 4, "D"), (7, 11, "E")]
    entities = [{"start": b, "end": e, "label": k} for b, e, k in spans]
    path = write_task_dir(tmp_path, [{"text": text, "entities": entities}])
    read = tasks.read_dataset("tagging", path)
    assert read.splits["train"][0].tags == ("B-A", "O", "B-B", "I-B", "O")  # type: ignore[union-attr]
    train = [n.rpartition("train.jsonl: ")[2] for n in read.notes if "train.jsonl" in n]
    assert train == [
        "entities that begin or end inside a word, widened to whole words: 1",
        "entities without a word, left out: 1",
        "entities that share a word with an earlier one, left out: 2",
    ]


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ("Ada", "`entities` is 'Ada': expected a list of objects"),
        (None, "`entities` is null: expected a list of entities"),
        ([{"start": 0, "end": 3}], "no field `label`"),
        ([{"start": 0, "end": 99, "label": "x"}], "from 0 to 99: expected .* <= 3, the length"),
        ([{"start": 2, "end": 2, "label": "x"}], "from 2 to 2"),
        ([{"start": "0", "end": 2, "label": "x"}], "from '0' to 2"),
        ([{"start": 0.5, "end": 2, "label": "x"}], r"from 0\.5 to 2"),
    ],
)
def test_invalid_entities_are_named_with_their_line(
    entities: Any, message: str, tmp_path: Path
) -> None:
    path = write_task_dir(tmp_path, [row("Ada"), {"text": "Ada", "entities": entities}])
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 2: .*{message}"):
        tasks.read_dataset("tagging", path)


def test_positions_may_be_floats_without_a_fraction(tmp_path: Path) -> None:
    entity = {"start": 0.0, "end": 3.0, "label": "P"}
    path = write_task_dir(tmp_path, [{"text": "Ada met", "entities": [entity]}])
    [example] = tasks.read_dataset("tagging", path).splits["dev"]
    assert example.tags == ("B-P", "O")  # type: ignore[union-attr]


def test_new_texts_need_no_entities() -> None:
    location = tasks.Location("f", "line 1")
    example = tasks.parse_unlabeled_example("tagging", {"text": "Ada met"}, location)
    encoded = tasks.encode_examples(
        "tagging", [example], trained_tokenizer("bpe"), 24, ("B", "I", "O")
    )
    outputs = [np.zeros((int(encoded.rows[0]["size"]), 3), np.float32)]
    [prediction] = tasks.decode_predictions(encoded, outputs, ("B", "I", "O"))
    assert [e["text"] for e in prediction["entities"]] == ["Ada", "met"]
