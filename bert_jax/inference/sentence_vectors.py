"""Sentence vectors: prompts before texts, shorter vectors, and the similarity of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.convert import SentenceHead
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import features
from bert_jax.inference.features import Pool


def prompt_text(head: SentenceHead | None, prompt: str | None) -> str:
    """`SentenceHead.prompt`, also for models without a head."""
    return (SentenceHead() if head is None else head).prompt(prompt)


def tokenize_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pool: Pool,
    head: SentenceHead | None,
    prompt: str | None,
) -> list[features.FeatureRow]:
    """A row for every text after its prompt. With pool `sentence` texts are prepared as the head
    says; one that does not pool the prompt skips its tokens and the special token before them.

    ValueError: a prompt with pool `words`.
    """
    if pool == "words":
        if prompt is not None:
            raise ValueError("prompt cannot be used with pool 'words': leave one of them out")
        return features.word_rows(tokenizer, [t.split() for t in texts])
    own = head if pool == "sentence" else None
    before = prompt_text(head, prompt) if own is not None or prompt is not None else ""
    if own is not None and own.lowercase:
        texts, before = [text.lower() for text in texts], before.lower()
    rows = features.feature_rows(tokenizer, [before + text for text in texts])
    if not before or own is None or own.include_prompt:
        return rows
    skip = len(tokenizer.build_row(tokenizer.encode(before))[0]) - 1  # without the last [SEP]
    return [row._replace(skip=skip) for row in rows]


def finish_vectors(x: np.ndarray, dimensions: int | None, normalize: bool) -> np.ndarray:
    """The first `dimensions` features of vectors [... d], then with length 1 if `normalize`.
    ValueError: vectors that have fewer features."""
    if dimensions is not None:
        if not 1 <= dimensions <= x.shape[-1]:
            raise ValueError(f"dimensions is {dimensions}: expected 1 to {x.shape[-1]}")
        x = x[..., :dimensions]
    if normalize:
        x = unit_length(x)
    return np.ascontiguousarray(x)


def unit_length(x: np.ndarray) -> np.ndarray:
    """Vectors [... d] scaled to length 1; zeros stay zeros."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def check_vectors(x: np.ndarray, what: str, first: int = 0) -> None:
    """Raise ValueError if a row of `x` is zero or not finite; `what` and its number name it."""
    bad = np.flatnonzero(~(np.isfinite(x).all(-1) & (x != 0).any(-1)))
    if len(bad):
        kind = "is zero" if np.isfinite(x[bad[0]]).all() else "is not finite"
        raise ValueError(
            f"{what} {first + bad[0] + 1}: the vector {kind}, so it cannot be compared: look at "
            "this text and at the model's weights"
        )


def similarity(a: Any, b: Any, function: str = "cosine") -> np.ndarray:
    """The similarity [n m] of vectors [n d] and [m d], which may have a leading axis of length 1,
    as `Model.encode` returns them. Distances are negative: larger means closer.

    ValueError: other shapes or widths; cosine of a vector of zeros.
    """
    a, b = _matrix(a), _matrix(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"vectors of width {a.shape[1]} and {b.shape[1]}: expected equal widths")
    if function == "cosine":
        lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
        if not all(length.all() for length in lengths):
            raise ValueError("a vector is all zeros: it has no cosine; remove its text")
        return (a / lengths[0]) @ (b / lengths[1]).T
    if function == "dot":
        return a @ b.T
    order = {"manhattan": 1, "euclidean": 2}[function]
    return np.stack([-np.linalg.norm(row - b, ord=order, axis=1) for row in a])


def _matrix(x: Any) -> np.ndarray:
    x = np.asarray(x, np.float32)
    if x.ndim == 3 and len(x) == 1:
        x = x[0]
    if x.ndim != 2:
        raise ValueError(
            f"vectors have the shape {list(x.shape)}: expected [texts, features], as "
            "model.encode(texts) returns them for one layer"
        )
    return x
