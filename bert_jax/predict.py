"""A trained model in use: filled masks, and features from any layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import checkpoint, config, convert, objectives
from bert_jax.config import Experiment
from bert_jax.losses import project
from bert_jax.model import Network
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text.tokenizer import Tokenizer

BATCH = 32  # rows computed together by `encode`
STEP = 16  # lengths are padded to a multiple, so that few shapes are compiled


def load(path: str | Path) -> Model:
    """The model of a run folder (its newest checkpoint), of an imported folder, or of a Hugging
    Face folder.

    ValueError: no such folder, none of these, no checkpoint in it yet, damaged weights.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: expected a run or Hugging Face folder")
    if convert.is_hf_folder(folder):
        experiment, params, beside = convert.read_folder(folder)
        tokenizer = tokenizers.load(beside)
        convert.check_tokenizer(experiment, tokenizer)
        return Model(experiment, jax.tree.map(jnp.asarray, params), tokenizer)
    experiment = config.read(folder / "config.json")
    tokenizer = tokenizers.load(folder / "tokenizer")
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", read_only=True)
    step = checkpoints.newest()
    if step is None:
        raise ValueError(f"{folder} holds no checkpoint yet: train it first")
    like = jax.eval_shape(objectives.build(experiment).init, jax.random.key(0))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = checkpoint.abstract(like, jax.tree.map(lambda _: here, like))
    return Model(experiment, checkpoints.restore_params(step, shapes), tokenizer, step)


@dataclass(frozen=True)
class Model:
    """A trained model: what it was, what it learned, and its tokenizer."""

    config: Experiment
    params: dict[str, Any]
    tokenizer: Tokenizer
    step: int = 0

    @cached_property
    def objective(self) -> objectives.Objective:
        return objectives.build(self.config)

    @cached_property
    def _logits(self) -> Any:
        """(params, batch) -> [b p v] at the masked positions."""
        network, _ = self.objective.filler(self.params)

        def f(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
            out: Any = network.apply({"params": params}, batch)
            head = out["mlm"]
            return project(head.features, head.bias, params["embeddings"]["word"])

        return jax.jit(f)

    @cached_property
    def _features(self) -> Any:
        """(params, batch, layers) -> [layers b l d], without heads."""
        network, _ = self.objective.encoder(self.params)
        bare = Network(network.config, dtype=network.dtype, keep=True)

        def f(params: Any, batch: dict[str, jax.Array], layers: tuple[int, ...]) -> jax.Array:
            params = {k: params[k] for k in ("embeddings", "encoder")}
            out: Any = bare.apply({"params": params}, batch)
            return out["layers"][np.array(layers)]

        return jax.jit(f, static_argnames="layers")

    def fill(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask token of the text, in order, the `top` likeliest tokens and their
        probabilities. ELECTRA answers with its generator.

        ValueError: no mask token, a text longer than the model, no masked-word head.
        """
        if top < 1:
            raise ValueError(f"top is {top}: expected at least 1")
        tokens, _ = self.tokenizer.row(self.tokenizer.encode_with_masks(text))
        self._check_length(text, tokens)
        masks = np.flatnonzero(np.array(tokens) == self.tokenizer.mask_id)
        if not len(masks):
            raise ValueError(f"the text has no {self.tokenizer.mask_token}: put one in its place")
        network, params = self.objective.filler(self.params)
        if "mlm" not in network.heads:
            raise ValueError("the model has no masked-word head: it gives features only")
        batch = self._pad([tokens], rows=1)
        logits = self._logits(params, {**batch, "masked": jnp.asarray(masks[None])})[0]
        logits = logits[:, : self.tokenizer.vocab_size]  # a table may be padded to a round size
        probabilities, ids = jax.lax.top_k(jax.nn.softmax(logits), min(top, logits.shape[-1]))
        return [
            [(self.tokenizer.token(int(i)), float(p)) for i, p in zip(row, ps, strict=True)]
            for row, ps in zip(np.asarray(ids), np.asarray(probabilities), strict=True)
        ]

    def encode(
        self,
        texts: Sequence[str],
        layers: Sequence[int] | Literal["words"] = (-1,),
        pool: Literal["mean", "cls"] | None = "mean",
        truncate: bool = False,
    ) -> Any:
        """Features of every text, float32: [layers, texts, d] pooled over a text's tokens
        ([CLS] and [SEP] included), or with `pool` None a list, per text [layers, tokens, d].

        Layer 0 is what enters the first layer, i the output of layer i; negative numbers count
        from the end. `layers="words"` gives the rows of the word table alone, as one layer.
        ELECTRA answers with its discriminator. Texts are computed sorted by length.

        ValueError: a layer that is not there, a text longer than the model unless `truncate`.
        """
        if not texts:
            raise ValueError("no texts: expected at least one")
        rows = [self.tokenizer.row(ids) for ids in self.tokenizer.encode_batch(list(texts))]
        tokens = [ids for ids, _ in rows]
        if truncate:
            tokens = [self._cut(ids) for ids in tokens]
        for text, ids in zip(texts, tokens, strict=True):
            self._check_length(text, ids)
        _, params = self.objective.encoder(self.params)
        if layers == "words":
            f = partial(_words, params)
        else:
            numbers = _layer_numbers(layers, self.config.encoder.layers)
            f = partial(self._features, params, layers=numbers)
        out: list[Any] = [None] * len(tokens)
        for some in _by_length(tokens):
            batch = self._pad([tokens[i] for i in some], BATCH)
            features = np.asarray(f(batch), np.float32)
            for j, i in enumerate(some):
                out[i] = _pool(features[:, j, : len(tokens[i])], pool)
        return out if pool is None else np.stack(out, axis=1)

    def _pad(self, tokens: list[list[int]], rows: int) -> dict[str, jax.Array]:
        """A batch of `rows` rows; those beyond the tokens given are all padding."""
        longest = max(map(len, tokens))
        length = min(-(-longest // STEP) * STEP, self.config.encoder.max_length)
        padded = np.full((rows, length), self.config.encoder.pad_id, np.int32)
        size = np.zeros(rows, np.int32)
        for i, ids in enumerate(tokens):
            padded[i, : len(ids)], size[i] = ids, len(ids)
        batch = {"tokens": padded, "size": size, "first": size}
        return {k: jnp.asarray(v) for k, v in batch.items()}

    def _cut(self, ids: list[int]) -> list[int]:
        """A row cut to the model's length, its last special token kept."""
        most = self.config.encoder.max_length
        return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]

    def _check_length(self, text: str, ids: Sequence[int]) -> None:
        most = self.config.encoder.max_length
        if len(ids) > most:
            raise ValueError(
                f"a text has {len(ids)} tokens, the model takes {most} "
                f"({text[:40]!r}...): shorten it, or pass truncate"
            )


def _words(params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The rows of the word table alone, [1 b l e]."""
    return params["embeddings"]["word"][batch["tokens"]][None]


def _layer_numbers(layers: Sequence[int], most: int) -> tuple[int, ...]:
    for i in layers:
        if not -most - 1 <= i <= most:
            raise ValueError(f"layer {i}: the model has layers 0 to {most}")
    return tuple(i % (most + 1) for i in layers)


def _by_length(tokens: list[list[int]]) -> Iterator[list[int]]:
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    for begin in range(0, len(order), BATCH):
        yield order[begin : begin + BATCH]


def _pool(features: np.ndarray, pool: str | None) -> np.ndarray:
    if pool == "mean":
        return features.mean(axis=1)
    if pool == "cls":
        return features[:, 0]
    if pool is None:
        return features
    raise ValueError(f"pool is {pool!r}: expected 'mean', 'cls' or None")
