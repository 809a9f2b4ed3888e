"""Train a sentence encoder on two tasks, here and in sentence-transformers, and score both.

    python benchmarks/sentence_encoders.py prepare --qa DIR --entailment DIR --out WORK
    python benchmarks/sentence_encoders.py baseline retrieval --model MODEL --out WORK
    python benchmarks/sentence_encoders.py train retrieval --model MODEL --out WORK --steps 40
    python benchmarks/sentence_encoders.py peer retrieval --model MODEL --out WORK --steps 40
    python benchmarks/sentence_encoders.py score retrieval --model MODEL --out WORK

`qa` holds SQuAD's train.json and dev.json: from a question to its paragraph, nDCG@10 and recall
among the paragraphs of dev.json. `entailment` holds {train,dev,test}.jsonl with "text", "text_pair"
and "label": trained on entailed pairs, with contradictions of either text as hard negatives; scored
by the area under the ROC curve of entailment against the other labels by cosine, on test.

`train` and `peer` take a seed each (`--seed`). Both use the same texts in the same batches, the
same length, temperature, optimizer, schedule and dropout rate; here a text that is another positive
of a query is never its negative. The last step is scored. `peer` needs sentence-transformers.
`score` takes any model, for example one of `configs/simcse.py`; a model without pooling of its own
is scored with the mean over tokens. Each call adds one JSON line to WORK/results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import bert_jax
from bert_jax import config, optim
from bert_jax.cli import main as cli
from bert_jax.cli.command import change_config
from bert_jax.perf.bench.transformers_peer import decay_groups
from bert_jax.tasks import pairs, retrieval
from bert_jax.training import finetune_config
from bert_jax.training.pairs import PairsTask
from bert_jax.utils import malloc

ROOT = Path(__file__).parents[1]
LENGTH, TEMPERATURE = 128, 0.05


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# ---- data


def prepare(args: argparse.Namespace) -> None:
    """Write WORK/retrieval and WORK/entailment, folders for `finetune --task pairs`."""
    for split in ("train", "dev"):
        articles = json.loads((args.qa / f"{split}.json").read_text(encoding="utf-8"))["data"]
        rows = [
            {"text": question["question"], "positive": paragraph["context"]}
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        write_rows(args.out / "retrieval" / f"{split}.jsonl", rows)
        labeled = read_rows(args.entailment / f"{split}.jsonl")
        write_rows(args.out / "entailment" / f"{split}.jsonl", entailed_pairs(labeled))
    write_rows(args.out / "entailment_test.jsonl", read_rows(args.entailment / "test.jsonl"))


def entailed_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pair for each entailment, with at most one contradiction of either text."""
    contradictions = defaultdict(list)
    for row in rows:
        if row["label"] == "contradiction":
            contradictions[row["text"]].append(row["text_pair"])
            contradictions[row["text_pair"]].append(row["text"])
    found = []
    for row in rows:
        if row["label"] == "entailment":
            a, b = row["text"], row["text_pair"]
            negatives = (contradictions[a] + contradictions[b])[:1]
            found.append({"text": a, "positive": b, "negatives": negatives})
    return found


# ---- scores


def scores(task: str, work: Path, encode: Any) -> dict[str, float]:
    """The metrics of a task; `encode` maps texts to vectors [n d]."""
    if task == "retrieval":
        dev = pairs.pairs_as_retrieval_set(pairs.read_pairs(work / task / "dev.jsonl"))
        vectors = [unit(encode(texts)) for texts in (dev.queries, dev.documents)]
        judged = retrieval.rank_judged(vectors[0], vectors[1], dev.grades, dev.own)
        return retrieval.ranking_metrics(judged)
    from sklearn.metrics import roc_auc_score

    rows = read_rows(work / "entailment_test.jsonl")
    texts = sorted({row[name] for row in rows for name in ("text", "text_pair")})
    number = {text: i for i, text in enumerate(texts)}
    x = unit(encode(texts))
    cosines = [float(x[number[row["text"]]] @ x[number[row["text_pair"]]]) for row in rows]
    return {"auc": float(roc_auc_score([row["label"] == "entailment" for row in rows], cosines))}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def encoder_of(model: str | Path) -> Any:
    loaded = bert_jax.load(model)
    if loaded.sentence is not None:
        loaded = replace(loaded, sentence=replace(loaded.sentence, max_length=LENGTH))
    return lambda texts: loaded.encode(texts, truncate=True)[0]


def tfidf_encoder(work: Path, task: str) -> Any:
    """Word weights are those of the documents that are searched, or of the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    split = "dev" if task == "retrieval" else "train"
    rows = read_rows(work / task / f"{split}.jsonl")
    texts = [row["positive"] for row in rows]
    if task == "entailment":
        texts += [row["text"] for row in rows]
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(list(dict.fromkeys(texts)))
    return lambda texts: np.asarray(vectorizer.transform(texts).toarray())


def record(args: argparse.Namespace, side: str, values: dict[str, Any]) -> None:
    known = {"side": side, "task": args.task}
    line = json.dumps({**known, **values})
    print(line, flush=True)
    with (args.out / "results.jsonl").open("a", encoding="utf-8") as f:
        f.write(line + "\n")


def baseline(args: argparse.Namespace) -> None:
    """The model as it is, and tf-idf."""
    record(args, "tf-idf", scores(args.task, args.out, tfidf_encoder(args.out, args.task)))
    record(args, "untrained", scores(args.task, args.out, encoder_of(args.model)))


def score(args: argparse.Namespace) -> None:
    record(args, str(args.model), scores(args.task, args.out, encoder_of(args.model)))


# ---- training


def run_command(*arguments: object) -> None:
    """A command of bert-jax in this process."""
    try:
        cli.main([str(x) for x in arguments])
    except SystemExit as e:
        if e.code:
            raise


def flags(args: argparse.Namespace) -> list[str]:
    run = args.out / f"{args.task}_{args.seed}"
    return [
        *("--run.dir", str(run), "--run.seed", str(args.seed), "--run.select", "last"),
        *("--run.steps", str(args.steps), "--run.eval-every", str(args.steps)),
        *("--run.log-every", "5", "--data.length", str(LENGTH)),
        *("--data.batch-size", str(args.batch_size), "--optim.peak-lr", str(args.rate)),
        *("--objective.temperature", str(TEMPERATURE)),
    ]


def train(args: argparse.Namespace) -> None:
    """`bert-jax finetune`, and the scores of its last step."""
    recipe, data = str(ROOT / "configs/finetune.py"), str(args.out / args.task)
    given = ("--init", args.model, "--task", "pairs", "--data", data)
    run_command("finetune", recipe, *given, *flags(args))
    run = args.out / f"{args.task}_{args.seed}"
    if args.task == "retrieval":
        values = json.loads((run / "results.json").read_text(encoding="utf-8"))["dev"]
    else:
        values = scores(args.task, args.out, encoder_of(run))
    timed = [row for row in read_rows(run / "timing.jsonl") if row["what"] == "steps"]
    seconds = [(b["at"] - a["at"]) / (b["step"] - a["step"]) for a, b in pairwise(timed)]
    timing = {"seconds_per_step": statistics.median(seconds)}
    record(args, "bert_jax", values | timing | {"seed": args.seed, "steps": args.steps})


def peer(args: argparse.Namespace) -> None:
    """sentence-transformers with its own loss on the batches of `train`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    recipe = config.replace(
        config.from_python_file(ROOT / "configs/finetune.py"), objective=config.Contrastive()
    )
    given = [*flags(args), "--run.init", args.model, "--data.path", str(args.out / args.task)]
    given[1] += "_peer"  # no folder of a run
    task = PairsTask.of(
        finetune_config.for_model(recipe, lambda e: change_config(e, given, "finetune"))
    )
    settings, o = task.config, task.config.optim
    torch.manual_seed(args.seed)
    model = SentenceTransformer(args.model, device="cpu")
    model.max_seq_length = LENGTH
    loss = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    adam = torch.optim.AdamW(decay_groups(model, o), 1.0, betas=(o.b1, o.b2), eps=o.eps)
    rate = optim.schedule(o, settings.run.steps)
    batches = task.batches_from(settings, ((0, 1),))(0)
    seconds = []
    model.train()
    for step in range(settings.run.steps):
        begin = time.perf_counter()
        rows = [task.dataset.train[i] for i in next(batches)["row"]]
        columns = [[r.text for r in rows], [r.positive for r in rows]]
        columns += [texts] if (texts := [t for r in rows for t in r.negatives]) else []
        value = loss([model.preprocess(c) for c in columns], torch.zeros(len(rows)))
        adam.zero_grad()
        value.backward()
        if o.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip_norm)
        for group in adam.param_groups:
            group["lr"] = float(np.asarray(rate(np.int32(step))))
        adam.step()
        seconds.append(time.perf_counter() - begin)
        if step % 5 == 0:
            print(step, value.item(), flush=True)
    model.eval()
    values = scores(args.task, args.out, lambda texts: model.encode(list(texts)))
    timing = {"seconds_per_step": statistics.median(seconds)}
    trained = {"seed": args.seed, "steps": args.steps}
    record(args, "sentence-transformers", values | timing | trained)


STAGES = {stage.__name__: stage for stage in (prepare, baseline, train, peer, score)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("task", nargs="?", choices=("retrieval", "entailment"))
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--qa", type=Path)
    parser.add_argument("--entailment", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5)
    args = parser.parse_args()
    malloc.tune()
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
