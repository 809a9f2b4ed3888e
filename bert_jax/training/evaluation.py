"""Evaluation: averaged terms over held-out rows, and the scores of a task's splits."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import tasks
from bert_jax.config import Experiment, Supervised
from bert_jax.distributed import sharding
from bert_jax.objectives import Objective, SupervisedObjective
from bert_jax.objectives.losses import share_loss
from bert_jax.tasks import EncodedExamples
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.step import CompiledSteps, to_floats
from bert_jax.utils.types import Batch

logger = logging.getLogger(__name__)


@jax.jit  # one program for all terms, which several processes start together
def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def evaluate(
    steps: CompiledSteps,
    objective: Objective,
    params: Any,
    batches: Iterable[Batch],
    pair_share: float | None = None,
) -> dict[str, float]:
    """`eval_` metrics over all batches: totals and counts are summed, then divided once. A metric
    without a scored position is left out, with a warning; the loss is the sum of the terms that
    have a figure, and NaN if none has. Empty where there is no batch. `pair_share` is the share of
    pairs with label 1 in the training rows: with it comes `eval_pair_baseline_loss`, the loss of a
    model that knows the shares alone."""
    sums = None
    for batch in batches:
        terms = steps.evaluate(params, steps.to_devices(batch))
        sums = terms if sums is None else _add(sums, terms)
    if sums is None:
        return {}
    values = to_floats(sums)
    empty = sorted(set(sums) - set(values))
    if missing := [name for name in (*objective.weights, "mask_loss") if name in empty]:
        hints = ["look at objective.masking"] if set(missing) - {"pair_loss"} else []
        if "pair_loss" in missing:
            hints.append("prepare more documents: the pairs have no label")
        logger.warning(
            "no held-out position was scored for %s, so it is not reported: evaluate more rows "
            "(run.eval_batches), or %s",
            ", ".join(missing),
            "; ".join(hints),
        )
    terms = [w * values[name] for name, w in objective.weights.items() if name in values]
    values["loss"] = sum(terms) if terms else math.nan
    if pair_share is not None and "pair_share" in values:
        values["pair_baseline_loss"] = share_loss(values["pair_share"], pair_share)
    return {f"eval_{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class EvalResult:
    """What some parameters answer on one split of a task."""

    objective: Supervised
    encoded: EncodedExamples
    outputs: Sequence[Any]  # of every row; see tasks/__init__.py
    loss: float
    split: str = "dev"

    def best_thresholds(self) -> tuple[float, ...]:
        """Multi-label: the config's threshold of each label, or else the best on this split; () for
        other tasks."""
        o = self.objective
        if o.task_type != "multilabel":
            return ()
        return o.thresholds or tasks.best_thresholds(self.encoded, self.outputs)

    def scores(self, threshold: float = 0.0, thresholds: Sequence[float] = ()) -> dict[str, float]:
        """The task's metrics and the loss. Empty where no example has a label; NaN if an output is
        NaN, of which argmax would make the first class. `threshold` is the margin of the answer
        "none" (SQuAD 2.0), `thresholds` those of each label (multi-label)."""
        o = self.objective
        task = "diagnostic" if self.split == "diagnostic" else o.task  # its own metric
        scores = tasks.compute_metrics(
            task, self.encoded, self.outputs, o.labels, threshold, thresholds, o.tag_scoring
        )
        if any(np.isnan(x).any() for x in jax.tree.leaves(list(self.outputs))):
            return dict.fromkeys([*scores, "loss"], math.nan) if scores else {}
        loss = self.loss
        if o.task_type == "rerank":  # of all candidates of a query, which are rows of their own
            loss = tasks.rank_loss(self.encoded, self.outputs, o.rank_loss, o.max_grade)
        return {**scores, "loss": loss} if scores else {}

    def predictions(
        self, threshold: float = 0.0, thresholds: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """One JSON object per example, in their order."""
        o = self.objective
        return tasks.decode_predictions(self.encoded, self.outputs, o.labels, threshold, thresholds)

    def label_scores(self, thresholds: Sequence[float] = ()) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and number of examples of each label (tasks/label_scores.py)."""
        return tasks.label_scores(self.encoded, self.outputs, self.objective.labels, thresholds)

    def confusion(self) -> list[list[int]] | None:
        """Confusion matrix of texts or words: true labels down, predicted labels across. None where
        the task has no classes or the split no labels."""
        if self.objective.task_type not in ("classification", "tagging"):
            return None
        counts = tasks.confusion_matrix(self.encoded, self.outputs, self.objective.labels)
        return counts.tolist() if counts.any() else None


class Evaluator:
    """Evaluates parameters on the splits of a task, with one compiled function."""

    def __init__(
        self,
        task: FinetuneTask,
        config: Experiment,
        objective: SupervisedObjective,
        steps: CompiledSteps,
        mesh: jax.sharding.Mesh,
    ) -> None:
        self.task, self.config = task, config
        self._objective, self._steps = objective.config, steps
        self._slices = sharding.process_slices(mesh)

        def apply(params: Any, batch: Batch) -> Any:
            terms = objective.terms(params, batch, None)
            return batch["row"], objective.outputs(params, batch), terms["task_loss"]

        self._apply = jax.jit(
            sharding.with_mesh(mesh, apply), out_shardings=sharding.replicated(mesh)
        )

    def evaluate(self, params: Any, split: str) -> EvalResult:
        """The outputs of the parameters on a split, with the loss over its labeled examples."""
        losses, params = [], self._steps.network_params(params)

        def outputs_of(batch: Batch) -> tuple[Any, Any]:
            rows, outputs, loss = self._apply(params, self._steps.to_devices(batch))
            losses.append(loss)
            return rows, outputs

        batches = self.task.batches(self.config, split, self._slices)
        outputs = batches.predict_all(outputs_of, self._objective.per_token)
        # Summed here: a sum of N device arrays would be compiled for each N.
        total = jax.tree.map(
            lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(losses)
        )
        loss = to_floats({"loss": total}).get("loss", math.nan)  # NaN: no row has a label
        return EvalResult(self._objective, self.task.encoded[split], outputs, loss, split)

    def dev_scores(self, params: Any) -> dict[str, float]:
        """The metrics on dev, with the thresholds that are best there."""
        result = self.evaluate(params, "dev")
        return result.scores(thresholds=result.best_thresholds())
