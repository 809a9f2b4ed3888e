"""Evaluation: averaged terms over held-out rows, and the scores of a task's splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import tasks
from bert_jax.config import Experiment, Supervised
from bert_jax.distributed import sharding
from bert_jax.objectives import Objective, SupervisedObjective
from bert_jax.tasks import EncodedExamples
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.step import CompiledSteps, to_floats
from bert_jax.utils.types import Batch


def evaluate(
    steps: CompiledSteps, objective: Objective, params: Any, batches: Iterable[Batch]
) -> dict[str, float]:
    """`eval_` metrics over all batches: totals and counts are summed, then divided once. Empty
    where there is no batch."""
    sums = None
    for batch in batches:
        terms = steps.evaluate(params, steps.to_devices(batch))
        sums = terms if sums is None else jax.tree.map(jnp.add, sums, terms)
    if sums is None:
        return {}
    values = to_floats(sums)
    values["loss"] = sum(w * values[name] for name, w in objective.weights.items())
    return {f"eval_{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class EvalResult:
    """What some parameters answer on one split of a task."""

    objective: Supervised
    encoded: EncodedExamples
    outputs: Sequence[Any]  # of every row; see tasks/__init__.py
    loss: float

    def scores(self, threshold: float = 0.0) -> dict[str, float]:
        """The task's metrics and the loss. Empty where no example has a label. `threshold` is the
        margin of the answer "none" (SQuAD 2.0)."""
        o = self.objective
        scores = tasks.compute_metrics(o.task, self.encoded, self.outputs, o.labels, threshold)
        return {**scores, "loss": self.loss} if scores else {}

    def predictions(self, threshold: float = 0.0) -> list[dict[str, Any]]:
        """One JSON object per example, in their order."""
        o = self.objective
        return tasks.decode_predictions(o.task, self.encoded, self.outputs, o.labels, threshold)

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
        losses = []

        def outputs_of(batch: Batch) -> tuple[Any, Any]:
            rows, outputs, loss = self._apply(params, self._steps.to_devices(batch))
            losses.append(loss)
            return jax.device_get((rows, outputs))

        batches = self.task.batches(self.config, split, self._slices)
        outputs = batches.predict_all(outputs_of, self._objective.per_token)
        total = jax.tree.map(lambda *parts: jnp.sum(jnp.stack(parts)), *losses)
        loss = to_floats({"loss": total})["loss"]
        return EvalResult(self._objective, self.task.encoded[split], outputs, loss)
