"""The largest batch that fits."""

from collections.abc import Callable

import pytest

from bert_jax.perf import batch_search


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
