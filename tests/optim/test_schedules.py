"""Schedules against the published formulas, in plain Python; the trapezoid by its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import Optim, replace
from bert_jax.optim import schedule
from tests.helpers.reference_optim import PUBLISHED, rate


@pytest.mark.parametrize("name", ["bert", "electra", "roberta", "spanbert"])
@pytest.mark.parametrize(("w", "T"), [(0, 7), (1, 1), (3, 10), (10, 10), (20, 10), (97, 1000)])
def test_a_schedule_equals_its_formula_at_every_step(name, w, T):
    c, steps = Optim(schedule=name, warmup_steps=w, peak_lr=3e-4), jnp.arange(1005)
    actual = schedule(c, T)(steps)
    np.testing.assert_allclose(actual, [rate(c, t, T) for t in steps.tolist()], 1e-6, 1e-12)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("c", PUBLISHED, ids=lambda c: f"{c.name}-{c.schedule}")
def test_published_schedules_start_and_end_at_zero_and_are_exact_to_the_last_step(c):
    T = 1_000_000
    at = schedule(c, T)
    jitted = jax.jit(at)
    assert at(0) == at(T) == at(T + 1) == at(2 * T) == 0
    for t in (1, c.warmup_steps - 1, c.warmup_steps, c.warmup_steps + 1, T // 3, T - 1):
        np.testing.assert_allclose(jitted(t), rate(c, t, T), rtol=1e-6)


def test_schedules_differ_where_warm_up_ends():
    at = {
        n: schedule(Optim(schedule=n, warmup_steps=100, peak_lr=1.0), 1000)
        for n in ("bert", "electra", "roberta", "spanbert")
    }
    assert {n: round(float(f(100)), 6) for n, f in at.items()} == {
        "bert": 0.9,
        "electra": 0.9,
        "roberta": 1.0,
        "spanbert": 1.0,
    }
    assert {n: round(float(f(101)), 6) for n, f in at.items()} == {
        "bert": 0.899,
        "electra": 0.899,
        "roberta": 0.998889,
        "spanbert": 0.899,
    }


def test_decay_steps_are_the_length_of_the_schedule():
    c = Optim(warmup_steps=2, decay_steps=50)
    assert schedule(c, 10)(20) == schedule(Optim(warmup_steps=2), 50)(20) > 0


def test_a_trapezoid_has_its_corners() -> None:
    c = Optim(schedule="trapezoid", peak_lr=2.0, warmup_steps=10, cooldown_ratio=0.25)
    at = schedule(c, 100)
    corners = {0: 0.0, 5: 1.0, 10: 2.0, 11: 2.0, 75: 2.0, 76: 1.92, 99: 0.08, 100: 0.0, 101: 0.0}
    np.testing.assert_allclose([at(t) for t in corners], list(corners.values()), rtol=1e-6)
    assert at(jnp.arange(3)).dtype == np.float32


def test_a_trapezoid_may_have_no_warm_up_or_cool_down_or_be_a_triangle() -> None:
    base = Optim(schedule="trapezoid", peak_lr=1.0, warmup_steps=0, cooldown_ratio=0.0)
    assert schedule(base, 10)(jnp.arange(12)).tolist() == [1.0] * 10 + [0.0] * 2
    steep = replace(base, warmup_steps=10, cooldown_ratio=1.0)
    np.testing.assert_allclose(schedule(steep, 10)(jnp.array([3, 5, 7])), [0.3, 0.5, 0.3], 1e-6)


def test_a_sqrt_cooldown_is_one_minus_the_root_of_its_progress() -> None:
    c = Optim(schedule="trapezoid", peak_lr=2.0, warmup_steps=10, cooldown_ratio=0.5)
    at = jax.jit(schedule(replace(c, cooldown_shape="sqrt"), 100))
    t = np.arange(50, 102)
    expected = 2 * (1 - np.sqrt(np.minimum(t - 50, 50) / 50))
    np.testing.assert_allclose(at(t), expected, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(at(t[:1] - 40), schedule(c, 100)(t[:1] - 40))


def test_a_cooldown_ratio_out_of_range_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"cooldown_ratio is 1\.5: expected 0 <= x <= 1"):
        Optim(cooldown_ratio=1.5)
