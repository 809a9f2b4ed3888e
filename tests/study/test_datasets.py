"""The study's own data, and the tests of trained models."""

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.config import Data, Experiment, differences, read_config, save_config
from bert_jax.data import documents
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.inference.evaluation import pair_scores
from bert_jax.inference.evaluation.token_rows import TokenRows
from bert_jax.tasks import read_dataset
from study import evaluate, synthetic_tasks
from study.datasets import RATES, Datasets, cut_context, move_corpus, sample_rows
from study.hypotheses import BY_LETTER, hypotheses_at
from study.jobs import QA, list_jobs
from study.presets import CPU, GPU, HOUR, SMOKE
from study.runner import Study
from study.variants import Corpus
from tests.helpers.study_samples import WORDS, write_text


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


# ---- data


def test_a_subsample_of_the_text_has_no_validation_document(text: str, tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "data", SMOKE, (text,))
    whole = [d.paragraphs for d in documents.read_documents([text])]
    file = str(datasets.subsampled_text(4))
    subsample = [d.paragraphs for d in documents.read_documents([file])]
    training = [d for i, d in enumerate(whole) if i % 20 != 19]
    assert subsample == training[::4]


def test_a_cut_context_has_its_answer_and_at_most_max_words() -> None:
    rng = random.Random(1)
    words = [rng.choice(["one", "two", "three", "a"]) for _ in range(50)]
    context = "  ".join(words)
    for i in range(200):
        first = rng.randrange(48)
        begin = len("  ".join(words[:first])) + 2 * (first > 0)
        answer = "  ".join(words[first : first + 2])
        qa = {"id": str(i), "question": "?", "answers": [{"text": answer, "answer_start": begin}]}
        cut = cut_context(context, qa, 12)
        (cut_answer,) = cut["qas"][0]["answers"]
        assert len(cut["context"].split()) == 12
        assert cut["context"][cut_answer["answer_start"] :].startswith(answer)
        assert cut["context"] in context


def test_sampled_dev_rows_have_only_labels_of_the_sampled_training_rows(tmp_path: Path) -> None:
    source, out = tmp_path / "given", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    rows = [{"text": "a b", "label": "ab"[i % 2]} for i in range(200)]
    rows += [{"text": "a", "label": "seldom"}, {"text": "word " * 50, "label": "a"}]
    for split in ("train", "dev"):
        (source / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    sample_rows(source, out, SMOKE)
    dataset = read_dataset("classification", out)
    assert dataset.labels == ("a", "b")
    assert len(dataset.splits["train"]) == SMOKE.train_rows
    assert len(dataset.splits["dev"]) == SMOKE.test_rows


def test_labeled_test_rows_replace_the_dev_rows(tmp_path: Path) -> None:
    source, out = tmp_path / "given", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    for split, words in (("train", "x"), ("dev", "seen"), ("test", "unseen")):
        rows = [json.dumps({"text": words, "label": i % 2}) + "\n" for i in range(6)]
        (source / f"{split}.jsonl").write_text("".join(rows))
    sample_rows(source, out, SMOKE)
    assert "unseen" in (out / "dev.jsonl").read_text()


def test_synthetic_tasks_are_readable_tasks(text: str, tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "data", SMOKE, (text,))
    assert datasets.task_names() == ["bigram_shift", "same", "stops"]
    for name in [*datasets.task_names(), QA]:
        folder = datasets.task(name)
        dataset, parts = (
            read_dataset(datasets.task_type(name), f) for f in (folder, folder / RATES)
        )
        assert dataset.splits["train"]
        assert dataset.splits["dev"]
        assert name == QA or len(dataset.labels) >= 2
        assert len(parts.splits["dev"]) == len(dataset.splits["train"]) // 6


def test_synthetic_tasks_are_scored_on_validation_documents(text: str, tmp_path: Path) -> None:
    synthetic_tasks.write_tasks([text], tmp_path)
    numbers = {
        split: {int(n) for n in re.findall(r"Document (\d+) was", (tmp_path / f).read_text())}
        for split, f in (("train", "same/train.jsonl"), ("dev", "same/dev.jsonl"))
    }
    assert numbers == {"dev": {19, 39, 59}, "train": {*range(60)} - {19, 39, 59}}


def test_missing_tasks_are_reported_before_the_first_run(text: str, tmp_path: Path) -> None:
    task_folder = tmp_path / "given"
    (task_folder / "t").mkdir(parents=True)
    (task_folder / "t/train.jsonl").write_text('{"text": "a", "label": "b"}\n' * 2)
    (task_folder / "t/dev.jsonl").write_text('{"text": "a", "label": "b"}\n' * 2)
    study = Study(tmp_path / "out", SMOKE, Datasets(tmp_path / "data", SMOKE, (text,), task_folder))
    with pytest.raises(ValueError, match=r"has no qa/train.json .*: add them, or exclude"):
        study.run(list_jobs([BY_LETTER["g"]], SMOKE))
    assert not (tmp_path / "out/runs").exists()


def test_stops_are_tagged_as_in_the_text() -> None:
    docs = [[WORDS.partition(".")[0] + ".", "Did he, after all of it, stay there?"]]
    (row,) = synthetic_tasks.stops(docs)
    tagged = [(t, tag) for t, tag in zip(*row.values(), strict=True) if tag != "none"]
    assert tagged == [("henry", "comma"), ("brave", "comma"), ("left", "stop"), ("he", "comma"),
                      ("it", "comma")]  # fmt: skip
    assert row["tokens"][-1] == "stay"  # of the last word a row's end would tell the tag


def test_half_of_the_sentences_have_two_neighboring_words_exchanged() -> None:
    """And nothing else: a bag of words cannot tell them apart."""
    sentence = "Then, after all, the \u00e9clair of the North left us."
    rows = list(synthetic_tasks.bigram_shift([[sentence] * 200]))
    words = re.findall(r"\w+", sentence.lower())
    for i, row in enumerate(rows):
        text = row["text"].split()
        assert sorted(text) == sorted(words)
        moved = [k for k, (a, b) in enumerate(zip(text, words, strict=True)) if a != b]
        assert row["label"] == ("original" if i % 2 else "shifted")
        assert moved == ([] if i % 2 else [moved[0], moved[0] + 1])
    assert len({row["text"] for row in rows}) == len(words)
    without_a_place = ["one one one one one one one", ". . . . . . . .", "a, b, c, d, e."]
    assert not list(synthetic_tasks.bigram_shift([without_a_place]))


def test_single_sentences_do_not_tell_whether_two_are_neighbors() -> None:
    docs = [[f"{n} {kind} {i}" for i in range(20) for kind in "ab"] for n in range(9)]
    rows = list(synthetic_tasks.same([*docs, ["alone"]]))
    for i, row in enumerate(rows):
        (n, kind, k), (other_n, other_kind, other_k) = row["text"].split(), row["text_pair"].split()
        assert (kind, other_kind) == ("a", "b")
        assert row["label"] == ("apart" if i % 2 else "beside")
        assert i % 2 or (n, k) == (other_n, other_k)
        assert not i % 2 or n != other_n
    assert len(rows) == 180
    assert not list(synthetic_tasks.same([docs[0]]))


def test_a_gap_question_asks_for_a_name_in_the_context() -> None:
    docs = [["Then came Henry.", "He was tall.", "And brave.", "Nobody saw Henry again."]]
    (paragraph,) = synthetic_tasks.gaps(docs)
    (qa,) = paragraph["qas"]
    assert qa["question"] == "Nobody saw ____ again."
    (answer,) = qa["answers"]
    assert paragraph["context"][answer["answer_start"] :].startswith("Henry")


@pytest.mark.slow
@pytest.mark.nightly
def test_fill_ratios_of_the_sample_text_are_those_of_the_preset(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path, CPU, CPU.text, workers=1)
    for name, fill_ratio in CPU.fill_ratios.items():
        kind, segments, length = name.split("-")
        folder = datasets.corpus(Corpus(kind, segments, int(length)))  # type: ignore[arg-type]
        train = json.loads((folder / "corpus.json").read_text())["train"]
        assert train["tokens"] / train["rows"] / int(length) == pytest.approx(fill_ratio, abs=0.001)


def test_presets_have_the_fill_ratios_of_all_their_corpora() -> None:
    for preset in (CPU, HOUR, GPU):
        jobs = list_jobs(hypotheses_at(preset.name), preset)
        assert {job.run.corpus.full_name for job in jobs} <= set(preset.fill_ratios)


def test_a_run_folder_goes_on_where_the_corpus_has_another_path(tmp_path: Path) -> None:
    config = Experiment(data=Data(path="/there/corpus", corpus="a hash"))
    save_config(config, tmp_path / "config.json")
    move_corpus(tmp_path, "/here/corpus")
    moved = read_config(tmp_path / "config.json")
    assert differences(config, moved) == {"data.path": ("/there/corpus", "/here/corpus")}
    move_corpus(tmp_path / "new", "/here/corpus")
    assert not (tmp_path / "new").exists()


# ---- sentence pairs


def test_order_is_tested_on_the_neighbors_of_both_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows only topics calls segments of two documents swapped: it predicts all
    next sentences and half of the orders correctly."""
    special_tokens = SpecialTokens(1, 2)
    pairs = [((3, 3), 0), ((3, 4), 1), ((4, 4), 0), ((5, 3), 1), ((5, 5), 0)]
    built = [special_tokens.build_row([a], [b]) for (a, b), _ in pairs]
    tokens = np.array([[*ids, 0] for ids, _ in built])
    first = np.array([first for _, first in built])
    rows = TokenRows(tokens, np.full(5, 5), first, np.array([label for _, label in pairs]))

    class Model:
        class tokenizer:
            vocab_size = 10

    Model.tokenizer.special_tokens = special_tokens  # type: ignore[attr-defined]

    def predict_by_topic(_: Any, rows: TokenRows) -> np.ndarray:
        differ = rows.tokens[:, 1] != rows.tokens[:, 3]
        return np.stack([~differ, differ], 1).astype(float)

    monkeypatch.setattr(evaluate.bert_jax, "load", lambda _: Model)
    monkeypatch.setattr(evaluate, "open_corpus", lambda path: path)
    monkeypatch.setattr(evaluate.token_rows, "corpus_rows", lambda *_: rows)
    monkeypatch.setattr(pair_scores, "_log_probabilities", predict_by_topic)
    scores = evaluate.pair_accuracies(Path("run"), Path("nsp"), Path("sop"), 4)
    of_order = {"sop": 0.5, "sop_counts": 0.5, "sop_rows": 6}
    assert scores == {"nsp": 1.0, "nsp_rows": 4, **of_order}
