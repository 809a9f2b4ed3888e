"""`probe`: train a linear model on the features of every layer, and evaluate it on dev.

The encoder is not trained. What a linear model cannot predict from a layer is not linearly encoded
there (Tenney et al. 2019; Liu et al. 2019, Linguistic Knowledge and Transferability).
"""

from __future__ import annotations

import logging
import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from bert_jax import tasks
from bert_jax.config import GlueTask, TaskType
from bert_jax.config.ranges import check_seed
from bert_jax.inference import features
from bert_jax.inference.model import Model
from bert_jax.utils import io, strict_json
from bert_jax.utils.tables import format_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

logger = logging.getLogger(__name__)

Layer = int | Literal["words"]
# Tagging: the first piece of a word, or the mean of its pieces. Classification: the mean of all
# tokens, or the first token.
POOLS = {"tagging": ("first", "mean"), "classification": ("mean", "cls")}
MAX_FEATURE_BYTES = 1 << 30  # of features in memory; beyond it, layers are computed in groups
L2_PENALTY = 100.0  # on the squared weights, relative to the loss summed over rows


@dataclass(frozen=True)
class LayerScore:
    """The score of one layer and one way to pool it."""

    layer: Layer
    pool: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ProbeResult:
    """The metrics of the linear models on dev."""

    model: str
    task: str
    data: str
    metric: str  # that selects the best layer
    rows: dict[str, int]  # examples, by split
    majority: dict[str, float]  # metrics of always predicting the most frequent training label
    scores: list[LayerScore]

    @property
    def best(self) -> LayerScore:
        """The layer and pool with the highest score."""
        return max(self.scores, key=lambda s: s.metrics[self.metric])


@dataclass(frozen=True)
class LayerSplit:
    """A split: its rows, and the labels of its feature vectors in the order of the rows."""

    encoded: tasks.EncodedExamples
    rows: list[features.FeatureRow]
    labels: np.ndarray  # int [n]
    counts: np.ndarray  # int [rows]: number of vectors per row


def probe_layers(
    model: Model,
    task: TaskType | GlueTask,
    data: str | Path,
    out: Path,
    layers: Sequence[Layer] = (),
    pools: Sequence[str] = (),
    rows: int = 2000,
    seed: int = 0,
    name: str = "",
) -> ProbeResult:
    """Probe the layers, and write `probe.json` and `probe.png` to the new folder `out`.

    layers   numbers, or "words" for the embedding table; default: all
    pools    default: both of the task type
    rows     number of examples per split, sampled with `seed`; 0: all

    ValueError: a task that is neither tagging nor classification, a missing layer or pool,
    training rows with one label only, an `out` that exists.
    """
    io.require_new(out)
    pools = _resolve_pools(pools, _task_type(task))
    if rows < 0:
        raise ValueError(f"rows is {rows}: expected a number of examples, or 0 for all")
    check_seed(seed)
    selected = _resolve_layers(layers, model.config.encoder.layers)
    dataset = tasks.read_dataset(task, data)
    if dataset.task_type not in POOLS:
        raise ValueError(f"{data}: its labels are lists: expected one label per row")
    train, dev = (_layer_split(model, dataset, split, rows, seed) for split in ("train", "dev"))
    for note in (*dataset.notes, *train.encoded.notes, *dev.encoded.notes):
        logger.info(note)
    known = train.labels >= 0  # words without a tag teach nothing
    if len(np.unique(train.labels[known])) < 2:
        raise ValueError(f"{data}: all {len(train.rows)} training rows have the same label")

    def evaluate(predictions: np.ndarray) -> dict[str, float]:
        outputs = _one_hot_outputs(dev, predictions, len(dataset.labels))
        return tasks.compute_metrics(task, dev.encoded, outputs, dataset.labels)

    scores = []
    bar = tqdm(total=len(pools) * len(selected), desc="layers", disable=None)
    vectors = len(train.labels) + len(dev.labels)
    for pool in pools:
        for group in _layer_groups(model, selected, vectors):
            x, y = (_features(model, split, group, pool) for split in (train, dev))
            for i, layer in enumerate(group):
                predictions = _fit_and_predict(x[i][known], train.labels[known], y[i])
                scores.append(LayerScore(layer, pool, evaluate(predictions)))
                bar.update()
    bar.close()
    most_frequent = np.bincount(train.labels[known]).argmax()
    result = ProbeResult(
        name,
        task,
        str(data),
        tasks.main_metric(task, dataset),
        {"train": len(train.encoded.examples), "dev": len(dev.encoded.examples)},
        evaluate(np.full(len(dev.labels), most_frequent)),
        scores,
    )
    with io.atomic_dir(out) as new:
        values = asdict(result) | {"best": asdict(result.best)}
        (new / "probe.json").write_text(
            strict_json.dumps(values, indent=2) + "\n", encoding="utf-8"
        )
        _plot(result, new / "probe.png")
    return result


def render_probe(result: ProbeResult) -> str:
    """A table with the metrics of every layer, and the best layer in words."""
    metrics, best = list(result.majority), result.best
    rows = [
        [s.layer, s.pool, *(f"{s.metrics[m]:.3f}" for m in metrics), "best" if s is best else ""]
        for s in result.scores
    ]
    rows.append(["majority class", "", *(f"{result.majority[m]:.3f}" for m in metrics), ""])
    header = ("layer", "pool", *metrics, "")
    table = format_table(header, rows, left=(0, 1, len(header) - 1))
    score, dev = best.metrics[result.metric], result.rows["dev"]
    error = math.sqrt(score * (1 - score) / dev) if result.metric == "accuracy" else None
    return (
        f"{table}\nbest: layer {best.layer}, {best.pool}: {result.metric} {score:.3f}"
        f"{'' if error is None else f' ± {error:.3f}'} ({result.rows['train']} training and {dev} "
        f"dev rows), the best of {len(result.scores)} on these rows"
    )


def _task_type(task: Any) -> TaskType:
    if task not in (*typing.get_args(TaskType), *typing.get_args(GlueTask)):
        raise ValueError(f"the task is {task!r}: expected {' or '.join(POOLS)}, or a GLUE name")
    task_type = tasks.task_type_of(task)
    if task_type not in POOLS:
        raise ValueError(f"{task} is a {task_type} task: expected {' or '.join(POOLS)}")
    return task_type


def _resolve_pools(pools: Sequence[str], task_type: TaskType) -> Sequence[str]:
    pools = pools or POOLS[task_type]
    if not set(pools) <= set(POOLS[task_type]):
        expected = " and ".join(POOLS[task_type])
        raise ValueError(f"pool is {', '.join(pools)}: {task_type} has {expected}")
    return pools


def _resolve_layers(layers: Sequence[Layer], last: int) -> list[Layer]:
    """The layers in order, with the embedding table ("words") first; default: all."""
    layers = layers or ["words", *range(last + 1)]
    numbers = [i for i in layers if i != "words"]
    resolved: Any = features.resolve_layers(numbers, last) if numbers else ()
    return [*(["words"] if "words" in layers else []), *sorted(set(resolved))]


def _layer_split(
    model: Model, dataset: tasks.Dataset, split: str, max_rows: int, seed: int
) -> LayerSplit:
    """The rows of a split, or of `max_rows` of its examples, sampled with `seed`."""
    examples = dataset.splits[split]
    if 0 < max_rows < len(examples):
        sample = np.random.default_rng(seed).choice(len(examples), max_rows, replace=False)
        examples = [examples[i] for i in np.sort(sample)]
    length = model.config.encoder.max_length
    encoded = tasks.encode_examples(
        dataset.task_type, examples, model.tokenizer, length, dataset.labels
    )
    rows, labels = [], []
    for i, row in enumerate(encoded.rows):
        bounds = None
        if dataset.task_type == "tagging":
            words, positions, end = cast(tasks.WordPositions, encoded.alignments[i])
            bounds = np.append(positions, end) if len(words) else np.ones(1, np.int64)
        labels.append([row["label"]] if bounds is None else row["tags"][bounds[:-1]])
        rows.append(features.FeatureRow(row["tokens"], int(row["first"]), bounds))
    counts = np.array([len(x) for x in labels])
    return LayerSplit(encoded, rows, np.concatenate(labels), counts)


def _layer_groups(model: Model, layers: Sequence[Layer], vectors: int) -> Iterator[list[Layer]]:
    """The embedding table alone, then groups of as many layers as fit in memory."""
    if "words" in layers:
        yield ["words"]
    numbers = [i for i in layers if i != "words"]
    size = max(1, MAX_FEATURE_BYTES // (4 * vectors * model.config.encoder.hidden_size))
    for begin in range(0, len(numbers), size):
        yield list(numbers[begin : begin + size])


def _features(model: Model, split: LayerSplit, layers: Sequence[Layer], pool: str) -> np.ndarray:
    """[layers, vectors, d], in the order of `split.labels`."""
    words = split.rows[0].words is not None
    row_pool: Any = ("words" if pool == "mean" else None) if words else pool
    numbers: Any = "words" if layers[0] == "words" else layers
    ends = np.cumsum(split.counts)
    out: np.ndarray | None = None
    for i, x in model.iter_features(split.rows, numbers, row_pool):
        if words and pool == "first":
            x = x[:, split.rows[i].words[:-1]]  # type: ignore[index]
        if out is None:
            out = np.empty((len(x), ends[-1], x.shape[-1]), np.float32)
        out[:, ends[i] - split.counts[i] : ends[i]] = x if words else x[:, None]
    assert out is not None
    return out


def _fit_and_predict(x: np.ndarray, labels: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The predicted labels of `y` [m d], by logistic regression trained on `x` [n d]."""
    regression = LogisticRegression(C=1 / L2_PENALTY, max_iter=1000)
    return make_pipeline(StandardScaler(), regression).fit(x, labels).predict(y)


def _one_hot_outputs(split: LayerSplit, predictions: np.ndarray, labels: int) -> list[np.ndarray]:
    """The predictions as outputs of a head: 1 for the predicted label, 0 for every other label."""
    outputs = []
    logits = np.eye(labels, dtype=np.float32)[predictions]
    for row, row_logits in zip(
        split.rows, np.split(logits, np.cumsum(split.counts)[:-1]), strict=True
    ):
        if row.words is None:
            outputs.append(row_logits[0])
        else:
            outputs.append(np.zeros((len(row.tokens), labels), np.float32))
            outputs[-1][row.words[:-1]] = row_logits
    return outputs


def _plot(result: ProbeResult, path: Path) -> None:
    """A panel for accuracy and, if it is different, one for the metric that selects the layer."""
    accuracy = "accuracy" if "accuracy" in result.majority else "word_accuracy"
    metrics, best = list(dict.fromkeys([accuracy, result.metric])), result.best
    figure, axes = plt.subplots(1, len(metrics), figsize=(6 * len(metrics), 4), squeeze=False)
    names = list(dict.fromkeys(str(s.layer) for s in result.scores))
    for axis, metric in zip(axes[0], metrics, strict=True):
        for pool in dict.fromkeys(s.pool for s in result.scores):
            line = [s for s in result.scores if s.pool == pool]
            at = [names.index(str(s.layer)) for s in line]
            axis.plot(at, [s.metrics[metric] for s in line], marker="o", markersize=4, label=pool)
        axis.axhline(result.majority[metric], color="gray", linestyle=":", label="majority class")
        axis.set(title=f"{metric}, dev", xlabel="layer")
        axis.set_xticks(range(len(names)), names)
        axis.grid(alpha=0.3)
        if metric == result.metric:
            at, value = names.index(str(best.layer)), best.metrics[metric]
            axis.plot(at, value, "*", color="black", markersize=11, label=f"best: {value:.3f}")
            axis.legend()
    figure.suptitle(f"{Path(result.data).name}: a linear model on the features of each layer")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
