"""Print a table of trained runs: validation scores, and a sign test against trivial baselines.

    python benchmarks/families.py runs/families/demo*

The trivial baselines are the unigram distribution of the training text for masked tokens and, for
sentence pairs and replaced tokens, the share of the class in the validation rows, which is the
best constant prediction. The sign test counts the rows on which the model's loss is lower.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from scipy.stats import binomtest

import bert_jax
from bert_jax import objectives
from bert_jax.data import mixture
from bert_jax.training.step import named_key
from bert_jax.utils import metrics_log


def score_rows(run: Path) -> list[dict[str, float]]:
    """The summed losses of every validation row, from the newest checkpoint."""
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

    rows = []
    for batch in batches.one_pass(10**6):
        out = {k: np.asarray(v) for k, v in totals(model.params, batch).items()}
        rows += [{k: float(v[i]) for k, v in out.items()} for i in np.flatnonzero(batch["size"])]
    return rows


def sign_test(differences: list[float]) -> float:
    """The p-value of at least this many positive differences if both signs were equally likely."""
    signs = [d for d in differences if d]
    if not signs:
        return 1.0
    return binomtest(sum(d > 0 for d in signs), len(signs), 0.5, "greater").pvalue


def p_values(rows: list[dict[str, float]]) -> dict[str, float]:
    """Objective -> the p-value of the sign test against its baseline."""
    values = {"mlm": sign_test([r["unigram_loss"] - r["mlm_loss"] for r in rows])}
    if "pair_loss" in rows[0]:
        pairs = [(r["pair"], 1.0) for r in rows]
        losses = [r["pair_loss"] for r in rows]
        values["pair"] = sign_test(list(np.subtract(constant_losses(pairs), losses)))
    if "rtd_loss" in rows[0]:
        replaced = [(r["replaced"], r["tokens"]) for r in rows]
        losses = [r["rtd_loss"] for r in rows]
        values["rtd"] = sign_test(list(np.subtract(constant_losses(replaced), losses)))
    return values


def constant_losses(counts: list[tuple[float, float]]) -> np.ndarray:
    """Each row's loss of predicting the overall share, from its (positive labels, labels)."""
    k, n = np.array(counts).T
    share = k.sum() / n.sum()
    return -(k * np.log(share) + (n - k) * np.log1p(-share))


def main(runs: list[Path]) -> None:
    print("| run | steps | train MLM | validation MLM | unigram | pairs | RTD recall, "
          "precision, AUC | p against the baseline |")  # fmt: skip
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
                      for n, v in p_values(score_rows(run)).items())  # fmt: skip
        print(f"| {run.name} | {last['step']} | {train_loss:.3f} | {last['eval_mlm_loss']:.3f} | "
              f"{last['eval_unigram_loss']:.3f} | {pair} | {rtd} | {p} |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    main(parser.parse_args().runs)
