"""Measure how fast a config trains on this machine, alone or alternating with PyTorch.

options            flags, and the config that they make
inputs             rows of a corpus, or of random ids
train_step         bert_jax: the train step of `pretrain`
transformers_peer  transformers: a masked language model
timer              alternating rounds, medians, idle share
device             peak FLOP/s, published or measured; memory
batch_size         the largest batch that fits
result             the JSON object, and its text
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import jax

from bert_jax.config import Experiment
from bert_jax.distributed import sharding
from bert_jax.perf.bench import timer, transformers_peer
from bert_jax.perf.bench.batch_size import find_max_batch_size
from bert_jax.perf.bench.device import PeakMeter
from bert_jax.perf.bench.inputs import BenchInputs, check_peer_inputs, open_inputs
from bert_jax.perf.bench.options import BenchOptions, bench_config
from bert_jax.perf.bench.result import (
    bert_jax_result,
    peer_result,
    render_bench,
    training_result,
)
from bert_jax.perf.bench.train_step import BertJax
from bert_jax.perf.training_variants import adapters_name, training_variants
from bert_jax.utils import compilation_cache
from bert_jax.utils.types import Json

__all__ = ["BenchOptions", "bench", "measure", "prepare", "render_bench"]


@dataclass(frozen=True)
class Prepared:
    """What `bench` times, compiled."""

    inputs: BenchInputs
    options: BenchOptions
    mesh: jax.sharding.Mesh
    contender: BertJax
    peers: list[transformers_peer.Transformers]
    family: str | None  # of transformers
    others: dict[str, BertJax]  # for a config with adapters: other choices of what to train


def bench(config: Experiment, options: BenchOptions, log: Callable[[str], None] = print) -> Json:
    """The JSON object of `bert-jax bench`; docs/performance.md lists its keys.

    ValueError: the batch or mesh does not fit the devices, PyTorch is missing, the corpus is
    invalid, or the corpus for transformers is packed.
    """
    with ExitStack() as stack:
        return measure(prepare(config, options, stack, log), log)


def prepare(
    config: Experiment,
    options: BenchOptions,
    stack: ExitStack,
    log: Callable[[str], None] = print,
) -> Prepared:
    """What `measure` times. `stack` removes temporary files, and ends the compilation without a
    cache.

    ValueError: see `bench`.
    """
    family = transformers_peer.peer_family(config) if options.against else None
    config = bench_config(config, options)
    devices = jax.devices()[:1] if family else jax.devices()
    torch_device = transformers_peer.torch_device(devices[0].platform) if family else None
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(config.data.batch_size, config.optim.accumulate, mesh)
    stack.enter_context(compilation_cache.disabled())
    inputs = open_inputs(config, options.packed or options.data, stack)
    peer_inputs = open_inputs(config, options.data, stack) if options.packed else inputs
    if family:
        check_peer_inputs(inputs, peer_inputs)
    contender = BertJax(inputs, devices)
    log(f"compiling the step of {inputs.config.data.batch_size} x {inputs.config.data.length}")
    with ThreadPoolExecutor(1) as thread:  # PyTorch's compiler runs beside XLA
        compiling = thread.submit(contender.compile)
        peers = []
        if family and torch_device:
            source = contender if peer_inputs is inputs else BertJax(peer_inputs, devices)
            log("compiling the model of transformers")
            peers = transformers_peer.build_peers(
                *(peer_inputs.config, family, source.masked_batches()),
                *(torch_device, options.peer_variants),
            )
        compiling.result()
    variants = {} if family else training_variants(inputs.config)
    others = {
        name: BertJax(dataclasses.replace(inputs, config=variant), devices, name)
        for name, variant in variants.items()
    }
    for other in others.values():
        other.compile()
    return Prepared(inputs, options, mesh, contender, peers, family, others)


def measure(prepared: Prepared, log: Callable[[str], None] = print) -> Json:
    """The JSON object of `bench`: time everything in alternating rounds."""
    contender, options, inputs = prepared.contender, prepared.options, prepared.inputs
    contenders: list[timer.Contender] = [contender, *prepared.peers, *prepared.others.values()]
    log(f"timing {options.steps} rounds of {', '.join(c.name for c in contenders)}")
    peak = PeakMeter(contender.mesh.devices.flat[0], inputs.config.run.dtype)
    times = timer.alternate(contenders, options.steps, after_round=peak.measure)
    result = bert_jax_result(contender, times, peak.best())
    if prepared.family:
        result |= peer_result(contender, prepared.peers, times, prepared.family)
    if prepared.others:
        names = [adapters_name(inputs.config), *prepared.others]
        trained = dict(zip(names, [contender, *prepared.others.values()], strict=True))
        result["trains"] = training_result(trained, times)
    result["input"] = inputs.loader_rate()
    result["idle_share"] = contender.idle_share(max(4, options.steps))
    if options.fit:
        log("searching the largest batch that fits")
        result["fit"] = find_max_batch_size(inputs, prepared.mesh)._asdict()
    return result
