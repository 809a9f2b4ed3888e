"""Texts that are longer than a model takes: which they are, and what to do about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bert_jax.inference.features import TEXTS_PER_CHUNK, Pool
from bert_jax.inference.model import Model

logger = logging.getLogger(__name__)


def long_texts(
    model: Model, texts: Sequence[str], pool: Pool, prompt: str | None
) -> list[tuple[int, str]]:
    """The numbers of the texts that are longer than the model takes, each with a message."""
    most = model.max_tokens(pool)
    rows = model.tokenize(texts, pool, prompt=prompt, long="mean")
    sizes = [len(row.tokens) for row in rows]
    return [
        (i, f"a text has {size} tokens, but the model takes {most}")
        for i, size in enumerate(sizes)
        if size > most
    ]


def refuse_long_texts(
    model: Model, texts: Sequence[str], what: str, truncate: bool, pool: Pool, prompt: str | None
) -> None:
    """Say how many texts are longer than the model takes and are cut. ValueError: there are some,
    without `truncate`; the message calls a text `what`."""
    long = [
        (begin + i, problem)
        for begin in range(0, len(texts), TEXTS_PER_CHUNK)
        for i, problem in long_texts(model, texts[begin : begin + TEXTS_PER_CHUNK], pool, prompt)
    ]
    if long and not truncate:
        first, problem = long[0]
        raise ValueError(
            f"{what} {first + 1} ({texts[first][:40]!r}...): {problem}: shorten it, or add "
            "--truncate"
        )
    if long:
        logger.warning(
            "%d of %d texts are longer than the model and are cut (%s)", len(long), len(texts), what
        )
