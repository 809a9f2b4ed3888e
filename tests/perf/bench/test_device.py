"""The peak of a device, and the memory of a step."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bert_jax.perf.bench import device, timer


@pytest.mark.parametrize(
    ("kind", "bf16"), [("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("TPU v5", 459)]
)
def test_a_known_device_has_its_published_peak(kind: str, bf16: float) -> None:
    meter = device.PeakMeter(types.SimpleNamespace(device_kind=kind), "bfloat16")
    meter.measure()
    assert meter.best() == (bf16 * 1e12, "published")


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
    memory = device.step_memory(f.lower(shape, shape).compile())
    assert memory["arguments"] == 8000
    assert memory["outputs"] < 1000
    assert memory["peak"] == sum(v for k, v in memory.items() if k != "peak")
