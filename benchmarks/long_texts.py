"""Compare what a classifier does with texts that are longer than its rows.

    python benchmarks/long_texts.py --out long_texts [--init MODEL] [--seeds 3]

The task is made from data/sample.txt: its presidential addresses of 1945 to 2021 are in
chronological order, and the label of a passage is the quarter of that order that its address is in.
Digits are masked, since years would tell. Passages are consecutive words of one address; every
fifth address is dev, every fifth one test, so no address is in two splits. A passage has at least
four times as many tokens as a row.

Each way to read long texts (`objective.long`) is trained with several seeds from the same model: a
small random encoder with a tokenizer trained on the passages of train, or `--init`. Beside them
stands logistic regression on a bag of words (TF-IDF) of the whole passage and of its first row.
Writes results.json and prints a table: test accuracy, mean and standard deviation over seeds. The
same command resumes it. With JAX_COMPILATION_CACHE_DIR each program is compiled once for all seeds.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import jax

from bert_jax import config, objectives
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import BERT, FINETUNE, replace
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.tasks import results
from bert_jax.training import finetune_config
from bert_jax.training.finetune import finetune
from bert_jax.utils import malloc

SAMPLE = Path(__file__).parent.parent / "data" / "sample.txt"
CLASSES = 4
METHODS: dict[str, dict[str, Any]] = {
    "truncate": dict(long="truncate"),
    "head_tail": dict(long="head_tail"),
    "windows, mean": dict(long="windows", window_pool="mean"),
    "windows, max": dict(long="windows", window_pool="max"),
}


def passages(words: int) -> dict[str, list[dict[str, str]]]:
    """The rows of each split: passages of `words` words, labeled with the quarter of their
    address."""
    documents = SAMPLE.read_text(encoding="utf-8").split("\n\n")
    novels = next(i for i, text in enumerate(documents) if re.match(r"\s*chapter\b", text, re.I))
    addresses = documents[:novels]
    splits: dict[str, list[dict[str, str]]] = {"train": [], "dev": [], "test": []}
    for i, address in enumerate(addresses):
        split = {2: "dev", 4: "test"}.get(i % 5, "train")
        label = f"quarter {1 + i * CLASSES // len(addresses)}"
        tokens = re.sub(r"\d", "0", address).split()
        for begin in range(0, len(tokens) - words + 1, words):
            text = " ".join(tokens[begin : begin + words])
            splits[split].append({"text": text, "label": label})
    return splits


def write_task(folder: Path, splits: dict[str, list[dict[str, str]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def random_model(folder: Path, texts: list[str], args: argparse.Namespace) -> Path:
    """A small encoder with random parameters and a tokenizer of its own, as a model folder."""
    train_tokenizer(texts, "wordpiece", args.vocab_size).save(folder / "tokenizer")
    tokenizer = tokenizers.load_tokenizer(folder / "tokenizer")
    sizes = dict(layers=args.layers, hidden_size=args.width, heads=2, max_length=args.length)
    ids = dict(vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    experiment = replace(BERT, encoder=sizes | ids)
    params = jax.jit(objectives.build(experiment).init)(jax.random.key(0))
    config.save_config(experiment, folder / "config.json")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": params}, experiment)
    return folder


def train(method: str, seed: int, model: Path, args: argparse.Namespace) -> dict[str, float]:
    """Test scores of one run. A finished run is not repeated."""
    run = args.out / "runs" / f"{method.replace(', ', '_')}_{seed}"

    def override(base: config.Experiment) -> config.Experiment:
        return replace(
            base,
            objective=dict(task="classification", max_windows=args.max_windows, **METHODS[method]),
            data=dict(path=str(args.out / "task"), length=args.length, batch_size=args.batch_size),
            optim=dict(peak_lr=args.peak_lr),
            run=dict(init=str(model), dir=str(run), seed=seed, epochs=args.epochs, log_every=50),
        )

    signal = finetune(finetune_config.for_model(FINETUNE, override))
    if signal is not None:
        raise SystemExit(128 + signal)
    finished = results.read_results(run)
    assert finished is not None
    return finished["test"]


def bag_of_words(
    splits: dict[str, list[dict[str, str]]], tokenizer: Tokenizer, pieces: int | None
) -> float:
    """Test accuracy of logistic regression on TF-IDF of the tokens, or of the first `pieces`; its
    strength of regularization is chosen on dev."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def tokens(split: str) -> list[list[str]]:
        ids = tokenizer.encode_batch([row["text"] for row in splits[split]])
        return [[str(i) for i in row[:pieces]] for row in ids]

    labels = {split: [row["label"] for row in rows] for split, rows in splits.items()}
    vectorizer = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True)
    x = {"train": vectorizer.fit_transform(tokens("train"))}
    x |= {split: vectorizer.transform(tokens(split)) for split in ("dev", "test")}
    scored = []
    for c in (1.0, 10.0, 100.0):
        model = LogisticRegression(C=c, max_iter=300).fit(x["train"], labels["train"])
        scored.append((model.score(x["dev"], labels["dev"]), c, model))
    best = max(scored, key=lambda s: s[:2])[2]
    return float(best.score(x["test"], labels["test"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the task and the runs")
    parser.add_argument("--init", type=Path, help="model to start from (default: a random one)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--words", type=int, default=240, help="words per passage")
    parser.add_argument("--length", type=int, default=64, help="tokens per row")
    parser.add_argument("--max-windows", type=int, default=8)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocab-size", type=int, default=4000)
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--peak-lr", type=float, default=1e-3)
    args = parser.parse_args()

    malloc.tune()
    splits = passages(args.words)
    write_task(args.out / "task", splits)
    model = args.init
    if model is None:
        model = args.out / "model"
        if not (model / "checkpoints").is_dir():
            random_model(model, [row["text"] for row in splits["train"]], args)
    tokenizer = tokenizers.load_tokenizer(model / "tokenizer")
    sizes = [len(ids) for ids in tokenizer.encode_batch([r["text"] for r in splits["test"]])]
    median = statistics.median(sizes)
    print({k: len(v) for k, v in splits.items()}, f"median {median} tokens, rows of {args.length}")
    if median < 4 * args.length:
        raise SystemExit(f"the median passage has {median} tokens: raise --words")

    table: dict[str, list[float]] = {
        "bag of words, whole": [bag_of_words(splits, tokenizer, None)],
        "bag of words, first row": [bag_of_words(splits, tokenizer, args.length - 2)],
    }
    for method in METHODS:
        begin = time.monotonic()
        scores = [train(method, seed, model, args)["accuracy"] for seed in range(args.seeds)]
        table[method] = scores
        print(method, scores, f"{time.monotonic() - begin:.0f} s", flush=True)
    rows = {
        name: {
            "mean": statistics.mean(scores),
            "sd": statistics.stdev(scores) if len(scores) > 1 else 0.0,
            "scores": scores,
        }
        for name, scores in table.items()
    }
    summary = {"median_tokens": median, "rows": {k: len(v) for k, v in splits.items()}}
    summary |= {"options": {k: str(v) for k, v in vars(args).items()}, "test_accuracy": rows}
    (args.out / "results.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for name, row in rows.items():
        print(f"{name:24} {row['mean']:.3f} ± {row['sd']:.3f}")


if __name__ == "__main__":
    main()
