"""What a claim is: arms side by side, what is measured, what decides, and the paper's table."""

from __future__ import annotations

from dataclasses import dataclass

from study.variants import Variant


@dataclass(frozen=True)
class ResultRow:
    """An arm in a claim's table, and the paper's cells for it."""

    arm: Variant
    label: str
    paper: tuple[str, ...] = ()
    first: bool = False  # run with all seeds before the claim's other arms
    many: bool = False  # seeds, so that the spread is known of what the claim measures


@dataclass(frozen=True)
class Statement:
    """One statement: `better` beats `worse` by more than `margin`.

    A number stands for a constant to beat. A margin below zero means at most so much worse.
    """

    text: str
    better: str | float  # name of an arm
    worse: str | float
    measure: str
    margin: float = 0.0
    main: bool = True  # else it does not decide the claim
    most: bool = False  # it is said of most seeds: they are counted, whatever the differences
    pairs: bool = False  # it is about what sentence pairs teach: both sides must have learned them

    @property
    def needs(self) -> tuple[str, ...]:
        """Measures of having begun to learn; an arm without one of them need not have."""
        return ("gain", "pair_gain") if self.pairs else ("gain",)


@dataclass(frozen=True)
class Hypothesis:
    letter: str
    title: str
    says: str  # the claim, as the papers make it
    against: str  # what would count against it
    rows: tuple[ResultRow, ...]
    measures: tuple[str, ...]  # of measures.py, one column each
    statements: tuple[Statement, ...]
    columns: tuple[str, ...] = ()  # of the paper's table
    source: str = ""  # of the paper's table
    note: str = ""  # what a reader must know beside it
    many: bool = False  # seeds
    drawn: tuple[str, ...] = ()  # measures, as dots; metrics of metrics.jsonl, as curves
    layers: tuple[str, ...] = ()  # tasks whose scores are taken from every layer

    @property
    def arms(self) -> tuple[Variant, ...]:
        return tuple(row.arm for row in self.rows)
