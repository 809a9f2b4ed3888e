"""How fast a config trains on this machine, and against PyTorch in the same run.

clock    rounds in turns, medians, the idle share
device   peaks, measured or published; memory
rows     what is trained on
ours     the train step of `pretrain`
peer     a masked language model of transformers
fit      the largest batch that fits
"""

from __future__ import annotations

import dataclasses
import datetime
import platform as machine
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import jax

from bert_jax import config
from bert_jax.config import Experiment, Masked, ReplacedTokens, Supervised
from bert_jax.distributed import constraints, sharding
from bert_jax.perf import collectives, flops
from bert_jax.perf.bench import batch_size as fit
from bert_jax.perf.bench import device, inputs, timer, transformers_peer
from bert_jax.perf.bench.inputs import BenchInputs
from bert_jax.perf.bench.ours import BertJax, compile_for_batch_size
from bert_jax.utils import compilation_cache
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import Json

STEPS = 20
MOST_ROWS = 1 << 20  # that --fit looks at


@dataclass(frozen=True)
class BenchOptions:
    """What a measurement is of, beside the config."""

    batch_size: int | None = None  # None: the config's
    length: int | None = None
    steps: int = STEPS  # rounds that are timed, of each side
    against: bool = False
    fit: bool = False
    data: str | None = None  # a corpus; None: full rows of random ids
    packed: str | None = None  # another for our side: the same text, packed
    compile: bool = True  # theirs, with torch.compile

    def __post_init__(self) -> None:
        for name in ("batch_size", "length", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is {value}: expected at least 1")
        if not (self.compile or self.against):
            raise ValueError("--no-compile is of their side: it needs --against transformers")
        if self.packed and not (self.data and self.against):
            raise ValueError(
                "--packed is our side's corpus beside theirs: it needs --against and --data, the "
                "same text without --pack; to time packed rows alone give them to --data"
            )


def bench(experiment: Experiment, asked: BenchOptions, say: Callable[[str], None] = print) -> Json:
    """Everything that `bert-jax bench --json` prints.

    ValueError: a batch or mesh that does not fit the devices, no PyTorch, a corpus that is none,
    packed rows for the peer.
    """
    family = transformers_peer.family_of(experiment) if asked.against else None
    experiment = _shaped(_masked_alone(experiment) if family else experiment, asked)
    if isinstance(experiment.objective, config.Imported):
        raise ValueError("the config names no objective: nothing is trained")
    devices = jax.devices()[:1] if family else jax.devices()
    if family:
        transformers_peer.place(devices[0].platform)
    mesh = sharding.make_mesh(experiment.mesh, devices)
    size, parts = experiment.data.batch_size, experiment.optim.accumulate
    sharding.check_batch(size, parts, mesh)
    with ExitStack() as stack, compilation_cache.disabled():
        mine = _rows(experiment, asked.packed or asked.data, stack)
        given = _rows(experiment, asked.data, stack) if asked.packed else mine
        if family:
            _check_theirs(mine, given)
        say(f"compiling the step of {size} x {mine.config.data.length}")
        ours = BertJax(mine, devices)
        sides: list[timer.Contender] = [ours]
        if family:
            batches = ours.corrupted() if given is mine else BertJax(given, devices).corrupted()
            say("building theirs")
            where = devices[0].platform
            sides += transformers_peer.sides(given.config, family, batches, where, asked.compile)
        say(f"timing {asked.steps} rounds of {', '.join(side.name for side in sides)}")
        times = timer.alternate(sides, asked.steps)
        out = _ours(ours, mesh, times)
        if family:
            out |= _against(sides, times, family)
        out |= {"input": mine.rate(), "idle_share": ours.idle_share(max(4, asked.steps))}
        if asked.fit:
            say("looking for the largest batch that fits")
            out["fit"] = _fit(mine, mesh)
    return out


def _masked_alone(experiment: Experiment) -> Experiment:
    """A masked language model of the config's encoder, and nothing beside it."""
    objective = experiment.objective
    if isinstance(objective, Masked):
        objective = dataclasses.replace(objective, sentence_pair=False, sbo_weight=0.0)
    else:
        electra = isinstance(objective, ReplacedTokens)
        objective = Masked(objective.masking if electra else config.Masking(), sentence_pair=False)
    return config.replace(experiment, objective=objective, mesh=config.Mesh())


def _shaped(experiment: Experiment, asked: BenchOptions) -> Experiment:
    """With the asked batch and length, else those of its last stage, and no corpus: `_rows` has
    the asked one."""
    last = experiment.stages[-1]
    length = asked.length or last.length
    if length is None and isinstance(experiment.objective, Supervised):
        length = min(experiment.objective.default_length, experiment.encoder.max_length)
    return config.replace(
        experiment,
        data=dict(
            stages=None,
            batch_size=asked.batch_size or last.batch_size,
            length=length,
            path=None,
            mix=None,
        ),
    )


def _rows(experiment: Experiment, corpus: str | None, stack: ExitStack) -> BenchInputs:
    if corpus is None:
        return inputs.of_random_ids(experiment, stack)
    if isinstance(experiment.objective, Supervised):
        raise ValueError("--data is a corpus for pre-training: a config of fine-tuning has none")
    return inputs.of_corpus(config.replace(experiment, data=dict(path=corpus)))


def _check_theirs(mine: BenchInputs, given: BenchInputs) -> None:
    """ValueError: rows that a model of theirs cannot take, or that are no text of ours."""
    if given.packed:
        raise ValueError(
            "--data has packed rows, which --against transformers cannot take: give the same text "
            "prepared without --pack as --data, and this corpus as --packed"
        )
    a, b = (r.config.encoder.vocab_size for r in (mine, given))
    if a != b:
        raise ValueError(f"--packed has a vocabulary of {a}, --data of {b}: prepare both alike")


def _ours(ours: BertJax, mesh: jax.sharding.Mesh, times: timer.Times) -> Json:
    experiment = ours.inputs.config
    shape, chips = experiment.data, list(mesh.devices.flat)
    assert shape.length is not None
    seconds = times.median(ours.name)
    real, padded = ours.real_tokens / seconds, ours.padded_tokens / seconds
    work = flops.step(experiment, ours.padded_tokens // shape.length, shape.length)
    peak = device.peak(chips[0], experiment.run.dtype)
    reached = work / (seconds * len(chips) * peak.flops)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": chips[0].device_kind,
        "platform": chips[0].platform,
        "machine": f"{machine.machine()} {machine.python_version()}",
        "devices": len(chips),
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "objective": type(experiment.objective).__name__,
        "rows": ours.inputs.source,
        "batch_size": shape.batch_size,
        "length": shape.length,
        "dtype": experiment.run.dtype,
        "dropout": [experiment.encoder.dropout, experiment.encoder.attention_dropout],
        "parameters": _parameters(ours),
        "compile_seconds": ours.compile_seconds,
        "step_seconds": seconds,
        "rounds": times.seconds[ours.name],
        "tokens_per_step": ours.real_tokens,
        "tokens_per_second": real,
        "padded_tokens_per_second": padded,
        "flops_per_step": work,
        "flops_per_second": work / seconds,
        "peak_flops": peak.flops,
        "peak": peak.source,
        "utilisation": reached,
        "utilisation_of_real_tokens": reached * ours.real_tokens / ours.padded_tokens,
        "memory": {
            **device.step_memory(ours.compiled),
            "device_peak": device.memory_peak(chips),
            "device_limit": device.memory(chips[0]),
        },
        "collectives": collectives.by_kind(ours.compiled.as_text()),
    }


def _parameters(ours: BertJax) -> int:
    return sum(x.size for x in jax.tree.leaves(ours.steps.like.params))


def _against(sides: list[timer.Contender], times: timer.Times, family: str) -> Json:
    """Ratios against the fastest of their ways, gathered and stock."""
    ours, theirs = sides[0], sides[1:]
    found: Json = {}
    for side in theirs:
        seconds = times.median(side.name)
        tokens = ours.real_tokens / side.real_tokens
        found[side.name] = {
            "step_seconds": seconds,
            "rounds": times.seconds[side.name],
            "tokens_per_second": side.real_tokens / seconds,
            "padded_tokens_per_second": side.padded_tokens / seconds,
            "ratio": times.ratio(ours.name, side.name, tokens),
        }

    def least(stock: bool) -> str:
        names = [name for name in found if name.startswith("stock") == stock]
        return min(names, key=lambda name: found[name]["ratio"])

    best, stock = least(False), least(True)
    return {
        "against": {
            "name": "transformers",
            **transformers_peer.versions(),
            "family": family,
            "best": best,
            "best_stock": stock,
            "sides": found,
        },
        "ratio": found[best]["ratio"],
        "ratio_stock": found[stock]["ratio"],
    }


def _fit(mine: BenchInputs, mesh: jax.sharding.Mesh) -> Json:
    """The largest batch; what runs out of memory while it is compiled does not fit either."""
    experiment = mine.config
    unit = constraints.axis_size(mesh, constraints.BATCH_AXES) * experiment.optim.accumulate
    limit = device.memory(mesh.devices.flat[0])

    def peak_of(size: int) -> int | None:
        try:
            made = compile_for_batch_size(mine, list(mesh.devices.flat), size)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            return None
        return device.step_memory(made)["peak"]

    return fit.max_batch_size(peak_of, limit, unit, MOST_ROWS)._asdict()


def render_bench(found: Json) -> str:
    """The figures of a measurement as text."""
    m, gib = found["memory"], 1 << 30
    peak = f"{found['peak']} peak {found['peak_flops'] / 1e12:.3g} TFLOP/s"
    lines = [
        ("device", f"{found['devices']} x {found['device']}, jax {found['jax']}"),
        ("model", f"{found['objective']}, {found['parameters']:,} parameters, {found['dtype']}"),
        ("batch", f"{found['batch_size']} x {found['length']}, {found['rows']} rows"),
        ("compile", f"{found['compile_seconds']:.1f} s"),
        ("step", f"{found['step_seconds'] * 1e3:.1f} ms, median of {len(found['rounds'])}"),
        ("tokens/s", f"{found['tokens_per_second']:,.0f}"),
        ("with padding", f"{found['padded_tokens_per_second']:,.0f}"),
        ("FLOP/s", f"{found['flops_per_second'] / 1e12:.3g} T, {peak}"),
        ("utilization", f"{found['utilisation']:.1%}"),
        ("step memory", f"{m['peak'] / gib:.2f} of {m['device_limit'] / gib:.1f} GiB"),
    ]
    sent = {k: v for k, v in found["collectives"].items() if v}
    lines += [("collectives", f"{k} {v / 1e6:.1f} MB") for k, v in sent.items()]
    if found["input"]:
        lines.append(("loader alone", f"{found['input']['tokens_per_second']:,.0f} tokens/s"))
    if found["idle_share"] is not None:
        lines.append(("device idle", f"{found['idle_share']:.2%} of the step loop"))
    if "against" in found:
        against = found["against"]
        lines.append(("against", f"transformers {against['transformers']}, {against['torch']}"))
        for name, side in against["sides"].items():
            lines.append((name, f"{side['tokens_per_second']:,.0f} tokens/s"))
        lines.append(("ratio", f"{found['ratio']:.2f} to {against['best']}"))
        lines.append(("ratio to stock", f"{found['ratio_stock']:.2f}"))
    if "fit" in found:
        lines.append(("largest batch", f"{found['fit']['batch_size']} rows"))
    return format_table(("", ""), lines, left=(0, 1))
