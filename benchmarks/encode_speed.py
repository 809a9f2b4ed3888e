"""Measure `encode` on texts of mixed lengths, against transformers on PyTorch.

    python benchmarks/encode_speed.py MODEL TEXT [--texts 512] [--rounds 5]

MODEL is a Hugging Face folder, which both sides load. TEXT has one text per line; `--texts` of them
are taken evenly over the file. Each side receives strings and returns the mean of each text's last
layer. transformers uses its fast tokenizer, SDPA, inference mode, texts sorted by length, and
batches padded to their longest text, of the fastest size out of 16, 32 and 64. Rounds alternate.
Prints the largest difference, texts per second of both, and the median ratio of a round. Needs
torch and transformers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import bert_jax


class TransformersEncoder:
    """A transformers model, used for speed."""

    def __init__(self, folder: str, length: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa")
        self.model = model.eval().to(self.device)
        self.length = length

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        encoded = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        order = np.argsort([-len(ids) for ids in encoded], kind="stable")
        out: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = {"input_ids": [encoded[i] for i in rows]}
            batch = self.tokenizer.pad(ids, return_tensors="pt").to(self.device)
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            means = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
            for i, mean in zip(rows, means, strict=True):
                out[i] = mean
        return np.stack(out)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    lines = [x for x in args.text.read_text(encoding="utf-8").splitlines() if x.strip()]
    texts = lines[:: max(1, len(lines) // args.texts)][: args.texts]
    native = bert_jax.load(args.model)
    hf = TransformersEncoder(args.model, native.config.encoder.max_length)

    a = native.encode(texts, truncate=True)[0]  # also compiles for every length
    b = hf.encode(texts, 32)
    difference = float(np.abs(a - b).max() / np.abs(b).max())
    sizes = {n: seconds(lambda n=n: hf.encode(texts, n)) for n in (16, 32, 64)}
    batch_size = min(sizes, key=sizes.__getitem__)
    pairs = [
        (
            seconds(lambda: native.encode(texts, truncate=True)),
            seconds(lambda: hf.encode(texts, batch_size)),
        )
        for _ in range(args.rounds)
    ]
    n, lengths = len(texts), [len(row.tokens) for row in native.tokenize(texts, truncate=True)]
    native_seconds, hf_seconds = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{n} texts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average"
    )
    print(f"largest relative difference {difference:.1e}")
    print(f"bert_jax {n / native_seconds:.1f} texts/s")
    print(f"transformers {n / hf_seconds:.1f} texts/s with batches of {batch_size}")
    print(f"ratio {statistics.median(b / a for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
