"""The largest batch that fits."""

from collections.abc import Callable

import pytest

from bert_jax.perf.bench import batch_size


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
    result = batch_size.max_batch_size(peak, 1000, unit, 1000)
    assert (result.batch_size, result.limit) == (best, 1000)
    assert result.compiled <= 20
