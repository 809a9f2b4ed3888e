"""How much of fine-tuning's batches is padding, with and without rows grouped by length.

    python -m benchmarks.padding MODEL TASKS

TASKS has one folder per task, as for finetune_recipes.py. Nothing is trained or timed: the figures
are of three epochs of batches of 32, and the same on any machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.finetune_recipes import TASKS
from bert_jax import tasks
from bert_jax.data.labeled import LabeledBatches
from bert_jax.data.tokenization.pretrained import tokenizer_folder
from bert_jax.data.tokenization.tokenizer import load_tokenizer

LENGTHS = dict.fromkeys(TASKS, 128) | {"qa": 256}
ROWS, EPOCHS = 32, 3


def count_tokens(rows: Sequence[dict], pad_id: int, grouped: bool) -> tuple[int, int]:
    """The tokens of three epochs of batches, without and with padding."""
    steps = EPOCHS * len(rows) // ROWS
    batches = LabeledBatches(rows, ROWS, pad_id, grouped_steps=steps if grouped else None)
    real = padded = 0
    for step in range(steps):
        batch = batches[step]
        real += int(np.sum(batch["size"]))
        padded += batch["tokens"].size
    return real, padded


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("tasks", type=Path)
    args = parser.parse_args()
    tokenizer = load_tokenizer(tokenizer_folder(args.model))
    print("| task | rows | tokens that are no padding | by length | tokens computed, by length |")
    print("|---" * 5 + "|")
    for task, task_type in TASKS.items():
        dataset = tasks.read_dataset(task_type, args.tasks / task)  # type: ignore[arg-type]
        train = dataset.splits["train"]
        encoded = tasks.encode_examples(
            dataset.task_type, train, tokenizer, LENGTHS[task], dataset.labels
        )
        real, plain = count_tokens(encoded.rows, tokenizer.pad_id, grouped=False)
        same, grouped = count_tokens(encoded.rows, tokenizer.pad_id, grouped=True)
        assert real == same
        print(
            f"| {task} | {len(encoded.rows):,} | {real / plain:.0%} | {real / grouped:.0%} "
            f"| {grouped / plain:.2f} times as many |"
        )


if __name__ == "__main__":
    main()
