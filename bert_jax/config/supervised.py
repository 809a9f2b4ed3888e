"""Objective config of fine-tuning: the task, its head and its labels."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from bert_jax.config.model_types import ModelType
from bert_jax.config.ranges import check_ranges

TaskType = Literal[
    "classification", "multilabel", "regression", "tagging", "choice", "qa", "rerank"
]
GlueTask = Literal["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]


@dataclass(frozen=True)
class Supervised:
    """Fine-tuning: one head on the encoder, trained on labeled rows.

    The head is a dense layer to the labels. Its input is set by `head`. For tagging it is applied
    to every token. `qa` has two such layers or, with `joint` spans, an end that depends on the
    start and a classifier of answerable questions.
    """

    # Type of the task, or the name of a GLUE task. `multilabel` classifies texts with any number of
    # labels; the training data sets it where `label` is a list.
    task: TaskType | GlueTask = "classification"
    # Family of the encoder.
    family: ModelType = "bert"
    # Input of the head: the pooled first token, the first token, a dense layer with a GELU
    # (ELECTRA) or a ReLU (DistilBERT) on the first token, or `prediction`, a dense layer, an
    # activation and a norm (ModernBERT), for every task.
    head: Literal["pooler", "first", "gelu", "relu", "prediction"] = "pooler"
    # With the head `prediction`, what stands for a text: its first token, or the mean of its
    # tokens.
    pooling: Literal["cls", "mean"] = "cls"
    # Head for questions: `linear` predicts start and end independently, `joint` predicts the end
    # given the start.
    span: Literal["linear", "joint"] = "linear"
    # Names of the labels in the order of the logits; the training data sets them.
    labels: tuple[str, ...] = ()
    # Multi-label only: probability above which each label is predicted, in the order of `labels`;
    # () means those with the best F1 on dev, or 0.5 where no dev split was seen.
    thresholds: tuple[float, ...] = ()
    # Questions that may have no answer: none is predicted where its score exceeds this; the
    # finished run sets it, to the one with the best F1 on dev. Do not set it.
    no_answer_threshold: float = 0.0
    # Weight of each class in the loss: `balanced`, or NAME=WEIGHT,NAME=WEIGHT (others 1), or the
    # same as a JSON object. Multi-label: of a text that has the label. For classification,
    # multi-label and tagging.
    class_weights: str | None = None
    # The weights in the order of `labels`; the training data sets them. Do not set them.
    label_weights: tuple[float, ...] = ()
    # Share of each target that is spread evenly over all classes (label smoothing). For
    # classification, multi-label, tagging and choice.
    label_smoothing: float = 0.0
    # Dropout rate before each dense layer of the head; with the heads `relu` and `prediction` only
    # before the last one. Linear span heads have no dropout in the five families.
    dropout: float = 0.1
    # Initializer of the last layer of the head: `same` as all other weights, or Glorot's as in
    # ELECTRA.
    init: Literal["same", "glorot"] = "same"
    # Divisor of regression labels: the model learns label / scale. ELECTRA and RoBERTa use 5 for
    # STS-B.
    scale: float = 1.0
    # Names of labels, separated by commas, that mean that a row has no label; None means - and -1
    # for GLUE tasks, and none for others.
    unlabeled: str | None = None
    # Labels of dev and test that the training rows do not have: an error, or not scored.
    unknown_labels: Literal["refuse", "ignore"] = "refuse"
    # Train a new head, also where the model was fine-tuned for the same task and labels.
    new_head: bool = False
    # Tagging: whether an entity counts whose tags break their scheme, such as I-X without B-X.
    tag_scoring: Literal["lenient", "strict"] = "lenient"
    # Questions: number of pieces from one window of a long context to the next; None means 128, or
    # half of the room for the context if that is less.
    stride: int | None = None
    # What becomes of texts that are longer than a row: keep the beginning, keep head and tail, or
    # read windows and pool their logits. For classification, multi-label and regression.
    long: Literal["truncate", "head_tail", "windows"] = "truncate"
    # How the logits of a text's windows become one: their mean or their maximum.
    window_pool: Literal["mean", "max"] = "mean"
    # Maximum number of windows per text. Memory grows with it: a batch has as many rows as windows.
    max_windows: int = 8
    # Rerankers: `pointwise` is binary cross-entropy of each candidate, whose target is its grade
    # over the highest grade; `listwise` is softmax cross-entropy over the candidates of a query,
    # whose targets are proportional to the grades.
    rank_loss: Literal["pointwise", "listwise"] = "pointwise"
    # Rerankers: maximum number of candidates per query in training: the relevant ones, then as many
    # of the first others as of later ones. A batch has as many rows as candidates. All candidates
    # are scored in evaluation.
    max_documents: int = 8
    # Rerankers: highest grade of a document; the training data sets it. Do not set it.
    max_grade: float = 1.0
    # Whether the rows have a second text; the training data sets it. None means some have.
    pairs: bool | None = None

    def __post_init__(self) -> None:
        checks = {
            "dropout": (0 <= self.dropout < 1, "0 <= x < 1"),
            "thresholds": (all(0 <= t <= 1 for t in self.thresholds), "0 <= x <= 1"),
            "max_windows": (self.max_windows >= 1, "at least 1"),
            "stride": (self.stride is None or self.stride >= 1, "at least 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 <= x < 1"),
            "scale": (0 < self.scale < float("inf"), "above 0"),
            "max_documents": (self.max_documents >= 2, "at least 2"),
            "max_grade": (0 < self.max_grade < float("inf"), "above 0"),
        }
        check_ranges("objective", self, checks)
        if self.long != "truncate" and self.task_type not in (
            "classification",
            "multilabel",
            "regression",
        ):
            raise ValueError(
                f"objective.long is {self.long}, but it is for classification, multi-label and "
                f"regression, and the task is {self.task_type}: leave it out"
            )
        named: tuple[TaskType, ...] = ("classification", "multilabel", "tagging")
        self._check_task_has("class_weights", named)
        self._check_task_has("label_smoothing", (*named, "choice"))

    def _check_task_has(self, field: str, task_types: tuple[TaskType, ...]) -> None:
        value = getattr(self, field)
        if value and self.task_type not in task_types:
            raise ValueError(
                f"objective.{field} is {value}, but a {self.task_type} task has no classes to "
                f"weight or smooth: leave it out; it is for {', '.join(task_types)}"
            )

    @property
    def task_type(self) -> TaskType:
        """The type of the task: STS-B is a regression, all other GLUE tasks classify."""
        if self.task in typing.get_args(GlueTask):
            return "regression" if self.task == "stsb" else "classification"
        return typing.cast(TaskType, self.task)

    @property
    def num_outputs(self) -> int:
        """Number of logits per text or token; 2 while the labels are unknown."""
        one = ("regression", "choice", "rerank")
        return 1 if self.task_type in one else len(self.labels) or 2

    @property
    def per_token(self) -> bool:
        """Whether a row has one output per token."""
        return self.task_type == "tagging" or (self.task_type == "qa" and self.span == "linear")

    @property
    def default_length(self) -> int:
        """Maximum tokens per row when `data.length` is not set: BERT's and ELECTRA's length for
        GLUE and SQuAD, ELECTRA's for tagging, ALBERT's and RoBERTa's for RACE."""
        lengths: dict[TaskType, int] = {"tagging": 256, "qa": 384, "choice": 512, "rerank": 256}
        return lengths.get(self.task_type, 128)
