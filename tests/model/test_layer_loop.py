"""The loop over layers: rematerialization, several layers per iteration, and program size."""

from typing import Any

import jax
import pytest

from bert_jax.config import replace
from bert_jax.model import Network, encoder
from tests.model.test_modern_options import TINY, close, init, padded


@pytest.mark.parametrize(
    "options", [{"remat": "dots"}, {"remat": "full", "unroll": 4}, {"unroll": 2}]
)
def test_neither_remat_nor_unroll_changes_the_gradient(options: dict[str, Any]) -> None:
    network, params = init(TINY)

    def gradient(network: Network) -> Any:
        f = lambda p: (network.apply({"params": p}, padded())["hidden"] ** 3).sum()  # type: ignore[index]  # noqa: E731
        return jax.jit(jax.grad(f))(params)

    close(gradient(Network(TINY, **options)), gradient(network), 1e-6)


def test_without_a_loop_a_barrier_keeps_what_remat_computes_again() -> None:
    """XLA would merge it with what the forward pass has computed. (For CPUs it does so still.)"""

    def barriers(unroll: int, remat: str) -> int:
        network, params = init(TINY, unroll=unroll, remat=remat)
        f = lambda p: (network.apply({"params": p}, padded())["hidden"] ** 3).sum()  # type: ignore[index]  # noqa: E731
        return jax.jit(jax.grad(f)).lower(params).as_text().count("optimization_barrier")

    # norms have barriers of their own
    assert [barriers(n, "full") > barriers(n, "none") for n in (1, 4)] == [False, True]


@pytest.mark.parametrize(
    ("unroll", "remat", "device", "layers"),
    [
        *((None, "none", "cpu", 1), (None, "none", "tpu", 1), (None, "none", "cuda", 12)),
        *((None, "dots", "cuda", 1), (4, "none", "cuda", 4), (99, "full", "cpu", 12)),
    ],
)
def test_a_gpu_has_no_loop_over_layers_unless_memory_counts(
    unroll: int | None, remat: str, device: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "platform", lambda: device)
    assert encoder.layers_per_iteration(unroll, remat, 12) == layers


def test_program_size_does_not_depend_on_depth() -> None:
    """12 layers compile to as many lines as 3, also on a backend with branches."""

    def lines(layers: int, backend: str) -> int:
        network, params = init(replace(TINY, layers=layers), attention=backend)
        return len(
            jax.jit(network.apply).lower({"params": params}, padded()).as_text().splitlines()
        )

    for backend in ("xla", "splash"):
        assert lines(12, backend) == lines(3, backend)


def test_initialization_is_a_loop_over_layers_even_if_training_is_not() -> None:
    """On a GPU, where training has no loop, a copy per layer takes a minute to compile."""

    def program(unroll: int) -> str:
        initialize = jax.jit(Network(TINY, unroll=unroll).init)
        return initialize.lower(jax.random.key(0), padded()).as_text()

    assert program(unroll=4) == program(unroll=1)
