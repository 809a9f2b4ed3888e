"""Features of rows: tokenize texts, batch rows by length, compute and pool the layers.

A row's padded length depends only on its own length: it is the next of a few lengths (on a CPU 8,
12, 16, 20, ..., on others 16, 24, 32, 48, ...), and every batch of that length has the same number
of rows (missing ones are empty). So a row always runs through the same compiled program and gives
the same numbers, alone or among thousands, in float32 or bfloat16. Few programs are compiled, and
short rows cost little.

Axes: b rows, l tokens, d width of a layer, k words.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Encoder
from bert_jax.convert import SentenceHead
from bert_jax.convert.sentence_head import apply_sentence_head
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.model import Network
from bert_jax.utils.text_lines import text_chunks, without_surrogates

logger = logging.getLogger(__name__)

Pool = Literal["sentence", "mean", "cls", "words"] | None
Layers = Sequence[int] | Literal["words"]
POOLS: tuple[Pool, ...] = ("sentence", "mean", "cls", "words", None)
ONE_VECTOR: tuple[Pool, ...] = ("sentence", "mean", "cls")  # per text


class Shapes(NamedTuple):
    """The shapes of batches."""

    tokens: int  # of a batch, with padding
    shortest: int  # padded length, a power of two
    per_octave: int  # padded lengths between a power of two and the next


# On a CPU larger batches are not faster per token, and a single text pays for the whole batch;
# smaller ones would leave an accelerator idle. A program compiles in .6 s on a CPU, and far longer
# elsewhere, so a CPU has more lengths.
SHAPES = {"cpu": Shapes(tokens=512, shortest=8, per_octave=4)}
ACCELERATOR_SHAPES = Shapes(tokens=16384, shortest=16, per_octave=2)


class FeatureRow(NamedTuple):
    """The tokens of a text, with special tokens.

    [CLS] un ##able to [SEP]     words 1 3 4: each word begins where the one before ends
    """

    tokens: np.ndarray  # [l]
    first: int  # tokens of segment 0
    words: np.ndarray | None = None  # [k+1], for pooling by words
    skip: int = 0  # tokens at the beginning that a sentence head leaves out: the prompt's


def as_texts(texts: Any) -> list[str]:
    """The texts of a list, a NumPy array, a pandas Series or the like. ValueError: one string, no
    text, or an entry that is no string."""
    if isinstance(texts, str | bytes):
        raise ValueError("texts is one string: expected a list of texts")
    if hasattr(texts, "columns"):
        raise ValueError(
            f"texts is a table with the columns {', '.join(map(str, texts.columns))}: pass one of "
            "them, such as table[column]"
        )
    try:
        entries = list(texts)
    except TypeError:
        raise ValueError(f"texts is {texts!r:.40}: expected a list of strings") from None
    if not entries:
        raise ValueError("no texts: expected at least one")
    for i, text in enumerate(entries):
        if not isinstance(text, str):
            raise ValueError(f"text {i} is {text!r:.40}: expected a string")
    clean = [without_surrogates(str(text)) for text in entries]
    if replaced := sum(a != b for a, b in zip(clean, entries, strict=True)):
        logger.warning(
            "%d of %d texts have half of a surrogate pair, which is no character: read as ?",
            *(replaced, len(entries)),
        )
    return clean


def feature_rows(tokenizer: Tokenizer, texts: Sequence[str]) -> list[FeatureRow]:
    """A row for every text."""
    chunks = map(tokenizer.encode_batch, text_chunks(texts))
    rows = (tokenizer.build_row(ids) for chunk in chunks for ids in chunk)
    return [FeatureRow(np.array(ids, np.int32), first) for ids, first in rows]


def word_rows(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> list[FeatureRow]:
    """A row for every text, which is a list of words and is encoded with one space between them. A
    word without pieces (a control character) becomes the unknown token."""
    words_with_spaces = [w if i == 0 else f" {w}" for words in texts for i, w in enumerate(words)]
    pieces = iter(tokenizer.encode_batch(words_with_spaces))
    rows = []
    for words in texts:
        word_pieces = [next(pieces) or [tokenizer.unk_id] for _ in words]
        ids, first = tokenizer.build_row([i for word in word_pieces for i in word])
        bounds = np.cumsum([1, *map(len, word_pieces)])  # after [CLS]
        rows.append(FeatureRow(np.array(ids, np.int32), first, bounds))
    return rows


def truncate_row(row: FeatureRow, max_length: int) -> FeatureRow:
    """Truncate a row of one segment to `max_length` tokens; its last special token stays. Words
    that begin after the cut are removed."""
    if len(row.tokens) <= max_length:
        return row
    tokens, words = np.append(row.tokens[: max_length - 1], row.tokens[-1]), row.words
    if words is not None:
        words = np.append(words[:-1][words[:-1] < max_length - 1], max_length - 1)
    return FeatureRow(tokens, max_length, words, row.skip)


def check_length(
    text: str,
    tokens: Sequence[int] | np.ndarray,
    max_length: int,
    advice: str = "shorten it, or pass truncate",
) -> None:
    """Raise ValueError if a text has more than `max_length` tokens."""
    if len(tokens) > max_length:
        raise ValueError(
            f"a text has {len(tokens)} tokens, but the model takes {max_length} "
            f"({text[:40]!r}...): {advice}"
        )


def refuse_nan(outputs: Any) -> None:
    """ValueError: a number in a tree of arrays is NaN, from which no answer follows."""
    if any(np.isnan(x).any() for x in jax.tree.leaves(outputs)):
        raise ValueError(
            "the model's outputs are not numbers: its weights are damaged or overflow; use an "
            "earlier checkpoint"
        )


def length_batches(
    sizes: Sequence[int],
    max_length: int,
    batch_tokens: int | None = None,
    max_rows: int | None = None,
) -> Iterator[tuple[list[int], int, int]]:
    """Per batch: the indices of its rows, their padded length, and the batch size, at most
    `max_rows`. `max_length` is the model's maximum length. `batch_tokens`: see `Model.encode`."""
    if batch_tokens is not None and batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}: expected at least 1")
    groups = defaultdict(list)
    for i, size in enumerate(sizes):
        groups[padded_length(size, max_length)].append(i)
    tokens = _shapes().tokens if batch_tokens is None else batch_tokens
    for length, group in sorted(groups.items()):
        rows = tokens // length if max_rows is None else min(tokens // length, max_rows)
        rows = max(1, rows)
        for begin in range(0, len(group), rows):
            yield group[begin : begin + rows], length, rows


def padded_length(size: int, max_length: int) -> int:
    """The smallest of the backend's lengths and `max_length` that holds `size` tokens."""
    shapes = _shapes()
    octave = max(shapes.shortest, 1 << (size - 1).bit_length())  # a power of two, at least `size`
    step = max(shapes.shortest // 2, octave // 2 // shapes.per_octave)
    length = octave if octave == shapes.shortest else -(-size // step) * step
    return min(length, max_length)


def _shapes() -> Shapes:
    return SHAPES.get(jax.default_backend(), ACCELERATOR_SHAPES)


def collate(
    rows: Sequence[FeatureRow], length: int, batch_size: int, pad_id: int
) -> dict[str, np.ndarray]:
    """A batch of `batch_size` rows; missing rows are all padding."""
    tokens = np.full((batch_size, length), pad_id, np.int32)
    size, first, skip = (np.zeros(batch_size, np.int32) for _ in range(3))
    for i, row in enumerate(rows):
        size[i], first[i], skip[i] = len(row.tokens), row.first, row.skip
        tokens[i, : size[i]] = row.tokens
    return {"tokens": tokens, "size": size, "first": first, "skip": skip}


def resolve_layers(layers: Layers, last: int) -> tuple[int, ...] | Literal["words"]:
    """Non-negative layer numbers, the highest of which is `last`, or the embedding table ("words").
    ValueError: a missing layer."""
    if isinstance(layers, str):
        if layers == "words":
            return "words"
        raise ValueError(f"layers is {layers!r}: expected numbers, or 'words'")
    numbers: list[int] = np.atleast_1d(np.asarray(layers)).tolist()
    for i in numbers:
        if not -last - 1 <= i <= last:
            raise ValueError(f"layer {i}: the model has layers 0 to {last}")
    if not numbers:
        raise ValueError(f"layers is empty: expected some of 0 to {last}, or 'words'")
    return tuple(i % (last + 1) for i in numbers)


def check_pool(pool: Any) -> None:
    """Raise ValueError if `pool` is not one of `POOLS`."""
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}: expected 'sentence', 'mean', 'cls', 'words' or None")


def check_sentence(head: SentenceHead | None, layers: Layers, only_last: bool) -> None:
    """Raise ValueError without a sentence head, or unless the last layer alone is asked for."""
    if head is None or not only_last:
        problem = f"the sentence head reads the last layer, not {layers}"
        raise ValueError(
            f"{'the model has no sentence head' if head is None else problem}: expected "
            "pool 'mean', 'cls', 'words' or None"
        )


def compile_features(
    network: Network, head: SentenceHead | None = None
) -> Callable[..., jax.Array]:
    """The compiled function (params, batch, layers, pool) -> features of the encoder. With pool
    "mean", "cls" or "sentence", which `head` computes, they are float32 [layers b d]; else
    [layers b l d] in the network's dtype."""

    def f(params: Any, batch: dict[str, jax.Array], layers: Any, pool: Pool) -> jax.Array:
        params = {k: params[k] for k in ("embeddings", "encoder")}
        if layers == "words":
            x = params["embeddings"]["word"][batch["tokens"]][None]
        else:
            last = set(layers) == {network.config.layers}  # then other layers are not kept
            encoder = Network(network.config, dtype=network.dtype, return_layers=not last)
            out: Any = encoder.apply({"params": params}, batch)
            x = out["hidden"][None] if last else out["layers"]
            x = x[np.zeros(len(layers), int) if last else np.array(layers)]
        if pool == "sentence":
            assert head is not None
            sizes, skips = batch["size"], batch["skip"]
            vectors = [apply_sentence_head(head, h, sizes, skips) for h in x]
            return jnp.stack(vectors)
        if pool == "cls":
            return x[:, :, 0].astype(jnp.float32)
        return _mean(x, batch["size"]) if pool == "mean" else x

    return jax.jit(f, static_argnames=("layers", "pool"))


def _mean(x: jax.Array, size: jax.Array) -> jax.Array:
    """[n b l d] to [n b d]: the mean over non-padding tokens, in float32."""
    real = jnp.arange(x.shape[2]) < size[:, None]
    total = jnp.where(real[None, :, :, None], x.astype(jnp.float32), 0).sum(axis=2)
    return total / jnp.maximum(size, 1)[None, :, None]


def mean_over_words(x: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[n l d] to [n k d]: the mean over the pieces of each word."""
    sizes = np.diff(words).astype(x.dtype)[:, None]  # a float32 by an integer would be a float64
    return np.add.reduceat(x[:, : words[-1]], words[:-1], axis=1) / sizes


def compute_features(
    f: Callable[..., jax.Array],
    params: Any,
    rows: Sequence[FeatureRow],
    encoder: Encoder,
    layers: Any,
    pool: Pool,
    batch_tokens: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Each row's index and features, batch by batch; `f` is from `compile_features`. The next batch
    is computed while the previous one is fetched."""
    previous: tuple[list[int], Any] | None = None
    sizes = [len(r.tokens) for r in rows]
    for indices, length, batch_size in length_batches(sizes, encoder.max_length, batch_tokens):
        batch = collate([rows[i] for i in indices], length, batch_size, encoder.pad_id)
        out = f(params, batch, layers=layers, pool=pool)
        if previous is not None:
            yield from _fetch(*previous, rows, pool)
        previous = indices, out
    if previous is not None:
        yield from _fetch(*previous, rows, pool)


def _fetch(
    indices: list[int], out: jax.Array, rows: Sequence[FeatureRow], pool: Pool
) -> Iterator[tuple[int, np.ndarray]]:
    features = np.asarray(out)
    for j, i in enumerate(indices):
        x = features[:, j] if pool in ONE_VECTOR else features[:, j, : len(rows[i].tokens)]
        x = x.astype(np.float32)  # a copy, so that the batch is freed
        yield i, x if pool != "words" else mean_over_words(x, rows[i].words)  # type: ignore[arg-type]
