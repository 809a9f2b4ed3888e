"""Texts that are longer than a model takes: which they are, and what to do about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bert_jax.inference.features import Pool
from bert_jax.inference.model import Model
from bert_jax.utils.text_lines import text_chunks

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
    long, begin = [], 0
    for chunk in text_chunks(texts):
        long += [(begin + i, problem) for i, problem in long_texts(model, chunk, pool, prompt)]
        begin += len(chunk)
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
