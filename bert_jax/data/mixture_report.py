"""What a run says of the rows that its stages read from each corpus."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

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
    """A line for every corpus whose sentence pairs are read more than once, in all stages together:
    a model memorizes them with their labels."""
    if not (isinstance(config.objective, Masked) and config.objective.sentence_pair):
        return []
    times: dict[Any, float] = defaultdict(float)
    infos = {}
    for stage_data, rows in _rows_read(config, stages):
        weights = stage_data.weights or [1.0]
        for corpus, weight in zip(stage_data.corpora, weights, strict=True):
            infos[corpus.path] = corpus.info
            times[corpus.path] += rows * weight / sum(weights) / corpus.info.train.rows
    return [
        f"each of the {info.train.sequences:,} pairs of {path} is read {times[path]:.1f} times, "
        "and a model memorizes pairs with their labels: prepare --duplicates "
        f"{math.ceil(info.duplicates * times[path])} (now {info.duplicates}) makes enough new pairs"
        for path, info in infos.items()
        if times[path] > 1
    ]
