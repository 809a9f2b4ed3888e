"""How the tests run: cheap compiles, shapes and types checked, bounded memory."""

import ctypes
import gc
import importlib.util
import os
from collections.abc import Iterator

from bert_jax.utils import malloc
from tests.helpers import cheap_compiles

cheap_compiles.set_environment()

from jaxtyping import install_import_hook

install_import_hook("bert_jax.model", "beartype.beartype")
install_import_hook("bert_jax.objectives.losses", "beartype.beartype")
install_import_hook("bert_jax.objectives.masking", "beartype.beartype")
install_import_hook("bert_jax.objectives.packing", "beartype.beartype")

import jax
import pytest

from tests.helpers import tiny_steps

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
MAX_RESIDENT = 1 << 30  # bytes of a worker, above which compiled programs are freed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="torch and transformers are not installed")
    for item in items:
        if item.get_closest_marker("peer") and not PEERS:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    gc.freeze()  # modules stay: the collector need not look at them again
    gc.set_threshold(50_000, 20, 20)  # tracing makes many objects that live for a moment


@pytest.fixture(scope="session", autouse=True)
def default_malloc() -> None:
    """`bert-jax pretrain` tunes malloc to keep freed memory. A test that calls it in this process
    must not do so to all tests after it."""
    malloc.tune = lambda: None


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Frees the compiled programs of the modules before, once they take too much memory."""
    yield
    if resident_bytes() > MAX_RESIDENT:
        tiny_steps.build_steps.cache_clear()
        jax.clear_caches()
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)


def resident_bytes() -> int:
    """Of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
