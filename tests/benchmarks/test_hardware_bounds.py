"""Estimates from compiled steps: what they hold, and for which card they are."""

import importlib
import json
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.paths import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", ["scaling"], indirect=True)
@pytest.mark.parametrize("order", [1, -1])
def test_of_two_steps_of_a_micro_batch_the_one_that_holds_more_is_extrapolated(
    script: Any, order: int
) -> None:
    """Whatever their order: of 8 rows at once, 2 steps of 4 hold the summed gradient, too."""
    from bert_jax.perf.hardware import CHIPS

    step = {
        "config": "bert_large",
        "fits": True,
        "topology": "v5e:4x4",
        "state_bytes": 100,
        "collectives": {"all-reduce": 10},
        "flops": 1.0,
    }
    cases = [
        step | {"rows_per_chip": 4.0, "accumulate": 1, "bytes": 500},
        step | {"rows_per_chip": 8.0, "accumulate": 2, "bytes": 900},
    ]
    held = script.extrapolate("bert_large", cases[::order], 64, CHIPS["v5e"])
    assert held["bytes"] == 900


@pytest.mark.parametrize("script", ["speed_table"], indirect=True)
@pytest.mark.parametrize(
    ("device", "has_bound"),
    [
        ("NVIDIA H100 80GB HBM3", True),
        ("NVIDIA H200", True),
        ("NVIDIA H100 PCIe", False),
        ("NVIDIA H100 NVL", False),
        ("cpu", False),
    ],
)
def test_a_card_has_the_bound_of_its_own_rates_or_none(
    script: Any, device: str, has_bound: bool
) -> None:
    cases = json.loads((ROOT / "docs/roofline_gpu.json").read_text())["cases"]
    case = next(case for case in cases if "flash" in case)
    cell = script.Cell(case["config"], case["length"], case["rows"], against=False)
    least = script.least_seconds(cell, {"device": device, "dropout": (0.1, 0.1)})
    assert (least is not None) == has_bound
