"""Which layer to take: a linear model on the features of every layer, tested on the dev rows.

The encoder stays as it is. What such a model cannot read off a layer is not said there in a
simple way (Tenney et al. 2019; Liu et al. 2019, Linguistic Knowledge and Transferability).
"""

from __future__ import annotations

import json
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
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import features
from bert_jax.inference.model import Model
from bert_jax.utils import io
from bert_jax.utils.tables import format_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Layer = int | Literal["words"]
# Tagging: the first piece of a word, or the mean of its pieces. Classification: of all tokens.
POOLS = {"tagging": ("first", "mean"), "classification": ("mean", "cls")}
MAX_FEATURE_BYTES = (
    1 << 30
)  # bytes of features that are held; with more, layers are computed in groups
L2_PENALTY = 100.0  # on the squared weights, summed as the loss over the rows is


@dataclass(frozen=True)
class LayerScore:
    layer: Layer
    pool: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class ProbeResult:
    """What the linear models reached on the dev rows."""

    model: str
    task: str
    data: str
    metric: str  # by which one layer is best
    rows: dict[str, int]  # examples, by split
    majority: dict[str, float]  # always the commonest label of the training rows
    scores: list[LayerScore]

    @property
    def best(self) -> LayerScore:
        return max(self.scores, key=lambda s: s.metrics[self.metric])


@dataclass(frozen=True)
class LayerSplit:
    """A split: its rows, and the labels of its vectors, row after row."""

    encoded: tasks.EncodedExamples
    rows: list[features.FeatureRow]
    labels: np.ndarray  # int [n]
    counts: np.ndarray  # int [rows]: vectors of each


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
    """Writes `probe.json` and `probe.png` into the new folder `out`. No `layers`: the word table
    and all from 0 to the last; no `pools`: both of the task. Of each split `rows` examples are
    drawn by `seed`; 0: all.

    ValueError: a task that is neither tagging nor classification, a layer or a pool that is not
    there, training rows of one label, an `out` that is there.
    """
    io.require_new(out)
    kind = _kind(task)
    pools = pools or POOLS[kind]
    if not set(pools) <= set(POOLS[kind]):
        raise ValueError(f"pool is {', '.join(pools)}: {kind} has {' and '.join(POOLS[kind])}")
    if rows < 0:
        raise ValueError(f"rows is {rows}: expected how many examples to take, or 0 for all")
    chosen = _layers(layers, model.config.encoder.layers)
    dataset = tasks.read_dataset(task, data)
    train, dev = (_layer_split(model, dataset, split, rows, seed) for split in ("train", "dev"))
    if len(np.unique(train.labels)) < 2:
        raise ValueError(f"{data}: the {len(train.rows)} training rows have one label alone")

    def scored(guesses: np.ndarray) -> dict[str, float]:
        outputs = _outputs(dev, guesses, len(dataset.labels))
        return tasks.compute_metrics(task, dev.encoded, outputs, dataset.labels)

    scores = []
    bar = tqdm(total=len(pools) * len(chosen), desc="layers", disable=None)
    for pool in pools:
        for group in _groups(model, chosen, len(train.labels) + len(dev.labels)):
            x, y = (_features(model, part, group, pool) for part in (train, dev))
            for i, layer in enumerate(group):
                guesses = _guesses(x[i], train.labels, y[i])
                scores.append(LayerScore(layer, pool, scored(guesses)))
                bar.update()
    bar.close()
    commonest = np.bincount(train.labels).argmax()
    found = ProbeResult(
        name,
        task,
        str(data),
        tasks.main_metric(task, dataset),
        {"train": len(train.encoded.examples), "dev": len(dev.encoded.examples)},
        scored(np.full(len(dev.labels), commonest)),
        scores,
    )
    with io.atomic_dir(out) as new:
        said = asdict(found) | {"best": asdict(found.best)}
        (new / "probe.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        _draw(found, new / "probe.png")
    return found


def render_probe(result: ProbeResult) -> str:
    """A table with the metrics of every layer, and the best layer in words."""
    metrics, best = list(result.majority), result.best
    rows = [
        [s.layer, s.pool, *(f"{s.metrics[m]:.3f}" for m in metrics), "best" if s is best else ""]
        for s in result.scores
    ]
    rows.append(["always one label", "", *(f"{result.majority[m]:.3f}" for m in metrics), ""])
    header = ("layer", "pool", *metrics, "")
    table = format_table(header, rows, left=(0, 1, len(header) - 1))
    return (
        f"{table}\nbest: layer {best.layer}, {best.pool}: {result.metric} "
        f"{best.metrics[result.metric]:.3f} ({result.rows['train']} training and "
        f"{result.rows['dev']} dev rows)"
    )


def _kind(task: Any) -> TaskType:
    if task not in (*typing.get_args(TaskType), *typing.get_args(GlueTask)):
        raise ValueError(f"the task is {task!r}: expected {' or '.join(POOLS)}, or a GLUE name")
    kind = tasks.task_type_of(task)
    if kind not in POOLS:
        raise ValueError(f"{task} is a task of {kind}: a probe takes {' or '.join(POOLS)}")
    return kind


def _layers(layers: Sequence[Layer], most: int) -> list[Layer]:
    """The layers to take, from the word table on."""
    layers = layers or ["words", *range(most + 1)]
    numbers = [i for i in layers if i != "words"]
    found: Any = features.resolve_layers(numbers, most) if numbers else ()
    return [*(["words"] if "words" in layers else []), *sorted(set(found))]


def _layer_split(
    model: Model, dataset: tasks.Dataset, split: str, most: int, seed: int
) -> LayerSplit:
    """The rows of a split, or of `most` of its examples, drawn by `seed`."""
    examples = dataset.splits[split]
    if 0 < most < len(examples):
        drawn = np.random.default_rng(seed).choice(len(examples), most, replace=False)
        examples = [examples[i] for i in np.sort(drawn)]
    length = model.config.encoder.max_length
    encoded = tasks.encode_examples(
        dataset.task_type, examples, model.tokenizer, length, dataset.labels
    )
    rows, labels = [], []
    for i, row in enumerate(encoded.rows):
        bounds = _bounds(encoded, i, model.tokenizer) if dataset.task_type == "tagging" else None
        labels.append([row["label"]] if bounds is None else row["tags"][bounds[:-1]])
        rows.append(features.FeatureRow(row["tokens"], int(row["first"]), bounds))
    counts = np.array([len(x) for x in labels])
    return LayerSplit(encoded, rows, np.concatenate(labels), counts)


def _bounds(encoded: tasks.EncodedExamples, number: int, tokenizer: Tokenizer) -> np.ndarray:
    """Where the words that a row of tagging stands for begin, and where the last one ends."""
    words, at = cast(tasks.WordPositions, encoded.alignments[number])
    if not len(words):
        return np.ones(1, np.int64)
    example = cast(tasks.TaggingExample, encoded.examples[encoded.example_indices[number]])
    spaced = " " if tokenizer.kind == "bpe" and words[-1] else ""
    pieces = max(1, len(tokenizer.encode(spaced + example.tokens[words[-1]])))
    return np.append(at, min(at[-1] + pieces, encoded.rows[number]["size"] - 1))


def _groups(model: Model, layers: Sequence[Layer], vectors: int) -> Iterator[list[Layer]]:
    """The word table alone, and as many layers at a time as may be held."""
    if "words" in layers:
        yield ["words"]
    numbers = [i for i in layers if i != "words"]
    some = max(1, MAX_FEATURE_BYTES // (4 * vectors * model.config.encoder.hidden_size))
    for begin in range(0, len(numbers), some):
        yield list(numbers[begin : begin + some])


def _features(model: Model, part: LayerSplit, layers: Sequence[Layer], pool: str) -> np.ndarray:
    """[layers, vectors, d], in the order of `part.labels`."""
    words = part.rows[0].words is not None
    of_row: Any = ("words" if pool == "mean" else None) if words else pool
    numbers: Any = "words" if layers[0] == "words" else layers
    ends = np.cumsum(part.counts)
    out: np.ndarray | None = None
    for i, x in model.encode_rows(part.rows, numbers, of_row):
        if words and pool == "first":
            x = x[:, part.rows[i].words[:-1]]  # type: ignore[index]
        if out is None:
            out = np.empty((len(x), ends[-1], x.shape[-1]), np.float32)
        out[:, ends[i] - part.counts[i] : ends[i]] = x if words else x[:, None]
    assert out is not None
    return out


def _guesses(x: np.ndarray, labels: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The labels of `y` [m d], by logistic regression on `x` [n d]."""
    regression = LogisticRegression(C=1 / L2_PENALTY, max_iter=1000)
    return make_pipeline(StandardScaler(), regression).fit(x, labels).predict(y)


def _outputs(part: LayerSplit, guesses: np.ndarray, labels: int) -> list[np.ndarray]:
    """What a head would have said of each row: 1 for the guess, 0 for every other label."""
    outputs = []
    logits = np.eye(labels, dtype=np.float32)[guesses]
    for row, of_row in zip(part.rows, np.split(logits, np.cumsum(part.counts)[:-1]), strict=True):
        if row.words is None:
            outputs.append(of_row[0])
        else:
            outputs.append(np.zeros((len(row.tokens), labels), np.float32))
            outputs[-1][row.words[:-1]] = of_row
    return outputs


def _draw(found: ProbeResult, path: Path) -> None:
    """A panel for accuracy and one for the metric that decides, if it is another."""
    metrics, best = list(dict.fromkeys(["accuracy", found.metric])), found.best
    figure, axes = plt.subplots(1, len(metrics), figsize=(6 * len(metrics), 4), squeeze=False)
    names = list(dict.fromkeys(str(s.layer) for s in found.scores))
    for axis, metric in zip(axes[0], metrics, strict=True):
        for pool in dict.fromkeys(s.pool for s in found.scores):
            line = [s for s in found.scores if s.pool == pool]
            at = [names.index(str(s.layer)) for s in line]
            axis.plot(at, [s.metrics[metric] for s in line], marker="o", markersize=4, label=pool)
        axis.axhline(found.majority[metric], color="gray", linestyle=":", label="always one label")
        axis.set(title=f"{metric}, dev", xlabel="layer")
        axis.set_xticks(range(len(names)), names)
        axis.grid(alpha=0.3)
        if metric == found.metric:
            at, value = names.index(str(best.layer)), best.metrics[metric]
            axis.plot(at, value, "*", color="black", markersize=11, label=f"best: {value:.3f}")
            axis.legend()
    figure.suptitle(f"{Path(found.data).name}: a linear model on the features of each layer")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
