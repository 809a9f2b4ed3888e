"""Train one family on several meshes of eight virtual devices, for tests/distributed/test_mesh.py.

python -m tests.helpers.mesh_worker FAMILY FOLDER
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Mesh, replace
from bert_jax.distributed import sharding
from bert_jax.perf import collectives, hlo
from bert_jax.training.step import CompiledSteps, TrainState, compile_steps
from bert_jax.utils import pytree
from tests.helpers import tiny_configs

ROWS, STEPS = 16, 5
MESHES = {"1,1,1": Mesh(1), "8,1,1": Mesh(8), "1,8,1": Mesh(1, 8), "1,1,8": Mesh(1, 1, 8)}
MESHES["2,2,2"] = Mesh(2, 2, 2)


def build(config: Experiment, mesh: Mesh) -> CompiledSteps:
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    return compile_steps(config, tiny_configs.build(config), sharding.make_mesh(mesh, devices))


def run_steps(steps: CompiledSteps, state: TrainState, begin: int, end: int) -> tuple:
    losses = []
    for i in range(begin, end):
        state, metrics = steps.train(state, steps.to_devices(tiny_configs.batch(ROWS, ROWS * i)))
        losses.append(float(metrics["loss"]))
    return state, losses


def distances(start: dict, a: dict, b: dict) -> dict[str, float]:
    """Per leaf, |a - b| over |a - start|; for a key bias the largest difference."""
    result = {}
    for name, x in start.items():
        if name.endswith("key/bias"):
            result[name] = float(np.abs(a[name] - b[name]).max())
        else:
            update = np.linalg.norm(a[name] - x)
            result[name] = float(np.linalg.norm(a[name] - b[name]) / update)
    return result


def unpadded(state: TrainState) -> dict[str, np.ndarray]:
    """Parameters without the rows that pad the vocabulary."""
    cut = {k: slice(tiny_configs.V if pytree.is_embedding_table(k) else None) for k in named(state)}
    return {k: np.array(x)[cut[k]] for k, x in named(state).items() if x.ndim}


def named(state: TrainState) -> dict:
    return pytree.flatten_with_names(state.params)


def collectives_of(steps: CompiledSteps) -> list[collectives.Collective]:
    """The collectives of a compiled step."""
    text = steps.train.lower(steps.like, tiny_configs.batch(ROWS)).compile().as_text()
    return collectives.read_collectives(hlo.parse_hlo(text))


def main(family: str, folder: Path) -> dict:
    embedding_size = tiny_configs.FAMILIES[family].encoder.embedding_size
    config = replace(
        tiny_configs.FAMILIES[family],
        encoder=dict(hidden_size=48, heads=8, embedding_size=embedding_size and 16),
        data=dict(batch_size=ROWS),
        optim=dict(decay_steps=20),
    )
    if family == "electra":
        config = replace(config, objective=dict(generator_size=0.5))
    results: dict = {}
    start, first = {}, {}
    compiled = {name: build(config, mesh) for name, mesh in MESHES.items()}
    for name, steps in compiled.items():
        state = steps.init()
        start = start or unpadded(state)
        # every device has the biases and scales
        wide = [x for n, x in named(state).items() if not n.endswith(("/bias", "/scale"))]
        shard_bytes = sum(x.addressable_shards[0].data.nbytes for x in wide)
        replicated = [k for k, x in named(state).items() if x.sharding.is_fully_replicated]
        state, losses = run_steps(steps, state, 0, STEPS)
        first = first or unpadded(state)
        sent = collectives_of(steps) if name != "1,1,1" else []
        results[name] = {
            "losses": losses,
            "distances": distances(start, first, unpadded(state)),
            "bytes": [shard_bytes, sum(x.nbytes for x in wide)],
            "replicated": replicated,
            "collectives": [[c.kind, s] for c in sent for s in c.shapes],
            "summed": sum(c.total_bytes for c in sent if c.kind == "all-reduce"),
            "parameters": sum(x.nbytes for x in jax.tree.leaves(state.params)),
        }
        if name == "8,1,1":
            with Checkpoints(folder) as checkpoints:
                checkpoints.save(STEPS, state, config)
            results["next"] = {name: run_steps(steps, state, STEPS, STEPS + 1)[1]}
    for name in ("2,2,2", "1,1,1"):
        steps = compiled[name]
        with Checkpoints(folder) as checkpoints:
            state = checkpoints.restore(STEPS, steps.like)
        results["next"][name] = run_steps(steps, state, STEPS, STEPS + 1)[1]
    return results


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
