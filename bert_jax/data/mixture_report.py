"""What a run says of the rows that its stages read from each corpus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bert_jax.config import Experiment, Masked
from bert_jax.data import mix_weights
from bert_jax.data.mixture import StageData


def _rows_read(config: Experiment, stages: Sequence[StageData]) -> Iterator[tuple[StageData, int]]:
    """Each stage, and how many rows it reads."""
    stops = [*(stage_data.stage.start for stage_data in stages[1:]), config.run.steps]
    for stage_data, stop in zip(stages, stops, strict=True):
        stage = stage_data.stage
        yield stage_data, max(0, stop - stage.start) * stage.batch_size


def describe_mixes(config: Experiment, stages: Sequence[StageData]) -> list[str]:
    """What every stage with several corpora draws from each."""
    lines: list[str] = []
    for stage_data, rows in _rows_read(config, stages):
        if stage_data.weights is not None:
            lines += mix_weights.describe_mix(stage_data.corpora, stage_data.weights, rows)
    return lines


def describe_repeated_pairs(config: Experiment, stages: Sequence[StageData]) -> list[str]:
    """A line for every corpus of a stage whose sentence pairs are read more than once: a model
    memorizes them with their labels."""
    if not (isinstance(config.objective, Masked) and config.objective.sentence_pair):
        return []
    lines: list[str] = []
    for stage_data, rows in _rows_read(config, stages):
        weights = stage_data.weights or [1.0]
        for corpus, weight in zip(stage_data.corpora, weights, strict=True):
            times = rows * weight / sum(weights) / corpus.info.train.rows
            if times > 1:
                lines.append(
                    f"each of the {corpus.info.train.sequences:,} pairs of {corpus.path} is read "
                    f"{times:.1f} times, and a model memorizes pairs with their labels: prepare "
                    f"--duplicates {math.ceil(corpus.info.duplicates * times)} "
                    f"(now {corpus.info.duplicates}) makes enough new pairs"
                )
    return lines
