"""JAX's compile cache on disk: where it is, and without it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from bert_jax.utils import io


def enable() -> None:
    """For this process and those it starts, before JAX is imported: programs are kept in
    JAX_COMPILATION_CACHE_DIR (empty: nowhere), else in our own cache."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(io.cache_dir() / "compiled"))


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Everything is compiled anew: where the time of compiling is asked for, and for devices
    that are not there, whose programs no cache can load."""
    import jax

    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
