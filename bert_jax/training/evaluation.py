"""How parameters do on a split of a task: outputs of every row, scores, predictions, and which
label was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax import tasks
from bert_jax.config import Experiment, Supervised
from bert_jax.distributed import sharding
from bert_jax.objectives import SupervisedObjective
from bert_jax.tasks import EncodedExamples
from bert_jax.training import step as train
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.utils.types import Batch


@dataclass(frozen=True)
class EvalResult:
    """What parameters answered to a split."""

    asked: Supervised
    encoded: EncodedExamples
    outputs: Sequence[Any]  # of every row; see tasks/__init__.py
    loss: float

    def scores(self, threshold: float = 0.0) -> dict[str, float]:
        """The task's metrics and the loss; empty where no example is labelled. `threshold` of no
        answer, for questions."""
        asked = self.asked
        scores = tasks.compute_metrics(
            asked.task, self.encoded, self.outputs, asked.labels, threshold
        )
        return {**scores, "loss": self.loss} if scores else {}

    def predictions(self, threshold: float = 0.0) -> list[dict[str, Any]]:
        """One object per example, in their order."""
        asked = self.asked
        return tasks.decode_predictions(
            asked.task, self.encoded, self.outputs, asked.labels, threshold
        )

    def confusion(self) -> list[list[int]] | None:
        """How often each label (down) was taken for each (across), of texts or words; None where
        the task has no labels or the split none."""
        if self.asked.task_type not in ("classification", "tagging"):
            return None
        counts = tasks.confusion_matrix(self.encoded, self.outputs, self.asked.labels)
        return counts.tolist() if counts.any() else None


class Evaluator:
    """The splits of a task, and the compiled function that answers them."""

    def __init__(
        self,
        task: FinetuneTask,
        experiment: Experiment,
        objective: SupervisedObjective,
        steps: train.CompiledSteps,
        mesh: jax.sharding.Mesh,
    ) -> None:
        self.task, self.experiment = task, experiment
        self._asked, self._steps, self._parts = (
            objective.config,
            steps,
            sharding.process_slices(mesh),
        )

        def answer(params: Any, batch: Batch) -> Any:
            terms = objective.terms(params, batch, None)
            return batch["row"], objective.outputs(params, batch), terms["task_loss"]

        self._answer = jax.jit(
            sharding.with_mesh(mesh, answer), out_shardings=sharding.replicated(mesh)
        )

    def evaluate(self, params: Any, split: str) -> EvalResult:
        losses = []

        def apply(batch: Batch) -> tuple[Any, Any]:
            numbers, outputs, loss = self._answer(params, self._steps.to_devices(batch))
            losses.append(loss)
            return jax.device_get((numbers, outputs))

        batches = self.task.batches(self.experiment, split, self._parts)
        outputs = batches.predict_all(apply, self._asked.per_token)
        total = jax.tree.map(lambda *parts: jnp.sum(jnp.stack(parts)), *losses)
        loss = train.to_floats({"loss": total})["loss"]
        return EvalResult(self._asked, self.task.encoded[split], outputs, loss)
