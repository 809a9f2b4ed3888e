"""JAX's persistent compilation cache is disabled where compile time is measured."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from bert_jax.utils import compilation_cache


@pytest.fixture
def cache_dir(tmp_path: Path) -> Iterator[Path]:
    """An empty cache that keeps every program."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def compile_program(factor: int) -> None:
    jax.jit(lambda x: x * factor).lower(jax.ShapeDtypeStruct((3,), jnp.float32)).compile()


def test_disabled_holds_in_a_process_that_has_already_compiled(cache_dir: Path) -> None:
    compile_program(3)
    cached = len(list(cache_dir.iterdir()))
    assert cached > 0
    with compilation_cache.disabled():
        compile_program(5)
    assert len(list(cache_dir.iterdir())) == cached
    compile_program(7)
    assert len(list(cache_dir.iterdir())) > cached
