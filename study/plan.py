"""What there is to do: the runs that the claims need, each once, and what is taken from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from study.arms import Corpus, Run, corpus_of, run_of
from study.claim import Claim
from study.compute import Cost
from study.scales import Scale

ANSWERS = "qa"


@dataclass(frozen=True)
class Work:
    """A run, and what is measured on it."""

    run: Run
    tasks: bool = False  # fine-tuned to the study's tasks
    answers: bool = False  # and to question answering
    held_out: Corpus | None = None  # whose validation rows it is tested on
    pairs: tuple[Corpus, ...] = ()  # whose sentence pairs it is asked for
    layers: bool = False  # linear models on all layers
    claims: str = ""  # letters


class Estimate(NamedTuple):
    runs: int
    seconds: float
    published: float
    sparse: float


def work(claims: Sequence[Claim], scale: Scale) -> list[Work]:
    """In the order of doing: claim by claim, the arms that matter most first, seed by seed."""
    found: dict[str, Work] = {}
    tested = {arm.name for claim in claims if "mlm" in claim.measures for arm in claim.arms}
    for claim in claims:
        for first in (True, False):
            for seed in range(max(scale.many, scale.few)):
                for row in claim.rows:
                    seeds = scale.many if claim.many or row.many else scale.few
                    if row.first == first and seed < seeds:
                        _add(found, claim, run_of(row.arm, scale, seed), row.arm.name in tested)
    return list(found.values())


def _add(found: dict[str, Work], claim: Claim, run: Run, tested: bool) -> None:
    """With what one more claim asks of a run."""
    before = found.get(run.name, Work(run))
    measured = claim.measures
    pair = "pair" in vars(run.experiment.objective) and run.experiment.objective.pair  # type: ignore[union-attr]
    whole = run.corpus._replace(share=1)
    found[run.name] = Work(
        run,
        tasks=before.tasks or "tasks" in measured,
        answers=before.answers or "qa" in measured,
        # these of every seed that is run: the spread is theirs
        held_out=whole if tested else None,
        pairs=tuple(whole._replace(segments=s) for s in ("nsp", "sop"))
        if pair and whole.tokenizer == "wordpiece"
        else (),
        layers=before.layers or bool(claim.layers),
        claims="".join(sorted({*before.claims, claim.letter})),
    )


def corpora(works: Iterable[Work]) -> list[Corpus]:
    """All that are read, in the order of need."""
    return list(dict.fromkeys(c for w in works for c in corpora_of(w)))


def corpora_of(one: Work) -> list[Corpus]:
    held_out = [] if one.held_out is None else [one.held_out]
    return list(dict.fromkeys([one.run.corpus, *held_out, *one.pairs]))


def estimate(works: Sequence[Work], scale: Scale) -> Estimate:
    costs = [Cost.of(w.run.experiment, w.run.length) for w in works]
    seconds = sum(seconds_of(w, scale) for w in works)
    return Estimate(
        len(works), seconds, sum(c.published for c in costs), sum(c.sparse for c in costs)
    )


def seconds_of(one: Work, scale: Scale) -> float:
    """A guess: products at the scale's speed, and so much beside them."""
    cost = Cost.of(one.run.experiment, one.run.length)
    tunes = len(scale.tasks) * one.tasks + one.answers + one.layers
    small = (one.held_out is not None) + len(one.pairs)
    return cost.products / scale.speed + scale.seconds[0] + scale.seconds[1] * (tunes + small / 3)


def table(works: Sequence[Work], scale: Scale) -> str:
    """A line for each run, and the sum."""
    head = f"{'run':<36} {'claims':<8} {'rows':<26} {'steps':>6} {'batch':>5} "
    lines = [head + f"{'FLOPs':>9} {'look-up 0':>9} {'seconds':>7}"]
    for w in works:
        cost = Cost.of(w.run.experiment, w.run.length)
        run = w.run.experiment
        lines.append(
            f"{w.run.name:<36} {w.claims:<8} {w.run.corpus.name:<26} {run.run.steps:>6} "
            f"{run.data.batch_size:>5} {cost.published:>9.2e} {cost.sparse:>9.2e} "
            f"{seconds_of(w, scale):>7.0f}"
        )
    total = estimate(works, scale)
    lines.append(
        f"{total.runs} runs, {total.published:.2e} FLOPs as published ({total.sparse:.2e} with "
        f"look-ups for nothing), about {total.seconds / 60:.0f} minutes"
    )
    return "\n".join(lines)


__all__ = ["ANSWERS", "Estimate", "Work", "corpora", "corpora_of", "corpus_of", "estimate", "work"]
