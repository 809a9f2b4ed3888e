"""Contenders alternate, and medians are taken over rounds."""

import types
from typing import Any

from bert_jax.perf.bench import timer


class FakeContender:
    """Notes its name at every step."""

    warm_up, real_tokens, padded_tokens = 1, 1.0, 1

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self._steps = name, steps

    def step(self) -> None:
        self._steps.append(self.name)

    def wait(self) -> None: ...


def test_contenders_alternate_and_every_second_round_is_reversed(monkeypatch: Any) -> None:
    steps: list[str] = []
    monkeypatch.setattr(timer, "timed", lambda f: f() or 1.0)
    contenders = [FakeContender(name, steps) for name in "abc"]
    times = timer.alternate(contenders, 2, after_round=lambda: steps.append("|"))
    assert "".join(steps) == "abc" + "abc|" + "cba|"  # the first three are the warm-up
    assert times.seconds == {name: [1.0, 1.0] for name in "abc"}


def test_the_ratio_is_the_median_over_rounds() -> None:
    times = timer.Times({"bert_jax": [1.0, 2.0, 4.0], "peer": [2.0, 3.0, 12.0]})
    assert times.ratio("bert_jax", "peer") == 2.0
    assert times.ratio("bert_jax", "peer", tokens_ratio=1.5) == 3.0


def test_the_device_is_idle_from_the_end_of_a_step_to_the_next_call(monkeypatch: Any) -> None:
    starts, ends = iter([0.0, 0.5, 3.0]), iter([1.0, 2.5, 4.0])
    clock = types.SimpleNamespace(perf_counter=lambda: next(ends))
    monkeypatch.setattr(timer, "time", clock)
    share = timer.idle_share(lambda: ("result", next(starts)), lambda _: None, 3)
    assert share == 0.5 / 4.0
