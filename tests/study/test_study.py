"""The study: plans, and a page that is made of stored numbers alone."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from study import blocks, page, svg
from study import jobs as plan
from study import plots as curves
from study import results as collect
from study import verdict as judge
from study.hypotheses import BY_LETTER, HYPOTHESES, ORDER
from study.presets import CPU, GPU, PRESETS
from study.variants import run_of, yardstick
from tests.helpers.paths import ROOT
from tests.helpers.study_samples import record

DOCS = ROOT / "docs"
ARMS = {arm.name: arm for claim in HYPOTHESES for arm in claim.arms}


def test_every_claim_of_the_issue_is_there_and_in_the_order_for_accelerators() -> None:
    assert "".join(claim.letter for claim in HYPOTHESES) == "abcdefghijk"
    assert sorted(ORDER) == sorted(BY_LETTER)


@pytest.mark.parametrize("scale", PRESETS.values(), ids=PRESETS)
def test_two_arms_of_one_name_are_one_run_and_two_names_are_two(scale: Any) -> None:
    for seed in range(2):
        names: dict[str, set[str]] = {}
        for claim in HYPOTHESES:
            for arm in claim.arms:
                names.setdefault(arm.name, set()).add(run_of(arm, scale, seed).name)
        assert all(len(of) == 1 for of in names.values())
        marks = [next(iter(of)).rpartition("-")[2] for of in names.values()]
        assert len(set(marks)) == len(marks)


@pytest.mark.parametrize("scale", [CPU, GPU], ids=["cpu", "gpu"])
def test_runs_at_equal_flops_or_tokens_are_equal_to_half_a_step(scale: Any) -> None:
    tokens = run_of(ARMS["mlm"], scale, 0).tokens
    for arm in ARMS.values():
        run = run_of(arm, scale, 0)
        half = 0.5 / run.experiment.run.steps
        if arm.equal == "flops":
            assert run.cost.sparse == pytest.approx(yardstick(scale), rel=half * 1.01)
        else:
            assert run.tokens == pytest.approx(tokens, rel=half * 1.01)


def test_padding_costs_time_but_counts_neither_as_tokens_nor_as_flops() -> None:
    run = run_of(ARMS["full"], CPU, 0)
    full = run._replace(filled=1.0)
    assert run.tokens == full.tokens * CPU.filled["wordpiece-full-64"]
    assert run.cost.sparse == pytest.approx(full.cost.sparse * run.filled)
    assert run.cost.products == full.cost.products


def test_all_batches_are_scored_on_the_same_rows() -> None:
    runs = [run_of(ARMS[name], CPU, 0).experiment for name in ("mlm_batch_quarter", "mlm_batch_4")]
    assert len({e.data.batch_size for e in runs}) == 2
    assert {e.run.eval_batches * e.data.batch_size for e in runs} == {64 * 8}


@pytest.mark.parametrize("scale", [CPU, GPU], ids=["cpu", "gpu"])
def test_arms_at_equal_parameters_have_equal_parameters(scale: Any) -> None:
    bert, *others = (
        collect.parameters(run_of(ARMS[name], scale, 0).experiment)
        for name in ("bert", "electra_rows", "albert_wide")
    )
    assert others == pytest.approx([bert, bert], rel=0.05)


def test_a_run_that_several_claims_need_is_done_once_with_all_they_measure() -> None:
    works = plan.work(HYPOTHESES, CPU)
    assert len({w.run.name for w in works}) == len(works)
    bert = next(w for w in works if w.run.arm == "bert" and w.run.seed == 0)
    assert bert.claims == "abdij"
    assert bert.tasks
    assert bert.layers
    assert bert.held_out is not None
    assert [c.segments for c in bert.pairs] == ["nsp", "sop"]
    assert all(w.pairs for w in works if w.run.arm in ("bert", "bert_sop"))
    assert not any(w.pairs for w in works if w.run.arm in ("bert_no_pair", "bert_shared"))


def test_the_study_takes_two_cores_no_more_than_ninety_minutes() -> None:
    assert plan.estimate(plan.work(HYPOTHESES, CPU), CPU, processes=2).seconds <= 90 * 60


def test_the_arms_that_matter_most_come_first_with_all_seeds() -> None:
    works = plan.work([BY_LETTER["h"]], GPU)
    assert [w.run.arm for w in works[:6]] == ["mlm", "rtd"] * 3


def test_every_statement_is_about_arms_and_measures_of_its_claim() -> None:
    for claim in HYPOTHESES:
        names = {arm.name for arm in claim.arms}
        for says in claim.statements:
            sides = {s for s in (says.better, says.worse) if isinstance(s, str)}
            assert sides <= names, (claim.letter, says.text)
            assert set(says.measure.split(">")) <= set(claim.measures), (claim.letter, says.text)
        assert all(len(row.paper) in (0, len(claim.columns)) for row in claim.rows), claim.letter


# ---- the page


@pytest.fixture(scope="module")
def store() -> dict[str, Any]:
    runs = []
    for i, name in enumerate(ARMS):
        for seed in range(3):
            layers = {"tagging": [0.1, 0.5, 0.4], "texts": [0.2, 0.3, 0.4]}
            layers |= {"tagging_rows": 100, "texts_rows": 100}
            runs.append(record(name, seed, 40 + i + seed, layers=layers))
    versions = {"jax": "1.2.3"}
    made_of = {"scale": "cpu", "date": "2026-01-02", "python": "3.11", "versions": versions,
               "machine": "2 cores", "text": ["sample.txt"], "tasks": ["t"],
               "labelled": "given"}  # fmt: skip
    failed = [{"run": "bert-s9", "step": "pairs", "error": "OSError: no disk"}]
    return {"made": made_of, "runs": runs, "failed": failed}


def test_the_page_follows_from_the_store(store: dict[str, Any], tmp_path: Path) -> None:
    page.dump(store, tmp_path / "study.json")
    assert page.read(tmp_path / "study.json") == store
    first = {f: f.read_bytes() for f in page.write(store, tmp_path)}
    again = page.write(page.read(tmp_path / "study.json"), tmp_path)
    assert first == {f: f.read_bytes() for f in again}


def test_the_page_has_every_claim_every_verdict_and_every_run(store: dict[str, Any]) -> None:
    text = blocks.markdown(page.build(store), "study")
    for claim in HYPOTHESES:
        assert f"## ({claim.letter}) {claim.title}" in text
        assert claim.against in text
        assert claim.source in text
    for run in store["runs"]:
        assert f"`{run['name']}`" in text
    assert text.count("**Found: ") == len(HYPOTHESES)
    assert "`bert-s9`, pairs: `OSError: no disk`" in text
    told = int(re.search(r"(\d+) statements were compared", text)[1])  # type: ignore[index]
    assert told == text.count("; chance ±") > 0


def test_the_html_page_stands_alone(store: dict[str, Any]) -> None:
    text = blocks.page(page.TITLE, page.build(store))
    assert 'name="viewport"' in text
    assert not re.search(r"<script|<link|src=|@import|url\(", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert text.count("<svg") >= len(HYPOTHESES)


def test_a_study_without_runs_has_a_page_that_says_so(store: dict[str, Any]) -> None:
    text = blocks.markdown(page.build(store | {"runs": []}), "study")
    assert text.count(f"**{judge.NOT_RUN}**") >= len(HYPOTHESES)


@pytest.mark.skipif(not (DOCS / "study.json").exists(), reason="no study is stored yet")
def test_the_stored_page_is_made_of_the_stored_numbers(tmp_path: Path) -> None:
    stored = page.read(DOCS / "study.json")
    for file in page.write(stored, tmp_path):
        assert file.read_text() == (DOCS / file.relative_to(tmp_path)).read_text(), file.name
    for file in curves.write(stored, tmp_path / "curves"):
        if file.suffix == ".csv":
            assert file.read_text() == (DOCS / "curves" / file.name).read_text()


def test_a_page_is_made_whatever_a_run_came_to(store: dict[str, Any], tmp_path: Path) -> None:
    lost = [r | {"curve": {}, "last": {}, "tasks": {}} for r in store["runs"] if r["seed"]]
    bad = [record(name, 0, math.nan, curve={}) for name in ARMS]
    lost_store = store | {"runs": [*bad, *lost]}
    assert all(f.exists() for f in page.write(lost_store, tmp_path))
    assert all(f.exists() for f in curves.write(lost_store, tmp_path / "curves"))


def test_curves_have_a_line_for_each_logged_step_of_each_seed(store: dict[str, Any]) -> None:
    runs = [r for r in store["runs"] if r["arm"] == "bert"]
    lines = curves.table(runs).splitlines()
    assert lines[0] == "run,seed,step,eval_mlm_loss,loss"
    assert lines[1:4] == [
        "bert-s0-000000,0,1,,7.0",
        "bert-s0-000000,0,5,6.0,",
        "bert-s0-000000,0,10,5.0,",
    ]
    assert len(lines) == 1 + 3 * 3


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 88.0), (5.01, 5.02), (1e12, 9e12)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = svg.ticks(low, high, 5)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 * high <= t <= high * (1 + 1e-9) for t in found)
