"""How often a compiled program runs an instruction."""

import jax
import jax.numpy as jnp
import pytest

from bert_jax.perf import hlo


@pytest.mark.parametrize("by_index", [False, True])
def test_branches_count_by_the_share_of_the_times_in_which_they_are_taken(by_index: bool) -> None:
    """Eight layers, of which a quarter is global, and whose products differ in size."""

    def step(x: jax.Array, is_global: jax.Array) -> tuple[jax.Array, None]:
        whole, local = (lambda x: jnp.tanh(x @ x), lambda x: jnp.tanh(x[:, :8] @ x[:8, :]))
        if by_index:
            return jax.lax.switch(is_global.astype(jnp.int32), [local, whole], x), None
        return jax.lax.cond(is_global, whole, local, x), None

    scan = jax.jit(lambda x, which: jax.lax.scan(step, x, which)[0])
    shapes = jax.ShapeDtypeStruct((16, 16), jnp.float32), jax.ShapeDtypeStruct((8,), bool)
    program = hlo.parse_hlo(scan.lower(*shapes).compile().as_text() or "")

    def products(true_share: float | None) -> dict[str, float]:
        runs = {"whole": 0.0, "local": 0.0}
        for i, computation, times, _ in program.walk(true_share):
            if i.opcode == "dot":
                left = computation.instructions[i.operands[0]].results[0]
                runs["local" if 8 in left.dims else "whole"] += times
        return runs

    assert products(0.25) == {"whole": 2.0, "local": 6.0}
    assert products(None) == {"whole": 8.0, "local": 8.0}
