"""A table of trained runs: what each scores on its validation rows, and whether that is above
the trivial answer, by a sign test over rows.

    python benchmarks/families.py runs/families/demo*

Trivial answers: the training text's word frequencies for masked tokens; for sentence pairs and
replaced tokens always the same probability, that of the validation rows' own share, which is the
best of all constant answers. The test counts the rows on which the model's loss is the lower.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from scipy.stats import binomtest

import bert_jax
from bert_jax import objectives
from bert_jax.data import mixture
from bert_jax.training.step import named_key
from bert_jax.utils import metrics_log


def rows_of(run: Path) -> list[dict[str, float]]:
    """Every validation row's totals, from the newest checkpoint."""
    model = bert_jax.load(run)
    config = model.config
    stages = mixture.open_stages(config)
    objective = objectives.build(config, mixture.corpus_vocabulary(stages[-1]))
    batches = mixture.evaluation_loader(config, stages)
    key = named_key(config.run.seed, "corruption")

    @jax.jit
    def totals(params: dict, batch: dict) -> dict:
        def one(row: dict) -> dict:
            row = objective.corrupt(jax.tree.map(lambda x: x[None], row), key)
            terms = objective.terms(params, row, None)
            terms.pop("rtd_auc", None)
            totals = {n: t.total for n, t in terms.items()} | {"pair": row["pair"][0]}
            if "rtd_accuracy" in terms:
                totals["replaced"] = terms["rtd_recall"].count
                totals["tokens"] = terms["rtd_accuracy"].count
            return totals

        return jax.lax.map(one, batch)

    made = []
    for batch in batches.one_pass(10**6):
        out = {k: np.asarray(v) for k, v in totals(model.params, batch).items()}
        made += [{k: float(v[i]) for k, v in out.items()} for i in np.flatnonzero(batch["size"])]
    return made


def sign_test(differences: list[float]) -> float:
    """p of as many positive differences as these, were both signs equally likely."""
    signs = [d for d in differences if d]
    if not signs:
        return 1.0
    return binomtest(sum(d > 0 for d in signs), len(signs), 0.5, "greater").pvalue


def tests(rows: list[dict[str, float]]) -> dict[str, float]:
    found = {"mlm": sign_test([r["unigram_loss"] - r["mlm_loss"] for r in rows])}
    if "pair_loss" in rows[0]:
        ones = [(r["pair"], 1.0) for r in rows]
        losses = [r["pair_loss"] for r in rows]
        found["pair"] = sign_test(list(np.subtract(constant(ones), losses)))
    if "rtd_loss" in rows[0]:
        replaced = [(r["replaced"], r["tokens"]) for r in rows]
        losses = [r["rtd_loss"] for r in rows]
        found["rtd"] = sign_test(list(np.subtract(constant(replaced), losses)))
    return found


def constant(ones: list[tuple[float, float]]) -> np.ndarray:
    """Each row's loss, (ones, all) of its labels given, of always answering with the share."""
    k, n = np.array(ones).T
    share = k.sum() / n.sum()
    return -(k * np.log(share) + (n - k) * np.log1p(-share))


def main(runs: list[Path]) -> None:
    print("| run | steps | train MLM | validation MLM | word frequencies | pairs | RTD recall, "
          "precision, AUC | p against the trivial answer |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for run in runs:
        lines = metrics_log.read_metrics(run)
        last = next(line for line in reversed(lines) if "eval_loss" in line)
        train_loss = np.mean([line["mlm_loss"] for line in lines[-5:]])
        pair = f"{last['eval_pair_accuracy']:.1%}" if "eval_pair_accuracy" in last else ""
        rtd = ""
        if "eval_rtd_auc" in last:
            rtd = (f"{last['eval_rtd_recall']:.1%}, {last['eval_rtd_precision']:.1%}, "
                   f"{last['eval_rtd_auc']:.3f}")  # fmt: skip
        p = ", ".join(f"{n} {'< .001' if v < 1e-3 else f'{v:.2g}'}"
                      for n, v in tests(rows_of(run)).items())  # fmt: skip
        print(f"| {run.name} | {last['step']} | {train_loss:.3f} | {last['eval_mlm_loss']:.3f} | "
              f"{last['eval_unigram_loss']:.3f} | {pair} | {rtd} | {p} |")  # fmt: skip


if __name__ == "__main__":
    main([Path(a) for a in sys.argv[1:]])
