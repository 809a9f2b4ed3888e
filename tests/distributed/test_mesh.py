"""Eight virtual devices: whatever the mesh, the same training, and nothing wide is whole."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import cheap_compiles, tiny_configs

FAMILIES = [
    pytest.param(f, marks=[] if f == "electra" else pytest.mark.slow) for f in tiny_configs.FAMILIES
]


@pytest.fixture(scope="module", params=FAMILIES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("eight")
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


def test_losses_are_those_of_one_device(seen: Any) -> None:
    """Dropout on: the same masks whatever the mesh."""
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        assert seen[mesh]["losses"] == pytest.approx(seen["1,1,1"]["losses"], rel=1e-5)


def test_parameters_are_those_of_one_device(seen: Any) -> None:
    if seen["family"] == "electra":
        pytest.skip("a sampled token may flip at a near tie")
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        for name, distance in seen[mesh]["apart"].items():
            assert distance <= (1e-6 if name.endswith("key/bias") else 1e-3), (mesh, name)


def test_the_state_is_cut_up(seen: Any) -> None:
    share, total = seen["1,8,1"]["bytes"]
    assert share <= 1.05 * total / 8
    whole = [name for name in seen["1,1,8"]["whole"] if name.endswith(("kernel", "word"))]
    assert [name for name in whole if "pair/" not in name] == []  # two classes


def test_nobody_gathers_the_logits_or_a_table_that_is_cut(seen: Any) -> None:
    """Logits are [rows, predictions, vocabulary], 5 predictions here."""
    for mesh in ("8,1,1", "1,8,1", "1,1,8", "2,2,2"):
        gathered = [s for kind, s in seen[mesh]["collectives"] if kind == "all-gather"]
        wide = [s for s in gathered if s.endswith(f",5,{tiny_configs.V}]")]
        assert not wide, mesh
        if mesh == "1,1,8":
            assert not [s for s in gathered if s.startswith(f"f32[{tiny_configs.V},")]
    assert not seen["warned"]


def test_data_parallel_sums_the_gradient_once(seen: Any) -> None:
    """A tied table and shared layers notwithstanding; beside it a few scalars."""
    found = seen["8,1,1"]
    assert found["parameters"] <= found["summed"] <= 1.01 * found["parameters"]
    assert {kind for kind, _ in found["collectives"]} == {"all-reduce"}


def test_a_run_goes_on_with_other_devices(seen: Any) -> None:
    """Saved on (8, 1, 1): the next loss on (2, 2, 2) and on one device is the same."""
    told = seen["next"]
    assert told["2,2,2"] == pytest.approx(told["8,1,1"], rel=1e-6)
    assert told["1,1,1"] == pytest.approx(told["8,1,1"], rel=1e-6)
