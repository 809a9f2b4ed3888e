"""Fifty steps on pairs, beside sentence-transformers in PyTorch: one curve, and one encoder."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import optim
from bert_jax.config import FINETUNE, Contrastive, Experiment, replace
from bert_jax.training.assemble import assemble
from bert_jax.training.finetune_config import for_model
from bert_jax.training.pairs import PairsTask
from tests.helpers.sentence_folders import write_sentence_folder

pytestmark = pytest.mark.peer

STEPS, BATCH_SIZE = 50, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_rows(folder: Path) -> None:
    """Pairs of four letters and the same ones in another order, with a hard negative each. No text
    occurs twice, so nothing is masked."""
    rng, texts = np.random.default_rng(0), dict[str, None]()
    while len(texts) < 3 * 48:
        letters = rng.choice(list(LETTERS), 4).tolist()
        new = [" ".join(letters), " ".join(letters[::-1]), " ".join(rng.choice(list(LETTERS), 5))]
        if not {*new} & {*texts} and len({*new}) == 3:
            texts |= dict.fromkeys(new)
    names = ("text", "positive", "negatives")
    triples = zip(*[iter(texts)] * 3, strict=True)
    rows = [dict(zip(names, (a, b, [c]), strict=True)) for a, b, c in triples]
    for split in ("train", "dev"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)


def our_run(config: Experiment) -> tuple[PairsTask, list[float], Any, Any]:
    task = PairsTask.of(config)
    run = assemble(task.config, task)
    state, batches, losses = run.steps.init(), run.train_batches()(0), []
    for _ in range(STEPS):
        state, metrics = run.steps.train(state, run.steps.to_devices(next(batches)))
        losses.append(float(metrics["loss"]))
        assert float(metrics["false_negatives"].total) == 0
    return task, losses, run.objective, state.params


class Peer:
    """The same encoder, loss, optimizer and schedule in PyTorch."""

    def __init__(self, folder: Path, config: Experiment) -> None:
        torch = pytest.importorskip("torch")
        library = pytest.importorskip("sentence_transformers")
        self.torch, o = torch, config.optim
        self.model = library.SentenceTransformer(str(folder), device="cpu").eval()
        losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
        self.loss = losses.MultipleNegativesRankingLoss(self.model, scale=20.0)
        named = list(self.model.named_parameters())
        plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
        decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed}]
        betas, decay = (o.b1, o.b2), o.weight_decay
        self.adam = torch.optim.AdamW(groups, 1.0, betas=betas, eps=o.eps, weight_decay=decay)
        self.rate = optim.schedule(o, config.run.steps)

    def step(self, step: int, columns: list[list[str]]) -> float:
        features = [self.model.preprocess(column) for column in columns]
        value = self.loss(features, self.torch.zeros(len(columns[0])))
        self.adam.zero_grad()
        value.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = float(self.rate(np.int32(step)))
        self.adam.step()
        return value.item()


def test_fifty_steps_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    model = write_sentence_folder(tmp_path / "model", {"pooling_mode": "mean"})
    write_rows(tmp_path)

    def override(config: Experiment) -> Experiment:
        return replace(
            config,
            encoder=dict(dropout=0.0, attention_dropout=0.0),
            data=dict(path=str(tmp_path), batch_size=BATCH_SIZE, length=16),
            optim=dict(peak_lr=1e-3),
            run=dict(init=str(model), dir=str(tmp_path / "run"), steps=STEPS, eval_every=STEPS)
            | dict(epochs=None, evals_per_epoch=None),
        )

    config = for_model(replace(FINETUNE, objective=Contrastive()), override)
    task, losses, objective, params = our_run(config)
    peer = Peer(model, task.config)
    batches, theirs = task.batches_from(task.config, ((0, 1),))(0), []
    for step in range(STEPS):
        rows = [task.dataset.train[i] for i in next(batches)["row"]]
        columns = [[r.text for r in rows], [r.positive for r in rows]]
        theirs.append(peer.step(step, [*columns, [r.negatives[0] for r in rows]]))
    assert np.allclose(losses, theirs, atol=1e-3), np.abs(np.subtract(losses, theirs)).max()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2, "it has learned something"

    texts = [r.text for r in task.dataset.train[:8]]
    encoded = [task.tokenizer.build_row(ids)[0] for ids in task.tokenizer.encode_batch(texts)]
    size = np.array([len(ids) for ids in encoded], np.int32)
    tokens = np.zeros((8, size.max()), np.int32)
    for i, ids in enumerate(encoded):
        tokens[i, : len(ids)] = ids
    batch = {"tokens": jnp.asarray(tokens), "size": jnp.asarray(size)}
    vectors = jax.jit(objective.vectors)(params, batch)
    assert np.allclose(vectors, peer.model.encode(texts), atol=1e-3)
