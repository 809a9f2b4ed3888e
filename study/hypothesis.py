"""What a hypothesis is: variants, metrics, the statements that decide it, the paper's numbers."""

from __future__ import annotations

from dataclasses import dataclass

from study.variants import Variant


@dataclass(frozen=True)
class ResultRow:
    """A variant's row in the result table, with the paper's cells for it."""

    variant: Variant
    label: str
    paper: tuple[str, ...] = ()
    priority: bool = False  # runs with all seeds before the other variants
    many_seeds: bool = False  # gives the spread of the hypothesis's metrics over seeds


@dataclass(frozen=True)
class Statement:
    """`better` beats `worse` by more than `margin`.

    A number instead of a variant is a constant to beat. A negative margin allows `better` to be
    worse by at most that much.
    """

    text: str
    better: str | float  # name of a variant
    worse: str | float
    metric: str  # or A>B: `better` on metric A against `worse` on metric B
    margin: float = 0.0
    by_seed_count: bool = False  # decided by the number of seeds in which it holds
    needs_pairs: bool = False  # both sides must have learned sentence pairs

    @property
    def metrics(self) -> tuple[str, str]:
        """The metric of each side."""
        better, _, worse = self.metric.partition(">")
        return better, worse or better

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(side for side in (self.better, self.worse) if isinstance(side, str))

    @property
    def baselines(self) -> tuple[str, ...]:
        """Metrics that show whether a variant is above its trivial baseline."""
        return ("delta", "pair_delta") if self.needs_pairs else ("delta",)


@dataclass(frozen=True)
class Hypothesis:
    letter: str
    title: str
    claim: str  # as the papers state it
    refuted_by: str  # what would count against it
    rows: tuple[ResultRow, ...]
    metrics: tuple[str, ...]  # names in metrics.py, one column each
    statements: tuple[Statement, ...]  # these decide the hypothesis
    secondary: tuple[Statement, ...] = ()  # these are only reported
    paper_columns: tuple[str, ...] = ()
    paper_source: str = ""
    note: str = ""
    many_seeds: bool = False
    plots: tuple[str, ...] = ()  # metrics, as dots; metrics of metrics.jsonl, as curves
    probes: tuple[str, ...] = ()  # tasks of linear probes on every layer

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(row.variant for row in self.rows)
