"""What a hypothesis is: variants, metrics, the statements that decide it, the paper's numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from study.variants import Variant

Needs = Literal["both", "better", "start"]


@dataclass(frozen=True)
class ResultRow:
    """A variant's row in the result table, with the paper's cells for it."""

    variant: Variant
    label: str
    paper: tuple[str, ...] = ()
    priority: bool = False  # runs with all seeds before the other variants
    many_seeds: bool = False  # gives the spread of the hypothesis's metrics over seeds
    scales: tuple[str, ...] | None = None  # the presets that run it; None: all


@dataclass(frozen=True)
class Statement:
    """`better` beats `worse` by more than `margin`.

    A number instead of a variant is a constant to beat. A negative margin allows `better` to be
    worse by at most that much. What the runs must have learned for the statement to be judged:

    both    both beat counts of both neighbors of their training rows
    better  `better` does; that `worse` may not is what is claimed
    start   the one that is ahead beats word frequencies: a statement about early learning
    """

    text: str
    better: str | float  # name of a variant
    worse: str | float
    metric: str  # or A>B: `better` on metric A against `worse` on metric B
    margin: float = 0.0
    needs: Needs = "both"
    needs_pairs: bool = False  # both sides must have learned sentence pairs

    @property
    def metrics(self) -> tuple[str, str]:
        """The metric of each side."""
        better, _, worse = self.metric.partition(">")
        return better, worse or better

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(side for side in (self.better, self.worse) if isinstance(side, str))


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
    probes: bool = False  # train linear probes on every layer
    too_small: str = ""  # why small presets leave it out

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(row.variant for row in self.rows)

    def at_scale(self, scale: str) -> Hypothesis:
        """The hypothesis with the rows of a preset, and the statements about these rows. If others
        are left out, it says which remain."""
        rows = tuple(row for row in self.rows if row.scales is None or scale in row.scales)
        names = {row.variant.name for row in rows}
        statements, secondary = (
            tuple(s for s in group if names.issuperset(s.variants))
            for group in (self.statements, self.secondary)
        )
        kept, refuted_by = statements + secondary, self.refuted_by
        if len(kept) < len(self.statements + self.secondary):  # the claim names more than that
            refuted_by += f"\n\n**At this scale only:** {'; '.join(s.text for s in kept)}."
        return dataclasses.replace(
            self, refuted_by=refuted_by, rows=rows, statements=statements, secondary=secondary
        )
