"""What the loss over the vocabulary takes, whole and in pieces: alone with its gradient, and of the
whole train step. By the compiler's account; nothing runs.

    python benchmarks/loss_memory.py [configs/electra_small.py] [--rows 64] [--length 512]
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import config, objectives
from bert_jax.config import Masked, ReplacedTokens
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import sharding
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives import masking
from bert_jax.objectives.base import vocabulary_loss
from bert_jax.training.step import compile_steps


def alone(rows: int, slots: int, vocab: int, width: int, pieces: int) -> int:
    """Bytes of temporaries of the loss and its gradient."""

    def loss(features: jax.Array, table: jax.Array) -> jax.Array:
        head = LMHeadOutput(features, jnp.zeros(vocab))
        where = jnp.zeros((rows, slots), jnp.int32), jnp.ones((rows, slots))
        return vocabulary_loss(head, table, pieces, *where)[0].total

    shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, slots, width), (vocab, width)))
    return _temporary(jax.jit(jax.grad(loss, (0, 1))).lower(*shapes))


def step(asked: config.Experiment, rows: int, length: int, pieces: int) -> int:
    """Bytes of temporaries of the train step."""
    asked = config.replace(
        asked, data=dict(batch_size=rows, length=length), run=dict(loss_chunks=pieces)
    )
    special = np.arange(asked.encoder.vocab_size) < 5
    known = Vocabulary(4, special, ~special, np.ones(asked.encoder.vocab_size))
    mesh = sharding.make_mesh(config.Mesh(), jax.devices()[:1])
    steps = compile_steps(asked, objectives.build(asked, known), mesh)
    ids = jax.ShapeDtypeStruct((rows,), np.int32)
    batch = {"tokens": jax.ShapeDtypeStruct((rows, length), np.int32)}
    batch |= dict.fromkeys(("size", "first", "pair", "row", "epoch"), ids)
    return _temporary(steps.train.lower(steps.like, batch))


def _temporary(lowered: jax.stages.Lowered) -> int:
    return lowered.compile().memory_analysis().temp_size_in_bytes  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config", nargs="?", default="configs/electra_small.py")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    asked = config.from_python_file(args.config)
    assert isinstance(asked.objective, Masked | ReplacedTokens)
    slots = masking.max_predictions(asked.objective.masking, args.length)
    encoder = asked.encoder
    sizes = (args.rows, slots, encoder.vocab_size, encoder.embedding_width)
    print(f"{args.rows} x {args.length}, {slots} predictions a row; MiB of temporaries")
    whole = None
    for pieces in (1, 4, 16, 64):
        parts = alone(*sizes, pieces), step(asked, args.rows, args.length, pieces)
        whole = whole or parts
        shares = (f"{n / 2**20:.0f} ({n / w:.0%})" for n, w in zip(parts, whole, strict=True))
        print(f"{pieces} pieces: the loss alone {next(shares)}, the step {next(shares)}")


if __name__ == "__main__":
    main()
