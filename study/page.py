"""The store -> the page: for each claim what it says, what was found, a table and plots."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bert_jax.utils import io
from study import blocks, svg
from study import verdict as judge
from study.blocks import Block, Heading, Paragraph, Plot, Points, Table
from study.hypotheses import HYPOTHESES
from study.hypothesis import Hypothesis, ResultRow
from study.jobs import ANSWERS
from study.metrics import METRICS, Record
from study.verdict import Judgment

PLOTS = "study"  # the folder beside the page
CURVES = {
    "eval_mlm_loss": "validation MLM loss (nat): of a model, or of its generator",
    "eval_rtd_auc": "validation AUC of replaced tokens",
}
TITLE = "The papers' claims, measured side by side"


def write(store: dict[str, Any], out: Path) -> list[Path]:
    """`study.md`, `study.html` and the plots of the former into `out`."""
    made = build(store)
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    files = {
        out / "study.md": blocks.markdown(made, PLOTS),
        out / "study.html": blocks.page(TITLE, made),
    }
    for block in made:
        if isinstance(block, Plot):
            paper = block.svg.replace("<svg ", '<svg style="background:#fff;color:#222" ', 1)
            files[out / PLOTS / f"{block.name}.svg"] = paper
    for file, text in files.items():
        io.write_text(file, text)
    return list(files)


def build(store: dict[str, Any]) -> list[Block]:
    records: list[Record] = store["runs"]
    judged = {claim.letter: judge.verdict(claim, records) for claim in HYPOTHESES}
    every = [j for _, statements in judged.values() for j in statements]
    page: list[Block] = [Heading(TITLE, 1), *_opening(store), _method(every), _summary(judged)]
    for claim in HYPOTHESES:
        page += _claim(claim, records, *judged[claim.letter])
    return [*page, *_failed(store["failed"]), *_runs(records)]


def _opening(store: dict[str, Any]) -> list[Block]:
    made = store["made"]
    versions = ", ".join(f"{name} {v}" for name, v in made["versions"].items())
    total = sum(r["flops"]["sparse"] for r in store["runs"])
    published = sum(r["flops"]["published"] for r in store["runs"])
    tasks = ", ".join(f"`{name}`" for name in made["tasks"])
    return [
        Paragraph(
            f"Scale `{made['scale']}`, {made['date']}: {len(store['runs'])} pre-trainings on "
            f"{', '.join(f'`{t}`' for t in made['text'])}, {total:.2e} FLOPs together "
            f"({published:.2e} with look-ups counted as products). {made['machine']}; Python "
            f"{made['python']}, {versions}. Models, steps and text are far smaller than the "
            "papers': what shows here is what such models show."
        ),
        Paragraph(
            "One code base, one optimiser, one recipe for every task, one head (a dense layer on "
            f"the first token). The tasks are {tasks} ({made['labelled']}); their mean is that "
            "of accuracies, entity F1 and correlations, in percent, on rows by which neither "
            "checkpoint nor layer nor rate was chosen. FLOPs are counted as ELECTRA's authors "
            "counted them; equal FLOPs are equal with look-ups for nothing. Tokens, and with them "
            "FLOPs and tokens/s, are those of the text, without padding."
        ),
        Paragraph(
            "Numbers are means, with the standard deviation where there are several seeds. The "
            "name of a run, in the table at the end, is that of its folder, whose `metrics.jsonl` "
            "holds the numbers; this page is made of `study.json` by `python -m study --page`."
        ),
    ]


def _method(judged: Sequence[Judgment]) -> Block:
    """How differences were judged, and of how many statements."""
    compared = sum(j.limit is not None for j in judged)
    return Paragraph(
        "A statement is **confirmed** or **contradicted** where the difference exceeds what chance "
        "may make of it, at 95 %; else it is **too small to judge**. Chance is the spread over "
        "seeds (the standard deviation of a measure, pooled over all arms with several seeds, "
        "times Student's t) or, if that is more, the error that the number of scored rows leaves. "
        f"{compared} statements were compared with it: were there no differences at all, about one "
        "in 20 would still be called one or the other. Those *beside it* do not decide a claim. "
        "Nothing is judged by arms that had not begun to learn: whose loss never came "
        f"{judge.BEGUN} nat below that of answering with frequencies, of words or, where a "
        "discriminator is fine-tuned, of replaced tokens; or, where a statement is about sentence "
        "pairs, of these."
    )


def _summary(judged: dict[str, tuple[str, list[Judgment]]]) -> Block:
    rows = []
    for claim in HYPOTHESES:
        verdict, statements = judged[claim.letter]
        counts = Counter(j.verdict for j in statements)
        told = ", ".join(f"{n} {v}" for v, n in counts.items())
        rows.append((f"({claim.letter}) {claim.title}", f"**{verdict}**", told))
    return Table(("claim", "verdict", "statements"), tuple(rows))


def _claim(
    claim: Hypothesis, records: Sequence[Record], verdict: str, judged: Sequence[Judgment]
) -> list[Block]:
    letter = claim.letter
    made: list[Block] = [
        Heading(f"({letter}) {claim.title}"),
        Paragraph(f"**Hypothesis.** {claim.says}"),
        Paragraph(f"**What would count against it.** {claim.against}"),
        Paragraph(f"**Found: {verdict}.**"),
        Points(tuple(sentence(j) for j in judged)),
        _layer_table(claim, records) if claim.layers else _table(claim, records),
    ]
    made += _idle(claim, records)
    if claim.source:
        made.append(Paragraph(f"In italics: {claim.source}."))
    if claim.note:
        made.append(Paragraph(claim.note))
    for plot in _layer_plots(claim, records) if claim.layers else _plots(claim, records):
        made.append(plot)
    return made


def sentence(judged: Judgment) -> str:
    """One statement, what was found, and by how much."""
    says = judged.says
    text = says.text if says.main else f"*beside it:* {says.text}"
    if judged.difference is None:
        return f"{text}: **{judged.verdict}**"
    shown = METRICS[says.measure.partition(">")[0]].form.format
    told = [f"difference {_signed(shown(judged.difference))}"]
    if says.margin:
        told[0] += f", where {_signed(shown(says.margin))} is allowed"
    if judged.idle:
        told.append(" and ".join(f"`{arm}`" for arm in judged.idle) + " had not begun to learn")
    elif not says.most:
        told.append("no spread known" if judged.limit is None else f"chance ±{shown(judged.limit)}")
    if judged.wins is not None:
        told.append(f"so in {judged.wins[0]} of {judged.wins[1]} seeds")
    return f"{text}: **{judged.verdict}** ({'; '.join(told)})"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def _table(claim: Hypothesis, records: Sequence[Record]) -> Table:
    ours = [METRICS[m].title for m in claim.measures]
    theirs = [f"*{c}*" for c in claim.columns]
    rows = []
    for row in claim.rows:
        cells = [cell(records, row, m) for m in claim.measures]
        paper = [f"*{c}*" if c else "" for c in row.paper] or [""] * len(claim.columns)
        name = f"{row.label} `{row.arm.name}`"
        rows.append((name, str(len(_of(records, row))), *cells, *paper))
    return Table(("", "seeds", *ours, *theirs), tuple(rows))


def cell(records: Sequence[Record], row: ResultRow, measure: str) -> str:
    """The mean over seeds and, of several, the standard deviation."""
    found = list(judge.values(records, row.arm.name, measure).values())
    if not found:
        return "not run" if not any(r["arm"] == row.arm.name for r in records) else "-"
    shown = METRICS[measure].shown
    if len(found) == 1 or METRICS[measure].higher is None:
        return shown(statistics.mean(found))
    return f"{shown(statistics.mean(found))} ± {shown(statistics.stdev(found))}"


def _plots(claim: Hypothesis, records: Sequence[Record]) -> Iterable[Plot]:
    for what in claim.drawn:
        if what in METRICS:
            rows = [
                svg.Dots(r.label, tuple(judge.values(records, r.arm.name, what).values()))
                for r in claim.rows
            ]
            drawn = svg.dots(METRICS[what].title, rows)
        else:
            of_rows = [_curve(row.label, _of(records, row), what) for row in claim.rows]
            drawn = svg.lines(CURVES[what], "FLOPs", [line for line in of_rows if line])
        if drawn:
            yield Plot(f"{claim.letter}-{what.removeprefix('eval_')}", drawn)


def _of(records: Sequence[Record], row: ResultRow) -> list[Record]:
    return sorted((r for r in records if r["arm"] == row.arm.name), key=lambda r: r["seed"])


def _curve(label: str, runs: Sequence[Record], metric: str) -> svg.Line | None:
    """Mean over seeds, lowest and highest, against the FLOPs spent."""
    curves = [r["curve"][metric] for r in runs if metric in r["curve"]]
    if not curves:
        return None
    per_step = runs[0]["flops"]["sparse"] / runs[0]["steps"]
    each = list(zip(*([v for _, v in c] for c in curves), strict=False))
    at = [step * per_step for step, _ in curves[0]]
    points = tuple((x, statistics.mean(vs)) for x, vs in zip(at, each, strict=False))
    band = tuple((min(vs), max(vs)) for vs in each) if len(curves) > 1 else ()
    return svg.Line(label, points, band)


def _scores(records: Sequence[Record], row: ResultRow, what: str) -> list[tuple[float, ...]]:
    """Of each layer the seeds' scores, in percent."""
    found = [r["layers"][what] for r in _of(records, row) if what in r.get("layers", {})]
    return [tuple(100 * v for v in layer) for layer in zip(*found, strict=True)]


def _idle(claim: Hypothesis, records: Sequence[Record]) -> list[Block]:
    """The arms that had not begun to learn, and what shows it."""
    told = []
    for row in claim.rows:
        says = [s for s in claim.statements if row.arm.name in (s.better, s.worse)]
        needs = dict.fromkeys(need for s in says for need in s.needs)
        idle = [m for m in needs if not judge.begun(records, row.arm.name, m)]
        if idle:
            there = [m for m in (*idle, "rtd_auc") if judge.values(records, row.arm.name, m)]
            shown = [f"{METRICS[m].title} {cell(records, row, m)}" for m in there]
            told.append(f"`{row.arm.name}`: {', '.join(shown)}")
    return [Paragraph("**Had not begun to learn.**"), Points(tuple(told))] if told else []


def _layer_table(claim: Hypothesis, records: Sequence[Record]) -> Table:
    rows = []
    for row in claim.rows:
        for what in claim.layers:
            scores = _scores(records, row, what)
            cells = [f"{statistics.mean(s):.1f}" for s in scores] or ["not run"]
            rows.append((f"{row.label} `{row.arm.name}`, {what}", *cells))
    most = max(len(r) for r in rows)
    head = ("", *(f"layer {i}" for i in range(most - 1)))
    return Table(head, tuple((*r, *[""] * (most - len(r))) for r in rows))


def _layer_plots(claim: Hypothesis, records: Sequence[Record]) -> Iterable[Plot]:
    for what in claim.layers:
        lines = []
        for row in claim.rows:
            scores = _scores(records, row, what)
            points = tuple((float(i), statistics.mean(s)) for i, s in enumerate(scores))
            band = tuple((min(s), max(s)) for s in scores)
            lines.append(svg.Line(row.label, points, band))
        drawn = svg.lines(f"{what}: a linear model on each layer", "layer", lines)
        if drawn:
            yield Plot(f"{claim.letter}-{what}", drawn)


def _failed(failed: Sequence[dict[str, str]]) -> list[Block]:
    if not failed:
        return []
    told = tuple(f"`{f['run']}`, {f['step']}: `{f['error']}`" for f in failed)
    return [Heading("What failed"), Points(told)]


def _runs(records: Sequence[Record]) -> list[Block]:
    head = ("run", "claims", "steps", "tokens", "FLOPs", "as published", "parameters",
            "validation MLM loss (nat)", "of word frequencies", "tasks (%)")  # fmt: skip
    rows = []
    for r in records:
        losses = (r["last"].get(f"eval_{m}_loss") for m in ("mlm", "unigram"))
        # questions are scored in percent, by SQuAD's own script
        shares = {n: t["value"] * (1 if n == ANSWERS else 100) for n, t in r["tasks"].items()}
        tasks = ", ".join(f"{n} {share:.1f}" for n, share in shares.items())
        rows.append(
            (
                f"`{r['name']}`",
                r["claims"],
                str(r["steps"]),
                METRICS["parameters"].shown(r["tokens"]),
                f"{r['flops']['sparse']:.2e}",
                f"{r['flops']['published']:.2e}",
                METRICS["parameters"].shown(r["parameters"]),
                *("" if loss is None else f"{loss:.3f}" for loss in losses),
                tasks,
            )
        )
    return [Heading("Runs"), Table(head, tuple(rows))]


def read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"{file} is no store of a study: {e}") from e


def dump(store: dict[str, Any], file: Path) -> None:
    """A line for each run, so that a change of one is a change of one line."""
    runs = ",\n".join(json.dumps(r, sort_keys=True) for r in store["runs"])
    head, failed = json.dumps(store["made"], indent=1), json.dumps(store["failed"], indent=1)
    io.write_text(file, f'{{"made": {head},\n"failed": {failed},\n"runs": [\n{runs}\n]}}\n')
