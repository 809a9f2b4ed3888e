"""The loop over layers: rematerialization, several layers per iteration, and program size."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import pytest

from bert_jax.config import Encoder, from_python_file, replace
from bert_jax.model import Network, encoder
from tests.helpers.paths import ROOT
from tests.model.test_modern_options import TINY, close, init, padded

FINE_TUNING = sorted((ROOT / "configs").glob("finetune*.py"))


def shapes(config: Encoder, **how: Any) -> tuple[Network, Any]:
    """A network and the shapes of its parameters: enough to lower a program."""
    network = Network(config, {}, **how)
    return network, jax.eval_shape(network.init, jax.random.key(0), padded())["params"]


def loss(network: Network, params: Any) -> jax.Array:
    """In training, i.e. with a key for dropout."""
    rngs = {"dropout": jax.random.key(1)}
    return (network.apply({"params": params}, padded(), rngs=rngs)["hidden"] ** 3).sum()  # type: ignore[index]


@pytest.mark.parametrize(
    "options", [{"remat": "dots"}, {"remat": "full", "unroll": 4}, {"unroll": 2}]
)
def test_neither_remat_nor_unroll_changes_the_gradient(options: dict[str, Any]) -> None:
    network, params = init(TINY)

    def gradient(network: Network) -> Any:
        return jax.jit(jax.grad(partial(loss, network)))(params)

    close(gradient(Network(TINY, **options)), gradient(network), 1e-6)


def test_without_a_loop_a_barrier_keeps_what_remat_computes_again() -> None:
    """XLA would merge it with what the forward pass has computed. (For CPUs it does so still.)"""

    def barriers(unroll: int, remat: str) -> int:
        network, params = shapes(TINY, unroll=unroll, remat=remat)
        return (
            jax.jit(jax.grad(partial(loss, network)))
            .lower(params)
            .as_text()
            .count("optimization_barrier")
        )

    # norms have barriers of their own
    assert [barriers(n, "full") > barriers(n, "none") for n in (1, 4)] == [False, True]


@pytest.mark.parametrize(
    ("groups", "unroll", "over_groups", "within"),
    [
        *((4, 1, 1, 1), (4, 2, 1, 2), (4, 3, 1, 3), (4, 4, 1, 3), (4, 6, 2, 3), (4, 12, 4, 3)),
        *((1, 4, 1, 4), (12, 4, 4, 1)),
    ],
)
def test_an_iteration_has_no_more_layers_than_unroll_says(
    groups: int, unroll: int, over_groups: int, within: int
) -> None:
    """Of 12 layers in groups, which have a loop within the loop over them."""
    network = Network(replace(TINY, layers=12, groups=groups), unroll=unroll)
    rngs = {name: jax.random.key(0) for name in ("params", "dropout")}
    program = str(jax.make_jaxpr(partial(network.init, rngs))(padded()))
    scans = re.findall(r"length=(\d+)\n.*?unroll=(\d+)", program, re.DOTALL)
    assert {(12 // groups, within), (groups, over_groups)} <= {
        (int(length), int(n)) for length, n in scans
    }


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


@pytest.mark.parametrize("config", FINE_TUNING, ids=lambda path: path.stem)
def test_fine_tuning_keeps_the_loop_on_a_gpu_since_it_compiles_for_each_padded_length(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "platform", lambda: "cuda")
    run = from_python_file(str(config)).run
    assert encoder.layers_per_iteration(run.unroll, run.remat, 12) == 1


@pytest.mark.slow
def test_program_size_does_not_depend_on_depth() -> None:
    """12 layers compile to as many lines as 3 on a backend with branches, too."""

    def lines(layers: int, backend: str) -> int:
        network, params = shapes(replace(TINY, layers=layers), attention=backend)
        return len(
            jax.jit(network.apply).lower({"params": params}, padded()).as_text().splitlines()
        )

    assert lines(12, "splash") == lines(3, "splash")


def test_only_training_may_have_no_loop() -> None:
    """On a GPU training has none. A copy per layer of initialization took a minute to compile, and
    evaluation moves as many bytes with a loop as without."""

    def programs(unroll: int) -> tuple[str, str, str]:
        network, params = shapes(TINY, unroll=unroll)
        initialize, apply = jax.jit(network.init), jax.jit(network.apply)
        return (
            initialize.lower(jax.random.key(0), padded()).as_text(),
            apply.lower({"params": params}, padded()).as_text(),
            jax.jit(partial(loss, network)).lower(params).as_text(),
        )

    loop, no_loop = programs(unroll=1), programs(unroll=4)
    assert loop[:2] == no_loop[:2]
    assert len(no_loop[2]) > len(loop[2])
