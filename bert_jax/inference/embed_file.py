"""`embed`: features of every line of a file, in chunks, so that memory does not grow with it."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy

from bert_jax.config import Encoder
from bert_jax.inference import features
from bert_jax.inference.features import Layers, Pool
from bert_jax.inference.long_features import LongPool, check_long
from bert_jax.inference.model import Model
from bert_jax.inference.text_lengths import long_texts
from bert_jax.utils import io, text_lines
from bert_jax.utils.text_lines import check_read_twice, iter_lines, text_chunks

logger = logging.getLogger(__name__)

FEATURES_PER_CHUNK = 1 << 26  # numbers of float32 that are in memory, 268 MB


@dataclass(frozen=True)
class EmbedOptions:
    """Which features of a text are written; see `Model.encode`."""

    layers: Layers = (-1,)
    pool: Pool | Literal["default"] = "default"
    truncate: bool = False
    normalize: bool = False
    prompt: str | None = None
    dimensions: int | None = None
    long: LongPool = None

    def resolve(self, model: Model) -> EmbedOptions:
        """The options with the pool that the model has. ValueError: an unknown pool, a layer that
        the model lacks."""
        pool = model.default_pool if self.pool == "default" else self.pool
        features.check_pool(pool)
        check_long(self.long, pool, self.truncate)
        features.resolve_layers(self.layers, model.config.encoder.layers)
        return replace(self, pool=pool)

    def encode(self, model: Model, texts: Sequence[str]) -> Any:
        """`Model.encode` with these options."""
        return model.encode(
            texts,
            self.layers,
            self.pool,
            self.truncate,
            normalize=self.normalize,
            prompt=self.prompt,
            dimensions=self.dimensions,
            long=self.long,
        )

    def check_lengths(self, model: Model, texts: Sequence[str], file: Path, begin: int) -> int:
        """The number of texts that are too long. ValueError: there are some, unless `truncate` or
        `long`. The texts are the lines of `file` from `begin` on, counted from 0."""
        assert self.pool != "default"
        long = long_texts(model, texts, self.pool, self.prompt)
        if long and not self.truncate and self.long is None:
            windows = " or --long mean" if self.pool in features.ONE_VECTOR else ""
            first, problem = long[0]
            raise ValueError(
                f"{file}, line {begin + first + 1}: {problem}: shorten it, or add "
                f"--truncate{windows}"
            )
        return len(long)

    def chunks(self, file: Path, encoder: Encoder) -> Iterator[list[str]]:
        """The lines of a file, as many at a time as have features for memory."""
        if self.pool in features.ONE_VECTOR:
            yield from text_chunks(iter_lines(file))
            return
        layers = 1 if self.layers == "words" else len(self.layers)
        most = FEATURES_PER_CHUNK // (layers * encoder.hidden_size)  # tokens
        chunk: list[str] = []
        tokens = 0
        for line in iter_lines(file):
            bound = min(encoder.max_length, len(line.encode()) + 2)  # a token has a byte at least
            if chunk and (tokens + bound > most or len(chunk) == text_lines.TEXTS_PER_CHUNK):
                yield chunk
                chunk, tokens = [], 0
            chunk.append(line)
            tokens += bound
        yield chunk

    def warn_long(self, count: int, texts: int) -> None:
        """Say what becomes of the texts that are too long."""
        if count:
            fate = "cut" if self.truncate else "read in windows, whose vectors are averaged"
            logger.warning(
                "%d of %d texts are longer than the model and are %s", count, texts, fate
            )


def embed_file(model: Model, file: Path, out: Path, options: EmbedOptions | None = None) -> int:
    """Write the features of every line of `file` to the new file `out`; return the number of lines.

        pool                arrays of the .npz, float32
        sentence mean cls   features [layers, texts, d]
        words None          text_0, text_1, ...: [layers, words or tokens, d]

    ValueError: as `Model.encode`, before anything is computed; a file that is empty or not UTF-8;
    an `out` that exists or is not called .npz; features that are NaN.
    """
    if out.suffix != ".npz" or out.exists():
        raise ValueError(f"--out is {out}: expected the name of a new .npz file")
    options = (options or EmbedOptions()).resolve(model)
    check_read_twice(file)
    texts, too_long = 0, 0
    for chunk in text_chunks(iter_lines(file)):  # find texts that are too long before computing
        too_long += options.check_lengths(model, chunk, file, texts)
        texts += len(chunk)
    options.warn_long(too_long, texts)
    if not texts:
        raise ValueError(f"{file} is empty: expected one text per line")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        io.sigterm_raises(),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder,
    ):
        new = Path(folder) / out.name
        texts_of = options.chunks(file, model.config.encoder)
        chunks = (_finite(options.encode(model, chunk)) for chunk in texts_of)
        if options.pool in features.ONE_VECTOR:
            _write_pooled(chunks, texts, new)
        else:
            _write_per_text(chunks, new)
        new.rename(out)
    return texts


def _finite(x: Any) -> Any:
    features.refuse_nan(x)
    return x


def _write_per_text(chunks: Iterator[list[np.ndarray]], path: Path) -> None:
    """Write the file that np.savez would write with one array per text, one text at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, x in enumerate(x for chunk in chunks for x in chunk):
            with archive.open(f"text_{i}.npy", "w", force_zip64=True) as f:
                npy.write_array(f, x)


def _write_pooled(chunks: Iterator[np.ndarray], texts: int, path: Path) -> None:
    """Write the file that np.savez would write with one array [layers, texts, d], on disk only."""
    npy_file, done, features_map = path.with_suffix(".npy"), 0, None
    for x in chunks:
        if features_map is None:
            shape = (len(x), texts, x.shape[-1])
            features_map = io.new_npy(npy_file, shape)
            free = io.free_bytes(path.parent) or 0
            if free < features_map.nbytes:  # the archive has a copy: found now, not at the end
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        features_map[:, done : done + x.shape[1]] = x
        done += x.shape[1]
    assert features_map is not None
    features_map.flush()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.write(npy_file, "features.npy")
