"""The peak of a device, and the memory of a step."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bert_jax.perf.bench import device, timer
from bert_jax.perf.step_memory import step_memory


@pytest.mark.parametrize(
    ("kind", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 144G HBM3e", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181.05),
        ("NVIDIA L40S", 362.05),
        ("TPU v5", 459),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v6 lite", 918),
    ],
)
def test_a_known_device_has_its_published_peak(kind: str, bf16: float) -> None:
    meter = device.PeakMeter(types.SimpleNamespace(device_kind=kind), "bfloat16")
    meter.measure()
    assert meter.best() == (bf16 * 1e12, "published")


@pytest.mark.parametrize(
    "kind",
    [
        "NVIDIA L400",
        "NVIDIA L40-48Q",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA H20",
        "TPU v4 lite",
        "cpu",
    ],
)
def test_a_card_that_is_not_listed_has_no_published_peak(kind: str) -> None:
    """Although the name of another one may be the first part of its name."""
    assert device.published_peak(types.SimpleNamespace(device_kind=kind), "bfloat16") is None


def test_an_unknown_device_has_the_best_peak_measured_over_the_run(monkeypatch: Any) -> None:
    """Products that other work slows down, before, between and after the rounds, do not count."""
    seconds = iter([*[4.0] * device.FIRST_PRODUCTS, 2.0, 3.0])
    monkeypatch.setattr(device, "SIZE", 2)
    monkeypatch.setattr(device, "timed", lambda _: next(seconds))
    monkeypatch.setattr(timer, "MIN_ROUND", 0.0)  # one step a round
    contender: Any = types.SimpleNamespace(
        name="a", warm_up=0, step=lambda: None, wait=lambda: None
    )
    meter = device.PeakMeter(jax.devices()[0], "float32")
    assert meter.best() == (16 / 4.0, "measured")
    timer.alternate([contender], 2, after_round=meter.measure)
    assert meter.best() == (16 / 2.0, "measured")


def test_step_memory_counts_donated_buffers_once() -> None:
    f = jax.jit(lambda x, y: (x + y, y.sum()), donate_argnums=0)
    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    memory = step_memory(f.lower(shape, shape).compile())
    assert memory["arguments"] == 8000
    assert memory["outputs"] < 1000
    assert memory["peak"] == sum(v for k, v in memory.items() if k != "peak")
