"""A study runs step by step: finished steps are not repeated, failed steps are reported."""

import dataclasses
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from study import runner
from study.__main__ import main
from study.datasets import Datasets
from study.hypotheses import BY_LETTER
from study.hypothesis import Hypothesis, ResultRow
from study.jobs import list_jobs
from study.presets import SMOKE
from study.results import collect_results
from study.runner import Study
from study.stop_request import StopRequest, stop_request
from study.variants import Corpus, Variant
from tests.helpers.study_samples import write_text

JOBS = list_jobs([BY_LETTER["b"]], SMOKE)
NAMES = [job.run.name for job in JOBS]


class FakeTraining:
    """Stands in for `pretrain`: writes a run folder, records its name, fails or stops."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.stop_at = ""
        self.fail_at: tuple[str, ...] = ()

    def __call__(self, config: Any) -> int | None:
        folder = Path(config.run.dir)
        if folder.name == self.stop_at:
            return signal.SIGTERM
        if folder.name in self.fail_at:
            raise RuntimeError("no memory")
        self.trained.append(folder.name)
        steps = config.run.steps
        for step in (steps - 1, steps):
            (folder / "checkpoints" / str(step)).mkdir(parents=True)
        line = {"step": steps, "loss": 2.5, "eval_loss": 2.0, "eval_mask_loss": 1.23456789}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (folder / "config.json").write_text(json.dumps({"objective": {"kind": "Masked"}}))
        return None


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_text(tmp_path)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    training = FakeTraining()
    monkeypatch.setattr(runner, "pretrain", training)
    return training


@pytest.fixture
def study(
    text: str, tmp_path: Path, training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> Study:
    """A study without tasks, with stand-ins for corpora and measurements."""
    out = tmp_path / "out"

    def corpus(_: Datasets, corpus: Corpus) -> Path:
        folder = out / "data" / "corpora" / corpus.name
        folder.mkdir(parents=True, exist_ok=True)
        counts = {"rows": 32, "tokens": 32 * 20}
        (folder / "corpus.json").write_text(json.dumps({"train": counts, "duplicates": 2}))
        return folder

    monkeypatch.setattr(Datasets, "corpus", corpus)
    monkeypatch.setattr(Datasets, "prepare", lambda *_: None)
    monkeypatch.setattr(Study, "task_names", lambda *_: [])
    monkeypatch.setattr(runner.evaluate, "held_out_scores", lambda *_: {"mask_loss": 6.0})
    monkeypatch.setattr(runner.evaluate, "pair_accuracies", lambda *_: {"nsp": 0.5, "sop": 0.5})
    monkeypatch.setattr(Study, "_enable_compilation_cache", lambda _: None)
    return Study(out, SMOKE, Datasets(out / "data", SMOKE, (text,)))


def fail(*_: Any) -> Any:
    raise RuntimeError("no memory\nat all")


def test_a_stopped_study_resumes_and_repeats_no_finished_run(
    study: Study, training: FakeTraining
) -> None:
    training.stop_at = NAMES[1]
    assert study.run(JOBS) == signal.SIGTERM
    assert training.trained == NAMES[:1]
    training.stop_at = ""
    assert study.run(JOBS) is None
    assert training.trained == NAMES
    assert study.run(JOBS) is None
    assert training.trained == NAMES


def test_pruning_keeps_the_checkpoints_that_other_hypotheses_need(
    study: Study, training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned = dataclasses.replace(study, prune_checkpoints=True)
    assert pruned.run(JOBS) is None
    variants = {p.parent.name.partition("-")[0] for p in study.out.glob("runs/*/checkpoints")}
    assert variants == {"bert"}  # hypothesis (j) needs its layers
    assert pruned.run(JOBS) is None
    assert len(training.trained) == len(JOBS)
    monkeypatch.setattr(Study, "probe", lambda self, job, name, out: out.mkdir(parents=True))
    assert pruned.run(list_jobs([BY_LETTER[x] for x in "abj"], SMOKE)) is None
    assert not list(study.out.glob("runs/bert-*/checkpoints"))


def test_a_failed_run_is_skipped_and_reported(study: Study, training: FakeTraining) -> None:
    training.fail_at = (NAMES[0],)
    assert study.run(JOBS) is None
    assert training.trained == NAMES[1:]
    (failure,) = study.failures()
    assert (failure["step"], failure["error"]) == ("pre-training", "RuntimeError: no memory")


def test_a_failed_measurement_is_reported_and_tried_again(
    study: Study, training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job for job in JOBS if job.pairs][:1]
    name = jobs[0].run.name
    with monkeypatch.context() as failing:
        failing.setattr(runner.evaluate, "held_out_scores", fail)
        assert study.run(jobs) is None
    assert set(study.measured(jobs[0])) == {"pairs"}  # the other measurement succeeded
    failed = collect_results(study, jobs)["failed"]
    assert failed == [{"run": name, "step": "held_out", "error": "RuntimeError: no memory"}]
    assert study.run(jobs) is None
    assert collect_results(study, jobs)["failed"] == []
    assert training.trained == [name]


def test_failed_steps_make_the_command_fail(
    study: Study, training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.fail_at = tuple(job.run.name for job in list_jobs([BY_LETTER["e"]], SMOKE))
    monkeypatch.setattr(Datasets, "task_names", lambda _: [])
    args = ["--scale", "smoke", "--only", "e", "--out", str(study.out), "--processes", "1"]
    assert main([*args, "--text", *study.datasets.text]) == 1
    assert "no memory" in (study.out / "page/study.md").read_text()


def test_results_have_the_numbers_of_the_run_folders(study: Study) -> None:
    study.run(JOBS[:2])
    timing = dict(what="steps", step=2, after=0, seconds=3.0, wait=2.0)
    (study.folder(JOBS[0]) / "timing.jsonl").write_text(json.dumps(timing) + "\n")
    records = collect_results(study, JOBS)["runs"]
    assert [r["name"] for r in records] == NAMES[:2]
    assert records[0]["seconds"] == 5  # waiting for data included
    lines = (study.folder(JOBS[0]) / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(lines[-1])
    assert records[0]["last"]["eval_mask_loss"] == pytest.approx(logged["eval_mask_loss"], rel=1e-5)
    assert records[0]["steps"] == logged["step"]
    assert records[0]["epochs"] == 2 * JOBS[0].run.rows / 32  # two passes over the text
    assert records[0]["tokens"] == JOBS[0].run.rows * 20


def test_another_study_needs_another_folder(study: Study, text: str) -> None:
    study.run([])
    Path(text).write_text("Another text.\n")
    with pytest.raises(ValueError, match=r"holds a study at --scale smoke of .*another --text"):
        study.run([])


def test_a_study_goes_on_from_its_state_alone(study: Study, training: FakeTraining) -> None:
    """The folder of data and compiled programs may be another machine's."""
    state = study.out.parent / "state"
    first = dataclasses.replace(study, state=state)
    training.stop_at = NAMES[1]
    assert first.run(JOBS) == signal.SIGTERM
    training.stop_at = ""
    shutil.rmtree(study.out)
    second = dataclasses.replace(first, out=study.out.parent / "elsewhere")
    assert second.run(JOBS) is None
    assert training.trained == NAMES
    assert not (second.out / "runs").exists()
    assert [r["name"] for r in collect_results(second, JOBS)["runs"]] == NAMES
    kept = {int(p.name) for p in state.glob("runs/*/checkpoints/*")}
    assert kept == {job.steps for job in JOBS}  # the last one of each run


def test_a_time_limit_and_a_signal_are_remembered() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with stop_request(1 / 60) as stop:
        start = time.monotonic()
        while not stop.signal and time.monotonic() - start < 10:
            time.sleep(0.02)
    assert stop == StopRequest(signal.SIGTERM, timed_out=True)
    assert signal.getsignal(signal.SIGTERM) is handler
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
    assert stop == StopRequest(signal.SIGINT, timed_out=False)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only", "h,z"], "--only has 'z': expected letters of a, b"),
        (["--arm-minutes", "20"], "--arm-minutes needs --scale hour, and --scale is smoke"),
        (["--scale", "hour"], "--scale hour needs --text FILE"),
        (["--scale", "cpu", "--only", "a"], "letters of k, h, c at --scale cpu"),
        (["--minutes", "0"], "--minutes is 0.0: expected above 0"),
        (["--processes", "0"], "--processes is 0: expected 1 or more"),
        (["--tasks", "/no/such"], "--tasks /no/such is not a folder"),
        (["--page", "--docs", "EMPTY"], "as the results of a study"),
    ],
)
def test_wrong_arguments_are_reported(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    args = [a.replace("EMPTY", str(tmp_path)) for a in args]
    assert main(["--scale", "smoke", "--out", str(tmp_path / "out"), *args]) == 2
    assert message in capsys.readouterr().err


def test_list_prints_every_run_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--list", "--scale", "gpu", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert all(f"{v.name}-s" in output for h in BY_LETTER.values() for v in h.variants)
    assert "FLOPs as published" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_a_small_study_runs_from_text_to_page(tmp_path: Path) -> None:
    args = ["--scale", "smoke", "--only", "b,j", "--text", "data/sample.txt"]
    args += ["--workers", "1", "--out", str(tmp_path / "out")]
    assert main(args) == 0
    results = json.loads((tmp_path / "out/page/study.json").read_text())
    variants = {r["variant"]: r for r in results["runs"]}
    assert set(variants) >= {"bert", "bert_sop", "bert_no_pair", "rtd"}
    assert not (tmp_path / "out/failed.jsonl").exists()
    bert = variants["bert"]
    assert 0 <= bert["pairs"]["nsp"] <= 1 <= bert["pairs"]["nsp_rows"]
    assert bert["pairs"]["sop"] is None  # so little text has no untrimmed pairs of equal lengths
    assert all(len(scores) == SMOKE.encoder["layers"] + 1 for scores in bert["layers"].values())
    assert {"classification", "tagging"} == set(bert["layer_types"].values())


@pytest.mark.slow
@pytest.mark.nightly
def test_held_out_loss_subsampled_text_and_questions_from_end_to_end(tmp_path: Path) -> None:
    subsample = Variant("subsample", "mlm", subsample=4)
    long_rows = Variant("long_rows", "spanbert", long_rows=True)
    hypotheses = [
        Hypothesis("x", "", "", "", (ResultRow(subsample, ""),), ("mask", "tasks"), ()),
        Hypothesis("y", "", "", "", (ResultRow(long_rows, ""),), ("mask", "qa"), ()),
    ]
    jobs = list_jobs(hypotheses, SMOKE)
    datasets = Datasets(tmp_path / "data", SMOKE, ("data/sample.txt",), workers=1)
    study = Study(tmp_path, SMOKE, datasets)
    assert study.run(jobs) is None
    assert not study.failures()
    records = collect_results(study, jobs)["runs"]
    assert all(5 < record["held_out"]["mask_loss"] < 9 for record in records)
    scores = [record["held_out"] for record in records]
    assert all(s["bigram_loss"] < s["unigram_loss"] for s in scores)
    assert all({*record["expected_tasks"]} <= {*record["tasks"]} for record in records)
    assert records[1]["tasks"]["qa"]["rows"] == SMOKE.test_rows
