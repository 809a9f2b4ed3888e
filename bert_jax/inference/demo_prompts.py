"""Fill the prompts of the demo with a trained model, and count sensible answers.

Each prompt of data/demo_prompts.jsonl has the words that a reader accepts; they were written before
the demo's recipe was searched. A prompt counts if one of its words is among the model's first
three.
"""

from __future__ import annotations

import json

from bert_jax.inference.model import load
from bert_jax.utils.shipped import shipped_file


def fill_demo_prompts(run: str) -> str:
    """The five likeliest words of each prompt, and the number of sensible prompts, as text."""
    model = load(run)
    text = shipped_file("data/demo_prompts.jsonl").read_text(encoding="utf-8")
    prompts = [json.loads(line) for line in text.splitlines()]
    lines, right = [], 0
    for prompt in prompts:
        answers = model.fill(prompt["text"].replace("[MASK]", model.tokenizer.mask_token), top=5)[0]
        sensible = bool(set(prompt["words"]) & {token.strip().lower() for token, _ in answers[:3]})
        right += sensible
        words = "  ".join(f"{token} {p:.2f}" for token, p in answers)
        lines += [prompt["text"], f"  {'+' if sensible else '-'} {words}"]
    total = f"{right} of {len(prompts)} prompts have an accepted word (+) among the first three"
    return "\n".join([*lines, total])
