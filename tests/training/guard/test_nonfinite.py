"""Steps with numbers that are not finite, and spikes, change nothing."""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.checkpoint.run_dir import RESUMABLE_FIELDS
from bert_jax.config import Experiment, Guard, Mesh, replace
from bert_jax.data.loader import Loader
from bert_jax.distributed import sharding
from bert_jax.training import guard, loop
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.step import CompiledSteps, TrainState, to_floats
from bert_jax.utils.errors import RunError
from tests.helpers import shared_steps, tiny_configs
from tests.helpers.compare import same_bits

BERT = tiny_configs.FAMILIES["bert"]
CONFIG = replace(BERT, optim=dict(decay_steps=6, warmup_steps=1))


# ---- numbers


def added(kind: str, p: jax.Array) -> jax.Array:
    """What a bad row adds to the loss."""
    zero = jnp.sum(p - jax.lax.stop_gradient(p))
    return {
        "nan": jnp.nan * p.sum(),
        "infinite gradient": jnp.sqrt(zero),  # value 0, slope 1 / 0
        "huge gradient": 1e25 * zero,  # finite, but its square is not
        "large gradient": 1e15 * zero,
        "spike": 1e3 + zero,
    }[kind]


KINDS = ("nan", "infinite gradient", "huge gradient", "large gradient", "spike")
MARK = 1000  # and on: rows that are bad, each kind its number


@dataclasses.dataclass(frozen=True)
class Poisoned:
    """An objective whose loss is bad whenever a marked row is in a micro-batch."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def terms(self, params: Any, batch: Any, key: Any) -> Any:
        terms = self.inner.terms(params, batch, key)
        loss, p, more = terms["mlm_loss"], params["embeddings"]["norm"]["scale"], 0.0
        for number, kind in enumerate(KINDS, MARK):
            hit = (batch["row"] == number).any()
            more += jnp.where(hit, added(kind, jnp.where(hit, p, 1.0)), 0.0) * loss.count
        return {**terms, "mlm_loss": dataclasses.replace(loss, total=loss.total + more)}


def poisoned(batch: Any, kind: str) -> Any:
    row = np.array(batch["row"])
    row[3] = MARK + KINDS.index(kind)
    return {**batch, "row": row}


def steps_of(config: Experiment) -> CompiledSteps:
    objective: Any = Poisoned(tiny_configs.build(config))
    mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
    return shared_steps.compile_steps(config, objective, mesh)


def run(config: Experiment, third: str) -> tuple[TrainState, list[dict]]:
    """Five steps, of which the third has a bad row, or is "left out" and only counts."""
    steps, history = steps_of(config), []
    state = steps.init()
    for i in range(5):
        if i == 2 and third == "left out":
            state = state._replace(step=state.step + 1)
            continue
        batch = tiny_configs.batch(8, 8 * i)
        batch = poisoned(batch, third) if i == 2 else batch
        state, metrics = steps.train(state, steps.to_devices(batch))
        history.append(to_floats(metrics))
    return state, history


@pytest.mark.slow_unless("infinite gradient-1", "huge gradient-1")
@pytest.mark.parametrize(
    ("kind", "accumulate"),
    [("nan", 1), ("nan", 4), ("infinite gradient", 1), ("huge gradient", 1)],
)
def test_a_bad_step_is_as_if_left_out(kind: str, accumulate: int) -> None:
    """Parameters and optimiser are bit for bit those of a run that never saw its batch."""
    config = replace(CONFIG, optim=dict(accumulate=accumulate))
    (spoilt, history), (clean, _) = run(config, kind), run(config, "left out")
    assert same_bits(
        (spoilt.step, spoilt.params, spoilt.opt), (clean.step, clean.params, clean.opt)
    )
    assert [m["skipped"] for m in history] == [0, 0, 1, 1, 1]
    assert same_bits(spoilt.guard.losses, clean.guard.losses)
    rates = [m["learning_rate"] for m in history]
    assert rates[3] == rates[2]  # the rate follows the updates that were made


def test_a_large_gradient_is_clipped_and_kept() -> None:
    state, history = run(CONFIG, "large gradient")
    assert history[2]["gradient_norm"] > 1e15
    assert [m["skipped"] for m in history] == [0] * 5
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.opt)))


@pytest.mark.slow
@pytest.mark.parametrize(("what", "skipped"), [("warn", 0), ("skip", 1)])
def test_a_spike_is_left_out_where_asked(what: str, skipped: int) -> None:
    _, history = run(replace(CONFIG, guard=dict(spike=what, spike_window=2)), "spike")
    assert history[-1]["skipped"] == skipped
    assert history[-1]["spikes"] == 1


def accepted_updates(config: Guard, losses: list[float]) -> tuple[list[bool], guard.LossHistory]:
    history, accepted = guard.init(config), []
    for loss in losses:
        good, history = guard.check_update(config, history, jnp.float32(loss), jnp.float32(1))
        accepted.append(bool(good))
    return accepted, history


@pytest.mark.parametrize(("factor", "limit"), [(10.0, 17.826), (2.0, 5.9652)])
def test_a_spike_is_measured_in_deviations_above_the_median(factor: float, limit: float) -> None:
    """Of 1, 2, 3, 4, 5 the median is 3 and the deviation 1.4826: beyond 3 + 10 x 1.4826 = 17.826
    a loss is a spike; below the median nothing is; and a spike is not remembered."""
    config = Guard(spike="skip", spike_window=5, spike_factor=factor)
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    for last, good in ((limit - 0.01, True), (limit + 0.01, False), (-99.0, True)):
        accepted, history = accepted_updates(config, [*losses, last])
        assert accepted == [True] * 5 + [good]
        assert (float(history.losses[-1]) == np.float32(last)) == good
    assert accepted_updates(config, [*losses[:4], 99.0])[0] == [True] * 5  # the window is not full


def test_updates_that_are_skipped_as_spikes_can_be_made_by_the_resumed_run() -> None:
    """Its other fields would refuse to resume, and the state does not depend on these two."""
    assert {"guard.spike", "guard.spike_factor"} <= set(RESUMABLE_FIELDS)
    config = Guard(spike="skip", spike_window=2, max_skipped_updates=2)
    skips = guard.SkipMonitor(config, guard.init(config), 4)
    counts = [dict(skipped=1, spikes=0), dict(skipped=2, spikes=1)]
    for step, count in enumerate(counts, 5):
        skips.update(step, dict(loss=1.0, gradient_norm=1.0, **count))
        skips.finish()
        assert skips.is_spike == (step == 6)
    assert skips.halted
    message = loop.skip_message(replace(CONFIG, guard=config), 6, 4, None)
    assert "2 consecutive updates were skipped, the last one as a loss spike" in message
    assert "the last checkpoint is step 4. Resume with --guard.spike warn" in message


@pytest.mark.parametrize(
    ("folder", "newest", "advice"),
    [
        ("runs/x", 4, r"new --run\.dir, and may start from this run with --init runs/x$"),
        ("gs://b/x", 4, r"new --run\.dir; to start from this run, copy gs://b/x to a local"),
        ("gs://b/x", None, r"new --run\.dir$"),
    ],
)
def test_a_run_that_stopped_may_be_the_start_of_another(
    folder: str, newest: int | None, advice: str
) -> None:
    """`run.init` is a local folder: of a bucket's run, a copy."""
    report = {"terms": {}, "nonfinite": {}, "gradient": {"x": 1.0}}
    message = loop.skip_message(replace(CONFIG, run=dict(dir=folder)), 6, newest, report)
    assert re.search(advice, message)


def test_equal_losses_do_not_make_a_spike_of_any_other() -> None:
    assert accepted_updates(Guard(spike="skip", spike_window=3), [2.0, 2.0, 2.0, 2.1])[0][-1]


def test_after_too_many_in_a_row_no_update_is_made() -> None:
    nan = float("nan")
    losses = [1.0, nan, 1.0, nan, nan, 1.0]
    accepted, history = accepted_updates(Guard(max_skipped_updates=2), losses)
    assert accepted == [True, False, True, False, False, False]
    assert int(history.skipped) == 4


# ---- the loop


def fit(config: Experiment, folder: Path, bad: tuple[int, ...], kind: str = "nan") -> TrainState:
    """Training in which the `bad` steps have a bad row."""
    rows = Loader([tiny_configs.Rows(40)], 8, tiny_configs.LENGTH, 0)

    def batches(start: int) -> Iterator[Any]:
        for step in itertools.count(start + 1):
            batch = rows[step - 1]
            yield poisoned(batch, kind) if step in bad else batch

    folder.mkdir(exist_ok=True)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return loop.fit(
            config,
            steps_of(config),
            batches,
            lambda _: {},
            checkpoints,
            folder,
            PreemptionHandler(),
        )


@pytest.mark.slow_unless("infinite gradient", "huge gradient")
@pytest.mark.parametrize("kind", ["nan", "infinite gradient", "huge gradient"])
def test_a_run_of_bad_steps_stops_and_says_why(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bad rows in steps 3, 4 and 5, of which the checkpoint of step 3 has seen the first."""
    config = replace(CONFIG, guard=dict(max_skipped_updates=3))
    with pytest.raises(RunError) as e:
        fit(config, tmp_path, (3, 4, 5), kind)
    says = {
        "nan": r"mlm_loss is nan, and the first gradient .* that of embeddings/norm/scale",
        "infinite gradient": "gradient that is not finite is that of embeddings/norm/scale",
        "huge gradient": "largest that of embeddings/norm/scale: .*e.25, whose square is beyond",
    }[kind]
    assert e.match(f"stopped at step 5: 3 consecutive updates were skipped. .*{says}")
    assert e.match("the last checkpoint is step 3. Look at it with .* with --init")
    assert "step 4: update skipped (2 in a row)" in caplog.text
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as saved:
        assert saved.steps() == [3]
        state = saved.restore(3, steps_of(config).like)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, state.opt)))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").open()]
    assert [loss is None for loss in losses[:4]] == [False, False, kind == "nan", kind == "nan"]


@pytest.mark.slow
def test_a_run_that_goes_on_counts_on(tmp_path: Path) -> None:
    """Bad rows in steps 3 and 4, stopped between them: the same state as in one go."""
    config = replace(CONFIG, guard=dict(spike="skip", spike_window=3))
    whole = fit(config, tmp_path / "whole", (3, 4))
    fit(replace(config, run=dict(steps=3)), tmp_path / "parts", (3, 4))
    assert same_bits(whole, fit(config, tmp_path / "parts", (3, 4)))
    assert int(whole.guard.skipped) == 2
