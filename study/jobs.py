"""The jobs of a study: the runs that hypotheses need, each once, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bert_jax.config import Masked
from study.hypothesis import Hypothesis
from study.presets import Preset
from study.variants import Corpus, Run, run_of

QA = "qa"  # the question-answering task, outside the mean over tasks


@dataclass(frozen=True)
class Job:
    """A run, and what is measured on it."""

    run: Run
    held_out: Corpus  # test on the validation rows of this corpus
    tasks: bool = False  # fine-tune to the study's tasks
    qa: bool = False  # fine-tune to question answering
    pairs: tuple[Corpus, ...] = ()  # test the pair head on these NSP and SOP corpora
    probes: bool = False  # linear probes on all layers
    hypotheses: str = ""  # letters

    @property
    def steps(self) -> int:
        return self.run.experiment.run.steps


def list_jobs(hypotheses: Sequence[Hypothesis], preset: Preset) -> list[Job]:
    """Jobs in the order of execution: by hypothesis, priority variants first, seed by seed."""
    jobs: dict[str, Job] = {}
    # Every seed of these variants gets the measurement, whichever hypothesis adds the run:
    # the spread over seeds needs it.
    pairs = {v.name for h in hypotheses if "sop" in h.metrics for v in h.variants}
    for hypothesis in hypotheses:
        for priority in (True, False):
            for seed in range(max(preset.many_seeds, preset.few_seeds)):
                for row in hypothesis.rows:
                    many = hypothesis.many_seeds or row.many_seeds
                    seeds = preset.many_seeds if many else preset.few_seeds
                    if row.priority != priority or seed >= seeds:
                        continue
                    run = run_of(row.variant, preset, seed)
                    jobs[run.name] = _job(
                        run,
                        jobs.get(run.name),
                        hypothesis,
                        row.variant.name in pairs,
                    )
    return list(jobs.values())


def _job(run: Run, known: Job | None, hypothesis: Hypothesis, pairs: bool) -> Job:
    """The job of a run, with everything that one more hypothesis needs."""
    corpus = run.corpus._replace(subsample=1)
    known = known or Job(run, corpus)
    objective = run.experiment.objective
    has_pairs = isinstance(objective, Masked) and objective.sentence_pair
    pair_corpora = tuple(corpus._replace(segments=s) for s in ("nsp", "sop"))
    return Job(
        run,
        corpus,
        tasks=known.tasks or "tasks" in hypothesis.metrics,
        qa=known.qa or "qa" in hypothesis.metrics,
        pairs=pair_corpora if has_pairs and pairs else (),
        probes=known.probes or hypothesis.probes,
        hypotheses="".join(sorted({*known.hypotheses, hypothesis.letter})),
    )


def estimate_seconds(job: Job, preset: Preset) -> float:
    """A rough estimate of a job's seconds on one process."""
    # linear probes on every word and layer take as long as two fine-tunings, a test a third
    tuned = len(preset.tasks) * job.tasks + job.qa
    rates = len(preset.tune_rates)
    tunings = tuned * (1 if rates == 1 else rates + 1) + len(preset.tasks) * 2 * job.probes
    tests = 1 + len(job.pairs)
    steps = job.run.cost.products / preset.flops_per_second
    return steps + preset.run_overhead + preset.tune_seconds * (tunings + tests / 3)


def format_jobs(jobs: Sequence[Job], preset: Preset, processes: int = 1) -> str:
    """A line for each run, and the sum."""
    lines = [
        f"{'run':<36} {'hypotheses':<10} {'corpus':<26} {'steps':>6} {'batch':>5} "
        f"{'FLOPs':>9} {'sparse':>9} {'seconds':>7}"
    ]
    for job in jobs:
        cost, experiment = job.run.cost, job.run.experiment
        lines.append(
            f"{job.run.name:<36} {job.hypotheses:<10} {job.run.corpus.name:<26} "
            f"{job.steps:>6} {experiment.data.batch_size:>5} {cost.published:>9.2e} "
            f"{cost.sparse:>9.2e} {estimate_seconds(job, preset):>7.0f}"
        )
    published, sparse = (
        sum(getattr(job.run.cost, kind) for job in jobs) for kind in ("published", "sparse")
    )
    seconds = sum(estimate_seconds(job, preset) for job in jobs) / processes
    lines.append(
        f"{len(jobs)} runs, {published:.2e} FLOPs as published ({sparse:.2e} with sparse "
        f"look-ups), about {seconds / 60:.0f} minutes"
    )
    return "\n".join(lines)
