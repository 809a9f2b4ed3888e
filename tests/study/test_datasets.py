"""The study's own data, and what trained models are asked."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.data import documents
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.tasks import read_dataset as read_task
from study import datasets as materials
from study import evaluate as exam
from study import jobs as plan
from study import synthetic_tasks as made
from study.datasets import Datasets
from study.hypotheses import BY_LETTER
from study.presets import CPU, PRESETS, SMOKE
from study.runner import Study
from study.variants import Corpus
from tests.helpers.study_samples import WORDS, write_text


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


# ---- data


def test_a_part_of_the_text_has_none_of_the_documents_that_validate_the_whole(
    text: str, tmp_path: Path
) -> None:
    own = Datasets(tmp_path / "data", SMOKE, (text,))
    whole = [d.paragraphs for d in documents.read_documents([text])]
    part = [d.paragraphs for d in documents.read_documents([str(own.part(4))])]
    training = [d for i, d in enumerate(whole) if i % 20 != 19]
    assert part == training[::4]


def test_a_window_holds_its_answer_and_no_more_words_than_asked() -> None:
    rng = random.Random(1)
    words = [rng.choice(["one", "two", "three", "a"]) for _ in range(50)]
    context = "  ".join(words)
    for i in range(200):
        first = rng.randrange(48)
        begin = len("  ".join(words[:first])) + 2 * (first > 0)
        answer = "  ".join(words[first : first + 2])
        qa = {"id": str(i), "question": "?", "answers": [{"text": answer, "answer_start": begin}]}
        cut = materials.window(context, qa, 12)
        (kept,) = cut["qas"][0]["answers"]
        assert len(cut["context"].split()) == 12
        assert cut["context"][kept["answer_start"] :].startswith(answer)
        assert cut["context"] in context


def test_a_drawn_task_has_no_label_in_dev_that_its_training_rows_lack(tmp_path: Path) -> None:
    source, out = tmp_path / "given", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    rows = [{"text": "a b", "label": "ab"[i % 2]} for i in range(200)]
    rows += [{"text": "a", "label": "seldom"}, {"text": "word " * 50, "label": "a"}]
    for split in ("train", "dev"):
        (source / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    materials.rows(source, out, SMOKE)
    dataset = read_task("classification", out)
    assert dataset.labels == ("a", "b")
    assert len(dataset.splits["train"]) == SMOKE.train_rows
    assert len(dataset.splits["dev"]) == SMOKE.test_rows


def test_test_rows_with_labels_are_what_is_scored(tmp_path: Path) -> None:
    source, out = tmp_path / "given", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    for split, words in (("train", "x"), ("dev", "seen"), ("test", "unseen")):
        rows = [json.dumps({"text": words, "label": i % 2}) + "\n" for i in range(6)]
        (source / f"{split}.jsonl").write_text("".join(rows))
    materials.rows(source, out, SMOKE)
    assert "unseen" in (out / "dev.jsonl").read_text()


def test_tasks_made_from_text_are_tasks_that_can_be_read(text: str, tmp_path: Path) -> None:
    own = Datasets(tmp_path / "data", SMOKE, (text,))
    assert own.names() == ["capitals", "same", "stops"]
    for name in [*own.names(), plan.ANSWERS]:
        dataset = read_task(own.kind(name), own.task(name))
        assert dataset.splits["train"]
        assert dataset.splits["dev"]
        assert name == plan.ANSWERS or len(dataset.labels) >= 2


def test_made_tasks_are_scored_on_text_that_no_model_was_trained_on(
    text: str, tmp_path: Path
) -> None:
    made.write([text], tmp_path)
    numbers = {
        split: {int(n) for n in re.findall(r"Document (\d+) was", (tmp_path / f).read_text())}
        for split, f in (("train", "same/train.jsonl"), ("dev", "same/dev.jsonl"))
    }
    assert numbers == {"dev": {19, 39, 59}, "train": {*range(60)} - {19, 39, 59}}


def test_tasks_that_are_not_there_are_told_of_before_the_first_run(
    text: str, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    (given / "t").mkdir(parents=True)
    (given / "t/train.jsonl").write_text('{"text": "a", "label": "b"}\n' * 2)
    (given / "t/dev.jsonl").write_text('{"text": "a", "label": "b"}\n' * 2)
    study = Study(tmp_path / "out", SMOKE, Datasets(tmp_path / "data", SMOKE, (text,), given))
    with pytest.raises(ValueError, match=r"has no qa/train.json .*: add them, or leave"):
        study.run(plan.work([BY_LETTER["g"]], SMOKE))
    assert not (tmp_path / "out/runs").exists()


def test_capitals_and_stops_are_tagged_where_the_text_had_them() -> None:
    told = [[WORDS.partition(".")[0] + ".", "Did he, after all of it, stay there?"]]
    first = next(made.capitals(told))
    assert [t for t, tag in zip(*first.values(), strict=True) if tag == "capital"] == [
        *("the", "old", "rome", "king", "henry"),
    ]
    (row,) = made.stops(told)
    marked = [(t, tag) for t, tag in zip(*row.values(), strict=True) if tag != "none"]
    assert marked == [("henry", "comma"), ("brave", "comma"), ("left", "stop"), ("he", "comma"),
                      ("it", "comma"), ("there", "stop")]  # fmt: skip


def test_a_gap_asks_for_a_name_that_stands_in_the_text_before() -> None:
    told = [["Then came Henry.", "He was tall.", "And brave.", "Nobody saw Henry again."]]
    (paragraph,) = made.gaps(told)
    (asked,) = paragraph["qas"]
    assert asked["question"] == "Nobody saw ____ again."
    (answer,) = asked["answers"]
    assert paragraph["context"][answer["answer_start"] :].startswith("Henry")


@pytest.mark.slow
def test_rows_of_the_sample_are_as_full_as_the_scale_says(tmp_path: Path) -> None:
    own = Datasets(tmp_path, CPU, CPU.text, workers=1)
    for name, filled in CPU.filled.items():
        kind, segments, length = name.split("-")
        folder = own.corpus(Corpus(kind, segments, int(length)))  # type: ignore[arg-type]
        train = json.loads((folder / "corpus.json").read_text())["train"]
        assert train["tokens"] / train["rows"] / int(length) == pytest.approx(filled, abs=0.001)


def test_the_scales_know_how_full_the_rows_of_their_corpora_are() -> None:
    for scale in (CPU, PRESETS["gpu"]):
        works = plan.work(BY_LETTER.values(), scale)
        assert {w.run.corpus.whole for w in works} == set(scale.filled)


# ---- sentence pairs


def test_exchanged_segments_stand_in_the_other_order() -> None:
    one, two = SpecialTokens(1, 2), SpecialTokens(1, 2, doubled=True)
    for special_tokens in (one, two):
        rows = [special_tokens.build_row([5, 6], [7]), special_tokens.build_row([8], [9, 5, 6])]
        sizes = np.array([len(ids) for ids, _ in rows] + [0])
        tokens = np.zeros((3, 9), np.int32)
        for i, (ids, _) in enumerate(rows):
            tokens[i, : len(ids)] = ids
        batch = {"tokens": tokens, "first": np.array([f for _, f in rows] + [0]), "size": sizes}
        turned = exam.swapped(batch, special_tokens)
        for i, (a, b) in enumerate([([7], [5, 6]), ([9, 5, 6], [8])]):
            ids, first = special_tokens.build_row(a, b)
            assert turned["tokens"][i, : sizes[i]].tolist() == ids
            assert turned["first"][i] == first
        again = exam.swapped(turned, special_tokens)
        assert all((again[name] == batch[name]).all() for name in batch)


def test_order_is_asked_of_neighbours_alone_each_in_both_orders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that knows topics alone, and calls swapped what is not of one document: all of its
    next sentences are right, and half of the orders."""
    special_tokens = SpecialTokens(1, 2)
    pairs = [((3, 3), 0), ((3, 4), 1), ((4, 4), 0), ((5, 3), 1), ((5, 5), 0)]
    rows = [(special_tokens.build_row([a], [b]), label) for (a, b), label in pairs]
    batch = {
        "tokens": np.array([ids for (ids, _), _ in rows]),
        "first": np.array([first for (_, first), _ in rows]),
        "size": np.full(5, 5),
        "pair": np.array([label for _, label in rows]),
    }

    class Rows:
        def one_pass(self, _: int) -> Any:
            return [batch]

    class Model:
        tokenizer = type("Tokenizer", (), {"special_tokens": special_tokens})

    def topics(b: Any) -> Any:
        return (b["tokens"][:, 1] != b["tokens"][:, 3]).astype(int)

    monkeypatch.setattr(exam.bert_jax, "load", lambda _: Model)
    monkeypatch.setattr(exam, "_opened", lambda *_: (None, Rows()))
    monkeypatch.setattr(exam, "_head", lambda *_: topics)
    found = exam.pairs(Path("run"), Path("nsp"), Path("sop"), 32)
    assert found == {"nsp": 1.0, "sop": 0.5, "nsp_rows": 5, "sop_rows": 6}
