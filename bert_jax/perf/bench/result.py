"""The JSON object of `bench`, from what was compiled and timed."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence

import jax

from bert_jax.perf import collectives, flops
from bert_jax.perf.bench import device, transformers_peer
from bert_jax.perf.bench.device import Peak
from bert_jax.perf.bench.timer import Contender, Times
from bert_jax.perf.bench.train_step import BertJax
from bert_jax.perf.step_memory import step_memory
from bert_jax.utils.tables import format_table
from bert_jax.utils.types import Json

GIB = 1 << 30


def bert_jax_result(contender: BertJax, times: Times, peak: Peak) -> Json:
    """The figures of bert_jax; seconds, bytes, and FLOP/s of all devices together."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **_environment(contender),
        **_workload(contender),
        "compile_seconds": contender.compile_seconds,
        "init_seconds": contender.init_seconds,
        **_speed(contender, times, peak),
        "memory": _memory(contender),
        "collectives": collectives.bytes_by_kind(contender.compiled.as_text()),
    }


def _environment(contender: BertJax) -> Json:
    devices = list(contender.mesh.devices.flat)
    return {
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "machine": f"{platform.machine()} {platform.python_version()}",
        "devices": len(devices),
        "mesh": dict(contender.mesh.shape),
        "jax": jax.__version__,
    }


def _workload(contender: BertJax) -> Json:
    config = contender.inputs.config
    return {
        "objective": type(config.objective).__name__,
        "rows": contender.inputs.source,
        "batch_size": config.data.batch_size,
        "length": config.data.length,
        "dtype": config.run.dtype,
        "dropout": [config.encoder.dropout, config.encoder.attention_dropout],
        "attention": flops.attention_split(config.encoder, config.data.length or 0),
        "parameters": sum(
            x.size
            for x in jax.tree.leaves((contender.steps.like.params, contender.steps.fixed["base"]))
        ),
    }


def _speed(contender: BertJax, times: Times, peak: Peak) -> Json:
    """Times, tokens/s, and the model's FLOP/s as a fraction of the devices' peak.

    A measured peak is too low where other work slows every measurement of it. The utilization
    can then exceed 1, and `utilisation_reliable` is False.
    """
    config = contender.inputs.config
    length = config.data.length
    assert length is not None
    seconds = times.median(contender.name)
    real, padded = contender.real_tokens, contender.padded_tokens
    work = flops.per_step(config, padded // length, length)
    utilization = work / (seconds * contender.mesh.size * peak.flops)
    return {
        "step_seconds": seconds,
        "rounds": times.seconds[contender.name],
        "tokens_per_step": real,
        "tokens_per_second": real / seconds,
        "padded_tokens_per_second": padded / seconds,
        "flops_per_step": work,
        "flops_per_second": work / seconds,
        "peak_flops": peak.flops,
        "peak": peak.source,
        "utilisation": utilization,
        "utilisation_of_real_tokens": utilization * real / padded,
        "utilisation_reliable": utilization <= 1,
    }


def _memory(contender: BertJax) -> Json:
    devices = list(contender.mesh.devices.flat)
    return {
        **step_memory(contender.compiled),
        "device_peak": device.memory_peak(devices),
        "device_limit": device.memory_limit(devices[0]),
    }


def training_result(contenders: dict[str, BertJax], times: Times) -> Json:
    """What is trained, in words -> its cost: alternating steps of the same batches."""
    return {
        what: {
            "trained_parameters": contender.num_trained,
            "step_seconds": times.median(contender.name),
            "step_bytes": step_memory(contender.compiled)["peak"],
            "state_bytes": contender.state_bytes,
        }
        for what, contender in contenders.items()
    }


def peer_result(contender: BertJax, peers: Sequence[Contender], times: Times, family: str) -> Json:
    """The figures of transformers, and the speed of bert_jax over its fastest variant: among
    those that project the masked positions alone, and among the stock classes."""
    variants: Json = {}
    for peer in peers:
        seconds = times.median(peer.name)
        tokens_ratio = contender.real_tokens / peer.real_tokens
        variants[peer.name] = {
            "step_seconds": seconds,
            "rounds": times.seconds[peer.name],
            "tokens_per_second": peer.real_tokens / seconds,
            "padded_tokens_per_second": peer.padded_tokens / seconds,
            "ratio": times.ratio(contender.name, peer.name, tokens_ratio),
        }

    result: Json = {
        "against": {
            "name": "transformers",
            **transformers_peer.versions(),
            "family": family,
            "sides": variants,
        }
    }
    for head, suffix in (("gathered", ""), ("stock", "_stock")):
        names = [name for name in variants if name.startswith(head)]
        if names:
            best = min(names, key=lambda name: variants[name]["ratio"])
            result["against"][f"best{suffix}"] = best
            result[f"ratio{suffix}"] = variants[best]["ratio"]
    return result


def render_bench(result: Json) -> str:
    """The JSON object as a table of two columns."""
    rows = _model_rows(result) + _speed_rows(result) + _peer_rows(result)
    for what, cost in result.get("trains", {}).items():
        rows.append(
            (
                what,
                f"{cost['trained_parameters']:,} trained, {cost['step_seconds'] * 1e3:.1f} ms, "
                f"{cost['step_bytes'] / GIB:.3f} GiB, of which state "
                f"{cost['state_bytes'] / GIB:.3f}",
            )
        )
    if "fit" in result:
        rows.append(("largest batch", f"{result['fit']['batch_size']} rows"))
    return format_table(("", ""), rows, left=(0, 1))


def _model_rows(result: Json) -> list[tuple[str, str]]:
    parameters = f"{result['parameters']:,} parameters"
    split = result["attention"]
    attention = [("attention", flops.describe_attention(split))] if split else []
    return [
        ("device", f"{result['devices']} x {result['device']}, jax {result['jax']}"),
        ("model", f"{result['objective']}, {parameters}, {result['dtype']}"),
        ("batch", f"{result['batch_size']} x {result['length']}, {result['rows']} rows"),
        *attention,
    ]


def _speed_rows(result: Json) -> list[tuple[str, str]]:
    peak = f"{result['peak']} peak {result['peak_flops'] / 1e12:.3g} TFLOP/s"
    utilization = f"{result['utilisation']:.1%}"
    if not result["utilisation_reliable"]:
        utilization += ", unreliable: above the peak; repeat on an idle machine"
    memory = result["memory"]
    used, limit = memory["peak"] / GIB, memory["device_limit"] / GIB
    rows = [
        ("compile", f"{result['compile_seconds']:.1f} s"),
        ("step", f"{result['step_seconds'] * 1e3:.1f} ms, median of {len(result['rounds'])}"),
        ("tokens/s", f"{result['tokens_per_second']:,.0f}"),
        ("with padding", f"{result['padded_tokens_per_second']:,.0f}"),
        ("FLOP/s", f"{result['flops_per_second'] / 1e12:.3g} T, {peak}"),
        ("utilization", utilization),
        ("step memory", f"{used:.2f} of {limit:.1f} GiB"),
    ]
    for kind, size in result["collectives"].items():
        if size:
            rows.append(("collectives", f"{kind} {size / 1e6:.1f} MB"))
    if result["input"]:
        rows.append(("loader alone", f"{result['input']['tokens_per_second']:,.0f} tokens/s"))
    if result["idle_share"] is not None:
        rows.append(("device idle", f"{result['idle_share']:.2%} of the step loop"))
    return rows


def _peer_rows(result: Json) -> list[tuple[str, str]]:
    if "against" not in result:
        return []
    against = result["against"]
    return [
        ("against", f"transformers {against['transformers']}, PyTorch {against['torch']}"),
        *(
            (name, f"{variant['tokens_per_second']:,.0f} tokens/s")
            for name, variant in against["sides"].items()
        ),
        ("ratio", f"{result['ratio']:.2f} to {against['best']}"),
        *([("ratio to stock", f"{stock:.2f}")] if (stock := result.get("ratio_stock")) else []),
    ]
