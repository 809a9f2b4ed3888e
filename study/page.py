"""Write the page, docs/study.md, and its figures from the results in study.json."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.utils import io
from study import verdict
from study.hypotheses import HYPOTHESES
from study.hypothesis import Hypothesis, ResultRow
from study.jobs import QA
from study.metrics import METRICS, Record, short_number
from study.plots import Curve, DotPlot, LinePlot, Plot, write_plots
from study.verdict import Judgment

FIGURES = "study"  # the folder beside the page
CURVE_TITLES = {
    "eval_mlm_loss": "validation MLM loss (nat) of the model or its generator",
    "eval_rtd_auc": "validation AUC of replaced tokens",
}
TITLE = "The papers' claims, measured side by side"


def write_page(results: dict[str, Any], out: Path) -> list[Path]:
    """Write `study.md` and its figures to `out`; return the paths."""
    text, plots = build_page(results)
    io.write_text(out / "study.md", text)
    return [out / "study.md", *write_plots(plots, out / FIGURES)]


def build_page(results: dict[str, Any]) -> tuple[str, list[Plot]]:
    """The page in Markdown, and its plots."""
    records: list[Record] = results["runs"]
    judged = {h.letter: verdict.judge_hypothesis(h, records) for h in HYPOTHESES}
    judgments = [j for _, of_hypothesis in judged.values() for j in of_hypothesis]
    blocks = [f"# {TITLE}", *_introduction(results), _method(judgments), _summary(judged)]
    plots: list[Plot] = []
    for hypothesis in HYPOTHESES:
        figures = [plot for plot in _plots(hypothesis, records) if not plot.empty]
        blocks += _section(hypothesis, records, *judged[hypothesis.letter])
        blocks += [f"![{plot.name}]({FIGURES}/{plot.name}.svg)" for plot in figures]
        plots += figures
    if results["failed"]:
        failed = [f"`{f['run']}`, {f['step']}: `{f['error']}`" for f in results["failed"]]
        blocks += ["## Failed steps", _bullets(failed)]
    blocks += ["## Runs", _run_table(records)]
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
        "All runs share one code base, one optimizer, one recipe for every task and one head (a "
        f"dense layer on the first token). The tasks are {tasks} ({metadata['labels']}). Their "
        "mean is that of accuracies, entity F1 and correlations, in percent. The scored rows were "
        "not used to choose a checkpoint, a layer or a learning rate. FLOPs are counted as "
        "ELECTRA's authors counted them; runs at equal FLOPs are equal with free look-ups. Tokens, "
        "FLOPs and tokens/s exclude padding.",
        "Numbers are means, with the standard deviation where there are several seeds. The table "
        "at the end lists the runs; a run's folder has the same name, and its `metrics.jsonl` has "
        "the numbers. `python -m study --page` builds this page from `study.json`.",
    ]


def _method(judgments: Sequence[Judgment]) -> str:
    """How differences are judged, and of how many statements."""
    compared = sum(j.limit is not None for j in judgments)
    return (
        "A statement is **confirmed** or **contradicted** if the difference exceeds the noise at "
        "95 %; otherwise it is **too small to judge**. The noise is the spread over seeds (the "
        "standard deviation of a metric, pooled over all variants with several seeds, times "
        "Student's t) or, if larger, the standard error that follows from the number of scored "
        f"rows. {compared} statements were compared with it; without any real difference about "
        "one in 20 would still be confirmed or contradicted. *Secondary* statements do not decide "
        "a hypothesis. A statement is **not judged** if one of its variants is not above the "
        f"trivial baseline, that is, if its loss never came {verdict.MIN_DELTA} nat below the "
        "unigram loss or, if a discriminator is fine-tuned, below the entropy of the share of "
        "replaced tokens. Statements about sentence pairs require the same of the pair loss."
    )


def _summary(judged: dict[str, tuple[str, list[Judgment]]]) -> str:
    rows = []
    for hypothesis in HYPOTHESES:
        result, judgments = judged[hypothesis.letter]
        counts = Counter(j.verdict for j in judgments)
        statements = ", ".join(f"{n} {v}" for v, n in counts.items())
        rows.append((f"({hypothesis.letter}) {hypothesis.title}", f"**{result}**", statements))
    return _table(("hypothesis", "verdict", "statements"), rows)


def _section(
    hypothesis: Hypothesis, records: Sequence[Record], result: str, judgments: Sequence[Judgment]
) -> list[str]:
    table = _probe_table if hypothesis.probes else _result_table
    blocks = [
        f"## ({hypothesis.letter}) {hypothesis.title}",
        f"**Hypothesis.** {hypothesis.claim}",
        f"**Refuted if:** {hypothesis.refuted_by}",
        f"**Result: {result}.**",
        _bullets(
            [
                "*secondary:* " * (j.statement in hypothesis.secondary) + format_judgment(j)
                for j in judgments
            ]
        ),
        table(hypothesis, records),
        *_variants_at_baseline(hypothesis, records),
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
    if judgment.at_baseline:
        variants = " and ".join(f"`{variant}`" for variant in judgment.at_baseline)
        details.append(f"{variants} not above the trivial baseline")
    elif not statement.by_seed_count:
        known = judgment.limit is not None
        details.append(f"noise ±{shown(judgment.limit)}" if known else "no spread known")  # type: ignore[arg-type]
    if judgment.wins is not None:
        details.append(f"holds in {judgment.wins[0]} of {judgment.wins[1]} seeds")
    return f"{result} ({'; '.join(details)})"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def _result_table(hypothesis: Hypothesis, records: Sequence[Record]) -> str:
    columns = hypothesis.paper_columns
    titles = [METRICS[m].title for m in hypothesis.metrics]
    rows = []
    for row in hypothesis.rows:
        cells = [format_cell(records, row, m) for m in hypothesis.metrics]
        paper = [f"*{c}*" if c else "" for c in row.paper] or [""] * len(columns)
        seeds = str(len(_runs_of(records, row)))
        rows.append((f"{row.label} `{row.variant.name}`", seeds, *cells, *paper))
    return _table(("", "seeds", *titles, *(f"*{c}*" for c in columns)), rows)


def format_cell(records: Sequence[Record], row: ResultRow, name: str) -> str:
    """The mean over seeds and, of several, the standard deviation."""
    values = list(verdict.values_by_seed(records, row.variant.name, name).values())
    if not values:
        return "-" if _runs_of(records, row) else "not run"
    metric = METRICS[name]
    mean = metric.format(statistics.mean(values))
    if len(values) == 1 or metric.higher_is_better is None:
        return mean
    return f"{mean} ± {metric.format(statistics.stdev(values))}"


def _runs_of(records: Sequence[Record], row: ResultRow) -> list[Record]:
    runs = [r for r in records if r["variant"] == row.variant.name]
    return sorted(runs, key=lambda r: r["seed"])


def _layer_scores(records: Sequence[Record], row: ResultRow, probe: str) -> list[list[float]]:
    """The seeds' scores of each layer, in percent."""
    runs = _runs_of(records, row)
    scores = [r["layers"][probe] for r in runs if probe in r.get("layers", {})]
    return [[100 * v for v in layer] for layer in zip(*scores, strict=True)]


def _probe_table(hypothesis: Hypothesis, records: Sequence[Record]) -> str:
    rows = []
    for row in hypothesis.rows:
        for probe in hypothesis.probes:
            scores = _layer_scores(records, row, probe)
            cells = [f"{statistics.mean(s):.1f}" for s in scores] or ["not run"]
            rows.append((f"{row.label} `{row.variant.name}`, {probe}", *cells))
    width = max(map(len, rows))
    head = ("", *(f"layer {i}" for i in range(width - 1)))
    return _table(head, [(*row, *[""] * (width - len(row))) for row in rows])


def _variants_at_baseline(hypothesis: Hypothesis, records: Sequence[Record]) -> list[str]:
    """The variants that are not above the trivial baseline, with the metrics that show it."""
    items = []
    for row in hypothesis.rows:
        name = row.variant.name
        needed = dict.fromkeys(
            metric
            for s in (*hypothesis.statements, *hypothesis.secondary)
            if name in s.variants
            for metric in s.baselines
        )
        failed = [m for m in needed if not verdict.above_baseline(records, name, m)]
        if failed:
            shown = [
                f"{METRICS[m].title} {format_cell(records, row, m)}"
                for m in (*failed, "rtd_auc")
                if verdict.values_by_seed(records, name, m)
            ]
            items.append(f"`{name}`: {', '.join(shown)}")
    return ["**Not above the trivial baseline.**", _bullets(items)] if items else []


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
    for probe in hypothesis.probes:
        curves = []
        for row in rows:
            scores = _layer_scores(records, row, probe)
            layers = tuple(map(float, range(len(scores))))
            curves.append(Curve(row.label, layers, tuple(map(tuple, scores))))
        title = f"{probe}: a linear probe on each layer"
        yield LinePlot(f"{letter}-{probe}", title, "layer", tuple(curves))


def _curve(label: str, runs: Sequence[Record], metric: str) -> Curve:
    """The seeds' values against FLOPs."""
    curves = [r["curves"][metric] for r in runs if metric in r["curves"]]
    if not curves:
        return Curve(label, (), ())
    flops_per_step = runs[0]["flops"]["sparse"] / runs[0]["steps"]
    values = tuple(zip(*([v for _, v in curve] for curve in curves), strict=False))
    flops = tuple(step * flops_per_step for step, _ in curves[0])[: len(values)]
    return Curve(label, flops, values)


def _run_table(records: Sequence[Record]) -> str:
    head = ("run", "hypotheses", "steps", "tokens", "FLOPs", "as published", "parameters",
            "validation MLM loss (nat)", "unigram baseline (nat)", "tasks (%)")  # fmt: skip
    rows = []
    for r in records:
        losses = (r["last"].get(f"eval_{m}_loss") for m in ("mlm", "unigram"))
        # SQuAD's script gives scores in percent
        scores = {n: t["value"] * (1 if n == QA else 100) for n, t in r["tasks"].items()}
        rows.append(
            (
                f"`{r['name']}`",
                r["hypotheses"],
                str(r["steps"]),
                short_number(r["tokens"]),
                f"{r['flops']['sparse']:.2e}",
                f"{r['flops']['published']:.2e}",
                short_number(r["parameters"]),
                *("" if loss is None else f"{loss:.3f}" for loss in losses),
                ", ".join(f"{name} {score:.1f}" for name, score in scores.items()),
            )
        )
    return _table(head, rows)


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
