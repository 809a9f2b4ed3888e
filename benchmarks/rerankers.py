"""Train rerankers on the retrieval task of sentence_encoders.py, and score what they add.

    python benchmarks/rerankers.py candidates --first MODEL --out WORK
    python benchmarks/rerankers.py train --model MODEL --out WORK --seed 0

`candidates` draws questions of WORK/retrieval (from `sentence_encoders.py prepare`), and writes the
closest 50 documents of each by the first stage `--first`, of the dev paragraphs to score, and of
the training paragraphs to train on. `train` fine-tunes `--model` to order them, on eight of the 50
(`objective.max_documents`), and adds the metrics of three orders to WORK/rerankers.jsonl: first
stage, reranked, and the best possible. The last step is scored; nothing is chosen on dev.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from sentence_encoders import ROOT, read_rows, run_command, write_rows

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


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("stage", choices=("candidates", "train"))
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
    {"candidates": candidates, "train": train}[args.stage](args)


if __name__ == "__main__":
    main()
