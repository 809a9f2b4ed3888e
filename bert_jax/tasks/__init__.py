"""Downstream tasks: files to examples to rows, and outputs to predictions and metrics.

    read      folder -> Dataset          encode       examples -> rows
    score     outputs -> metrics         predictions  outputs -> one object per example
    confusion outputs -> counts

Nothing here imports jax. Outputs are NumPy float32, one per row, cut to the row's own size:

    classification  [n] logits          regression  a number
    tagging         [l n] logits        choice      [c] logits
    qa, linear      {"start": [l], "end": [l]} logits
    qa, joint       {"start": [k], "start_at": [k], "end": [k m], "end_at": [k m],
                     "answerable": logit, above 0 where there is no answer}, log-probabilities
"""

from bert_jax.tasks.encode import encode, swapped
from bert_jax.tasks.examples import (
    ANSWERABLE,
    Answer,
    Choice,
    Dataset,
    Encoded,
    Example,
    Question,
    Tagged,
    Text,
    Window,
    Words,
    task_type_of,
)
from bert_jax.tasks.folder import read, read_rows
from bert_jax.tasks.metrics import confusion, headline, score
from bert_jax.tasks.predictions import predictions
from bert_jax.tasks.records import Location
from bert_jax.tasks.unlabelled import stream, unlabelled

__all__ = [
    "ANSWERABLE",
    "Answer",
    "Choice",
    "Dataset",
    "Encoded",
    "Example",
    "Location",
    "Question",
    "Tagged",
    "Text",
    "Window",
    "Words",
    "confusion",
    "encode",
    "headline",
    "predictions",
    "read",
    "read_rows",
    "score",
    "stream",
    "swapped",
    "task_type_of",
    "unlabelled",
]
