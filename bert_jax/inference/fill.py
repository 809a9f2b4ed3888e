"""Fill the mask tokens of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from bert_jax.inference import features

if TYPE_CHECKING:
    from bert_jax.inference.model import Model


def fill_masks(model: Model, text: str, top: int) -> list[list[tuple[str, float]]]:
    """`Model.fill`."""
    network, params = model.objective.mask_filler(model.params)
    if "mlm" not in network.heads:
        raise ValueError("the model has no masked-word head: it can only compute features")
    if top < 1:
        raise ValueError(f"top is {top}: expected at least 1")
    tokenizer, encoder = model.tokenizer, model.config.encoder
    tokens, _ = tokenizer.build_row(tokenizer.encode_with_masks(text))
    features.check_length(text, tokens, encoder.max_length, advice="shorten it")
    masks = np.flatnonzero(np.array(tokens) == tokenizer.mask_id)
    if not len(masks):
        raise ValueError(f"the text has no {tokenizer.mask_token}: put one where a word is missing")
    row = features.FeatureRow(np.array(tokens), len(tokens))
    length = features.padded_length(len(tokens), encoder.max_length)
    batch = features.collate([row], length, 1, encoder.pad_id)
    logits = model.mask_logits(params, {**batch, "masked": masks[None]})[0]
    logits = logits[:, : tokenizer.vocab_size]  # without padding rows
    features.refuse_nan(logits)
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1]))
    return [
        [(tokenizer.token(int(i)), float(p)) for i, p in zip(row, ps, strict=True)]
        for row, ps in zip(np.asarray(ids), np.asarray(probabilities), strict=True)
    ]
