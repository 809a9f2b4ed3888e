"""Write the page, docs/study.md, and its figures from the results in study.json."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.inference.evaluation.text_counts import MAX_COUNT_TOKENS
from bert_jax.utils import io
from study import verdict
from study.hypotheses import hypotheses_at, left_out
from study.hypothesis import Hypothesis, ResultRow
from study.metrics import METRICS, Record, probed_tasks
from study.plots import Curve, DotPlot, LinePlot, Plot, write_plots
from study.presets import FLOPS_PER_MINUTE, HOUR
from study.run_tables import (
    baselines_of_all,
    below_baselines,
    below_counts,
    bullets,
    mask_table,
    run_table,
    table,
)
from study.verdict import Judgment

FIGURES = "study"  # the folder beside the page
CURVE_TITLES = {
    "eval_mask_loss": "validation loss at [MASK] (nat) of the model or its generator",
    "eval_rtd_auc": "validation AUC of replaced tokens",
}
LEARNED = {
    "both": "better than counts",
    "better": "better than counts",
    "start": "better than without context",
}
MAX_SEEDS = 100  # that the page names
TITLE = "The papers' claims, measured side by side"


def write_page(results: dict[str, Any], out: Path) -> list[Path]:
    """Write `study.md` and its figures to `out`; return the paths."""
    text, plots = build_page(results)
    io.write_text(out / "study.md", text)
    return [out / "study.md", *write_plots(plots, out / FIGURES)]


def build_page(results: dict[str, Any]) -> tuple[str, list[Plot]]:
    """The page in Markdown, and its plots."""
    records: list[Record] = results["runs"]
    scale = results["metadata"]["scale"]
    baselines = results["metadata"].get("task_baselines", {})
    hypotheses = hypotheses_at(scale)
    judged = [(h, *verdict.judge_hypothesis(h, records)) for h in hypotheses]
    judgments = [j for *_, of_hypothesis in judged for j in of_hypothesis]
    blocks = [f"# {TITLE}", *_introduction(results), _method(judgments), _summary(judged)]
    blocks += _left_out(scale)
    plots: list[Plot] = []
    for hypothesis, result, of_hypothesis in judged:
        figures = [plot for plot in _plots(hypothesis, records) if not plot.empty]
        blocks += _section(hypothesis, records, result, of_hypothesis, baselines)
        blocks += [f"![{plot.name}]({FIGURES}/{plot.name}.svg)" for plot in figures]
        plots += figures
    if results["failed"]:
        failed = [f"`{f['run']}`, {f['step']}: `{f['error']}`" for f in results["failed"]]
        blocks += ["## Failed steps", bullets(failed)]
    blocks += ["## Runs", run_table(records, baselines), "## Runs at [MASK]", *mask_table(records)]
    return "\n\n".join(blocks) + "\n", plots


def _introduction(results: dict[str, Any]) -> list[str]:
    metadata, runs = results["metadata"], results["runs"]
    versions = ", ".join(f"{name} {v}" for name, v in metadata["versions"].items())
    sparse, published = (sum(r["flops"][kind] for r in runs) for kind in ("sparse", "published"))
    text, tasks = (", ".join(f"`{x}`" for x in metadata[key]) for key in ("text", "tasks"))
    return [
        f"Scale `{metadata['scale']}`, {metadata['date']}: {len(runs)} pre-training runs on "
        f"{text}, {sparse:.2e} FLOPs in total ({published:.2e} with embedding look-ups counted as "
        f"matrix products). {metadata['machine']}; Python {metadata['python']}, {versions}. The "
        "models, steps and text are far smaller than the papers', and the results hold for such "
        "models only.",
        *_budget(metadata, runs),
        "All runs share one code base, one optimizer, one recipe for every task and one head: a "
        "dense layer, an activation and a norm on the mean of the tokens or, for tags and answers, "
        "on each token, and a dense layer to the labels. The first layer and the norm start from "
        "the masked-LM head of a run that has one; a run of RTD has none that fits. The tasks are "
        f"{tasks or 'those of --tasks'} ({metadata['labels']}). Their mean is that of "
        "accuracies, entity F1 and correlations, in percent. The scored rows were "
        "not used to choose a checkpoint, a layer or a learning rate. *No encoder, no "
        "pre-training* is regression on a bag of words of the same rows or, for tags, the most "
        "frequent tag of each word (`study/task_baselines.py`). FLOPs are counted as "
        "ELECTRA's authors counted them; runs at equal FLOPs are equal with free look-ups. Tokens, "
        "FLOPs and tokens/s exclude padding. Later ideas that all runs share: rotary positions, "
        "pre-norm, gated MLPs, Muon and a trapezoidal schedule, unless a variant says otherwise.",
        "Every run is scored where the mask token stands (`bert-jax evaluate`): 15 % of the tokens "
        "of held-out rows, drawn one by one, three times, whatever the run was trained with. "
        "Beside it stand word frequencies and counts of both neighbors of its training rows, of up "
        f"to {MAX_COUNT_TOKENS // 10**6} million tokens. An "
        "ELECTRA run is scored by the AUC of its discriminator without special tokens, beside the "
        "AUC of the same counts.",
        "Numbers are means, with the standard deviation where there are several seeds. The tables "
        "at the end list the runs; a run's folder has the same name, and its `metrics.jsonl` has "
        "the numbers. `python -m study --page --docs docs` builds this page from "
        "`docs/study.json`.",
    ]


def _budget(metadata: dict[str, Any], runs: Sequence[Record]) -> list[str]:
    """What an arm costs at the scale whose budget the user chooses, and how to repeat it."""
    if metadata["scale"] != HOUR.name:
        return []
    minutes = metadata["arm_flops"] / FLOPS_PER_MINUTE
    took = sorted(r["seconds"] / 60 for r in runs)
    span = f" These runs took {took[0]:.0f} to {took[-1]:.0f} minutes each." if took else ""
    return [
        f"A run at equal FLOPs has {metadata['arm_flops']:.2e} FLOPs, nominally {minutes:.3g} "
        f"minutes of two quiet cores at {FLOPS_PER_MINUTE:.0e} a minute.{span} The learning rate "
        "falls over the second half. The corpus and the tasks cannot be passed on with this "
        "repository; with text and tasks of your own: `python -m study --scale hour --arm-minutes "
        f"{minutes:.3g} --text FILES --tasks DIR --state STATE`. `STATE` holds results and last "
        "checkpoints, 17 MB a run, and a stopped study goes on from it, also on another machine."
    ]


def _method(judgments: Sequence[Judgment]) -> str:
    """How differences are judged, and of how many statements."""
    compared = sum(j.limit is not None for j in judgments)
    chance = "; without any real difference about one in 20 would still exceed it" * (compared > 0)
    return (
        "A statement is **confirmed** or **contradicted** if the difference exceeds the noise at "
        "95 %; otherwise it is **too small to judge**. The noise is the spread over seeds (the "
        "standard deviation of a metric, pooled over all variants with several seeds, times "
        "Student's t) or, if larger, the standard error that follows from the number of scored "
        f"rows. {compared} statements were compared with it{chance}. *Secondary* statements do not "
        "decide a hypothesis. A statement is **not judged** if no spread over seeds is known, or "
        "if one of its variants does not beat counts of both neighbors: it has hardly learned from "
        "context, and the difference says nothing about training that works. Where the "
        "statement itself is that one variant does not learn, only the other one has to "
        "beat the counts. Statements that begin with *early in training* "
        "need only one variant that is better than word frequencies by "
        f"{verdict.MIN_DELTA} nat or AUC, and hold for the start of training alone. Statements "
        "about sentence pairs require a pair loss below that of the share of labels."
    )


def _summary(judged: Sequence[tuple[Hypothesis, str, list[Judgment]]]) -> str:
    rows = []
    for hypothesis, result, judgments in judged:
        counts = Counter(j.verdict for j in judgments)
        statements = ", ".join(f"{n} {v}" for v, n in counts.items())
        rows.append((f"({hypothesis.letter}) {hypothesis.title}", f"**{result}**", statements))
    return table(("hypothesis", "verdict", "statements"), rows)


def _left_out(scale: str) -> list[str]:
    """One paragraph on the hypotheses that the preset is too small to decide."""
    hypotheses = left_out(scale)
    if not hypotheses:
        return []
    items = (
        f"({h.letter}) {h.title}: {h.too_small[0].lower()}{h.too_small[1:]}" for h in hypotheses
    )
    return [
        "**Left out at this scale**, because it cannot decide them; `--scale gpu` asks all. "
        + " ".join(items)
    ]


def _section(
    hypothesis: Hypothesis,
    records: Sequence[Record],
    result: str,
    judgments: Sequence[Judgment],
    baselines: dict[str, float | None],
) -> list[str]:
    blocks = [
        f"## ({hypothesis.letter}) {hypothesis.title}",
        f"**Hypothesis.** {hypothesis.claim}",
        f"**Refuted if:** {hypothesis.refuted_by}",
        f"**Result: {result}.**",
        bullets(
            [
                "*secondary:* " * (j.statement in hypothesis.secondary) + format_judgment(j)
                for j in judgments
            ]
        ),
        _result_table(hypothesis, records, baselines),
        *(_probe_table(hypothesis, records) if hypothesis.probes else ()),
        *below_counts(hypothesis, records),
        *below_baselines(hypothesis, records, baselines),
    ]
    if hypothesis.paper_source:
        blocks.append(f"In italics: {hypothesis.paper_source}.")
    return [*blocks, hypothesis.note] if hypothesis.note else blocks


def format_judgment(judgment: Judgment) -> str:
    """A statement, its verdict, and the numbers behind it."""
    statement = judgment.statement
    result = f"{statement.text}: **{judgment.verdict}**"
    if judgment.difference is None:
        return result
    shown = METRICS[statement.metrics[0]].format
    details = [f"difference {_signed(shown(judgment.difference))}"]
    if statement.margin:
        details[0] += f", allowed {_signed(shown(statement.margin))}"
    if judgment.unlearned:
        variants = " and ".join(f"`{variant}`" for variant in judgment.unlearned)
        details.append(f"{variants}: not {LEARNED[statement.needs]}")
    elif not statement.by_seed_count:
        known = judgment.limit is not None
        details.append(f"noise ±{shown(judgment.limit)}" if known else "no spread known")  # type: ignore[arg-type]
    if judgment.seeds_needed is not None:
        needed = judgment.seeds_needed
        seeds = f"about {needed}" if needed <= MAX_SEEDS else f"more than {MAX_SEEDS}"
        details.append(f"{seeds} seeds on each side would decide a difference of this size")
    if judgment.wins is not None:
        details.append(f"holds in {judgment.wins[0]} of {judgment.wins[1]} seeds")
    return f"{result} ({'; '.join(details)})"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def _result_table(
    hypothesis: Hypothesis, records: Sequence[Record], baselines: dict[str, float | None]
) -> str:
    columns = hypothesis.paper_columns
    titles = [METRICS[m].title for m in hypothesis.metrics]
    rows = []
    for row in hypothesis.rows:
        cells = [format_cell(records, row, m) for m in hypothesis.metrics]
        paper = [f"*{c}*" if c else "" for c in row.paper] or [""] * len(columns)
        seeds = str(len(_runs_of(records, row)))
        rows.append((f"{row.label} `{row.variant.name}`", seeds, *cells, *paper))
    known = baselines_of_all(baselines)
    if "tasks" in hypothesis.metrics and known:
        mean = METRICS["tasks"].format(statistics.mean(known.values()))
        cells = [mean if m == "tasks" else "" for m in hypothesis.metrics]
        rows.append(("no encoder, no pre-training", "", *cells, *[""] * len(columns)))
    return table(("", "seeds", *titles, *(f"*{c}*" for c in columns)), rows)


def format_cell(records: Sequence[Record], row: ResultRow, name: str) -> str:
    """The mean over seeds and, of several, the standard deviation."""
    values = list(verdict.values_by_seed(records, row.variant.name, name).values())
    if not values:
        return "-" if _runs_of(records, row) else "not run"
    metric = METRICS[name]
    cell = metric.format(statistics.mean(values))
    if len(values) > 1 and metric.higher_is_better is not None:
        cell += f" ± {metric.format(statistics.stdev(values))}"
    return cell if len(values) == len(_runs_of(records, row)) else f"{cell} (seeds: {len(values)})"


def _runs_of(records: Sequence[Record], row: ResultRow) -> list[Record]:
    runs = [r for r in records if r["variant"] == row.variant.name]
    return sorted(runs, key=lambda r: r["seed"])


def _layer_scores(records: Sequence[Record], row: ResultRow, task: str) -> list[list[float]]:
    """The seeds' scores of each layer, in percent."""
    runs = _runs_of(records, row)
    scores = [r["layers"][task] for r in runs if task in r["layers"]]
    return [[100 * v for v in layer] for layer in zip(*scores, strict=True)]


def _probed(hypothesis: Hypothesis, records: Sequence[Record]) -> list[str]:
    names = {row.variant.name for row in hypothesis.rows}
    return sorted({t for r in records if r["variant"] in names for t in probed_tasks(r)})


def _probe_table(hypothesis: Hypothesis, records: Sequence[Record]) -> list[str]:
    """Linear probes by layer, if there are any."""
    rows = []
    for task in _probed(hypothesis, records):
        for row in hypothesis.rows:
            if scores := _layer_scores(records, row, task):
                cells = [f"{statistics.mean(s):.1f}" for s in scores]
                rows.append((f"{task}, `{row.variant.name}`", *cells))
    if not rows:
        return []
    width = max(map(len, rows))
    head = ("linear probe (%)", *(f"layer {i}" for i in range(width - 1)))
    return [table(head, [(*row, *[""] * (width - len(row))) for row in rows])]


def _plots(hypothesis: Hypothesis, records: Sequence[Record]) -> Iterator[Plot]:
    letter, rows = hypothesis.letter, hypothesis.rows
    for name in hypothesis.plots:
        file = f"{letter}-{name.removeprefix('eval_')}"
        if name in METRICS:
            dots = [
                (r.label, tuple(verdict.values_by_seed(records, r.variant.name, name).values()))
                for r in rows
            ]
            yield DotPlot(file, METRICS[name].title, tuple(dots))
        else:
            curves = (_curve(row.label, _runs_of(records, row), name) for row in rows)
            yield LinePlot(file, CURVE_TITLES[name], "FLOPs", tuple(curves))


def _curve(label: str, runs: Sequence[Record], metric: str) -> Curve:
    """The seeds' values against FLOPs."""
    curves = [r["curves"][metric] for r in runs if metric in r["curves"]]
    if not curves:
        return Curve(label, (), ())
    flops_per_step = runs[0]["flops"]["sparse"] / runs[0]["steps"]
    values = tuple(zip(*([v for _, v in curve] for curve in curves), strict=False))
    flops = tuple(step * flops_per_step for step, _ in curves[0])[: len(values)]
    return Curve(label, flops, values)
