"""The two-core hour: what counts, what an entry is, and a dry run."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.two_core_hour import data, entry, folder, score, table, train
from benchmarks.two_core_hour.__main__ import budget_minutes, main
from bert_jax import config
from bert_jax.data import documents
from bert_jax.perf.param_table import parameter_table
from tests.helpers.paths import ROOT
from tests.helpers.study_samples import write_text

RESULT: dict[str, Any] = {
    "bits_per_character": 1.5, "bits_per_character_se": 0.02, "bigram_bits_per_character": 1.9,
    "mask_loss": 3.5, "bigram_loss": 4.0, "steps": 1000, "planned_steps": 1000, "seconds": 3456.0,
    "tasks": {"same": {"value": 0.75}}, "random_tasks": {"same": {"value": 0.5}},
    "without_encoder": {"same": 0.61},
    "budget_minutes": 60.0, "machine": "2 cores",
}  # fmt: skip


@pytest.mark.parametrize("name", entry.names())
def test_every_entry_builds_and_leaves_the_number_of_steps_to_the_budget(name: str) -> None:
    loaded = entry.load(name)
    run = train.run_config(loaded, "corpus", Path("run"), 12_345, 1)
    assert run.run.steps == 12_345
    assert loaded.config.optim.warmup_ratio is not None
    assert loaded.config.optim.decay_steps is None
    small = config.replace(run, encoder=dict(vocab_size=loaded.vocab_size))
    assert 1e6 < parameter_table(small)["parameters"]["total"] < 1e7
    assert max(loaded.lengths) == loaded.config.encoder.max_length


def test_the_steps_that_fit_leave_a_reserve_and_pay_for_the_start() -> None:
    assert train.plan_steps(100, 16, 0.5) == 160
    with pytest.raises(ValueError, match=r"--budget is 0.5 minutes, and starting takes 29 s"):
        train.plan_steps(30, 29, 0.5)


def test_waiting_for_data_is_part_of_a_measured_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """240 steps of 0.25 s, of which they wait a fifth, and no time to start: 400 in 100 s."""

    def pretrain(run: Any) -> None:
        folder = Path(run.run.dir)
        folder.mkdir()
        line = dict(what="steps", step=240, after=0, seconds=48.0, wait=12.0)
        (folder / "timing.jsonl").write_text(json.dumps(line) + "\n")

    monkeypatch.setattr(train, "pretrain", pretrain)
    times = itertools.chain((0.0,), itertools.repeat(60.0))
    monkeypatch.setattr(train.time, "monotonic", lambda: next(times))
    steps = train.measure_steps(entry.load("muon"), "corpus", tmp_path / "run", 100)
    assert steps == int(100 * (1 - train.RESERVE) / 0.25)


def test_held_out_documents_are_no_training_text(tmp_path: Path) -> None:
    text = write_text(tmp_path)
    parts = data.ContestData(tmp_path / "data", (text,))
    parts.split()
    docs = [d.paragraphs for d in documents.read_documents([text])]
    held_out, training = (
        [d.paragraphs for d in documents.read_documents([str(f)])]
        for f in (parts.held_out, parts.train)
    )
    assert held_out == docs[19::20]
    assert training == [d for i, d in enumerate(docs) if i % 20 != 19]
    tasks = (parts.labeled.tasks_folder() / "same/dev.jsonl").read_text()
    assert "Document 19 was" in tasks
    assert "Document 18 was" not in tasks


def test_too_few_documents_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One.\n\nTwo.\n")
    with pytest.raises(ValueError, match=r"2 documents are too few, expected at least 20"):
        data.ContestData(tmp_path / "data", (str(tmp_path / "text.txt"),)).split()


def test_the_text_of_the_contest_is_the_one_that_ships() -> None:
    assert data.sha256([str(ROOT / data.TEXT)]) == data.TEXT_SHA256


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["bert", "--budget", "0"], "--budget is '0': expected hour, gpu-hour or a number"),
        (["bert", "--budget", "long"], "--budget is 'long'"),
        (["best"], "there is no entry 'best': expected bert, electra"),
        ([], "no entry: expected bert, electra"),
        (["bert", "--seeds", "0"], "--seeds is 0: expected 1 or more"),
        (["bert", "--tasks", "/no/such"], "--tasks /no/such is not a folder"),
    ],
)
def test_wrong_arguments_are_reported(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert message in capsys.readouterr().err


def test_budgets() -> None:
    assert [budget_minutes(b) for b in ("hour", "gpu-hour", "0.5")] == [60, 60, 0.5]


def test_entries_without_a_result_are_marked_and_come_last() -> None:
    lines = table.table({"muon": RESULT}).splitlines()[2:]
    assert lines[0] == (
        "| `muon` | modern encoder, Muon (the recipe of `make demo`) | 1.500 ± 0.020 | 1.900 | "
        "3.500 (4.000) | same 75.0 (50.0; 61.0) | 1,000 | 57.6 of 60 min, 2 cores |"
    )
    assert all(table.NOT_RUN in line for line in lines[1:])
    assert len(lines) == len(entry.names())
    late = table.table({"muon": RESULT | {"steps": 900}})
    assert "| 900 of 1,000 |" in late


def test_the_page_has_the_table_of_the_stored_results() -> None:
    page = (ROOT / "docs/two_core_hour.md").read_text(encoding="utf-8")
    assert table.table(table.read_results()) in page


@pytest.mark.slow
@pytest.mark.nightly
def test_a_dry_run_trains_and_scores_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)  # other tests need all cores
    monkeypatch.setattr(train, "CALIBRATION_STEPS", 6)
    measure = train.measure_steps
    monkeypatch.setattr(train, "measure_steps", lambda *args: min(20, measure(*args)))
    rng = random.Random(0)
    words = [f"word{i}" for i in range(60)]
    docs = [". ".join(" ".join(rng.choices(words, k=8)) for _ in range(12)) for _ in range(40)]
    (tmp_path / "text.txt").write_text("\n\n".join(docs) + "\n")
    rows = [json.dumps({"text": f"word{i % 2}", "label": i % 2}) + "\n" for i in range(40)]
    for split in ("train", "dev"):
        file = tmp_path / "tasks/parity" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(rows))
    (tmp_path / "tiny.py").write_text(
        "from bert_jax.config import BERT, demo_config, replace\n"
        "from benchmarks.two_core_hour.entry import Entry\n"
        "encoder = dict(layers=1, hidden_size=16, heads=2, mlp_size=24, max_length=16)\n"
        "config = replace(demo_config(BERT), encoder=encoder, data=dict(batch_size=4))\n"
        "entry = Entry('tiny', config, vocab_size=80, lengths=(16,))\n"
    )
    args = ["--text", str(tmp_path / "text.txt"), "--tasks", str(tmp_path / "tasks")]
    args += ["--out", str(tmp_path / "out"), "--budget", "10", "--seeds", "1"]
    assert main([str(tmp_path / "tiny.py"), *args]) == 0
    result = json.loads((tmp_path / "out/tiny.json").read_text())
    assert result["steps"] == result["planned_steps"] == 20
    assert 0 < result["bits_per_character"] < 10
    assert set(result["tasks"]) == set(result["random_tasks"]) == {"parity"}
    assert result["tasks"]["parity"]["peak_lr"] in data.TASK_ROWS.tune_rates
    assert result["without_encoder"] == {"parity": 1.0}
    assert result["task_rows"] == {"parity": 40}
    monkeypatch.setattr(train, "train", None)  # what is trained and scored is not done again
    monkeypatch.setattr(score, "finetune_run", None)
    assert main([str(tmp_path / "tiny.py"), *args]) == 0
    assert json.loads((tmp_path / "out/tiny.json").read_text()) == result
    (tmp_path / "out/trained.json").unlink()
    assert main([str(tmp_path / "tiny.py"), *args]) == 2


@pytest.mark.parametrize("other", ["entry", "budget_minutes", "seed", "task_seeds", "text_sha256"])
def test_a_folder_is_that_of_one_entry_text_and_number_of_seeds(other: str, tmp_path: Path) -> None:
    tiny = entry.load("muon")
    values = folder.made_from(tiny, 60.0, 0, 3, "a hash", None)
    folder.claim(tmp_path / "out", values)
    folder.claim(tmp_path / "out", folder.made_from(tiny, 60.0, 0, 3, "a hash", None))
    with pytest.raises(ValueError, match=f"was made from another {other} "):
        folder.claim(tmp_path / "out", values | {other: "another"})
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(ValueError, match=r"is not empty and has no entry\.json"):
        folder.claim(tmp_path / "there", values)


def test_a_task_of_too_few_rows_has_no_score_without_an_encoder(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        file = tmp_path / "tasks/few" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    contest = data.ContestData(tmp_path / "data", tasks=tmp_path / "tasks")
    assert score.without_encoder(contest) == {}


def test_other_tasks_of_the_same_names_are_other_tasks(tmp_path: Path) -> None:
    file = tmp_path / "parity/train.jsonl"
    file.parent.mkdir()
    found = []
    for text in ("a", "b", "a"):
        file.write_text(text)
        values = folder.made_from(entry.load("muon"), 60.0, 0, 3, "", tmp_path)
        found.append(values["tasks_sha256"])
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("key", [*table.CONTEST, "machine"])
def test_results_that_are_not_of_the_contest_are_refused(key: str, tmp_path: Path) -> None:
    result = RESULT | table.CONTEST
    (tmp_path / "muon.json").write_text(json.dumps(result))
    assert table.read_results(tmp_path) == {"muon": result}
    (tmp_path / "muon.json").write_text(json.dumps(result | {key: "another"}))
    with pytest.raises(ValueError, match=rf"muon.json is not of the contest, by {key}:"):
        table.read_results(tmp_path)
