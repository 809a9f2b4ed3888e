"""Memory of long rows by the compiler's account: attention in blocks, beside plain attention.

    python benchmarks/long_rows.py [--backends blocked xla] [--lengths 2048 4096 8192]

Compiles the forward and backward pass of modern_base_8k's layers over one row for this machine's
CPU, and runs nothing. `GiB` is what the program needs beside parameters and results
(`compiled.memory_analysis()`), `growth` its ratio to that of half the length, and `[l, l]` the
largest array of the compiled text with two axes of at least l. The first rows are of four local
layers alone, the others of all 22 layers, a third of them global.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.config import Encoder, from_python_file
from bert_jax.model.attention import AttentionMask
from bert_jax.model.block import Block
from bert_jax.model.encoder import Stack
from bert_jax.model.layers import rotary_cos_sin
from bert_jax.utils.tables import format_table

CONFIG = Path(__file__).parent.parent / "configs" / "modern_base_8k.py"
LOCAL_LAYERS = 4


class Compiled(NamedTuple):
    """One program."""

    temporaries: int  # bytes
    square: int  # bytes of its largest array of [l, l]; 0: it has none


def compile_local_layers(encoder: Encoder, length: int, backend: str, layers: int) -> Compiled:
    """Local layers alone, forward and backward, over one packed row."""
    block = Block(encoder, backend=backend)
    one = jnp.zeros((1,), bool)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, params: Any) -> tuple[jax.Array, None]:
            args = (*_mask_and_rotary(encoder, length), None, one)
            return block.apply({"params": params}, x, *args)[0], None  # type: ignore[index]

        return jax.lax.scan(layer, x, params)[0]

    def init(x: jax.Array) -> Any:
        keys = jax.random.split(jax.random.key(0), layers)
        args = (*_mask_and_rotary(encoder, length), None, one)
        return jax.vmap(lambda key: block.init(key, x, *args)["params"])(keys)

    return _compile(apply, init, encoder, length)


def compile_encoder(encoder: Encoder, length: int, backend: str) -> Compiled:
    """All layers, forward and backward, over one packed row."""
    stack = Stack(encoder, backend=backend)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        out = stack.apply({"params": params}, x, *_mask_and_rotary(encoder, length))
        return out[0]  # type: ignore[index]

    def init(x: jax.Array) -> Any:
        return stack.init(jax.random.key(0), x, *_mask_and_rotary(encoder, length))["params"]

    return _compile(apply, init, encoder, length)


def _mask_and_rotary(encoder: Encoder, length: int) -> tuple[Any, Any]:
    segments = 1 + 4 * jnp.arange(length, dtype=jnp.int32)[None] // length
    rotary = rotary_cos_sin(encoder, jnp.arange(length, dtype=jnp.int32)[None])
    return AttentionMask(segments, packed=True), rotary


def _compile(apply: Any, init: Any, encoder: Encoder, length: int) -> Compiled:
    x = jax.ShapeDtypeStruct((1, length, encoder.hidden_size), jnp.float32)
    params = jax.eval_shape(init, x)
    gradient = jax.jit(jax.grad(lambda params, x: (apply(params, x) ** 2).sum()))
    program = gradient.lower(params, x).compile()
    memory = program.memory_analysis()
    return Compiled(memory.temp_size_in_bytes, largest_square(program.as_text(), length))


def largest_square(text: str, length: int) -> int:
    """Bytes of the largest array with two axes of at least `length`; 0: there is none."""
    largest = 0
    for kind, dims in set(re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]+)\]", text)):
        sizes = [int(n) for n in dims.split(",")]
        if sum(n >= length for n in sizes) >= 2:
            bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
            largest = max(largest, bits // 8 * math.prod(sizes))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--backends", nargs="+", default=["blocked", "xla"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 4096, 8192])
    args = parser.parse_args()
    encoder = from_python_file(CONFIG).encoder
    rows = []
    for backend in args.backends:
        programs: dict[str, Any] = {
            f"{LOCAL_LAYERS} local": lambda n, b=backend: compile_local_layers(
                encoder, n, b, LOCAL_LAYERS
            ),
            f"all {encoder.layers}": lambda n, b=backend: compile_encoder(encoder, n, b),
        }
        for layers, compiled_for in programs.items():
            before = None
            for length in args.lengths:
                program: Compiled = compiled_for(length)
                growth = f"{program.temporaries / before:.2f}" if before else ""
                before = program.temporaries
                sizes = (f"{n / 2**30:.3f}" for n in program)
                rows.append([backend, layers, f"{length:,}", *sizes, growth])
                print(*rows[-1], flush=True)
    print(format_table(("attention", "layers", "tokens", "GiB", "[l, l] GiB", "growth"), rows))


if __name__ == "__main__":
    main()
