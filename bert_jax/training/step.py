"""One train step for every objective, and the loop around it.

A step is a pure function of (state, batch); its randomness is a function of (seed, name,
step) and of the rows' numbers. So a run that was stopped goes on bit for bit from nothing
but its state, and any step can be run again on its own.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import optim
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Masked, ReplacedTokens
from bert_jax.distributed import constraints, sharding
from bert_jax.objectives import Objective, total
from bert_jax.objectives.masking import with_scheduled_rate
from bert_jax.training import guard
from bert_jax.training.guard import PreemptionHandler, SkipMonitor, Watchdog
from bert_jax.training.metrics_writer import MetricsWriter
from bert_jax.training.profiler import Profiler
from bert_jax.utils import pytree
from bert_jax.utils.errors import RunError
from bert_jax.utils.types import Batch

Seed = int | np.uint32 | jax.Array


class TrainState(NamedTuple):
    """All that a step changes."""

    step: jax.Array  # int32: batches consumed; `opt` counts the updates that were made
    params: dict[str, Any]
    opt: Any
    guard: guard.LossHistory


def named_key(seed: Seed, name: str) -> jax.Array:
    """A key for one use of randomness."""
    return jax.random.fold_in(
        jax.random.key(seed, impl=constraints.PRNG), zlib.crc32(name.encode())
    )


class BoundSeed(NamedTuple):
    """A jitted function and its last argument, the seed of the run: were it a constant of the
    program, every seed would be compiled anew."""

    jitted: Any  # as `jax.jit` made it
    seed: np.uint32

    def __call__(self, *args: Any) -> Any:
        return self.jitted(*args, self.seed)

    def lower(self, *args: Any) -> Any:
        return self.jitted.lower(*args, self.seed)


class CompiledSteps(NamedTuple):
    """The jitted functions of one experiment on one mesh."""

    like: TrainState  # shapes, types and shardings of the state
    init: Callable[[], TrainState]
    train: BoundSeed  # (state, batch) -> (state, metrics); the state is donated
    evaluate: BoundSeed  # (parameters, batch) -> terms
    gradient_report: BoundSeed  # (parameters, step, its batch) -> terms and norms
    to_devices: Callable[[Batch], Batch]
    host_share: float = 1  # of this process's rows in a batch


def build_steps(config: Experiment, objective: Objective, mesh: jax.sharding.Mesh) -> CompiledSteps:
    """Everything is laid out by the one table of sharding.py; fresh and restored states lie
    alike, so a restart compiles nothing anew."""
    for stage in config.stages:
        sharding.check_batch(stage.batch_size, config.optim.accumulate, mesh)
    decay = config.optim.layer_decay
    rates = None if decay is None else optim.layerwise(decay, config.encoder.layers)
    tx = optim.optimizer(config.optim, config.run.steps, rates)

    seed = np.uint32(config.run.seed % 2**32)  # as `jax.random.key` takes an integer

    def init(seed: Seed) -> TrainState:
        params = sharding.pad_vocab(objective.init(named_key(seed, "init")), mesh)
        history = guard.init(config.guard)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), history)

    once = jax.jit(init)  # traced here; the one below, with shardings, takes that trace over
    shapes = jax.eval_shape(once, seed)
    where = sharding.shardings(shapes, mesh)
    rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    train = jax.jit(
        sharding.with_mesh(mesh, partial(train_step, config, objective, tx)),
        in_shardings=(where, rows, whole),
        out_shardings=(where, whole),
        donate_argnums=0,
    )
    evaluate = jax.jit(
        sharding.with_mesh(mesh, partial(eval_step, objective)),
        in_shardings=(where.params, rows, whole),
        out_shardings=whole,
    )
    look = jax.jit(
        sharding.with_mesh(mesh, partial(gradient_report, config, objective)),
        in_shardings=(where.params, whole, rows, whole),
        out_shardings=whole,
    )
    return CompiledSteps(
        like=pytree.abstract(shapes, where),
        init=BoundSeed(jax.jit(once, in_shardings=whole, out_shardings=where), seed),
        train=BoundSeed(train, seed),
        evaluate=BoundSeed(evaluate, seed),
        gradient_report=BoundSeed(look, seed),
        to_devices=partial(sharding.to_devices, mesh=mesh),
        host_share=sharding.host_share(mesh),
    )


def gradients(
    config: Experiment,
    objective: Objective,
    params: Any,
    step: jax.Array,
    batch: Batch,
    seed: Seed,
) -> tuple[jax.Array, dict[str, Any], Any]:
    """Loss, terms and gradient of a step: corrupt, differentiate each micro-batch, add up.

    The gradient is that of the whole batch's loss however many micro-batches it comes in,
    since each divides by the whole batch's counts.
    """
    if isinstance(config.objective, Masked | ReplacedTokens):
        done = step / (config.optim.decay_steps or config.run.steps)
        batch = with_scheduled_rate(batch, config.objective.masking, done)
    dropout = jax.random.fold_in(named_key(seed, "dropout"), step)
    f = constraints.data_parallel(partial(_sums, config, objective))
    (value, terms), grads = f(params, batch, (named_key(seed, "corruption"), dropout))
    return value, terms, grads


def _sums(
    config: Experiment,
    objective: Objective,
    params: Any,
    batch: Batch,
    keys: tuple[jax.Array, jax.Array],
) -> Any:
    """((loss, terms), gradient): sums over rows, those of this device, then those of all."""
    corruption, dropout = keys
    batch = objective.corrupt(batch, corruption)
    counts = constraints.psum_batch(objective.counts(batch))

    def loss(params: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        terms = objective.terms(params, part, key)
        return total(objective.weights, terms, counts), terms

    gradient = jax.value_and_grad(loss, has_aux=True)
    n = config.optim.accumulate
    if n == 1:
        return constraints.psum_batch(gradient(params, batch, dropout))
    parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(sums: Any, xs: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradient(params, *xs)), None

    one = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, one, dropout)
    )
    sums, _ = jax.lax.scan(add, zero, (parts, jax.random.split(dropout, n)))
    return constraints.psum_batch(sums)


def train_step(
    config: Experiment,
    objective: Objective,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    seed: Seed,
) -> tuple[TrainState, dict[str, Any]]:
    """One update; or none, where its numbers would spoil the model (guard/numbers.py): then all
    stays as it was but `step`, since the batch is used up. The learning rate follows the updates
    that were made."""
    value, terms, grads = gradients(config, objective, state.params, state.step, batch, seed)
    norm = optax.tree.norm(grads)  # the same sum that clipping takes: XLA computes it once
    good, history = guard.check_update(config.guard, state.guard, value, norm)
    updates, opt = tx.update(grads, state.opt, state.params)
    made = optax.apply_updates(state.params, updates), opt
    params, opt = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), made, (state.params, state.opt)
    )
    rate = optim.schedule(config.optim, config.run.steps)(optim.updates_done(state.opt))
    metrics = {"loss": value, "learning_rate": rate, "gradient_norm": norm, **terms}
    metrics |= {"skipped": history.skipped, "spikes": history.spikes}
    return TrainState(state.step + 1, params, opt, history), metrics


def gradient_report(
    config: Experiment,
    objective: Objective,
    params: Any,
    step: jax.Array,
    batch: Batch,
    seed: Seed,
) -> dict[str, Any]:
    """Terms, and norms by leaf, of the step that follows `step` completed ones."""
    _, terms, grads = gradients(config, objective, params, step, batch, seed)
    return guard.gradient_norms(terms, grads, params)


def eval_step(objective: Objective, params: Any, batch: Batch, seed: Seed) -> Any:
    """The terms of one batch, without dropout; a row has the same masks every time."""
    batch = objective.corrupt(batch, named_key(seed, "corruption"))
    return objective.terms(params, batch, None)


def evaluate(
    steps: CompiledSteps, objective: Objective, params: Any, batches: Iterable[Batch]
) -> Any:
    """`eval_` metrics over all batches: totals and counts add up, then are divided once."""
    sums = None
    for batch in batches:
        terms = steps.evaluate(params, steps.to_devices(batch))
        sums = terms if sums is None else jax.tree.map(jnp.add, sums, terms)
    if sums is None:
        return {}
    values = to_floats(sums)
    values["loss"] = sum(w * values[name] for name, w in objective.weights.items())
    return {f"eval_{name}": value for name, value in values.items()}


def to_floats(metrics: dict[str, Any]) -> dict[str, float]:
    """Numbers for the log, fetched from the device together, in their shortest exact form."""
    values = {k: v.value if hasattr(v, "value") else v for k, v in metrics.items()}
    return {k: float(str(np.float32(v))) for k, v in jax.device_get(values).items()}


def fit(
    config: Experiment,
    steps: CompiledSteps,
    batches: Callable[[int], Iterator[Batch]],
    score: Callable[[Any], dict[str, float]],
    checkpoints: Checkpoints,
    folder: Path,
    stop: PreemptionHandler,
    save_scored: bool = False,
    profile: int = 0,
) -> TrainState:
    """Train from the newest checkpoint, or from the start, to `run.steps`.

    `batches(step)` yields the batches from a step on, `score(params)` the `eval_` metrics. With
    `save_scored` every step that is scored is saved too, so that the best is among the saved.
    `profile` steps are traced into the folder's `profile/`.
    Returns the last state; when `stop` carries a signal, that of the step it arrived in,
    saved. Failure: too many updates in a row had numbers that would spoil the model.
    """
    run, start = config.run, checkpoints.newest() or 0
    log = MetricsWriter(folder if jax.process_index() == 0 else None, start, run.steps, to_floats)
    trace = Profiler(folder / "profile", profile, start)
    with (
        contextlib.closing(log),
        contextlib.closing(trace),
        Watchdog(config.guard, folder) as dog,
    ):
        phase = partial(_phase, log, dog)
        with phase("restore" if start else "init"):
            state = checkpoints.restore(start, steps.like) if start else steps.init()
            jax.block_until_ready(state)
        tally = SkipMonitor(config.guard, state.guard, start)
        ahead, compiled = batches(start), set()
        for step in range(start + 1, run.steps + 1):
            dog.step(step)
            trace.before(step)
            with dog.phase("data"), log.data_wait():
                batch = next(ahead)
            shapes = frozenset((name, x.shape) for name, x in batch.items())
            with contextlib.nullcontext() if shapes in compiled else phase("compile"):
                state, metrics = steps.train(state, steps.to_devices(batch))
            compiled.add(shapes)
            trace.after(step, state)
            log.advance(int(batch["size"].sum()) * steps.host_share)
            # The step before is fetched while this one runs: the device never waits for the
            # host, and the host is never more than one step ahead.
            log.flush()
            checkpoints.refresh_lock()
            tally.update(step, metrics)
            last = stop.should_stop() or step == run.steps
            scoring = step % run.eval_every == 0 or step == run.steps
            saving = step % run.save_every == 0 or last or (scoring and save_scored)
            if scoring or saving:
                tally.finish()  # nothing bad is saved, and the step's time counts as its own
            if tally.halted:
                raise RunError(_why(config, steps, state, batches, tally.step, checkpoints, folder))
            scores = {}
            if scoring:
                with phase("evaluate"):
                    scores = score(state.params)
            if step % run.log_every == 0 or scores:
                log.write({**metrics, **scores})
            if saving:
                log.sync()
                with phase("save"):
                    checkpoints.save(step, state, config, scores or None)
            if last:
                break
    return state


@contextlib.contextmanager
def _phase(log: MetricsWriter, dog: Watchdog, what: str) -> Iterator[None]:
    """Something else than steps: timed by the log, watched by the dog."""
    with dog.phase(what), log.timer(what):
        yield


def _why(
    config: Experiment,
    steps: CompiledSteps,
    state: TrainState,
    batches: Callable[[int], Iterator[Batch]],
    step: int,
    checkpoints: Checkpoints,
    folder: Path,
) -> str:
    """What was bad at `step`, computed again: since no update was made, from the same state."""
    batch = steps.to_devices(next(batches(step - 1)))
    found = jax.device_get(steps.gradient_report(state.params, np.int32(step - 1), batch))
    row, newest = config.guard.max_skipped_updates, checkpoints.newest()
    return (
        f"stopped at step {step}: {row} updates in a row were left out. At this step "
        f"{guard.first_nonfinite(found)}. Nothing bad was saved: "
        + (f"the last checkpoint is step {newest}" if newest else "there is no checkpoint yet")
        + f". Look with `bert-jax replay {folder} {step}`; mend the data or the rate, or raise "
        "--guard.max_skipped_updates"
    )
