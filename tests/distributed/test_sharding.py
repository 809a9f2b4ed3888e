"""A vocabulary that no mesh divides, and the rows of a batch that a process holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from bert_jax import objectives
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Mesh, replace
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import sharding
from bert_jax.perf import param_table
from bert_jax.training.step import CompiledSteps
from bert_jax.utils import pytree
from tests.helpers import shared_steps, tiny_configs
from tests.helpers.marks import NIGHTLY
from tests.training.test_step import equal_steps

V = 67  # a prime
SPECIAL = np.arange(V) < 4
VOCABULARY = Vocabulary(3, SPECIAL, WordEdges.marked(np.arange(V) < 45), np.where(SPECIAL, 0, 1))
MESHES = [Mesh(1, 1, 4), Mesh(1, 2, 2), Mesh(1, 4, 1)]


def odd_vocab(family: str) -> Experiment:
    return replace(tiny_configs.FAMILIES[family], encoder=dict(vocab_size=V))


def build(config: Experiment, mesh: Mesh) -> CompiledSteps:
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    objective = objectives.build(config, VOCABULARY)
    return shared_steps.compile_steps(config, objective, sharding.make_mesh(mesh, devices))


def run_steps(steps: CompiledSteps, state: Any, begin: int, count: int) -> tuple[Any, list[float]]:
    losses = []
    for i in range(begin, begin + count):
        state, metrics = steps.train(state, steps.to_devices(tiny_configs.batch(8, 8 * i)))
        losses.append(float(metrics["loss"]))
    return state, losses


def without_padding(params: Any, like: Any) -> Any:
    return jax.tree.map(lambda x, y: np.asarray(x)[tuple(map(slice, y.shape))], params, like)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(f, marks=NIGHTLY) for f in ("electra", "spanbert"))]
)
def test_rows_that_only_pad_the_vocabulary_change_nothing(family: str) -> None:
    config = odd_vocab(family)
    one = build(config, Mesh(1))
    state = one.init()
    start = jax.tree.map(np.asarray, state.params)
    state, expected = run_steps(one, state, 0, 3)
    params = jax.tree.map(np.asarray, state.params)
    for mesh in MESHES:
        steps = build(config, mesh)
        state, losses = run_steps(steps, steps.init(), 0, 3)
        assert losses == pytest.approx(expected, rel=1e-5), mesh
        table = np.asarray(state.params["embeddings"]["word"])
        assert len(table) == 68
        assert not table[V:].any()
        if family != "electra":  # a sampled token may flip at a near tie
            equal_steps(start, params, without_padding(state.params, params))


@pytest.mark.slow
def test_a_checkpoint_opens_under_another_padding(tmp_path: Path) -> None:
    """Saved on one mesh, resumed on any other: the same next losses."""
    config = odd_vocab("bert")
    four = build(config, Mesh(1, 1, 4))
    state, _ = run_steps(four, four.init(), 0, 2)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(2, state, config)
    _, expected = run_steps(four, state, 2, 2)
    for mesh in (Mesh(1), Mesh(1, 2, 2), Mesh(1, 4, 1)):
        steps = build(config, mesh)
        with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
            restored = checkpoints.restore(2, steps.like)
        _, losses = run_steps(steps, restored, 2, 2)
        assert losses == pytest.approx(expected, rel=1e-6), mesh


def test_inspect_counts_no_padding_and_names_unsharded_dimensions() -> None:
    config = replace(odd_vocab("bert"), mesh=Mesh(1, 1, 4), encoder=dict(hidden_size=22))
    table = param_table.parameter_table(config)
    params = objectives.param_shapes(config)
    assert table["parameters"]["total"] == pytree.count(params)
    leaves = {leaf["name"]: leaf for leaf in table["parameters"]["leaves"]}
    assert leaves["embeddings/word"]["shape"] == [V, 22]
    assert leaves["embeddings/word"]["bytes_per_device"] == 4 * 17 * 22
    query = leaves["encoder/layers/attention/query/kernel"]
    assert query["undivided"] == [(22, "tensor")]
    assert query["bytes_per_device"] == 4 * query["count"]


class Device(NamedTuple):
    process_index: int


class Grid(NamedTuple):
    """The part of a mesh that `process_slices` reads."""

    devices: np.ndarray
    shape: dict[str, int]


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 2, 1), (1, 2, 2), (1, 1, 4), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("order", ["near", "far"])
def test_processes_hold_every_row_and_only_those_of_their_devices(
    shape: tuple[int, int, int], processes: int, order: str
) -> None:
    owners = np.arange(4) * processes // 4 if order == "near" else np.arange(4) % processes
    devices = np.empty(4, object)
    devices[:] = [Device(int(p)) for p in owners]
    grid: Any = Grid(
        devices.reshape(shape), dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
    )
    groups = owners.reshape(-1, shape[2])
    for process in range(processes):
        needed = {g for g, row in enumerate(groups) if process in row}
        read: set[int] = set()
        for i, n in sharding.process_slices(grid, process):
            size = len(groups) // n
            read |= set(range(i * size, (i + 1) * size))
        assert read == needed


@pytest.mark.parametrize(("platform", "rows"), [("gpu", 80), ("cpu", 68), ("tpu", 68)])
def test_on_gpus_a_table_has_a_multiple_of_eight_rows_per_device(
    platform: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other products are three quarters as fast there (docs/performance.md)."""
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    mesh = AbstractMesh((1, 2, 1), ("data", "fsdp", "tensor"))
    tables = {"embeddings": {"word": np.ones((V, 4))}, "mlm": {"bias": np.ones(V)}}
    padded = sharding.pad_vocab(tables, mesh)
    assert [len(x) for x in jax.tree.leaves(padded)] == [rows, rows]
    assert not padded["embeddings"]["word"][V:].any()


@dataclass(frozen=True)
class Accelerator:
    platform: str
    id: int
    slice_index: int
    process_index: int = 0
    device_kind: str = "one"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_data_crosses_slices_and_the_other_axes_stay_within_one(platform: str) -> None:
    """Two hosts of four GPUs, whose devices `jax.make_mesh` refuses."""
    devices = [Accelerator(platform, i, i // 4) for i in (5, 0, 7, 2, 1, 4, 3, 6)]
    assert sharding.num_slices(devices) == 2
    assert sharding.num_slices(jax.devices()) == 1
    if platform == "gpu":
        grid = sharding.grid_of_slices((4, 2, 1), devices)
        assert sorted(d.id for d in grid.flat) == list(range(8))
        assert [len({d.slice_index for d in row.flat}) for row in grid] == [1, 1, 1, 1]
        across = sharding.grid_of_slices((1, 8, 1), devices)  # fsdp over all
        assert sorted(d.id for d in across.flat) == list(range(8))
    else:
        with pytest.raises(ValueError, match="data is 1, and there are 2 slices of TPUs"):
            sharding.grid_of_slices((1, 8, 1), devices)


def test_over_several_processes_a_device_gets_its_part_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`jax.device_put` would first gather the copies of all processes, to compare them."""
    mesh = sharding.make_mesh(Mesh(2, 1, 2), jax.devices()[:4])
    rows = sharding.batch_sharding(mesh)
    value = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    alone = sharding.put(value, rows)
    monkeypatch.setattr(type(rows), "is_fully_addressable", False)
    monkeypatch.setattr(jax, "device_put", None)
    parts = sharding.put(value, rows).addressable_shards
    assert [p.data.tolist() for p in parts] == [p.data.tolist() for p in alone.addressable_shards]
