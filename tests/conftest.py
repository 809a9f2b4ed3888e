"""How the tests run: cheap compiles, shapes and types checked, bounded memory."""

import ctypes
import gc
import importlib.util
import os

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

from bert_jax.training import assemble
from tests.helpers import shared_steps
from tests.helpers.gcs_fixtures import gcs_server, gs  # noqa: F401
from tests.helpers.hub_fixtures import hub  # noqa: F401
from tests.helpers.paths import ROOT

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


# Files that take longest come first, so that both workers end at the same time.
LONGEST = (
    "distributed/test_processes.py",
    "cli/test_every_command.py",
    "convert/test_heads_against_transformers.py",
    "training/test_step.py",
    "inference/test_model.py",
    "training/test_finetune.py",
    "objectives/test_objectives.py",
    "training/test_warm_start.py",
    "docs/test_guides.py",
    "training/test_rerank.py",
    "training/test_modernbert_runs.py",
    "perf/test_plan.py",
    "distributed/test_sharding.py",
    "data/test_mixture.py",
    "data/test_real_text.py",
    "training/test_pairs.py",
    "training/test_distill_finetune.py",
    "training/test_distill_pretrain.py",
    "inference/test_predict.py",
    "cli/test_cli.py",
    "convert/test_folders_against_transformers.py",
    "objectives/test_packing.py",
    "training/test_packed_runs.py",
    "training/test_lora.py",
    "cli/test_launch.py",
    "study/test_worker_pool.py",
    "objectives/test_supervised.py",
    "model/test_attention.py",
    "model/test_model_against_transformers.py",
    "convert/test_heads.py",
    "checkpoint/test_gcs.py",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {ROOT / "tests" / name: i for i, name in enumerate(LONGEST)}
    assert all(path.exists() for path in order), "LONGEST names a test file that is gone"
    items.sort(key=lambda item: order.get(item.path, len(order)))
    skip = pytest.mark.skip(reason="torch and transformers are not installed")
    for item in items:
        for mark in item.iter_markers("slow_unless"):
            assert isinstance(item, pytest.Function)
            if item.callspec.id not in mark.args:
                item.add_marker("slow")
            if item.callspec.id in mark.kwargs.get("nightly", ()):
                item.add_marker("nightly")
        if item.get_closest_marker("peer") and not PEERS:
            item.add_marker(skip)
        for mark in item.iter_markers("library"):
            missing = [name for name in mark.args if not importlib.util.find_spec(name)]
            if missing:
                reason = f"{', '.join(missing)} not installed: make peer"
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes by their length: gzip writes the time, and all workers need the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    gc.freeze()  # modules stay: the collector need not look at them again
    gc.set_threshold(50_000, 20, 20)  # tracing makes many objects that live for a moment


@pytest.fixture(scope="session", autouse=True)
def default_malloc() -> None:
    """`bert-jax pretrain` tunes malloc to keep freed memory. A test that calls it in this process
    must not do so to all tests after it."""
    malloc.tune = lambda: None


@pytest.fixture(scope="session", autouse=True)
def shared_programs() -> None:
    """Runs of equal experiments in this process are traced and compiled once."""
    assemble.compile_steps = shared_steps.compile_steps


max_resident = 1_200_000_000  # bytes of a worker, above which it frees compiled programs


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    global max_resident
    if resident_bytes() > max_resident:
        shared_steps.clear()
        jax.clear_caches()
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
        max_resident = max(max_resident, resident_bytes() + 500_000_000)


def resident_bytes() -> int:
    """Of this process; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
