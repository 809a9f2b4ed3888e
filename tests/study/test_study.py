"""The jobs of a study, and a page that follows from stored numbers alone."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from study import page, plots
from study.hypotheses import BY_LETTER, HYPOTHESES, hypotheses_at, left_out
from study.jobs import estimate_seconds, list_jobs
from study.presets import CPU, FLOPS_PER_MINUTE, GPU, HOUR, PRESETS, hour_preset
from study.results import count_parameters, read_results, write_results
from study.variants import reference_flops, run_of
from tests.helpers.paths import ROOT
from tests.helpers.study_samples import mask_scores, run_record

DOCS = ROOT / "docs"
VARIANTS = {variant.name: variant for h in HYPOTHESES for variant in h.variants}


@pytest.mark.parametrize("scale", PRESETS)
def test_a_preset_asks_each_hypothesis_or_says_why_it_cannot_decide_it(scale: str) -> None:
    asked = [h.letter for h in hypotheses_at(scale)]
    assert len(set(asked)) == len(asked)
    assert sorted([*asked, *(h.letter for h in left_out(scale))]) == sorted(BY_LETTER)
    assert all(h.too_small for h in left_out(scale))


def test_small_presets_run_only_the_variants_that_decide_a_hypothesis() -> None:
    small, large = (BY_LETTER["h"].at_scale(scale) for scale in ("cpu", "gpu"))
    assert [v.name for v in small.variants] == ["mlm", "rtd"]
    assert len(large.variants) == len(BY_LETTER["h"].variants)
    assert {name for s in small.secondary for name in s.variants} == {"mlm", "rtd"}
    assert small.statements == large.statements


def test_a_preset_that_leaves_statements_out_says_which_remain() -> None:
    small = BY_LETTER["i"].at_scale("hour")
    assert small.refuted_by.endswith(
        "**At this scale only:** ELECTRA beats BERT at equal FLOPs; ALBERT is below BERT at equal "
        "FLOPs."
    )
    assert BY_LETTER["i"].at_scale("gpu") == BY_LETTER["i"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_variants_share_a_run_only_if_they_share_a_name(preset: Any) -> None:
    for seed in range(2):
        names: dict[str, set[str]] = {}
        for hypothesis in hypotheses_at(preset.name):
            for variant in hypothesis.variants:
                names.setdefault(variant.name, set()).add(run_of(variant, preset, seed).name)
        assert all(len(of_variant) == 1 for of_variant in names.values())
        hashes = [next(iter(of_variant)).rpartition("-")[2] for of_variant in names.values()]
        assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("preset", [CPU, HOUR, GPU], ids=["cpu", "hour", "gpu"])
def test_runs_at_equal_flops_or_tokens_are_equal_to_half_a_step(preset: Any) -> None:
    tokens = run_of(VARIANTS["mlm"], preset, 0).tokens
    for variant in {v.name: v for h in hypotheses_at(preset.name) for v in h.variants}.values():
        run = run_of(variant, preset, 0)
        half_step = 0.5 / run.experiment.run.steps
        if variant.equal == "flops":
            assert run.cost.sparse == pytest.approx(reference_flops(preset), rel=half_step * 1.01)
        else:
            assert run.tokens == pytest.approx(tokens, rel=half_step * 1.01)


def test_minutes_of_a_run_are_flops() -> None:
    for minutes in (1, 20, 60):
        run = run_of(VARIANTS["mlm"], hour_preset(minutes), 0)
        assert run.cost.sparse == pytest.approx(minutes * FLOPS_PER_MINUTE, rel=1e-3)
    with pytest.raises(ValueError, match=r"--arm-minutes is 0: expected 0.01 to 1000"):
        hour_preset(0)


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
    assert {e.run.eval_batches * e.data.batch_size for e in experiments} == {16 * 32}


def test_variants_at_equal_parameters_have_equal_parameters() -> None:
    bert, *others = (
        count_parameters(run_of(VARIANTS[name], GPU, 0).experiment)
        for name in ("bert", "electra_rows", "albert_wide")
    )
    assert others == pytest.approx([bert, bert], rel=0.05)


def test_a_run_of_several_hypotheses_is_one_job_with_all_their_metrics() -> None:
    jobs = list_jobs(HYPOTHESES, GPU)
    assert len({job.run.name for job in jobs}) == len(jobs)
    bert = next(job for job in jobs if job.run.variant == "bert" and job.run.seed == 0)
    assert bert.hypotheses == "abdij"
    assert bert.tasks
    assert bert.probes
    assert bert.held_out == bert.run.corpus
    assert [c.segments for c in bert.pairs] == ["nsp", "sop"]
    assert all(job.pairs for job in jobs if job.run.variant in ("bert", "bert_sop"))
    without_pairs = ("bert_no_pair", "bert_shared")
    assert not any(job.pairs for job in jobs if job.run.variant in without_pairs)


def test_every_arm_is_scored_on_held_out_rows_of_the_whole_text() -> None:
    jobs = list_jobs(HYPOTHESES, GPU)
    assert all(job.held_out == job.run.corpus._replace(subsample=1) for job in jobs)
    assert any(job.held_out != job.run.corpus for job in jobs)


def test_the_study_is_estimated_at_most_an_hour_on_two_cores() -> None:
    jobs = list_jobs(hypotheses_at("cpu"), CPU)
    assert sum(estimate_seconds(job, CPU) for job in jobs) / 2 <= 60 * 60


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
    layers = {"ner": [0.1, 0.5, 0.4], "topic": [0.2, 0.3, 0.4]}
    types = {"ner": "tagging", "topic": "classification"}
    rows = dict.fromkeys(layers, 100)
    runs = [
        run_record(name, seed, 40 + i + seed, layers=layers, layer_types=types, layer_rows=rows)
        for i, name in enumerate(VARIANTS)
        for seed in range(3)
    ]
    metadata = {
        "scale": "gpu",
        "arm_flops": 1e12,
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
        assert f"({hypothesis.letter}) {hypothesis.title}" in text
        if f"## ({hypothesis.letter}) " in text:
            assert hypothesis.refuted_by in text
            assert hypothesis.paper_source in text
    for run in results["runs"]:
        assert f"`{run['name']}`" in text
    assert text.count("**Result: ") == text.count("\n## (") == len(HYPOTHESES) - 1  # not (g)
    assert "`bert-s9`, pairs: `OSError: no disk`" in text
    compared = int(re.search(r"(\d+) statements were compared", text)[1])  # type: ignore[index]
    assert compared == text.count("; noise ±") > 0


def test_the_page_says_what_a_variant_lacks_to_beat_counts(results: dict[str, Any]) -> None:
    aucs = {"rtd_auc": 0.7, "bigram_auc": 0.75, "rtd_shuffled_auc": 0.6, "rtd_recall": 0.1}
    scores = {"mlm": mask_scores(4.125), "rtd": mask_scores(3.0, **aucs)}
    runs = [r | {"held_out": scores.get(r["variant"], r["held_out"])} for r in results["runs"]]
    text, _ = page.build_page(results | {"runs": runs})
    lacking = "**Below counts of both neighbors:** `mlm` by 0.125 nat, `rtd` by 0.050 AUC."
    assert lacking in text.partition("## (h)")[2].partition("## (i)")[0]
    assert "Below counts of both neighbors:" not in page.build_page(results)[0]


def test_scores_of_tasks_stand_beside_those_without_pretraining(results: dict[str, Any]) -> None:
    metadata = results["metadata"] | {"task_baselines": {"t": 0.61, "u": 0.5}}
    text, _ = page.build_page(results | {"metadata": metadata})
    for letter, cells in {"h": " |  | 55.5 | ", "k": None}.items():
        section = text.partition(f"## ({letter})")[2].partition("\n## ")[0]
        assert (f"| no encoder, no pre-training{cells}" in section) == (cells is not None)
    assert "| t 61.0, u 50.0 |" in text.partition("## Runs")[2]


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        ({"t": 0.9}, "`mlm` by 35.0 points (on no task above it)"),  # its seeds: 54, 55 and 56 %
        ({"t": 0.1}, None),
        ({"t": 0.9, "u": None}, None),  # the mean is not known
        ({}, None),
    ],
)
def test_the_page_says_what_scores_less_than_no_encoder(
    results: dict[str, Any], baselines: dict[str, float | None], said: str | None
) -> None:
    metadata = results["metadata"] | {"task_baselines": baselines}
    text, _ = page.build_page(results | {"metadata": metadata})
    section = text.partition("## (h)")[2].partition("\n## ")[0]
    below = section.partition("**Below what needs no encoder, on the mean over tasks:** ")[2]
    assert said in below if said else not below


def test_the_page_says_how_the_rate_of_fine_tuning_was_chosen(results: dict[str, Any]) -> None:
    texts = [
        page.build_page(results | {"metadata": results["metadata"] | {"tune_rates": rates}})[0]
        for rates in ([1e-3], [1e-3, 3e-3, 1e-2])
    ]
    said = ["is 0.001, 0.003 or 0.01: for each run and task the one" in text for text in texts]
    assert said == [False, True]


def test_a_study_without_runs_has_a_page_that_says_so(results: dict[str, Any]) -> None:
    text, figures = page.build_page(results | {"runs": []})
    assert f"**0 of {len(HYPOTHESES)} hypotheses of this scale were run.**" in text
    assert "\n## (" not in text
    assert not figures


def test_the_stored_page_follows_from_the_stored_results(tmp_path: Path) -> None:
    stored = read_results(DOCS / "study.json")
    text, figures = page.build_page(stored)
    assert text == (DOCS / "study.md").read_text()
    stored_figures = {p.name for p in (DOCS / "study").glob("*")}
    assert {f"{plot.name}.svg" for plot in figures} == stored_figures
    kinds = {type(plot): plot for plot in figures}.values()  # one of each, drawing takes time
    for path in plots.write_plots([*kinds], tmp_path):
        assert path.read_text() == (DOCS / "study" / path.name).read_text(), path.name


def test_a_page_is_written_whatever_the_values_of_a_run(
    results: dict[str, Any], tmp_path: Path
) -> None:
    incomplete = [r | {"curves": {}, "last": {}, "tasks": {}} for r in results["runs"] if r["seed"]]
    not_finite = [run_record(name, 0, math.nan, curves={}) for name in VARIANTS]
    bad = results | {"runs": [*not_finite, *incomplete]}
    assert all(f.exists() for f in page.write_page(bad, tmp_path))


def test_the_page_at_the_hours_scale_says_what_a_run_costs_and_what_was_not_run(
    results: dict[str, Any],
) -> None:
    scale = {"scale": "hour", "arm_flops": 20 * FLOPS_PER_MINUTE}
    runs = [r for r in results["runs"] if r["variant"] in ("mlm", "rtd")]
    metadata = results["metadata"] | scale
    text, _ = page.build_page({"metadata": metadata, "runs": runs, "failed": []})
    assert "20 minutes of two quiet cores" in text.replace("\n", " ")
    assert "--arm-minutes 20" in text
    assert text.count("\n## (") == 1
    (not_run,) = re.findall(r"\*\*Not run\*\*: (.*)", text)
    assert all(f"({h.letter}) {h.title}" in not_run for h in hypotheses_at("hour")[1:])
    assert "**Left out at this scale**" in text
    assert "(e) Batch size" in text


def test_the_page_repeats_a_study_of_some_hypotheses_by_a_command_that_the_study_accepts(
    results: dict[str, Any],
) -> None:
    some = {v.name for h in hypotheses_at("hour") if h.letter in "hk" for v in h.variants}
    runs = [r for r in results["runs"] if r["variant"] in some]
    metadata = results["metadata"] | {"scale": "hour", "arm_flops": 20 * FLOPS_PER_MINUTE}
    text, _ = page.build_page({"metadata": metadata, "runs": runs, "failed": []})
    (letters,) = re.findall(r"--only (\S+) ", text)
    assert [h.letter for h in hypotheses_at("hour", letters.split(","))] == ["h", "k"]
