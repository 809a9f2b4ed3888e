"""Eight virtual devices: training is the same on any mesh, and no wide array is replicated.

With four devices, BERT on one mesh in the fast suite: training/test_step.py, test_sharding.py.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import cheap_compiles, tiny_configs

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture(
    scope="module",
    params=list(tiny_configs.FAMILIES),
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("mesh")
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.mesh_worker", request.param, folder / "checkpoints"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XLA_FLAGS": cheap_compiles.xla_flags(8)},
    )
    assert done.returncode == 0, done.stderr
    return {
        "family": request.param,
        "warned": "Involuntary full remat" in done.stderr,
        **json.loads(done.stdout.splitlines()[-1]),
    }


def test_losses_are_those_of_one_device(results: Any) -> None:
    """Dropout on: the same masks whatever the mesh."""
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        assert results[mesh]["losses"] == pytest.approx(results["1,1,1"]["losses"], rel=1e-5)


def test_parameters_are_those_of_one_device(results: Any) -> None:
    if results["family"] == "electra":
        pytest.skip("a sampled token may flip at a near tie")
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        for name, distance in results[mesh]["distances"].items():
            assert distance <= (1e-6 if name.endswith("key/bias") else 1e-3), (mesh, name)


def test_the_state_is_sharded(results: Any) -> None:
    share, total = results["1,8,1"]["bytes"]
    assert share <= 1.05 * total / 8  # of kernels and tables
    replicated = [
        name for name in results["1,1,8"]["replicated"] if name.endswith(("kernel", "word"))
    ]
    assert [name for name in replicated if "pair/" not in name] == []  # two classes


def test_neither_logits_nor_a_sharded_table_are_gathered(results: Any) -> None:
    """Logits are [rows, predictions, vocabulary], 5 predictions here."""
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        gathered = [s for kind, s in results[mesh]["collectives"] if kind == "all-gather"]
        wide = [s for s in gathered if s.endswith(f",5,{tiny_configs.V}]")]
        assert not wide, mesh
        if mesh == "1,1,8":
            assert not [s for s in gathered if s.startswith(f"f32[{tiny_configs.V},")]
    assert not results["warned"]


def test_data_parallel_sums_the_gradient_once(results: Any) -> None:
    """Even with a tied table and shared layers. The rest is a few scalars."""
    result = results["8,1,1"]
    assert result["parameters"] <= result["summed"] <= 1.01 * result["parameters"]
    assert {kind for kind, _ in result["collectives"]} == {"all-reduce"}


def test_a_run_resumes_on_another_mesh(results: Any) -> None:
    """Saved on (8, 1, 1): the next loss on (2, 2, 2) and on one device is the same."""
    losses = results["next"]
    assert losses["2,2,2"] == pytest.approx(losses["8,1,1"], rel=1e-6)
    assert losses["1,1,1"] == pytest.approx(losses["8,1,1"], rel=1e-6)
