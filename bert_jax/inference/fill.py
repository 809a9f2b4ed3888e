"""Fill the mask tokens of a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bert_jax.config import Encoder
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference import features


def fill_masks(
    logits_of: Callable[[dict[str, Any]], jax.Array],
    tokenizer: Tokenizer,
    encoder: Encoder,
    text: str,
    top: int,
) -> list[list[tuple[str, float]]]:
    """`Model.fill`, with the logits [b p v] at the `masked` positions [b p] of a batch."""
    if top < 1:
        raise ValueError(f"top is {top}: expected at least 1")
    tokens, _ = tokenizer.build_row(tokenizer.encode_with_masks(text))
    features.check_length(text, tokens, encoder.max_length, advice="shorten it")
    masks = np.flatnonzero(np.array(tokens) == tokenizer.mask_id)
    if not len(masks):
        raise ValueError(f"the text has no {tokenizer.mask_token}: put one where a word is missing")
    row = features.FeatureRow(np.array(tokens), len(tokens))
    length = features.padded_length(len(tokens), encoder.max_length)
    batch = features.collate([row], length, 1, encoder.pad_id)
    # Padded to a power of two, so that few programs are compiled.
    padded = np.pad(masks, (0, (1 << (len(masks) - 1).bit_length()) - len(masks)), mode="edge")
    logits = logits_of({**batch, "masked": padded[None]})[0, : len(masks)]
    features.refuse_nan(logits)
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1]))
    return [
        [(tokenizer.token(int(i)), float(p)) for i, p in zip(row, ps, strict=True)]
        for row, ps in zip(np.asarray(ids), np.asarray(probabilities), strict=True)
    ]
