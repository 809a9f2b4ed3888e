"""The jobs of a study, and a page that follows from stored numbers alone."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from study import page, plots
from study.hypotheses import BY_LETTER, GPU_ORDER, HYPOTHESES
from study.jobs import estimate_seconds, list_jobs
from study.presets import CPU, GPU, PRESETS
from study.results import count_parameters, read_results, write_results
from study.variants import reference_flops, run_of
from study.verdict import NOT_RUN
from tests.helpers.paths import ROOT
from tests.helpers.study_samples import run_record

DOCS = ROOT / "docs"
VARIANTS = {variant.name: variant for h in HYPOTHESES for variant in h.variants}


def test_every_hypothesis_is_in_the_page_and_in_the_order_for_gpus() -> None:
    assert "".join(h.letter for h in HYPOTHESES) == "abcdefghijk"
    assert sorted(GPU_ORDER) == sorted(BY_LETTER)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_variants_share_a_run_only_if_they_share_a_name(preset: Any) -> None:
    for seed in range(2):
        names: dict[str, set[str]] = {}
        for hypothesis in HYPOTHESES:
            for variant in hypothesis.variants:
                names.setdefault(variant.name, set()).add(run_of(variant, preset, seed).name)
        assert all(len(of_variant) == 1 for of_variant in names.values())
        hashes = [next(iter(of_variant)).rpartition("-")[2] for of_variant in names.values()]
        assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("preset", [CPU, GPU], ids=["cpu", "gpu"])
def test_runs_at_equal_flops_or_tokens_are_equal_to_half_a_step(preset: Any) -> None:
    tokens = run_of(VARIANTS["mlm"], preset, 0).tokens
    for variant in VARIANTS.values():
        run = run_of(variant, preset, 0)
        half_step = 0.5 / run.experiment.run.steps
        if variant.equal == "flops":
            assert run.cost.sparse == pytest.approx(reference_flops(preset), rel=half_step * 1.01)
        else:
            assert run.tokens == pytest.approx(tokens, rel=half_step * 1.01)


def test_padding_counts_as_time_but_not_as_tokens_or_flops() -> None:
    run = run_of(VARIANTS["full"], CPU, 0)
    unpadded = run._replace(fill_ratio=1.0)
    assert run.tokens == unpadded.tokens * CPU.fill_ratios["wordpiece-full-64"]
    assert run.cost.sparse == pytest.approx(unpadded.cost.sparse * run.fill_ratio)
    assert run.cost.products == unpadded.cost.products


def test_all_batch_sizes_are_evaluated_on_the_same_rows() -> None:
    names = ("mlm_batch_quarter", "mlm_batch_4")
    experiments = [run_of(VARIANTS[name], CPU, 0).experiment for name in names]
    assert len({e.data.batch_size for e in experiments}) == 2
    assert {e.run.eval_batches * e.data.batch_size for e in experiments} == {64 * 8}


@pytest.mark.parametrize("preset", [CPU, GPU], ids=["cpu", "gpu"])
def test_variants_at_equal_parameters_have_equal_parameters(preset: Any) -> None:
    bert, *others = (
        count_parameters(run_of(VARIANTS[name], preset, 0).experiment)
        for name in ("bert", "electra_rows", "albert_wide")
    )
    assert others == pytest.approx([bert, bert], rel=0.05)


def test_a_run_of_several_hypotheses_is_one_job_with_all_their_metrics() -> None:
    jobs = list_jobs(HYPOTHESES, CPU)
    assert len({job.run.name for job in jobs}) == len(jobs)
    bert = next(job for job in jobs if job.run.variant == "bert" and job.run.seed == 0)
    assert bert.hypotheses == "abdij"
    assert bert.tasks
    assert bert.probes
    assert bert.held_out is not None
    assert [c.segments for c in bert.pairs] == ["nsp", "sop"]
    assert all(job.pairs for job in jobs if job.run.variant in ("bert", "bert_sop"))
    without_pairs = ("bert_no_pair", "bert_shared")
    assert not any(job.pairs for job in jobs if job.run.variant in without_pairs)


def test_the_study_takes_at_most_ninety_minutes_on_two_cores() -> None:
    seconds = sum(estimate_seconds(job, CPU) for job in list_jobs(HYPOTHESES, CPU))
    assert seconds / 2 <= 90 * 60


def test_priority_variants_come_first_with_all_seeds() -> None:
    jobs = list_jobs([BY_LETTER["h"]], GPU)
    assert [job.run.variant for job in jobs[:6]] == ["mlm", "rtd"] * 3


def test_every_statement_is_about_variants_and_metrics_of_its_hypothesis() -> None:
    for hypothesis in HYPOTHESES:
        names = {variant.name for variant in hypothesis.variants}
        for statement in (*hypothesis.statements, *hypothesis.secondary):
            assert set(statement.variants) <= names, statement.text
            assert set(statement.metrics) <= set(hypothesis.metrics), statement.text
        widths = {len(row.paper) for row in hypothesis.rows}
        assert widths <= {0, len(hypothesis.paper_columns)}, hypothesis.letter


# ---- the page


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    layers = {"tagging": [0.1, 0.5, 0.4], "texts": [0.2, 0.3, 0.4]}
    layers |= {"tagging_rows": 100, "texts_rows": 100}
    runs = [
        run_record(name, seed, 40 + i + seed, layers=layers)
        for i, name in enumerate(VARIANTS)
        for seed in range(3)
    ]
    metadata = {
        "scale": "cpu",
        "date": "2026-01-02",
        "python": "3.11",
        "versions": {"jax": "1.2.3"},
        "machine": "2 cores",
        "text": ["sample.txt"],
        "tasks": ["t"],
        "labels": "labeled by people",
    }
    failed = [{"run": "bert-s9", "step": "pairs", "error": "OSError: no disk"}]
    return {"metadata": metadata, "runs": runs, "failed": failed}


def test_stored_results_are_read_back_unchanged(results: dict[str, Any], tmp_path: Path) -> None:
    write_results(results, tmp_path / "study.json")
    assert read_results(tmp_path / "study.json") == results


def test_the_page_has_every_hypothesis_every_verdict_and_every_run(results: dict[str, Any]) -> None:
    text, _ = page.build_page(results)
    for hypothesis in HYPOTHESES:
        assert f"## ({hypothesis.letter}) {hypothesis.title}" in text
        assert hypothesis.refuted_by in text
        assert hypothesis.paper_source in text
    for run in results["runs"]:
        assert f"`{run['name']}`" in text
    assert text.count("**Result: ") == len(HYPOTHESES)
    assert "`bert-s9`, pairs: `OSError: no disk`" in text
    compared = int(re.search(r"(\d+) statements were compared", text)[1])  # type: ignore[index]
    assert compared == text.count("; noise ±") > 0


def test_a_study_without_runs_has_a_page_that_says_so(results: dict[str, Any]) -> None:
    text, figures = page.build_page(results | {"runs": []})
    assert text.count(f"**{NOT_RUN}**") >= len(HYPOTHESES)
    assert not figures


def test_the_stored_page_follows_from_the_stored_results(tmp_path: Path) -> None:
    stored = read_results(DOCS / "study.json")
    text, figures = page.build_page(stored)
    assert text == (DOCS / "study.md").read_text()
    assert {f"{plot.name}.svg" for plot in figures} == {p.name for p in (DOCS / "study").iterdir()}
    kinds = {type(plot): plot for plot in figures}.values()  # one of each, drawing takes time
    for path in plots.write_plots([*kinds], tmp_path):
        assert path.read_text() == (DOCS / "study" / path.name).read_text(), path.name
    for family, variant in plots.FAMILIES.items():
        runs = [r for r in stored["runs"] if r["variant"] == variant.name]
        assert plots.curves_csv(runs) == (DOCS / f"curves/{family}.csv").read_text()


def test_a_page_is_written_whatever_the_values_of_a_run(
    results: dict[str, Any], tmp_path: Path
) -> None:
    incomplete = [r | {"curves": {}, "last": {}, "tasks": {}} for r in results["runs"] if r["seed"]]
    not_finite = [run_record(name, 0, math.nan, curves={}) for name in VARIANTS]
    bad = results | {"runs": [*not_finite, *incomplete]}
    assert all(f.exists() for f in page.write_page(bad, tmp_path))
    one_family = bad | {"runs": [r for r in bad["runs"] if r["variant"] == "rtd"]}
    assert all(f.exists() for f in plots.write_curves(one_family, tmp_path / "curves"))


def test_reference_curves_have_a_line_per_logged_step_and_seed(results: dict[str, Any]) -> None:
    runs = [r for r in results["runs"] if r["variant"] == "bert"]
    lines = plots.curves_csv(runs).splitlines()
    assert lines[0] == "run,seed,step,eval_mlm_loss,loss"
    assert lines[1:4] == [
        "bert-s0-000000,0,1,,7.0",
        "bert-s0-000000,0,5,6.0,",
        "bert-s0-000000,0,10,5.0,",
    ]
    assert len(lines) == 1 + 3 * 3
