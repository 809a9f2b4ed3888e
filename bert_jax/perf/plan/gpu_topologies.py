"""Devices of GPU nodes, described to XLA's CUDA compiler without a GPU or a driver.

The compiler asks for XLA's GpuTargetConfigProto, as text. Only the fields that change the compiled
program are given; figures are those of NVIDIA's tuning guides and data sheets for the SXM modules.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from bert_jax.perf.hardware import GPUS, Chip
from bert_jax.utils import extras

SHAPE = re.compile(r"(?:(\d+)x)?(\d+)")  # hosts x GPUs per host

# Plugin, compiler and device code: about 245 MiB. Neither cuDNN nor cuBLAS is needed to compile.
PACKAGES = tuple(re.split("[<>=]", r)[0] for r in extras.EXTRAS["plan-gpu"])

CUDNN_VERSION = 92000  # 9.20: what jax.nn may use of it is the same from 9.1 on


class GpuFigures(NamedTuple):
    """What the compiler is told of a GPU beside the memory and its bandwidth (hardware.GPUS)."""

    compute_capability: str  # fields of XLA's message
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    shared_memory_per_core: int  # bytes
    shared_memory_per_block: int  # bytes, the most that a kernel may ask for
    l2_cache: int  # bytes
    clock_ghz: float


FIGURES = {
    "h100": GpuFigures(
        *("major: 9 feature_extension: ACCELERATED_FEATURES", 132, 128),
        *(228 * 1024, 227 * 1024, 50 * 2**20, 1.98),
    ),
    "h200": GpuFigures(
        *("major: 9 feature_extension: ACCELERATED_FEATURES", 132, 128),
        *(228 * 1024, 227 * 1024, 50 * 2**20, 1.98),
    ),
    "a100": GpuFigures("major: 8", 108, 64, 164 * 1024, 163 * 1024, 40 * 2**20, 1.41),
}


def describe_gpus(name: str) -> tuple[Chip, list[Any], int]:
    """The chip, its devices, and the number of hosts, of a name such as h100:8, or h100:2x8 for
    two hosts of eight GPUs. ValueError: it does not exist, or a package is missing."""
    kind, _, shape = name.partition(":")
    chip, match = GPUS[kind], SHAPE.fullmatch(shape)
    hosts, per_host = (int(n or 1) for n in match.groups()) if match else (0, 0)
    if not hosts or not 0 < per_host <= chip.max_chips:
        raise ValueError(
            f"--topology {name}: expected up to {chip.max_chips} GPUs, or hosts x GPUs of each, "
            f"such as {', '.join(chip.examples)}"
        )
    if missing := [p for p in PACKAGES if not _is_installed(p)]:
        packages = f"{', '.join(missing)} (Linux; no GPU and no driver)"
        raise extras.missing("plan for GPUs", packages, "plan-gpu")
    from jax.experimental import topologies

    description = topologies.get_topology_desc(
        platform="cuda", target_config=_target_config(kind), topology=f"1x{hosts}x{per_host}"
    )
    return chip, list(description.devices), hosts


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """jax.nn asks for cuDNN's version when attention is traced. Only building cuDNN's graph needs
    the library; a program is compiled around the call without it."""
    if _is_installed("nvidia-cudnn-cu13"):
        yield
        return
    try:
        from jax._src.cudnn import fused_attention_stablehlo as module

        check = module.check_cudnn_version
    except (ImportError, AttributeError):  # private: it may move
        raise ValueError(
            f"plan for GPUs needs cuDNN with jax {jax.__version__}: install nvidia-cudnn-cu13"
        ) from None
    module.check_cudnn_version = lambda: CUDNN_VERSION
    try:
        yield
    finally:
        module.check_cudnn_version = check


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _target_config(kind: str) -> str:
    gpu, chip = FIGURES[kind], GPUS[kind]
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ {gpu.compute_capability} }}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus_per_core}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {chip.memory}
  memory_bandwidth: {round(chip.bandwidth)}
  l2_cache_size: {gpu.l2_cache}
  shared_memory_per_core: {gpu.shared_memory_per_core}
  shared_memory_per_block: {48 * 1024}
  shared_memory_per_block_optin: {gpu.shared_memory_per_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
device_description_str: "NVIDIA {chip.name}"
"""
