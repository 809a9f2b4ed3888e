"""Write the page, docs/study.md, and its figures from the results in study.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_jax.inference.evaluation.text_counts import MAX_COUNT_TOKENS
from bert_jax.utils import io
from study import verdict
from study.hypotheses import hypotheses_at, left_out
from study.hypothesis import Hypothesis
from study.hypothesis_section import hypothesis_plots, hypothesis_section
from study.metrics import Record
from study.plots import Plot, write_plots
from study.presets import FLOPS_PER_MINUTE, HOUR, PRESETS
from study.run_tables import bullets, mask_table, run_table, table
from study.verdict import Judgment

FIGURES = "study"  # the folder beside the page
TITLE = "Claims of the papers, compared in one code base"


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
    were_run = [j for j in judged if j[1] != verdict.NOT_RUN]
    blocks = [f"# {TITLE}", _outcome(judged), *_introduction(results), _method(judgments)]
    blocks += [_summary(were_run)] * bool(were_run)
    blocks += _not_run([h for h, result, _ in judged if result == verdict.NOT_RUN])
    blocks += _left_out(scale)
    plots: list[Plot] = []
    for hypothesis, result, of_hypothesis in were_run:
        figures = [plot for plot in hypothesis_plots(hypothesis, records) if not plot.empty]
        blocks += hypothesis_section(hypothesis, records, result, of_hypothesis, baselines)
        blocks += [f"![{plot.name}]({FIGURES}/{plot.name}.svg)" for plot in figures]
        plots += figures
    if results["failed"]:
        failed = [f"`{f['run']}`, {f['step']}: `{f['error']}`" for f in results["failed"]]
        blocks += ["## Failed steps", bullets(failed)]
    blocks += ["## Runs", run_table(records, baselines), "## Runs at [MASK]", *mask_table(records)]
    return "\n\n".join(blocks) + "\n", plots


def _outcome(judged: Sequence[tuple[Hypothesis, str, list[Judgment]]]) -> str:
    """What a reader who reads no further should know."""
    results = [f"({h.letter}) {h.title}: {r}" for h, r, _ in judged if r != verdict.NOT_RUN]
    number = f"{len(results)} of {len(judged)} hypotheses of this scale"
    outcome = f": {'; '.join(results)}" if results else ""
    return f"**{number} {'was' if len(results) == 1 else 'were'} run{outcome}.**"


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
        "the masked-LM head of a run that has one; a run of RTD has none that fits. "
        f"{_rates(metadata)}The tasks are "
        f"{tasks or 'those of --tasks'} ({metadata['labels']}). Their mean is that of "
        f"accuracies, entity F1 and correlations, in percent. {_rows(metadata['scale'])}The scored "
        "rows were not used to choose a checkpoint, a layer or a learning rate. *No encoder, no "
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


def _rates(metadata: dict[str, Any]) -> str:
    """How the rate of fine-tuning was chosen."""
    rates = [f"{rate:g}" for rate in metadata.get("tune_rates", ())]
    if not rates:
        return ""
    if len(rates) == 1:
        now = len(PRESETS[metadata["scale"]].tune_rates)
        more = f"; the command now chooses among {now}, and others gave some tasks higher scores ("
        more += "[results](results.md#fine-tuned-tasks-random-weights-and-what-needs-no-encoder))"
        return f"The peak rate of fine-tuning is {rates[0]} for all{more * (now > 1)}. "
    return (
        f"The peak rate of fine-tuning is {', '.join(rates[:-1])} or {rates[-1]}: for each run and "
        "task the one that is best on every sixth training row, after training on the others. "
    )


def _rows(scale: str) -> str:
    """How much of each task is used."""
    preset = PRESETS[scale]
    return (
        f"Of each task at most {preset.train_rows:,} training and {preset.test_rows:,} test rows "
        "are used, so scores, with an encoder or without, are not those of other pages. "
    )


def _budget(metadata: dict[str, Any], runs: Sequence[Record]) -> list[str]:
    """What an arm costs at the scale whose budget the user chooses, and how to repeat it."""
    if metadata["scale"] != HOUR.name:
        return []
    minutes = metadata["arm_flops"] / FLOPS_PER_MINUTE
    took = sorted(r["seconds"] / 60 for r in runs)
    span = f" These runs took {took[0]:.0f} to {took[-1]:.0f} minutes each." if took else ""
    variants = {r["variant"] for r in runs}
    every = hypotheses_at(HOUR.name)
    asked = [h.letter for h in every if {v.name for v in h.variants} <= variants]
    only = f" --only {','.join(asked)}" if 0 < len(asked) < len(HOUR.hypotheses) else ""
    return [
        f"A run at equal FLOPs has {metadata['arm_flops']:.2e} FLOPs, nominally {minutes:.3g} "
        f"minutes of two quiet cores at {FLOPS_PER_MINUTE:.0e} a minute.{span} The learning rate "
        "falls over the second half. The corpus and the tasks cannot be passed on with this "
        "repository; with text and tasks of your own: `python -m study --scale hour --arm-minutes "
        f"{minutes:.3g}{only} --text FILES --tasks DIR --state STATE`. `STATE` holds results and "
        "last checkpoints, 17 MB a run, and a stopped study goes on from it, also on another "
        "machine."
    ]


def _method(judgments: Sequence[Judgment]) -> str:
    """How differences are judged, and of how many statements."""
    compared = sum(j.limit is not None for j in judgments)
    chance = "; without any real difference about one in 20 would still exceed it" * (compared > 0)
    return (
        "A statement is **confirmed** or **contradicted** if the difference exceeds the noise at "
        "95 %; otherwise it is **too small to judge**. The noise is the spread over seeds (the "
        "standard deviation of a metric, pooled over all variants with several seeds, times "
        "Student's t) or, if larger, 1.96 times the standard error that follows from the number of "
        f"scored rows, which more seeds do not lower. {compared} statements were compared with "
        f"it{chance}. *Secondary* statements do not decide a hypothesis. A statement is **not "
        "judged** if no spread over seeds is known, or "
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


def _not_run(hypotheses: Sequence[Hypothesis]) -> list[str]:
    """One paragraph on the hypotheses of the preset without results."""
    if not hypotheses:
        return []
    return ["**Not run**: " + "; ".join(f"({h.letter}) {h.title}" for h in hypotheses) + "."]


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
