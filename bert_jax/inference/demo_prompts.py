"""Fill the prompts of the demo with a trained model, and count sensible answers.

Each prompt of data/demo_prompts.jsonl has the words that a reader accepts; they were written before
the demo's recipe was searched. A prompt counts if one of its words is among the first three, of the
model or of counts of the two tokens beside the mask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import numpy as np

from bert_jax.data.corpus import open_corpus
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.evaluation.evaluate import count_corpus
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds, neighbors
from bert_jax.inference.model import load
from bert_jax.utils.shipped import shipped_file

TOP = 3


def fill_demo_prompts(run: str, corpus: str) -> str:
    """The five likeliest words of each prompt, by the model and by counts of the corpus's training
    rows, and the numbers of sensible prompts, as text."""
    model, (counts, _) = load(run), count_corpus(open_corpus(corpus))
    text = shipped_file("data/demo_prompts.jsonl").read_text(encoding="utf-8")
    lines: list[str] = []
    right = {"the model": 0, "counts": 0}
    for prompt in map(json.loads, text.splitlines()):
        masked = prompt["text"].replace("[MASK]", model.tokenizer.mask_token)
        answers = model.fill(masked, top=5)[0]
        found = {
            "the model": [token for token, _ in answers],
            "counts": fill_by_counts(counts, model.tokenizer, masked, 5),
        }
        shown = {"the model": "  ".join(f"{token} {p:.2f}" for token, p in answers)}
        shown["counts"] = "  ".join(found["counts"])
        lines.append(prompt["text"])
        for side, words in found.items():
            sensible = is_sensible(words, prompt["words"])
            right[side] += sensible
            lines.append(f"  {side:<10}{'+' if sensible else '-'} {shown[side]}")
    total = len(text.splitlines())
    lines.append(
        f"{right['the model']} of {total} prompts have an accepted word (+) among the first "
        f"{TOP}; by counts of the two tokens beside the mask {right['counts']}"
    )
    return "\n".join(lines)


def fill_by_counts(counts: NeighborCounts, tokenizer: Tokenizer, text: str, top: int) -> list[str]:
    """The likeliest tokens at the first mask of a text, between its two neighbors."""
    tokens = np.array([tokenizer.build_row(tokenizer.encode_with_masks(text))[0]])
    place = np.flatnonzero(tokens[0] == tokenizer.mask_id)[:1]
    beside = neighbors(tokens, TokenKinds.of(tokenizer), np.zeros(1, int), place)
    return [tokenizer.token(int(i)) for i in counts.likeliest(*beside, top)[0]]


def is_sensible(words: Sequence[str], accepted: Collection[str]) -> bool:
    """Whether one of the first three words is accepted."""
    return bool(set(accepted) & {word.strip().lower() for word in words[:TOP]})
