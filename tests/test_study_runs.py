"""The study's own data, and doing what is not done."""

import dataclasses
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bert_jax.tasks import read as read_task
from bert_jax.text import documents
from study import collect, made, materials, plan, runner
from study.__main__ import main
from study.arms import Corpus
from study.claims import BY_LETTER
from study.materials import Materials
from study.runner import Study, deadline
from study.scales import SMOKE

WORDS = "The war of Old Rome began when King Henry, the brave, left. He came back. Did he stay?"


@pytest.fixture
def text(tmp_path: Path) -> str:
    rng = random.Random(0)
    told = []
    for i in range(60):
        drawn = [" ".join(rng.choice(WORDS.split()) for _ in range(9)) for _ in range(8)]
        told.append(f"Document {i} was here. " + ". ".join(s[0].upper() + s[1:] for s in drawn))
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(told))
    return str(file)


# ---- data


def test_a_part_of_the_text_has_none_of_the_documents_that_validate_the_whole(
    text: str, tmp_path: Path
) -> None:
    own = Materials(tmp_path / "data", SMOKE, (text,))
    whole = [d.paragraphs for d in documents.read([text])]
    part = [d.paragraphs for d in documents.read([str(own.part(4))])]
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
    own = Materials(tmp_path / "data", SMOKE, (text,))
    assert own.names() == ["capitals", "same", "stops"]
    for name in [*own.names(), plan.ANSWERS]:
        dataset = read_task(own.kind(name), own.task(name))
        assert dataset.splits["train"]
        assert dataset.splits["dev"]
        assert name == plan.ANSWERS or len(dataset.labels) >= 2


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


# ---- doing


class Made:
    """Stands for what trains: writes what the real ones leave behind, and counts."""

    def __init__(self, study: Study, signal_at: str = "") -> None:
        self.study, self.signal_at, self.done = study, signal_at, list[str]()

    def pretrain(self, asked: Any) -> int | None:
        folder = Path(asked.run.dir)
        if folder.name == self.signal_at:
            return signal.SIGTERM
        self.done.append(folder.name)
        steps = asked.run.steps
        (folder / "checkpoints" / str(steps)).mkdir(parents=True)
        line = {"step": steps, "loss": 2.5, "eval_loss": 2.0, "eval_mlm_loss": 1.23456789}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        told = {"objective": {"kind": "Masked"}}
        (folder / "config.json").write_text(json.dumps(told))
        return None


@pytest.fixture
def study(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    out = tmp_path / "out"
    own = Materials(out / "data", SMOKE, (text,))

    def corpus(_: Materials, wanted: Corpus) -> Path:
        folder = out / "data" / "corpora" / wanted.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "corpus.json").write_text(json.dumps({"train": {"rows": 32}}))
        return folder

    monkeypatch.setattr(Materials, "corpus", corpus)
    monkeypatch.setattr(Study, "tasks_of", lambda *_: [])
    monkeypatch.setattr(runner.exam, "held_out", lambda *_: {"mlm_loss": 6.0})
    monkeypatch.setattr(runner.exam, "pair_accuracy", lambda *_: 0.5)
    monkeypatch.setattr(Study, "_keep_compiled", lambda _: None)
    return Study(out, SMOKE, own)


def test_what_is_done_is_not_done_again_and_a_stop_is_gone_on_from(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = plan.work([BY_LETTER["b"]], SMOKE)
    names = [w.run.name for w in works]
    stand_in = Made(study, signal_at=names[1])
    monkeypatch.setattr(runner, "pretrain", stand_in.pretrain)
    assert study.run(works) == signal.SIGTERM
    assert stand_in.done == names[:1]
    stand_in.signal_at = ""
    assert study.run(works) is None
    assert stand_in.done == names
    assert study.run(works) is None
    assert stand_in.done == names


def test_a_run_whose_work_is_done_can_do_without_its_checkpoints(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = plan.work([BY_LETTER["b"]], SMOKE)
    stand_in = Made(study)
    monkeypatch.setattr(runner, "pretrain", stand_in.pretrain)
    lean = dataclasses.replace(study, lean=True)
    assert lean.run(works) is None
    assert not list(study.out.glob("runs/*/checkpoints"))
    assert lean.run(works) is None
    assert len(stand_in.done) == len(works)


def test_a_run_that_fails_is_passed_over_and_named(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = plan.work([BY_LETTER["b"]], SMOKE)
    stand_in = Made(study)

    def fails_once(asked: Any) -> int | None:
        if asked.run.dir.endswith(works[0].run.name):
            raise RuntimeError("no memory")
        return stand_in.pretrain(asked)

    monkeypatch.setattr(runner, "pretrain", fails_once)
    assert study.run(works) is None
    assert stand_in.done == [w.run.name for w in works[1:]]
    (line,) = (study.out / "failed.jsonl").read_text().splitlines()
    assert json.loads(line)["error"] == "RuntimeError: no memory"


def test_the_store_has_the_numbers_of_the_run_folders(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = plan.work([BY_LETTER["b"]], SMOKE)
    monkeypatch.setattr(runner, "pretrain", Made(study).pretrain)
    study.run(works[:2])
    store = collect.collect(study, works)
    assert [r["name"] for r in store["runs"]] == [w.run.name for w in works[:2]]
    one = store["runs"][0]
    lines = (study.folder(works[0]) / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(lines[-1])
    assert one["last"]["eval_mlm_loss"] == pytest.approx(logged["eval_mlm_loss"], rel=1e-5)
    assert one["steps"] == logged["step"]
    assert one["epochs"] == works[0].run.rows / 32


def test_another_study_wants_another_folder(study: Study, text: str) -> None:
    study.run([])
    Path(text).write_text("Another text.\n")
    with pytest.raises(ValueError, match=r"holds a study at --scale smoke of .*another --text"):
        study.run([])


def test_the_end_of_the_minutes_is_a_signal_that_is_remembered() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deadline(1 / 60) as asked:
        begin = time.monotonic()
        while not asked["signal"] and time.monotonic() - begin < 10:
            time.sleep(0.02)
    assert asked == {"signal": signal.SIGTERM, "over": True}
    assert signal.getsignal(signal.SIGTERM) is before
    with deadline(None) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    assert asked == {"signal": signal.SIGINT, "over": False}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--only", "h,z"], "--only has 'z': expected letters of a, b"),
        (["--minutes", "0"], "--minutes is 0.0: expected above 0"),
        (["--tasks", "/no/such"], "--tasks /no/such is not a folder"),
        (["--page", "--docs", "/no/such/folder"], "is no store of a study"),
    ],
)
def test_wrong_requests_are_named(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    args = [a.replace("/no/such/folder", str(tmp_path)) for a in args]
    assert main(["--scale", "smoke", "--out", str(tmp_path / "out"), *args]) == 2
    assert says in capsys.readouterr().err


def test_list_names_every_run_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--list", "--scale", "gpu", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(f"{arm.name}-s" in said for c in BY_LETTER.values() for arm in c.arms)
    assert "FLOPs as published" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_small_study_goes_from_text_to_its_page(text: str, tmp_path: Path) -> None:
    args = ["--scale", "smoke", "--only", "b,j", "--text", "data/sample.txt"]
    args += ["--workers", "1", "--out", str(tmp_path / "out")]
    assert main(args) == 0
    found = json.loads((tmp_path / "out/page/study.json").read_text())
    assert {r["arm"] for r in found["runs"]} >= {"bert", "bert_sop", "bert_no_pair", "rtd"}
    assert not (tmp_path / "out/failed.jsonl").exists()
    bert = next(r for r in found["runs"] if r["arm"] == "bert")
    assert set(bert["pairs"]) == {"nsp", "sop"}
    assert len(bert["layers"]["tagging"]) == SMOKE.encoder["layers"] + 1
