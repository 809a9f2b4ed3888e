"""What there is to do: the runs that the claims need, each once, and what is taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bert_jax.config import Masked
from study.hypothesis import Hypothesis
from study.presets import Preset
from study.variants import Corpus, Run, run_of

ANSWERS = "qa"


@dataclass(frozen=True)
class Job:
    """A run, and what is measured on it."""

    run: Run
    tasks: bool = False  # fine-tuned to the study's tasks
    answers: bool = False  # and to question answering
    held_out: Corpus | None = None  # whose validation rows it is tested on
    pairs: tuple[Corpus, ...] = ()  # nsp and sop, whose sentence pairs it is asked for
    layers: bool = False  # linear models on all layers
    claims: str = ""  # letters


class Estimate(NamedTuple):
    runs: int
    seconds: float
    published: float
    sparse: float


def work(claims: Sequence[Hypothesis], scale: Preset) -> list[Job]:
    """In the order of doing: claim by claim, the arms that matter most first, seed by seed."""
    found: dict[str, Job] = {}
    # these of every seed that is run, whichever claim asks for it: the spread is theirs
    tested = {
        measure: {a.name for c in claims if measure in c.measures for a in c.arms}
        for measure in ("mlm", "sop")
    }
    for claim in claims:
        for first in (True, False):
            for seed in range(max(scale.many, scale.few)):
                for row in claim.rows:
                    seeds = scale.many if claim.many or row.many else scale.few
                    if row.first == first and seed < seeds:
                        asked = {m for m, arms in tested.items() if row.arm.name in arms}
                        _add(found, claim, run_of(row.arm, scale, seed), asked)
    return list(found.values())


def _add(found: dict[str, Job], claim: Hypothesis, run: Run, tested: set[str]) -> None:
    """With what one more claim asks of a run."""
    before = found.get(run.name, Job(run))
    measured = claim.measures
    objective = run.experiment.objective
    pair = isinstance(objective, Masked) and objective.sentence_pair
    whole = run.corpus._replace(share=1)
    found[run.name] = Job(
        run,
        tasks=before.tasks or "tasks" in measured,
        answers=before.answers or "qa" in measured,
        held_out=whole if "mlm" in tested else None,
        pairs=tuple(whole._replace(segments=s) for s in ("nsp", "sop"))
        if pair and "sop" in tested
        else (),
        layers=before.layers or bool(claim.layers),
        claims="".join(sorted({*before.claims, claim.letter})),
    )


def estimate(works: Sequence[Job], scale: Preset, processes: int = 1) -> Estimate:
    costs = [w.run.cost for w in works]
    seconds = sum(seconds_of(w, scale) for w in works) / processes
    return Estimate(
        len(works), seconds, sum(c.published for c in costs), sum(c.sparse for c in costs)
    )


def seconds_of(one: Job, scale: Preset) -> float:
    """A guess: products at the scale's speed, and so much beside them."""
    # linear models on the features of every word and layer take as long as five fine-tunings
    tunes = len(scale.tasks) * one.tasks + one.answers + 5 * one.layers
    small = (one.held_out is not None) + len(one.pairs)
    steps, beside = one.run.cost.products / scale.speed, tunes + small / 3
    return steps + scale.seconds[0] + scale.seconds[1] * beside


def table(works: Sequence[Job], scale: Preset, processes: int = 1) -> str:
    """A line for each run, and the sum."""
    head = f"{'run':<36} {'claims':<8} {'rows':<26} {'steps':>6} {'batch':>5} "
    lines = [head + f"{'FLOPs':>9} {'look-up 0':>9} {'seconds':>7}"]
    for w in works:
        cost, run = w.run.cost, w.run.experiment
        lines.append(
            f"{w.run.name:<36} {w.claims:<8} {w.run.corpus.name:<26} {run.run.steps:>6} "
            f"{run.data.batch_size:>5} {cost.published:>9.2e} {cost.sparse:>9.2e} "
            f"{seconds_of(w, scale):>7.0f}"
        )
    total = estimate(works, scale, processes)
    lines.append(
        f"{total.runs} runs, {total.published:.2e} FLOPs as published ({total.sparse:.2e} with "
        f"look-ups for nothing), about {total.seconds / 60:.0f} minutes"
    )
    return "\n".join(lines)
