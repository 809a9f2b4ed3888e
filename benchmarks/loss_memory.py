"""Estimate the memory of the vocabulary loss, whole and in chunks, from the compiled program.

    python benchmarks/loss_memory.py [configs/electra_small.py] [--rows 64] [--length 512]

Prints for several values of `run.loss_chunks` the MiB of temporaries of the loss with its gradient
and of the whole train step, and their share of the unchunked ones. Nothing runs.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp

from bert_jax import config
from bert_jax.config import Masked, ReplacedTokens
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.base import vocabulary_loss
from bert_jax.perf.stand_ins import ShapesOnly, abstract_batch
from bert_jax.training.assemble import assemble


def loss_bytes(rows: int, slots: int, vocab: int, width: int, chunks: int) -> int:
    """The bytes of temporaries of the loss and its gradient."""

    def loss(features: jax.Array, table: jax.Array) -> jax.Array:
        head = LMHeadOutput(features, jnp.zeros(vocab))
        targets, weights = jnp.zeros((rows, slots), jnp.int32), jnp.ones((rows, slots))
        return vocabulary_loss(head, table, chunks, targets, weights)[0].total

    shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, slots, width), (vocab, width)))
    return _temporary_bytes(jax.jit(jax.grad(loss, (0, 1))).lower(*shapes))


def step_bytes(experiment: config.Experiment, rows: int, length: int, chunks: int) -> int:
    """The bytes of temporaries of the train step."""
    experiment = config.replace(
        experiment,
        data=dict(batch_size=rows, length=length, stages=None),
        run=dict(loss_chunks=chunks),
    )
    steps = assemble(experiment, ShapesOnly(experiment), jax.devices()[:1]).steps
    return _temporary_bytes(steps.train.lower(steps.like, abstract_batch(experiment)))


def _temporary_bytes(lowered: jax.stages.Lowered) -> int:
    return lowered.compile().memory_analysis().temp_size_in_bytes  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config", nargs="?", default="configs/electra_small.py")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    experiment = config.from_python_file(args.config)
    assert isinstance(experiment.objective, Masked | ReplacedTokens)
    slots = experiment.objective.masking.num_slots(args.length)
    encoder = experiment.encoder
    sizes = (args.rows, slots, encoder.vocab_size, encoder.embedding_width)
    print(f"{args.rows} x {args.length}, {slots} predictions per row; MiB of temporaries")
    unchunked = None
    for chunks in (1, 4, 16, 64):
        sums = loss_bytes(*sizes, chunks), step_bytes(experiment, args.rows, args.length, chunks)
        unchunked = unchunked or sums
        loss, step = (
            f"{n / 2**20:.0f} ({n / u:.0%})" for n, u in zip(sums, unchunked, strict=True)
        )
        print(f"{chunks} chunks: loss {loss}, step {step}")


if __name__ == "__main__":
    main()
