"""One train step for every objective, and the loop around it.

A step is a pure function of (state, batch); its randomness is a function of (seed, name,
step) and of the rows' numbers. So a run that was stopped goes on bit for bit from nothing
but its state, and any step can be run again on its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import optim, sharding
from bert_jax.checkpoint import Checkpoints, abstract
from bert_jax.config import Experiment
from bert_jax.guard import Stop
from bert_jax.log import RunLog
from bert_jax.objectives import Objective, total

Batch = dict[str, Any]


class State(NamedTuple):
    """All that a step changes."""

    step: jax.Array  # int32: completed updates
    params: dict[str, Any]
    opt: Any


def named_key(seed: int, name: str) -> jax.Array:
    """A key for one use of randomness."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


class Steps(NamedTuple):
    """The jitted functions of one experiment on one mesh."""

    like: State  # shapes, types and shardings of the state
    init: Callable[[], State]
    train: Callable[[State, Batch], tuple[State, dict[str, Any]]]  # the state is donated
    evaluate: Callable[[Any, Batch], dict[str, Any]]
    to_devices: Callable[[Batch], Batch]


def build(config: Experiment, objective: Objective, mesh: jax.sharding.Mesh) -> Steps:
    """Everything is laid out by the one table of sharding.py; fresh and restored states lie
    alike, so a restart compiles nothing anew."""
    sharding.check_batch(config.data.batch_size, config.optim.accumulate, mesh)
    decay = config.optim.layer_decay
    rates = None if decay is None else optim.layerwise(decay, config.encoder.layers)
    tx = optim.optimizer(config.optim, config.run.steps, rates)

    def init() -> State:
        params = objective.init(named_key(config.run.seed, "init"))
        return State(jnp.zeros((), jnp.int32), params, tx.init(params))

    shapes = jax.eval_shape(init)
    where = sharding.shardings(shapes, mesh)
    rows, whole = sharding.rows(mesh), sharding.replicated(mesh)
    train = jax.jit(
        partial(train_step, config, objective, tx),
        in_shardings=(where, rows),
        out_shardings=(where, whole),
        donate_argnums=0,
    )
    evaluate = jax.jit(
        partial(eval_step, config, objective),
        in_shardings=(where.params, rows),
        out_shardings=whole,
    )
    return Steps(
        like=abstract(shapes, where),
        init=jax.jit(init, out_shardings=where),
        train=train,
        evaluate=evaluate,
        to_devices=partial(sharding.to_devices, mesh=mesh),
    )


def train_step(
    config: Experiment,
    objective: Objective,
    tx: optax.GradientTransformation,
    state: State,
    batch: Batch,
) -> tuple[State, dict[str, Any]]:
    """One update: corrupt, differentiate each micro-batch, add up, update.

    The gradient is that of the whole batch's loss however many micro-batches it comes in,
    since each divides by the whole batch's counts.
    """
    seed = config.run.seed
    batch = objective.corrupt(batch, named_key(seed, "corruption"))
    counts = objective.counts(batch)
    dropout = jax.random.fold_in(named_key(seed, "dropout"), state.step)

    def loss(params: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        terms = objective.terms(params, part, key)
        return total(objective.weights, terms, counts), terms

    gradient = jax.value_and_grad(loss, has_aux=True)
    n = config.optim.accumulate
    if n == 1:
        (value, terms), grads = gradient(state.params, batch, dropout)
    else:
        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(sums: Any, xs: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, gradient(state.params, *xs)), None

        one = jax.tree.map(lambda x: x[0], parts)
        zero = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(gradient, state.params, one, dropout),
        )
        sums, _ = jax.lax.scan(add, zero, (parts, jax.random.split(dropout, n)))
        (value, terms), grads = sums
    updates, opt = tx.update(grads, state.opt, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    rate = optim.schedule(config.optim, config.run.steps)(state.step)
    return State(state.step + 1, params, opt), {"loss": value, "learning_rate": rate, **terms}


def eval_step(config: Experiment, objective: Objective, params: Any, batch: Batch) -> Any:
    """The terms of one batch, without dropout; a row has the same masks every time."""
    batch = objective.corrupt(batch, named_key(config.run.seed, "corruption"))
    return objective.terms(params, batch, None)


def evaluate(steps: Steps, objective: Objective, params: Any, batches: Iterable[Batch]) -> Any:
    """`eval_` metrics over all batches: totals and counts add up, then are divided once."""
    sums = None
    for batch in batches:
        terms = steps.evaluate(params, steps.to_devices(batch))
        sums = terms if sums is None else jax.tree.map(jnp.add, sums, terms)
    if sums is None:
        return {}
    values = plain(sums)
    values["loss"] = sum(w * values[name] for name, w in objective.weights.items())
    return {f"eval_{name}": value for name, value in values.items()}


def plain(metrics: dict[str, Any]) -> dict[str, float]:
    """Numbers for the log, fetched from the device together, in their shortest exact form."""
    values = {k: v.value if hasattr(v, "value") else v for k, v in metrics.items()}
    return {k: float(str(np.float32(v))) for k, v in jax.device_get(values).items()}


def fit(
    config: Experiment,
    steps: Steps,
    batches: Callable[[int], Iterator[Batch]],
    score: Callable[[Any], dict[str, float]],
    checkpoints: Checkpoints,
    folder: Path,
    stop: Stop,
) -> State:
    """Train from the newest checkpoint, or from the start, to `run.steps`.

    `batches(step)` yields the batches from a step on, `score(params)` the `eval_` metrics.
    Returns the last state; when `stop` carries a signal, that of the step it arrived in,
    saved.
    """
    run = config.run
    start = checkpoints.newest() or 0
    log = RunLog(folder if jax.process_index() == 0 else None, start, run.steps, plain)
    with log.timed("restore" if start else "init"):
        state = checkpoints.restore(start, steps.like) if start else steps.init()
        jax.block_until_ready(state)
    previous = None
    ahead = batches(start)
    for step in range(start + 1, run.steps + 1):
        batch = next(ahead)
        with log.timed("compile") if step == start + 1 else nullcontext():
            state, metrics = steps.train(state, steps.to_devices(batch))
        log.advance(int(batch["size"].sum()) * jax.process_count())
        # The step before is fetched while this one runs: the device never waits for the host,
        # and the host is never more than one step ahead.
        log.flush()
        jax.block_until_ready(previous)
        previous = metrics["loss"]
        last = step == run.steps or stop.signal is not None
        scoring = step % run.eval_every == 0 or step == run.steps
        saving = step % run.save_every == 0 or last
        if scoring or saving:
            jax.block_until_ready(previous)  # so that its time counts as a step's
        scores = {}
        if scoring:
            with log.timed("evaluate"):
                scores = score(state.params)
        if step % run.log_every == 0 or scores:
            log.defer({**metrics, **scores})
        if saving:
            log.sync()
            with log.timed("save"):
                checkpoints.save(step, state, config, scores or None)
        if last:
            break
    log.close()
    return state
