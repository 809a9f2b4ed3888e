"""Features of every line of a file, in chunks: the text is never held as a whole."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from bert_jax.inference import features
from bert_jax.inference.features import Layers, Pool
from bert_jax.inference.model import Model

TEXTS_PER_CHUNK = 4096  # texts that are sorted by length together


def embed_file(
    model: Model,
    file: Path,
    out: Path,
    layers: Layers = (-1,),
    pool: Pool = "mean",
    truncate: bool = False,
) -> int:
    """Writes the features of every line of `file` to the new file `out`; returns their number.

        pool        arrays of the .npz, float32
        mean cls    features [layers, texts, d]
        words None  text_0, text_1, ...: [layers, words or tokens, d]

    ValueError: what `Model.encode` refuses, before anything is computed; a file that is no
    UTF-8 text or empty; an `out` that is there or not called .npz.
    """
    if out.suffix != ".npz" or out.exists():
        raise ValueError(f"--out is {out}: expected the name of a new .npz file")
    features.check_pool(pool)
    numbers = features.resolve_layers(layers, model.config.encoder.layers)
    texts = 0
    for chunk in _chunks(file):  # a text that is too long is found now, not after hours
        texts += len(chunk)
        if not truncate:
            model.rows(chunk, words=pool == "words")
    if not texts:
        raise ValueError(f"{file} is empty: expected one text per line")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        new = Path(folder) / out.name
        chunks = (model.encode(c, numbers, pool, truncate) for c in _chunks(file))
        if pool in ("mean", "cls"):
            _write_one(chunks, texts, new)
        else:
            _write_each(chunks, new)
        new.rename(out)
    return texts


def _write_each(chunks: Iterator[list[np.ndarray]], path: Path) -> None:
    """As np.savez writes an array for every text, one at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, x in enumerate(x for chunk in chunks for x in chunk):
            with archive.open(f"text_{i}.npy", "w", force_zip64=True) as f:
                npy.write_array(f, x)


def _write_one(chunks: Iterator[np.ndarray], texts: int, path: Path) -> None:
    """As np.savez writes one array [layers, texts, d], through a file that is not held."""
    plain, done, whole = path.with_suffix(".npy"), 0, None
    for x in chunks:
        if whole is None:
            shape = (len(x), texts, x.shape[-1])
            whole = npy.open_memmap(plain, "w+", np.float32, shape)
        whole[:, done : done + x.shape[1]] = x
        done += x.shape[1]
    assert whole is not None
    whole.flush()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.write(plain, "features.npy")


def _chunks(file: Path) -> Iterator[list[str]]:
    try:
        # A form feed or U+2028 within a text does not begin another: lines end at \n, \r\n, \r.
        with file.open(encoding="utf-8") as f:
            lines = (line.removesuffix("\n") for line in f)
            while chunk := list(islice(lines, TEXTS_PER_CHUNK)):
                yield chunk
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{file} cannot be read as UTF-8 text: {e}") from e
