"""A run on an accelerator compares its attention kernel with plain attention first."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from bert_jax.config import Supervised, replace
from bert_jax.model.attention import flash, flash_gpu, kernel_check, splash
from bert_jax.model.attention.flash_gpu import attend
from tests.helpers import tiny_configs

CPU = pytest.mark.skipif(jax.default_backend() == "gpu", reason="plays a GPU")
CONFIG = replace(
    tiny_configs.FAMILIES["bert"],
    encoder=dict(hidden_size=32, heads=2, attention_dropout=0.1),
    run=dict(dtype="bfloat16"),
)


def wrong_gradient(q: Any, k: Any, v: Any, *args: Any) -> jax.Array:
    """The right output, with no gradient of the values."""
    return attend(q, k, jax.lax.stop_gradient(v), *args)


def no_dropout(q: Any, k: Any, v: Any, mask: Any, rate: float, *args: Any) -> jax.Array:
    return attend(q, k, v, mask, 0.0, *args)


def not_finite(q: Any, k: Any, v: Any, mask: Any, *args: Any) -> jax.Array:
    """NaN in the gradient of a single key."""
    out = attend(q, k, v, mask, *args)
    return out + 0 * jnp.sqrt(jnp.abs(k[0, 0, 0, 0]) * 0)


@CPU
@pytest.mark.parametrize("wrong", [wrong_gradient, no_dropout, not_finite])
def test_a_wrong_kernel_is_refused_before_the_run(
    wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_check, "platform", lambda: "gpu")
    monkeypatch.setitem(kernel_check.LENGTHS, "gpu", (64,))
    monkeypatch.setattr(flash_gpu, "attend", wrong)
    with pytest.raises(ValueError, match=r"differs from plain .*: set run\.attention xla"):
        kernel_check.check_kernels(CONFIG, packed=True)


@CPU
def test_a_right_kernel_passes_and_other_backends_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_check, "platform", lambda: "gpu")
    monkeypatch.setitem(kernel_check.LENGTHS, "gpu", (64,))
    kernel_check.check_kernels(CONFIG, packed=True)
    monkeypatch.setattr(kernel_check, "kernel_error", None)
    kernel_check.check_kernels(replace(CONFIG, run=dict(attention="xla")), packed=True)
    kernel_check.check_kernels(replace(CONFIG, run=dict(dtype="float32")), packed=True)


@CPU
def test_the_kernels_of_both_networks_of_electra_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its generator has heads of another width."""
    widths = []

    def kernel_error(attend: Any, width: int, *args: Any) -> float:
        widths.append(width)
        return 0.0

    monkeypatch.setattr(kernel_check, "platform", lambda: "gpu")
    monkeypatch.setattr(kernel_check, "kernel_error", kernel_error)
    encoder = dict(hidden_size=96, heads=2)
    electra = replace(
        tiny_configs.FAMILIES["electra"], encoder=encoder, run=dict(attention="flash")
    )
    kernel_check.check_kernels(electra, packed=False)
    assert set(widths) == {48, 32}


@CPU
@pytest.mark.parametrize(
    ("length", "rate", "backends"),
    [
        (128, 0.1, {"flash"}),
        (512, 0.0, {"flash"}),
        (2048, 0.0, {"splash"}),
        (2048, 0.1, set()),
        (200, 0.0, set()),
    ],
)
def test_on_a_tpu_the_kernels_of_all_lengths_are_compared(
    length: int, rate: float, backends: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = set()

    def kernel_error(attend: Any, *args: Any) -> float:
        compared.add(attend)
        return 0.0

    monkeypatch.setattr(kernel_check, "platform", lambda: "tpu")
    monkeypatch.setattr(kernel_check, "kernel_error", kernel_error)
    encoder = dict(max_length=length, attention_dropout=rate)
    run = replace(CONFIG, encoder=encoder, data=dict(length=length))
    kernel_check.check_kernels(run, packed=True)
    attends = {"flash": flash.attend, "splash": splash.attend}
    assert compared == {attends[name] for name in backends}
    if length > 128:  # fine-tuning pads rows to shorter lengths, too
        kernel_check.check_kernels(replace(run, objective=Supervised()), packed=False)
        assert compared == {attends[name] for name in {*backends, "flash"}}


@pytest.mark.slow
@pytest.mark.parametrize(("attend", "rate"), [(flash.attend, 0.1), (splash.attend, 0.0)])
def test_the_tpus_kernels_pass_where_they_are_interpreted(attend: Any, rate: float) -> None:
    """In one tile: a row of many tiles takes minutes where it is interpreted."""
    mask = kernel_check.example_mask("packed", kernel_check.ROWS, 256)
    error = kernel_check.kernel_error(attend, 32, kernel_check.HEADS, mask, rate, 64)
    assert error < kernel_check.TOLERANCE
