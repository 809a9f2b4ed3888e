"""The environment in which tests compile programs. Imported before JAX starts."""

import os
from importlib import metadata

from bert_jax.utils import io

# Tests compile much and compute little, so code is compiled without optimization and, in the
# jaxlib that has the choice, without the fusion emitters, which take more than half of the time.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(devices: int) -> str:
    """XLA_FLAGS for so many virtual devices on the CPU."""
    return f"--xla_force_host_platform_device_count={devices} {FLAGS}"


def set_environment() -> None:
    """For this process and those it starts; what is set already stays.

    Four virtual devices: what holds on one must hold on four. One compile cache for all workers
    and all checkouts, of every program: a second run compiles nothing.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", xla_flags(4))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(io.cache_dir() / "tests"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
