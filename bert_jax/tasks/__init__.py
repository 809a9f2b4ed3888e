"""Downstream tasks: read datasets, encode examples as rows, decode outputs, compute metrics.

    read_dataset     folder -> Dataset           encode_examples     examples -> rows
    compute_metrics  outputs -> metrics          decode_predictions  outputs -> one object each
    confusion_matrix outputs -> counts

Nothing here imports jax. Model outputs are NumPy float32, one per row, without padding:

    classification  [n] logits          regression  a number
    multilabel      [n] logits
    tagging         [l n] logits        choice      [c] logits
    rerank          a number
    qa, linear      {"start": [l], "end": [l]} logits
    qa, joint       {"start": [k], "start_at": [k], "end": [k m], "end_at": [k m],
                     "answerable": logit, above 0 if there is no answer}, log-probabilities
"""

from bert_jax.tasks.class_weights import class_weights
from bert_jax.tasks.dataset import iter_unlabeled_examples, read_dataset
from bert_jax.tasks.decode import decode_predictions
from bert_jax.tasks.encode import encode_examples, encode_for, with_swapped_pairs
from bert_jax.tasks.examples import (
    ANSWERABLE_LABELS,
    Answer,
    ChoiceExample,
    ContextWindow,
    Dataset,
    EncodedExamples,
    Example,
    QuestionExample,
    RerankExample,
    TaggingExample,
    TextExample,
    WordPositions,
    task_type_of,
)
from bert_jax.tasks.fields import Location
from bert_jax.tasks.label_scores import label_scores
from bert_jax.tasks.labels import label_counts
from bert_jax.tasks.metrics import compute_metrics, confusion_matrix, main_metric
from bert_jax.tasks.multilabel import best_thresholds
from bert_jax.tasks.records import parse_unlabeled_example
from bert_jax.tasks.rerank import max_grade, rank_loss

__all__ = [
    "ANSWERABLE_LABELS",
    "Answer",
    "ChoiceExample",
    "ContextWindow",
    "Dataset",
    "EncodedExamples",
    "Example",
    "Location",
    "QuestionExample",
    "RerankExample",
    "TaggingExample",
    "TextExample",
    "WordPositions",
    "best_thresholds",
    "class_weights",
    "compute_metrics",
    "confusion_matrix",
    "decode_predictions",
    "encode_examples",
    "encode_for",
    "iter_unlabeled_examples",
    "label_counts",
    "label_scores",
    "main_metric",
    "max_grade",
    "parse_unlabeled_example",
    "rank_loss",
    "read_dataset",
    "task_type_of",
    "with_swapped_pairs",
]
