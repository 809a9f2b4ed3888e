"""A study is done piece by piece: what is done is not done again, what fails is named."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from study import jobs as plan
from study import results as collect
from study import runner
from study.__main__ import main
from study.datasets import Datasets
from study.hypotheses import BY_LETTER
from study.hypothesis import Hypothesis, ResultRow
from study.presets import SMOKE
from study.runner import Study
from study.stop_request import deadline
from study.variants import Corpus, Variant
from tests.helpers.study_samples import write_text


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


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
    own = Datasets(out / "data", SMOKE, (text,))

    def corpus(_: Datasets, wanted: Corpus) -> Path:
        folder = out / "data" / "corpora" / wanted.name
        folder.mkdir(parents=True, exist_ok=True)
        counts = {"rows": 32, "tokens": 32 * 20}
        (folder / "corpus.json").write_text(json.dumps({"train": counts}))
        return folder

    monkeypatch.setattr(Datasets, "corpus", corpus)
    monkeypatch.setattr(Datasets, "ready", lambda *_: None)
    monkeypatch.setattr(Study, "tasks_of", lambda *_: [])
    monkeypatch.setattr(runner.exam, "held_out", lambda *_: {"mlm_loss": 6.0})
    monkeypatch.setattr(runner.exam, "pairs", lambda *_: {"nsp": 0.5, "sop": 0.5})
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
    kept = {folder.parent.name.partition("-")[0] for folder in study.out.glob("runs/*/checkpoints")}
    assert kept == {"bert"}  # whose layers (j) needs
    assert lean.run(works) is None
    assert len(stand_in.done) == len(works)
    monkeypatch.setattr(Study, "layers", lambda self, work, what, out: out.mkdir(parents=True))
    assert lean.run(plan.work([BY_LETTER[x] for x in "abj"], SMOKE)) is None
    assert not list(study.out.glob("runs/bert-*/checkpoints"))


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
    (failed,) = study.failures()
    assert (failed["step"], failed["error"]) == ("training", "RuntimeError: no memory")


def test_a_measurement_that_fails_takes_no_other_with_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [w for w in plan.work([BY_LETTER["a"], BY_LETTER["b"]], SMOKE) if w.pairs][:1]
    stand_in = Made(study)

    def fails(*_: Any) -> Any:
        raise RuntimeError("no memory\nat all")

    monkeypatch.setattr(runner, "pretrain", stand_in.pretrain)
    monkeypatch.setattr(runner.exam, "held_out", fails)
    assert study.run(works) is None
    assert set(study.measured(works[0])) == {"pairs"}
    (told,) = collect.collect(study, works)["failed"]
    name = works[0].run.name
    assert told == {"run": name, "step": "held_out", "error": "RuntimeError: no memory"}
    monkeypatch.setattr(runner.exam, "held_out", lambda *_: {"mlm_loss": 6.0})
    assert study.run(works) is None  # what failed once is tried again, and told no more
    assert collect.collect(study, works)["failed"] == []
    assert stand_in.done == [name]


def test_a_failure_is_the_end_status(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(runner, "pretrain", fails)
    monkeypatch.setattr(Datasets, "names", lambda _: [])
    args = ["--scale", "smoke", "--only", "e", "--out", str(study.out), "--processes", "1"]
    assert main([*args, "--text", *study.materials.text]) == 1
    assert "no memory" in (study.out / "page/study.md").read_text()


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
    assert one["tokens"] == works[0].run.rows * 20


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
    assert 0 <= bert["pairs"]["sop"] <= 1 <= bert["pairs"]["sop_rows"]
    assert len(bert["layers"]["tagging"]) == SMOKE.encoder["layers"] + 1


@pytest.mark.slow
def test_held_out_loss_parts_of_the_text_and_questions_from_end_to_end(tmp_path: Path) -> None:
    part, long = Variant("part", "mlm", share=4), Variant("long", "spanbert", long=True)
    claims = [
        Hypothesis("x", "", "", "", (ResultRow(part, ""),), ("mlm", "tasks"), ()),
        Hypothesis("y", "", "", "", (ResultRow(long, ""),), ("mlm", "qa"), ()),
    ]
    works = plan.work(claims, SMOKE)
    own = Datasets(tmp_path / "data", SMOKE, ("data/sample.txt",), workers=1)
    study = Study(tmp_path, SMOKE, own)
    assert study.run(works) is None
    assert not study.failures()
    runs = collect.collect(study, works)["runs"]
    assert all(5 < run["held_out"]["mlm_loss"] < 9 for run in runs)
    assert all({*run["wanted"]} <= {*run["tasks"]} for run in runs)
    assert runs[1]["tasks"]["qa"]["rows"] == SMOKE.test_rows
