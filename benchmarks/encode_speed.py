"""`encode` on texts of mixed lengths, against transformers on PyTorch sorted by length.

    python benchmarks/encode_speed.py MODEL TEXT [--texts 512] [--rounds 5]

MODEL is a Hugging Face folder, which both sides open; TEXT has one text per line, of which as
many are taken as asked for, evenly over the file. Each side takes the texts as strings and gives
the mean of each text's last layer. Theirs has its fast tokenizer, SDPA, inference mode, texts
sorted by length, and batches padded to their longest, of the size that was fastest at first of
16, 32 and 64. Rounds alternate; the ratio is the median of neighbours. Needs torch and
transformers.
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


class Theirs:
    """Their model, as somebody would use it who cares for speed."""

    def __init__(self, folder: str, length: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        made = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa")
        self.model = made.eval().to(self.device)
        self.length = length

    @torch.inference_mode()
    def encode(self, texts: list[str], rows: int) -> np.ndarray:
        coded = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        order = np.argsort([-len(ids) for ids in coded], kind="stable")
        out: list[Any] = [None] * len(texts)
        for begin in range(0, len(order), rows):
            some = order[begin : begin + rows]
            batch = self.tokenizer.pad({"input_ids": [coded[i] for i in some]}, return_tensors="pt")
            batch = batch.to(self.device)
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            means = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
            for i, mean in zip(some, means, strict=True):
                out[i] = mean
        return np.stack(out)


def seconds(f: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    lines = [x for x in args.text.read_text(encoding="utf-8").splitlines() if x.strip()]
    texts = lines[:: max(1, len(lines) // args.texts)][: args.texts]
    ours = bert_jax.load(args.model)
    theirs = Theirs(args.model, ours.config.encoder.max_length)

    a = ours.encode(texts, truncate=True)[0]  # also compiles for every length
    b = theirs.encode(texts, 32)
    apart = float(np.abs(a - b).max() / np.abs(b).max())
    sizes = {n: seconds(lambda n=n: theirs.encode(texts, n)) for n in (16, 32, 64)}
    rows = min(sizes, key=sizes.__getitem__)
    pairs = [
        (
            seconds(lambda: ours.encode(texts, truncate=True)),
            seconds(lambda: theirs.encode(texts, rows)),
        )
        for _ in range(args.rounds)
    ]
    n, lengths = len(texts), [len(row.tokens) for row in ours.rows(texts, truncate=True)]
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{n} texts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average"
    )
    print(f"largest relative difference {apart:.1e}")
    print(f"bert_jax {n / mine:.1f} texts/s, transformers {n / other:.1f}, {rows} at once")
    print(f"ratio {statistics.median(b / a for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
