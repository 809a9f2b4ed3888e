"""Train rerankers on the retrieval task of sentence_encoders.py, and score what they add.

    python benchmarks/rerankers.py candidates --first MODEL --out WORK
    python benchmarks/rerankers.py train --model MODEL --out WORK --seed 0
    python benchmarks/rerankers.py compare --out WORK

`candidates` draws questions of WORK/retrieval (from `sentence_encoders.py prepare`), and writes the
closest 50 documents of each by the first stage `--first`, of the dev paragraphs to score, and of
the training paragraphs to train on. `train` fine-tunes `--model` to order them, on eight of the 50
(`objective.max_documents`), and adds the metrics of three orders to WORK/rerankers.jsonl: first
stage, reranked, and the best possible. The last step is scored; nothing is chosen on dev. `compare`
prints what orders the same candidates without a reranker, tf-idf above all, and what the scores of
both know together, by reciprocal rank fusion (Cormack et al. 2009, constant 60).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from sentence_encoders import ROOT, read_rows, run_command, write_rows

from bert_jax.tasks.rerank import judge, ranks_of
from bert_jax.tasks.retrieval import ranking_metrics

CANDIDATES = 50  # of a question


def candidates(args: argparse.Namespace) -> None:
    for split, count in (("train", args.train_queries), ("dev", args.dev_queries)):
        rows = read_rows(args.out / "retrieval" / f"{split}.jsonl")
        folder = write_sample(args.out / f"sample_{split}", rows, count)
        out = args.out / "candidates" / f"{split}.jsonl"
        out.parent.mkdir(exist_ok=True)
        more = ["--rerank", "--truncate", "--candidates", CANDIDATES, "--out", out]
        run_command("mine", args.first, folder, *more, *["--add-positives"] * (split == "train"))


def write_sample(folder: Path, rows: list[dict[str, Any]], count: int) -> Path:
    """A retrieval set of `count` questions that are drawn, among the paragraphs of all rows."""
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    number = {text: str(i) for i, text in enumerate(texts)}
    drawn = random.Random(0).sample(rows, min(count, len(rows)))
    write_rows(folder / "corpus.jsonl", [{"_id": number[x], "text": x} for x in texts])
    queries = [{"_id": str(i), "text": row["text"]} for i, row in enumerate(drawn)]
    write_rows(folder / "queries.jsonl", queries)
    judged = [f"{i}\t{number[row['positive']]}\t1\n" for i, row in enumerate(drawn)]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    return folder


def train(args: argparse.Namespace) -> None:
    run = args.out / f"rerank_{args.seed}"
    flags = {
        "--init": args.model,
        "--task": "rerank",
        "--data": args.out / "candidates",
        "--run.dir": run,
        "--run.seed": args.seed,
        "--run.steps": args.steps,
        "--run.eval-every": args.steps,
        "--run.select": "last",
        "--run.log-every": 10,
        "--data.length": args.length,
        "--data.batch-size": args.batch_size,
        "--optim.peak-lr": args.rate,
        "--objective.rank-loss": args.rank_loss,
    }
    pairs = [x for flag in flags.items() for x in flag]
    run_command("finetune", ROOT / "configs/finetune.py", *pairs)
    values = json.loads((run / "results.json").read_text(encoding="utf-8"))["dev"]
    line = json.dumps({"seed": args.seed, "steps": args.steps, **values})
    print(line, flush=True)
    with (args.out / "rerankers.jsonl").open("a", encoding="utf-8") as f:
        f.write(line + "\n")


def compare(args: argparse.Namespace) -> None:
    rows = read_rows(args.out / "candidates" / "dev.jsonl")
    corpus = [row["text"] for row in read_rows(args.out / "sample_dev" / "corpus.jsonl")]
    first = [-np.arange(len(row["documents"])) for row in rows]
    words = tfidf_scores(rows, corpus)
    orders = {"first stage": first, "tf-idf": words, "first stage and tf-idf": fused(first, words)}
    for file in sorted(args.out.glob("rerank_*/predictions_dev.jsonl")):
        model, name = [np.array(row["scores"]) for row in read_rows(file)], file.parent.name
        orders |= {name: model, f"{name} and tf-idf": fused(model, words)}
    for name, scores in orders.items():
        pairs = zip(rows, scores, strict=True)
        judged = [judge(row["labels"], row.get("missing", ()), x) for row, x in pairs]
        values = ranking_metrics(judged)
        print(
            json.dumps({"order": name, **{k: round(values[k], 4) for k in ("ndcg@10", "mrr@10")}})
        )


def tfidf_scores(rows: list[dict[str, Any]], corpus: list[str]) -> list[np.ndarray]:
    """Of each candidate; word weights are those of all documents."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(corpus)
    return [
        (vectorizer.transform(row["documents"]) @ vectorizer.transform([row["text"]]).T)
        .toarray()
        .ravel()
        for row in rows
    ]


def fused(*orders: list[np.ndarray]) -> list[np.ndarray]:
    return [
        sum(1 / (60 + np.array(ranks_of(x))) for x in query) for query in zip(*orders, strict=True)
    ]


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("stage", choices=("candidates", "train", "compare"))
    parser.add_argument("--first")
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train-queries", type=int, default=2_000)
    parser.add_argument("--dev-queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8, help="questions")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--rank-loss", choices=("pointwise", "listwise"), default="listwise")
    args = parser.parse_args()
    {"candidates": candidates, "train": train, "compare": compare}[args.stage](args)


if __name__ == "__main__":
    main()
