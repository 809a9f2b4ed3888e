"""Shapes and types in signatures are checked while tests run; peers are counted when absent."""

import importlib.util
import os

from tests.helpers.paths import ROOT

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Must be set before jax starts. Four virtual devices: what holds on one must hold on four.
# Tests compile much and compute little, so code is compiled without optimisation, and once.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)
CACHE = ROOT / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

from jaxtyping import install_import_hook

install_import_hook("bert_jax.model", "beartype.beartype")
install_import_hook("bert_jax.objectives.losses", "beartype.beartype")
install_import_hook("bert_jax.objectives.masking", "beartype.beartype")
install_import_hook("bert_jax.objectives.packing", "beartype.beartype")

import pytest

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="torch and transformers are not installed")
    for item in items:
        if item.get_closest_marker("peer") and not PEERS:
            item.add_marker(skip)
