"""Rows to features: what is computed together, in which shapes, and how it is pooled.

A row's shape follows from its own length alone, never from the rows beside it: it is padded to
the next of 16, 24, 32, 48, 64, 96, ... tokens, and every batch of that length has the same
number of rows, the missing ones empty. So one row always runs through one compiled program and
gives the same numbers, be it alone or one of thousands, in float32 or bfloat16; few programs are
compiled; and short rows cost little.

Axes: b rows, l tokens, d width of a layer, k words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.model import Network

Pool = Literal["mean", "cls", "words"] | None
Layers = Sequence[int] | Literal["words"]
POOLS: tuple[Pool, ...] = ("mean", "cls", "words", None)

# Tokens computed together. On a CPU more of them are not faster each, and a text alone pays for
# all of them; an accelerator is idle with fewer.
TOKENS_PER_BATCH = {"cpu": 512}
ACCELERATOR_TOKENS_PER_BATCH = 16384


class FeatureRow(NamedTuple):
    """Tokens as the encoder reads them, special ones included.

    [CLS] un ##able to [SEP]     words 1 3 4: each begins where the last one ends
    """

    tokens: np.ndarray  # [l]
    first: int  # tokens of segment 0
    words: np.ndarray | None = None  # [k+1], where pooled by words


def text_rows(tokenizer: Tokenizer, texts: Sequence[str]) -> list[FeatureRow]:
    """A row for every text."""
    framed = (tokenizer.build_row(ids) for ids in tokenizer.encode_batch(list(texts)))
    return [FeatureRow(np.array(ids, np.int32), first) for ids, first in framed]


def word_rows(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> list[FeatureRow]:
    """A row for every text given as its words, encoded as with one space between them; a word
    of which the tokenizer leaves nothing (a control character) is the unknown token."""
    spaced = [w if i == 0 else f" {w}" for words in texts for i, w in enumerate(words)]
    pieces = iter(tokenizer.encode_batch(spaced))
    rows = []
    for words in texts:
        of_words = [next(pieces) or [tokenizer.unk_id] for _ in words]
        ids, first = tokenizer.build_row([i for word in of_words for i in word])
        bounds = np.cumsum([1, *map(len, of_words)])  # after [CLS]
        rows.append(FeatureRow(np.array(ids, np.int32), first, bounds))
    return rows


def truncate_row(row: FeatureRow, most: int) -> FeatureRow:
    """The row of one segment cut to `most` tokens, its last special token kept. Words that no
    longer begin in it are gone."""
    if len(row.tokens) <= most:
        return row
    tokens, words = np.append(row.tokens[: most - 1], row.tokens[-1]), row.words
    if words is not None:
        words = np.append(words[:-1][words[:-1] < most - 1], most - 1)
    return FeatureRow(tokens, most, words)


def length_batches(sizes: Sequence[int], most: int) -> Iterator[tuple[list[int], int, int]]:
    """Numbers of rows that are computed together, the length they are padded to, and how many
    rows their batch has. `most` is the longest row that the model takes."""
    groups = defaultdict(list)
    for i, size in enumerate(sizes):
        groups[padded_length(size, most)].append(i)
    tokens = TOKENS_PER_BATCH.get(jax.default_backend(), ACCELERATOR_TOKENS_PER_BATCH)
    for length, group in sorted(groups.items()):
        rows = max(1, tokens // length)
        for begin in range(0, len(group), rows):
            yield group[begin : begin + rows], length, rows


def padded_length(size: int, most: int) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96, ... and `most` that holds `size` tokens."""
    whole = max(16, 1 << (size - 1).bit_length())
    part = whole * 3 // 4
    return min(part if size <= part and whole > 16 else whole, most)


def collate(
    rows: Sequence[FeatureRow], length: int, count: int, pad_id: int
) -> dict[str, np.ndarray]:
    """A batch of `count` rows; those beyond the ones given are all padding."""
    tokens = np.full((count, length), pad_id, np.int32)
    size, first = np.zeros(count, np.int32), np.zeros(count, np.int32)
    for i, row in enumerate(rows):
        size[i], first[i] = len(row.tokens), row.first
        tokens[i, : size[i]] = row.tokens
    return {"tokens": tokens, "size": size, "first": first}


def resolve_layers(layers: Layers, most: int) -> tuple[int, ...] | Literal["words"]:
    """Layers from 0 to `most`, or the word table. ValueError: one that is not there."""
    if layers == "words":
        return "words"
    if isinstance(layers, str):
        raise ValueError(f"layers is {layers!r}: expected numbers, or 'words'")
    for i in layers:
        if not -most - 1 <= i <= most:
            raise ValueError(f"layer {i}: the model has layers 0 to {most}")
    if not layers:
        raise ValueError(f"no layers: expected some of 0 to {most}, or 'words'")
    return tuple(i % (most + 1) for i in layers)


def check_pool(pool: Any) -> None:
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}: expected 'mean', 'cls', 'words' or None")


def compile_features(network: Network) -> Callable[..., jax.Array]:
    """(params, batch, layers, pool) -> float32 [layers b d], pooled on the device by "mean" or
    "cls"; else [layers b l d] in the network's own dtype. Without heads."""

    def f(params: Any, batch: dict[str, jax.Array], layers: Any, pool: Pool) -> jax.Array:
        params = {k: params[k] for k in ("embeddings", "encoder")}
        if layers == "words":
            x = params["embeddings"]["word"][batch["tokens"]][None]
        else:
            last = set(layers) == {network.config.layers}  # the others need not be kept
            bare = Network(network.config, dtype=network.dtype, return_layers=not last)
            out: Any = bare.apply({"params": params}, batch)
            x = out["hidden"][None] if last else out["layers"]
            x = x[np.zeros(len(layers), int) if last else np.array(layers)]
        if pool == "cls":
            return x[:, :, 0].astype(jnp.float32)
        return _mean(x, batch["size"]) if pool == "mean" else x

    return jax.jit(f, static_argnames=("layers", "pool"))


def _mean(x: jax.Array, size: jax.Array) -> jax.Array:
    """[n b l d] to [n b d], over the tokens that are there; in float32."""
    real = jnp.arange(x.shape[2]) < size[:, None]
    total = jnp.where(real[None, :, :, None], x.astype(jnp.float32), 0).sum(axis=2)
    return total / jnp.maximum(size, 1)[None, :, None]


def mean_over_words(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[n l d] to [n k d]: each word the mean of its pieces."""
    return np.add.reduceat(x[:, : words[-1]], words[:-1], axis=1) / np.diff(words)[:, None]


def compute_features(
    f: Callable[..., jax.Array],
    params: Any,
    rows: Sequence[FeatureRow],
    encoder: Encoder,
    layers: Any,
    pool: Pool,
) -> Iterator[tuple[int, np.ndarray]]:
    """Each row's number and its features, batch by batch; `f` is of `build`. The next batch is
    computed while the last one is fetched."""
    before: tuple[list[int], Any] | None = None
    for some, length, count in length_batches([len(r.tokens) for r in rows], encoder.max_length):
        batch = collate([rows[i] for i in some], length, count, encoder.pad_id)
        out = f(params, batch, layers=layers, pool=pool)
        if before is not None:
            yield from _fetched(*before, rows, pool)
        before = some, out
    if before is not None:
        yield from _fetched(*before, rows, pool)


def _fetched(
    some: list[int], out: jax.Array, rows: Sequence[FeatureRow], pool: Pool
) -> Iterator[tuple[int, np.ndarray]]:
    features = np.asarray(out)
    for j, i in enumerate(some):
        x = features[:, j] if pool in ("mean", "cls") else features[:, j, : len(rows[i].tokens)]
        x = x.astype(np.float32)  # a copy: nobody holds on to the whole batch
        yield i, x if pool != "words" else mean_over_words(x, rows[i].words)  # type: ignore[arg-type]
