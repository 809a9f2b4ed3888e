"""Accumulation of a loss that couples rows is exact, on every mesh, with dropout on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Mesh
from bert_jax.distributed import constraints
from bert_jax.distributed.constraints import random_words, row_numbers, row_seed
from tests.helpers import cheap_compiles, pairs_worker
from tests.helpers.paths import ROOT


@pytest.mark.slow
def test_accumulation_gives_the_gradient_of_the_whole_batch() -> None:
    """Ranking, Matryoshka, both directions, hard negatives, a learned temperature; dropout .3."""
    whole = pairs_worker.gradients(Mesh(1), pairs_worker.experiment())
    parts = pairs_worker.gradients(Mesh(1), pairs_worker.experiment(4))
    assert pairs_worker.largest_difference(whole, parts) < 1e-5
    assert abs(whole["temperature"]) > 1e-3
    assert all(np.abs(x).max() > 0 for name, x in whole.items() if "key/bias" not in name)


@pytest.mark.slow
@pytest.mark.nightly
def test_meshes_and_micro_batches_give_one_gradient(tmp_path: Path) -> None:
    """And the comparison fails where documents are those of the next device."""
    env = os.environ | {"XLA_FLAGS": cheap_compiles.xla_flags(8), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.helpers.pairs_worker", str(tmp_path / "found")]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    found = json.loads((tmp_path / "found").read_text())
    assert found.pop("shifted") > 1e-2
    assert len(found) == len(pairs_worker.CASES)
    assert max(found.values()) < 1e-5, found


def test_dropout_of_a_row_depends_on_its_number_alone() -> None:
    key = jax.random.key(0)
    with row_numbers(np.arange(6)):
        whole = random_words(key, (6, 3, 4))
    with row_numbers(np.array([4, 1])):
        part = random_words(key, (2, 3, 4))
    assert np.array_equal(part, whole[np.array([4, 1])])
    assert len(np.unique(whole)) == whole.size


def test_a_kernel_with_rows_of_its_own_has_another_seed_in_each_micro_batch() -> None:
    """Flash kernels count the rows of their call: micro-batches would all drop the same."""
    words = jnp.arange(2, dtype=jnp.uint32)
    seeds = [words]
    for first in (1, 2):
        with row_numbers(jnp.array([first, first + 4])):
            seeds.append(row_seed(words))
    assert len({tuple(seed.tolist()) for seed in seeds}) == 3
    with row_numbers(None):
        assert np.array_equal(row_seed(words), words)


def test_the_seed_of_a_micro_batch_is_that_of_its_first_row_on_any_mesh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each device has a part of its rows, and its kernel counts from the number of that part."""

    def seed(numbers: jax.Array) -> jax.Array:
        with row_numbers(numbers):
            return row_seed(jnp.arange(2, dtype=jnp.uint32))

    whole = seed(jnp.array([4, 5, 6, 7]))
    monkeypatch.setattr(constraints, "_manual_axes", lambda: ("data",))
    parts = jax.vmap(seed, axis_name="data")(jnp.array([[4, 5], [6, 7]]))
    assert np.array_equal(parts, [whole, whole])
