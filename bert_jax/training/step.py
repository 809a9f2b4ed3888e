"""The train step and the evaluation step of every objective, jitted with shardings.

A step is a pure function of (state, batch, seed). Its randomness follows from the seed, the
name of its use, the step and the numbers of the rows. So a stopped run resumes bit for bit
from its state alone, and any step can be computed again on its own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import optim
from bert_jax.config import Experiment, Masked, ReplacedTokens
from bert_jax.distributed import constraints, sharding
from bert_jax.model import lora
from bert_jax.objectives import CoupledObjective, DistilledObjective, Objective, total_loss
from bert_jax.objectives.masking_budget import with_scheduled_rate
from bert_jax.training import guard
from bert_jax.training.compiled_steps import (
    NOTHING_FIXED,
    BoundSeed,
    CompiledSteps,
    Seed,
    TrainState,
)
from bert_jax.training.coupled_gradients import coupled_gradients
from bert_jax.utils import pytree
from bert_jax.utils.metrics_log import logged_precision
from bert_jax.utils.types import Batch


def compile_steps(
    config: Experiment, objective: Objective, mesh: jax.sharding.Mesh
) -> CompiledSteps:
    """Jit the steps with the shardings of distributed/sharding.py.

    Fresh and restored states have the same shardings, so a restart compiles nothing new.
    ValueError: a stage's batch does not divide over the mesh and the micro-batches; adapters that
    do not fit the layers.
    """
    for stage in config.stages:
        sharding.check_batch(stage.batch_size, config.optim.accumulate, mesh)
    tx = _optimizer(config)
    seed = np.uint32(config.run.seed % 2**32)  # as `jax.random.key` converts an integer
    init, init_base = _initializers(config, objective, tx, mesh)
    traced = jax.jit(init)  # traced once: the jit with shardings below reuses the trace
    shapes = jax.eval_shape(traced, seed)
    state = sharding.shardings(shapes, mesh)
    rows, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    fixed_shapes = {
        "base": jax.eval_shape(init_base, seed),
        "teacher": jax.eval_shape(partial(teacher_params, objective, mesh)),
    }
    fixed = sharding.shardings(fixed_shapes, mesh)
    init_base = jax.jit(init_base, in_shardings=replicated, out_shardings=fixed["base"])
    train = jax.jit(
        sharding.with_mesh(mesh, partial(train_step, config, objective, tx)),
        in_shardings=(state, rows, fixed, replicated),
        out_shardings=(state, replicated),
        donate_argnums=0,
    )
    evaluate = jax.jit(
        sharding.with_mesh(mesh, partial(eval_step, objective)),
        in_shardings=(state.params, rows, fixed, replicated),
        out_shardings=replicated,
    )
    report = jax.jit(
        sharding.with_mesh(mesh, partial(gradient_report, config, objective)),
        in_shardings=(state.params, replicated, rows, fixed, replicated),
        out_shardings=replicated,
    )
    steps = CompiledSteps(
        like=pytree.abstract(shapes, state),
        init=BoundSeed(jax.jit(traced, in_shardings=replicated, out_shardings=state), seed),
        train=BoundSeed(train, seed),
        evaluate=BoundSeed(evaluate, seed),
        gradient_report=BoundSeed(report, seed),
        to_devices=partial(sharding.to_devices, mesh=mesh),
        host_share=sharding.host_share(mesh),
        init_base=BoundSeed(init_base, seed),
    )
    return steps.with_fixed(**pytree.abstract(fixed_shapes, fixed))


def _optimizer(config: Experiment) -> optax.GradientTransformation:
    decay, depth = config.optim.layer_decay, optim.network_depth(config)
    rates = None if decay is None else optim.layerwise_lr_decay(decay, depth)
    return optim.optimizer(config.optim, config.run.steps, rates, depth)


def _initializers(
    config: Experiment,
    objective: Objective,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> tuple[Callable[[Seed], TrainState], Callable[[Seed], Any]]:
    """Seed -> the state at step 0, and seed -> the random base ({} without adapters)."""

    def init_params(seed: Seed) -> Any:
        return sharding.pad_vocab(objective.init(named_key(seed, "init")), mesh)

    def init(seed: Seed) -> TrainState:
        params = init_params(seed)
        if config.lora.enabled:
            adapters = lora.init_adapters(config.lora, params, named_key(seed, "lora"))
            params = lora.join(adapters, lora.split_base(params)[0])
        history = guard.init(config.guard)
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), history)

    def init_base(seed: Seed) -> Any:
        return lora.split_base(init_params(seed))[1] if config.lora.enabled else {}

    return init, init_base


def teacher_params(objective: Objective, mesh: jax.sharding.Mesh) -> Any:
    """Random parameters of an objective's teacher, for their shapes; {} without a teacher."""
    if not isinstance(objective, DistilledObjective):
        return {}
    return sharding.pad_vocab(objective.teacher.init(jax.random.key(0)), mesh)


def with_teacher(objective: Objective, params: Any) -> Objective:
    """The objective with its teacher's parameters, if it has a teacher."""
    return (
        objective.with_teacher(params) if isinstance(objective, DistilledObjective) else objective
    )


def named_key(seed: Seed, name: str) -> jax.Array:
    """The key for one use of randomness, such as "init", "corruption" or "dropout"."""
    key = jax.random.key(seed, impl=constraints.PRNG)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def compute_gradients(
    config: Experiment,
    objective: Objective,
    params: Any,
    step: jax.Array,
    batch: Batch,
    seed: Seed,
    fixed: Any = NOTHING_FIXED,
) -> tuple[jax.Array, dict[str, Any], Any]:
    """Loss (scalar), terms and gradient (a tree like `params`) of one step; `fixed` as in
    `CompiledSteps`.

    Gradient accumulation gives the gradient of the whole batch's loss: each micro-batch
    divides by the whole batch's counts, so the sums add up exactly.
    """
    if isinstance(config.objective, Masked | ReplacedTokens):
        progress = step / (config.optim.decay_steps or config.run.steps)
        batch = with_scheduled_rate(batch, config.objective.masking, progress)
    dropout = jax.random.fold_in(named_key(seed, "dropout"), step)
    f = constraints.data_parallel(partial(_summed_gradients, config, objective))
    keys = named_key(seed, "corruption"), dropout
    (value, terms), grads = f((params, fixed), batch, keys)
    grads = optim.zero_frozen(config.optim.freeze, optim.network_depth(config), grads)
    return value, terms, grads


def _summed_gradients(
    config: Experiment,
    objective: Objective,
    params_and_fixed: tuple[Any, Any],
    batch: Batch,
    keys: tuple[jax.Array, jax.Array],
) -> Any:
    """((loss, terms), gradient), summed over this device's rows, then over all devices."""
    (params, fixed), (corruption, dropout) = params_and_fixed, keys
    whole = partial(lora.join, base=fixed["base"])
    objective = with_teacher(objective, fixed["teacher"])
    batch = objective.corrupt(batch, corruption)
    counts = constraints.psum_batch(objective.counts(batch))

    def loss(params: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        terms = objective.terms(whole(params), part, key)
        return total_loss(objective.weights, terms, counts), terms

    n = config.optim.accumulate
    if isinstance(objective, CoupledObjective):
        return constraints.psum_batch(
            coupled_gradients(objective, whole, params, batch, dropout, counts, n)
        )
    gradient = jax.value_and_grad(loss, has_aux=True)
    if n == 1:
        return constraints.psum_batch(gradient(params, batch, dropout))
    parts = pytree.split_rows(batch, n)

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
    fixed: Any,
    seed: Seed,
) -> tuple[TrainState, dict[str, Any]]:
    """One update, and its metrics.

    An update with non-finite numbers is skipped (guard/nonfinite.py): everything stays as it
    was but `step`, since the batch is used up. The learning rate follows the updates made.
    """
    value, terms, grads = compute_gradients(
        config, objective, state.params, state.step, batch, seed, fixed
    )
    norm = optax.tree.norm(grads)  # clipping takes the same sum: XLA computes it once
    good, history = guard.check_update(config.guard, state.guard, value, norm)
    updates, opt = tx.update(grads, state.opt, state.params)
    updated = optax.apply_updates(state.params, updates), opt
    params, opt = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), updated, (state.params, state.opt)
    )
    rate = optim.schedule(config.optim, config.run.steps)(optim.updates_done(state.opt))
    metrics = {"loss": value, "learning_rate": rate, "gradient_norm": norm, **terms}
    metrics |= {"skipped": history.skipped, "spikes": history.spikes}
    return TrainState(state.step + 1, params, opt, history), metrics


def eval_step(objective: Objective, params: Any, batch: Batch, fixed: Any, seed: Seed) -> Any:
    """The terms of one batch without dropout. A row has the same masks at every evaluation."""
    objective = with_teacher(objective, fixed["teacher"])
    batch = objective.corrupt(batch, named_key(seed, "corruption"))
    return objective.terms(lora.join(params, fixed["base"]), batch, None)


def gradient_report(
    config: Experiment,
    objective: Objective,
    params: Any,
    step: jax.Array,
    batch: Batch,
    fixed: Any,
    seed: Seed,
) -> dict[str, Any]:
    """Terms, and gradient and parameter norms of every leaf, of the step after `step` steps."""
    _, terms, grads = compute_gradients(config, objective, params, step, batch, seed, fixed)
    return guard.gradient_norms(terms, grads, params)


def to_floats(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics for the log: fetched from the device together, in their shortest exact form.

    A mean over no position has no figure and is left out. `loss` is NaN where all terms are empty:
    no token was hidden and no pair had a label, which is no perfect score.
    """
    values = {k: v.value if hasattr(v, "value") else v for k, v in metrics.items()}
    empty = {k: v.is_empty for k, v in metrics.items() if hasattr(v, "is_empty")}
    values, empty = jax.device_get((values, empty))
    floats = {k: logged_precision(v) for k, v in values.items() if not empty.get(k, False)}
    if empty and all(empty.values()) and "loss" in floats:
        floats["loss"] = math.nan
    return floats
