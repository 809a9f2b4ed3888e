"""Soft labels of fine-tuning: a teacher's outputs for the training rows.

The rows of a task do not change during training, and a teacher has no dropout, so its outputs are
computed once, before the first step, and then belong to the rows. An epoch costs no more than
without a teacher, and the teacher needs no memory while the student trains.

    text tasks   (classification, multilabel, regression, choice) the teacher reads each text with
                 its own tokenizer, length and windows: any teacher goes with any student
    tags, spans  outputs belong to tokens: the teacher reads the student's rows, so both need one
                 tokenizer, and the teacher's positions must reach as far as the rows

Labels are matched by name.
"""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np

from bert_jax import objectives
from bert_jax.config import Experiment, Supervised, replace
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.distributed import sharding
from bert_jax.objectives import SupervisedObjective
from bert_jax.objectives.distillation import TEACHER
from bert_jax.tasks import EncodedExamples
from bert_jax.training.kept_head import label_changes
from bert_jax.training.teacher import Teacher
from bert_jax.utils.types import Batch, Slices

logger = logging.getLogger(__name__)

BY_TOKEN = ("tagging", "qa")  # tasks whose outputs belong to tokens


class SoftLabels:
    """What a teacher says about the training rows; computed at first use, and kept for all seeds.

    ValueError: the teacher has another task, other labels, or for tags and spans another tokenizer,
    another kind of span, or fewer positions.
    """

    def __init__(
        self, teacher: Teacher, config: Experiment, tokenizer: Tokenizer, train: EncodedExamples
    ) -> None:
        assert isinstance(config.objective, Supervised)
        self._teacher: Teacher | None = teacher
        self._student, self._train = config.objective, train
        self._order = label_order(teacher, config.objective)
        if config.objective.task_type in BY_TOKEN:
            _check_same_tokens(teacher, config, tokenizer)
        self._rows: list[dict[str, Any]] | None = None

    def rows(self, config: Experiment, slices: Slices) -> list[dict[str, Any]]:
        """The student's training rows with the teacher's outputs as further fields
        (objectives/distillation.py). All processes call this together."""
        if self._rows is None:
            assert self._teacher is not None
            outputs = self._outputs(self._teacher, config, slices)
            self._teacher = None  # free its parameters
            fields = map(self._fields, self._train.rows, outputs)
            pairs = zip(self._train.rows, fields, strict=True)
            self._rows = [{**row, **soft} for row, soft in pairs]
        return self._rows

    def _outputs(self, teacher: Teacher, config: Experiment, slices: Slices) -> list[Any]:
        model = teacher.model
        rows = self._train.rows
        if self._student.task_type not in BY_TOKEN:
            rows = model.encode_examples(self._train.examples).rows
        compute = dict(dtype=config.run.dtype, attention=config.run.attention)
        objective = objectives.build(replace(model.config, run=compute))
        assert isinstance(objective, SupervisedObjective)
        mesh = sharding.make_mesh(config.mesh)
        params = teacher.on_mesh(mesh)

        def soft_labels(params: Any, batch: Batch) -> Any:
            return batch["row"], objective.soft_labels(params, batch)

        apply = jax.jit(
            sharding.with_mesh(mesh, soft_labels), out_shardings=sharding.replicated(mesh)
        )
        batch_size = config.data.batch_size // config.optim.accumulate
        pad_id = model.config.encoder.pad_id
        batches = LabeledBatches(rows, batch_size, pad_id, parts=slices)
        logger.info("%s predicts %d training rows", teacher.path, len(rows))
        return batches.predict_all(
            lambda batch: apply(params, sharding.to_devices(batch, mesh)),
            per_token=self._student.task_type in BY_TOKEN,
        )

    def _fields(self, row: dict[str, Any], output: Any) -> dict[str, Any]:
        """The teacher's output for one row as fields of it."""
        if isinstance(output, dict):  # the ends of a span
            return {f"{TEACHER}{name}": x for name, x in output.items()}
        output = np.asarray(output, np.float32)
        if self._student.task_type == "choice":  # a batch of short questions has fewer options
            missing = len(row["size"]) - len(output)
            return {f"{TEACHER}label": np.pad(output, (0, missing), constant_values=-np.inf)}
        if self._order:
            output = output[..., list(self._order)]
        name = "tag" if self._student.task_type == "tagging" else "label"
        return {f"{TEACHER}{name}": output}


def label_order(teacher: Teacher, student: Supervised) -> tuple[int, ...]:
    """The teacher's number of each of the student's labels; () where a task has none.

    ValueError: the teacher was not fine-tuned, or has another task, labels or kind of span.
    """
    start, task = f"the teacher {teacher.path}", teacher.model.config.objective
    if not isinstance(task, Supervised):
        raise ValueError(
            f"{start} has no head for a task: fine-tune it on this task first, with --init "
            f"{teacher.path}"
        )
    if student.task_type == "rerank":
        raise ValueError(
            f"{start}: rerankers have no soft labels here; train on its scores as labels, or leave "
            "--teacher out"
        )
    if task.task_type != student.task_type:
        raise ValueError(
            f"{start} was fine-tuned for {task.task_type}, and this run is for "
            f"{student.task_type}: expected a teacher of the same task"
        )
    if student.task_type == "qa":
        kinds = [(o.span, o.span == "joint" and o.family == "albert") for o in (task, student)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{start} has {task.span} spans of {task.family}, and this run {student.span} "
                f"spans of {student.family}: set objective.span to the teacher's, or choose a "
                "teacher of the same kind"
            )
        return ()
    if student.task_type in ("regression", "choice"):
        return ()
    if changes := label_changes(task.labels, student.labels):
        raise ValueError(
            f"{start} has other labels than the training rows ({changes}): expected a teacher that "
            "was fine-tuned with the same label names"
        )
    return tuple(task.labels.index(label) for label in student.labels)


def _check_same_tokens(teacher: Teacher, config: Experiment, tokenizer: Tokenizer) -> None:
    assert isinstance(config.objective, Supervised)
    if teacher.model.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"the teacher {teacher.path} has another tokenizer than {config.run.init}, and outputs "
            f"of {config.objective.task_type} belong to tokens: expected a teacher with the same "
            "tokenizer (for texts, numbers and choices any will do)"
        )
    teacher.check_length(config)
