"""The largest batch that fits."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from bert_jax.config import BERT, Mesh, replace
from bert_jax.distributed import sharding
from bert_jax.perf import batch_search
from bert_jax.perf.bench import batch_size, device


@pytest.mark.parametrize("unit", [1, 3, 8])
@pytest.mark.parametrize(
    "peak",
    [
        lambda n: 100 + 7 * n,
        lambda n: 100 + n * n,
        lambda n: 100 + 7 * (n // 16) * 16,
        lambda n: None if n > 61 else 100 + n,
        lambda n: 2000,
    ],
    ids=["line", "square", "stairs", "no compile", "nothing fits"],
)
def test_the_largest_batch_fits_and_the_next_does_not(
    unit: int, peak: Callable[[int], int | None]
) -> None:
    sizes = range(unit, 1001, unit)
    best = max([n for n in sizes if (peak(n) or 10**9) <= 1000], default=0)
    result = batch_search.max_batch_size(peak, 1000, unit, 1000)
    assert (result.batch_size, result.limit) == (best, 1000)
    assert result.compiled <= 20


@pytest.mark.parametrize("full", [True, False])
def test_a_step_that_runs_out_of_memory_in_the_compiler_does_not_fit(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11 rows compile, and a batch is a multiple of 2 devices times 2 micro-batches."""

    def compile_for(inputs: object, devices: list[Any], rows: int) -> int:
        assert (len(devices), rows % 4) == (2, 0)
        if rows > 11:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9G" if full else "INTERNAL: x")
        return rows

    monkeypatch.setattr(batch_size, "compile_for_batch_size", compile_for)
    monkeypatch.setattr(batch_size, "step_memory", lambda rows: {"peak": 10 * rows})
    monkeypatch.setattr(device, "memory_limit", lambda _: 1000)
    inputs: Any = SimpleNamespace(config=replace(BERT, optim=dict(accumulate=2)))
    mesh = sharding.make_mesh(Mesh(2), jax.devices()[:2])
    if full:
        found = batch_size.find_max_batch_size(inputs, mesh)
        assert (found.batch_size, found.peak, found.unit) == (8, 80, 4)
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
            batch_size.find_max_batch_size(inputs, mesh)


def test_known_peaks_are_not_compiled_again() -> None:
    """Here from a batch that does not fit, and from no rows at all."""
    asked = []

    def peak(rows: int) -> int:
        asked.append(rows)
        return 100 + 7 * rows

    known = {0: 100, 400: 2900}
    result = batch_search.max_batch_size(peak, 1000, 1, 10_000, known)
    assert (result.batch_size, result.compiled) == (128, 2)
    assert asked == [128, 129]
