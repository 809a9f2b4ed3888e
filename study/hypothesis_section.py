"""The section of the page about one hypothesis: statements, verdicts, tables, plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from study import verdict
from study.hypothesis import Hypothesis, ResultRow
from study.metrics import METRICS, Record, probed_tasks
from study.plots import Curve, DotPlot, LinePlot, Plot
from study.run_tables import baselines_of_all, below_baselines, below_counts, bullets, table
from study.verdict import Judgment

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
MIN_FALL = 0.02  # nat: less says nothing about longer runs


def hypothesis_section(
    hypothesis: Hypothesis,
    records: Sequence[Record],
    result: str,
    judgments: Sequence[Judgment],
    baselines: dict[str, float | None],
) -> list[str]:
    """A hypothesis, its statements and their verdicts, and its tables, in Markdown."""
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
        *filter(None, (opposite_tasks(j, records) for j in judgments)),
        *filter(None, [still_learning(hypothesis, records)]),
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
    else:
        known = judgment.limit is not None
        details.append(f"noise ±{shown(judgment.limit)}" if known else "no spread known")  # type: ignore[arg-type]
    if (factor := judgment.rows_factor) is not None:
        times = f"{factor:.2g}" if factor < 100 else f"{float(f'{factor:.1g}'):,.0f}"
        details.append(
            f"about {times} times as many scored rows would decide a difference of this size, and "
            "no number of seeds"
        )
    if (needed := judgment.seeds_needed) is not None:
        seeds = f"about {needed}" if needed <= MAX_SEEDS else f"more than {MAX_SEEDS}"
        details.append(f"{seeds} seeds on each side would decide a difference of this size")
    if judgment.wins is not None:
        details.append(f"holds in {judgment.wins[0]} of {judgment.wins[1]} seeds")
    return f"{result} ({'; '.join(details)})"


def task_differences(judgment: Judgment, records: Sequence[Record]) -> dict[str, float]:
    """Task of the mean -> the difference of the two sides in percent, for the tasks in which all
    seeds that both sides have agree on its sign; {} if there is only one seed."""
    statement = judgment.statement
    sides = []
    for side in (statement.better, statement.worse):
        scores = {
            r["seed"]: {t: r["tasks"][t] for t in r["expected_tasks"] if t in r["tasks"]}
            for r in records
            if r["variant"] == side
        }
        sides.append(scores)
    seeds = sorted(set(sides[0]) & set(sides[1]))
    tasks = set.intersection(*(set(side[s]) for side in sides for s in seeds)) if seeds else set()
    agreed = {}
    for task in sorted(tasks):
        apart = [100 * (sides[0][s][task]["value"] - sides[1][s][task]["value"]) for s in seeds]
        if len(seeds) > 1 and (min(apart) > 0 or max(apart) < 0):
            agreed[task] = statistics.mean(apart)
    return agreed


def opposite_tasks(judgment: Judgment, records: Sequence[Record]) -> str | None:
    """The tasks that a difference of means hides, because they differ in opposite directions."""
    if judgment.statement.metrics != ("tasks", "tasks") or judgment.difference is None:
        return None
    agreed = sorted(task_differences(judgment, records).items(), key=lambda item: -item[1])
    if len({difference > 0 for _, difference in agreed}) < 2:
        return None
    listed = ", ".join(f"`{task}` {_signed(f'{d:.1f}')}" for task, d in agreed)
    return (
        f"**Tasks differ in opposite directions, in all seeds** ({judgment.statement.text}): "
        f"{listed} points. These cancel in the mean, so it depends on which tasks are averaged."
    )


def still_learning(hypothesis: Hypothesis, records: Sequence[Record]) -> str | None:
    """How much the loss at [MASK] fell in the last fifth of the runs, in the mean over seeds."""
    falls: dict[str, list[float]] = {}
    for record in records:
        curve = record.get("curves", {}).get("eval_mask_loss", [])
        if curve:
            last = curve[-1]
            # Evaluations come every `steps // 5` steps: that at four fifths may be a little late.
            before = [loss for step, loss in curve if step <= 0.81 * last[0]]
            if before:
                falls.setdefault(record["variant"], []).append(before[-1] - last[1])
    names = [v.name for v in hypothesis.variants if v.name in falls]
    if not any(statistics.mean(falls[name]) >= MIN_FALL for name in names):
        return None
    listed = ", ".join(f"`{name}` {statistics.mean(falls[name]):.2f}" for name in names)
    return (
        "**From the curves.** In the last fifth of the training the loss at [MASK] still fell by "
        f"(nat, mean over seeds): {listed}. So longer runs may change the scores of the tasks."
    )


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


def _majority_scores(hypothesis: Hypothesis, records: Sequence[Record], task: str) -> list[float]:
    """What needs no features; all runs have the same rows."""
    runs = [r for row in hypothesis.rows for r in _runs_of(records, row)]
    return [r["layer_majority"][task] for r in runs if task in r.get("layer_majority", {})]


def _probe_table(hypothesis: Hypothesis, records: Sequence[Record]) -> list[str]:
    """Linear probes by layer, if there are any."""
    rows = []
    for task in _probed(hypothesis, records):
        for row in hypothesis.rows:
            if scores := _layer_scores(records, row, task):
                cells = [f"{statistics.mean(s):.1f}" for s in scores]
                rows.append((f"{task}, `{row.variant.name}`", *cells))
        if shares := _majority_scores(hypothesis, records, task):
            rows.append((f"{task}, always the most frequent label", f"{100 * shares[0]:.1f}"))
    if not rows:
        return []
    width = max(map(len, rows))
    head = ("linear probe (%)", *(f"layer {i}" for i in range(width - 1)))
    return [table(head, [(*row, *[""] * (width - len(row))) for row in rows])]


def hypothesis_plots(hypothesis: Hypothesis, records: Sequence[Record]) -> Iterator[Plot]:
    """The plots that the hypothesis names; those without results are empty."""
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
