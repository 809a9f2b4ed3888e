"""Fill the prompts of data/demo_prompts.jsonl with a trained model, and count sensible answers.

    python launch/fill_prompts.py runs/demo

Each prompt has the words that a reader accepts; they were written before the demo's recipe was
searched. A prompt counts if one of its words is among the model's first three.
"""

import json
import sys
from pathlib import Path

import bert_jax

PROMPTS = Path(__file__).parents[1] / "data" / "demo_prompts.jsonl"


def main(run: str) -> None:
    model = bert_jax.load(run)
    prompts = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    right = 0
    for prompt in prompts:
        answers = model.fill(prompt["text"].replace("[MASK]", model.tokenizer.mask_token), top=5)[0]
        sensible = bool(set(prompt["words"]) & {token.strip().lower() for token, _ in answers[:3]})
        right += sensible
        print(prompt["text"])
        words = "  ".join(f"{token} {p:.2f}" for token, p in answers)
        print(f"  {'+' if sensible else '-'} {words}")
    print(f"{right} of {len(prompts)} prompts have an accepted word (+) among the first three")


if __name__ == "__main__":
    main(sys.argv[1])
