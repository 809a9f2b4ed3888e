"""Measure `encode` on texts of mixed lengths and on short ones, against PyTorch and onnxruntime.

    python benchmarks/encode_speed.py MODEL TEXT [--texts 512] [--rounds 5] [--threads 2]

MODEL is a Hugging Face folder, which all sides load. TEXT has one text per line; `--texts` of them
are taken evenly over the file. The short texts are 12 words from each of as many places. Each side
receives strings and returns the mean of each text's last layer. transformers and onnxruntime use
the fast tokenizer, sort texts by length, and pad batches to their longest text, of the fastest size
out of 16, 32 and 64; transformers with SDPA in inference mode, onnxruntime with the files that
`export --format onnx --head encoder --int8` writes. Sides alternate in each round. Threads are
pinned to the first `--threads` cores. Prints texts per second of each side and, of the others, the
median ratio of a round to bert_jax, and the lowest cosine of a vector to bert_jax's; what `encode`
computes beside real tokens; and the milliseconds of one short text at a time. Needs torch,
transformers, onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

import bert_jax
from bert_jax.convert.export import OnnxOptions, export_model
from bert_jax.inference.features import length_batches

PAUSE = 0.3  # seconds before a call is timed: threads of the side before it may still spin
Hidden = Callable[[Any], Any]  # batch of a tokenizer -> hidden states [b l d]


class SortedEncoder:
    """Texts sorted by length, in batches padded to their longest text; `hidden` is the model."""

    def __init__(self, folder: str, length: int, hidden: Hidden, device: str = "cpu") -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.length, self.hidden, self.device = length, hidden, device

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        encoded = self.tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        order = np.argsort([-len(ids) for ids in encoded], kind="stable")
        out: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = {"input_ids": [encoded[i] for i in rows]}
            batch = self.tokenizer.pad(ids, return_tensors="pt").to(self.device)
            hidden = self.hidden(batch)
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            means = ((hidden * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
            for i, mean in zip(rows, means, strict=True):
                out[i] = mean
        return np.stack(out)


def open_transformers(folder: str, length: int) -> SortedEncoder:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa")
    model = model.eval().to(device)
    return SortedEncoder(folder, length, lambda b: model(**b).last_hidden_state, device)


def open_onnx(folder: str, length: int, file: Path, threads: int) -> SortedEncoder:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def hidden(batch: Any) -> Any:
        zeros = torch.zeros_like(batch["input_ids"])
        inputs = {name: batch.get(name, zeros).numpy() for name in names}
        return torch.from_numpy(session.run(["last_hidden_state"], inputs)[0])

    return SortedEncoder(folder, length, hidden)


def seconds(function: Callable[[], Any]) -> float:
    time.sleep(PAUSE)
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(native: Any, peers: dict[str, SortedEncoder], texts: list[str], rounds: int) -> None:
    """Print a table of one kind of text."""
    reference = native.encode(texts, pool="mean", truncate=True)[0]  # also compiles
    sides: dict[str, Callable[[], Any]] = {
        "bert_jax": lambda: native.encode(texts, pool="mean", truncate=True)
    }
    cosines = {"bert_jax": 1.0}
    for name, peer in peers.items():
        vectors = peer.encode(texts, 32)
        products = (vectors * reference).sum(-1)
        lengths = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(reference, axis=-1)
        cosines[name] = float((products / lengths).min())
        sizes = {n: seconds(lambda n=n, p=peer: p.encode(texts, n)) for n in (16, 32, 64)}
        best = min(sizes, key=sizes.__getitem__)
        sides[f"{name}, batches of {best}"] = lambda n=best, p=peer: p.encode(texts, n)
    times = [{name: seconds(side) for name, side in sides.items()} for _ in range(rounds)]
    for name, cosine in zip(sides, cosines.values(), strict=True):
        speed = len(texts) / statistics.median(t[name] for t in times)
        ratio = statistics.median(t[name] / t["bert_jax"] for t in times)
        print(
            f"  {name}: {speed:.1f} texts/s; bert_jax is {ratio:.2f} times as fast; "
            f"lowest cosine {cosine:.6f}"
        )


def measure_single(native: Any, peers: dict[str, SortedEncoder], texts: list[str]) -> None:
    """Print the median milliseconds of one text at a time; sides alternate."""
    sides: dict[str, Callable[[str], Any]] = {
        "bert_jax": lambda x: native.encode([x], pool="mean"),
        "bert_jax, batch_tokens=1": lambda x: native.encode([x], pool="mean", batch_tokens=1),
        **{name: lambda x, p=peer: p.encode([x], 1) for name, peer in peers.items()},
    }
    for side in sides.values():  # compiles every length
        for text in texts:
            side(text)
    times = [{name: seconds(lambda f=f, x=x: f(x)) for name, f in sides.items()} for x in texts]
    for name in sides:
        print(f"  {name}: {1000 * statistics.median(t[name] for t in times):.1f} ms")


def count_work(native: Any, texts: list[str]) -> None:
    """Print what `encode` computes: calls, tokens with padding, the tokenizer's time."""
    took = time.process_time()
    sizes = [len(row.tokens) for row in native.tokenize(texts, truncate=True)]
    took = time.process_time() - took
    batches = list(length_batches(sizes, native.config.encoder.max_length))
    computed = sum(length * rows for _, length, rows in batches)
    empty = sum(length * (rows - len(indices)) for indices, length, rows in batches)
    print(
        f"{len(texts)} texts of {min(sizes)} to {max(sizes)} tokens: {len(batches)} calls compute "
        f"{computed} tokens for {sum(sizes)}, {empty} of them in empty rows; tokenizer "
        f"{1000 * took:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before jax starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    torch.set_num_threads(args.threads)
    lines = [x for x in args.text.read_text(encoding="utf-8").splitlines() if x.strip()]
    mixed = lines[:: max(1, len(lines) // args.texts)][: args.texts]
    words = " ".join(lines).split()
    places = range(0, len(words) - 12, max(12, len(words) // args.texts))
    short = [" ".join(words[i : i + 12]) for i in places][: args.texts]
    native = bert_jax.load(args.model)
    length = native.config.encoder.max_length
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "onnx"
        options = OnnxOptions("encoder", args.text)
        export_model(native, native.folder, "onnx", out, onnx=options)
        files = {"float32": out / "model.onnx", "int8": out / "model_quantized.onnx"}
        peers = {"transformers": open_transformers(args.model, length)}
        peers |= {
            f"onnxruntime {name}": open_onnx(args.model, length, file, args.threads)
            for name, file in files.items()
        }
        for name, texts in (("mixed lengths", mixed), ("12 words", short)):
            print(f"{name}: ", end="")
            count_work(native, texts)
            measure(native, peers, texts, args.rounds)
        print("one text of 12 words at a time:")
        measure_single(native, peers, short[:50])


if __name__ == "__main__":
    main()
