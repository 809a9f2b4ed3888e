"""Enable or temporarily disable JAX's persistent compilation cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from bert_jax.utils import io


def enable() -> None:
    """Enable the cache for this process and its children; call it before JAX is imported. The
    folder is JAX_COMPILATION_CACHE_DIR (empty: no cache), or `compiled` in `io.cache_dir()`."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(io.cache_dir() / "compiled"))


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Compile everything anew: to measure compile time, and for the programs of absent devices,
    which no cache can load."""
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # jax reads the setting once, when the process first compiles
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        reset_cache()
