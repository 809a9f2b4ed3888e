"""Loss and gradient of a contrastive step on several meshes of eight virtual devices and with
several numbers of micro-batches, for tests/training/test_coupled_gradients.py.

python -m tests.helpers.pairs_worker FILE
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import objectives
from bert_jax.config import BERT, Contrastive, Experiment, Mesh, replace
from bert_jax.distributed import sharding
from bert_jax.objectives import contrastive
from bert_jax.training.step import compile_steps, compute_gradients
from bert_jax.utils import pytree

ROWS, LENGTH, WORDS = 16, 8, 40
MESHES = {"1,1,1": Mesh(1), "8,1,1": Mesh(8), "2,2,2": Mesh(2, 2, 2)}
CASES = [("1,1,1", 2), ("1,1,1", 8), ("8,1,1", 1), ("8,1,1", 2), ("2,2,2", 1), ("2,2,2", 4)]


def experiment(accumulate: int = 1, **objective: Any) -> Experiment:
    """A small encoder with much dropout, trained to rank with one hard negative per row."""
    sizes = dict(layers=1, hidden_size=16, heads=2, mlp_size=32, max_length=LENGTH)
    sizes |= dict(vocab_size=WORDS, dropout=0.3, attention_dropout=0.3, initializer_range=0.3)
    fields = dict(loss="ranking", learn_temperature=True, dimensions=(5,), symmetric=True)
    return replace(
        replace(BERT, objective=Contrastive(**fields | objective)),  # type: ignore[arg-type]
        encoder=sizes,
        optim=dict(accumulate=accumulate),
        data=dict(batch_size=ROWS, length=LENGTH),
        run=dict(steps=2),
    )


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of random tokens, among them equal texts and a missing hard negative."""
    rng = np.random.default_rng(seed)
    size = rng.integers(3, LENGTH + 1, (ROWS, 3)).astype(np.int32)
    size[5, 2] = 0
    tokens = rng.integers(5, WORDS, (ROWS, 3, LENGTH)).astype(np.int32)
    tokens[9, 1], size[9, 1] = tokens[2, 1], size[2, 1]  # two queries with one positive
    texts = np.arange(ROWS * 3, dtype=np.int32).reshape(ROWS, 3)
    texts[9, 1] = texts[2, 1]
    at = np.arange(LENGTH)
    tokens = np.where(at < size[..., None], tokens, 0)
    return {
        "query": tokens[:, 0],
        "query_size": size[:, 0],
        "documents": tokens[:, 1:],
        "document_size": size[:, 1:],
        "query_text": texts[:, 0],
        "document_text": texts[:, 1:],
        "positives": texts[:, 1:2],
        "position": np.arange(ROWS, dtype=np.int32),
        "size": size.sum(1).astype(np.int32),
    }


def gradients(mesh: Mesh, config: Experiment, shift: int = 0) -> dict[str, np.ndarray]:
    """Loss and gradient of step 0. With `shift` each query takes the positive of another row, as if
    the documents of the devices or micro-batches had been put together in another order."""
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    made = sharding.make_mesh(mesh, devices)
    objective = objectives.build(config)
    steps = compile_steps(config, objective, made)
    params = steps.init().params

    def f(params: Any, batch: Any) -> Any:
        return compute_gradients(config, objective, params, 0, batch, 0)

    gather, offset = contrastive.gather_rows, shift * ROWS // 8
    contrastive.gather_rows = lambda x: jnp.roll(gather(x), offset, 0) if shift else gather(x)
    try:
        loss, _, grads = jax.jit(sharding.with_mesh(made, f))(params, steps.to_devices(batch()))
    finally:
        contrastive.gather_rows = gather
    named = pytree.flatten_with_names(jax.device_get(grads))
    named["embeddings/word"] = named["embeddings/word"][:WORDS]
    return {"loss": np.asarray(loss), **named}


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Over the loss and all leaves, the largest |a - b| over |a|, in norm. A key bias has no true
    gradient, and is compared with the others."""
    size = {name: float(np.linalg.norm(x)) for name, x in a.items()}
    whole = np.sqrt(sum(x**2 for name, x in size.items() if name != "loss"))
    return max(
        float(np.linalg.norm(a[name] - b[name])) / (whole if name.endswith("key/bias") else n)
        for name, n in size.items()
    )


if __name__ == "__main__":
    whole = gradients(MESHES["1,1,1"], experiment())
    found = {}
    for mesh, n in CASES:
        parts = gradients(MESHES[mesh], experiment(n))
        found[f"{mesh} / {n}"] = largest_difference(whole, parts)
        print(mesh, n, found[f"{mesh} / {n}"], flush=True)
    found["shifted"] = largest_difference(whole, gradients(MESHES["8,1,1"], experiment(2), 1))
    Path(sys.argv[1]).write_text(json.dumps(found))
