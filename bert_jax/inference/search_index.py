"""A search index: the vectors of a text file's lines, written as a stream, and exact search.

    index.json    the text file and its hash; the model and its fingerprint; layer, pool, prompt,
                  width and similarity
    vectors.npy   float32 [lines d]; of length 1 where they are compared by cosine
    vectors.faiss a graph for approximate search, if it was asked for (faiss_index.py)
    offsets.npy   int64 [lines]: the byte at which each line of the text file begins

Lines end at a newline, with or without a carriage return before it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_jax.inference import faiss_index, features
from bert_jax.inference.embed_file import EmbedOptions
from bert_jax.inference.features import Pool
from bert_jax.inference.fingerprint import fingerprint
from bert_jax.inference.model import Model
from bert_jax.inference.sentence_vectors import check_vectors, prompt_text
from bert_jax.tasks import retrieval
from bert_jax.utils import io
from bert_jax.utils.text_lines import check_read_twice, decode_line, text_chunks, without_end

INFO, VECTORS, OFFSETS = "index.json", "vectors.npy", "offsets.npy"
CHECKED_AT_A_TIME = 4096  # vectors in memory while an index is opened


class IndexInfo(NamedTuple):
    """What an index was made of."""

    text: str  # path of the text file
    text_sha256: str
    lines: int
    model: str  # its absolute path, or its name on the Hub
    fingerprint: str  # of the model's parameters and vocabulary
    layer: int
    pool: Pool
    prompt: str  # text that was put before each line
    dimensions: int  # width of the vectors
    normalized: bool  # the similarity is the cosine, else the dot product
    near: str = ""  # path of the text file from the index: both can be moved together


@dataclass(frozen=True)
class Hit:
    """A line that was found."""

    rank: int  # from 1
    score: float
    line: int  # from 1
    text: str


# ---- writing


def write_index(
    model: Model,
    name: str,
    text: Path,
    out: Path,
    options: EmbedOptions | None = None,
    graph: bool = False,
) -> int:
    """Write the index of the lines of `text` to the new folder `out`, and return their number.
    `name` is the path that `model` was loaded from. Memory does not grow with the vectors. Without
    a prompt in `options` it is the model's for documents. With `graph`, search is approximate.

    ValueError: as `Model.encode`, before anything is computed; more than one vector per text; a
    vector of zeros or that is not finite; a file that is empty or not UTF-8; an `out` that exists.
    """
    io.require_new(out)
    check_read_twice(text)
    if graph:
        faiss_index.check_installed()
    options = _index_options(model, options or EmbedOptions())
    assert options.pool != "default"
    pool: Pool = options.pool
    size, digest, offsets, too_long = 0, hashlib.sha256(), [], 0
    for chunk in _chunks(text):  # find what is wrong before computing
        texts = _texts(chunk, text, len(offsets))
        too_long += options.check_lengths(model, texts, text, len(offsets))
        for line in chunk:
            digest.update(line)
            offsets.append(size)
            size += len(line)
    if not offsets:
        raise ValueError(f"{text} is empty: expected one text per line")
    options.warn_long(too_long, len(offsets))
    with io.atomic_dir(out) as new:
        width = _write_vectors(model, text, len(offsets), new / VECTORS, options)
        if graph:
            faiss_index.write_graph(np.load(new / VECTORS, mmap_mode="r"), new / faiss_index.GRAPH)
        np.save(new / OFFSETS, np.array(offsets, np.int64))
        info = IndexInfo(
            text=str(text.absolute()),
            text_sha256=digest.hexdigest(),
            lines=len(offsets),
            model=name,
            fingerprint=fingerprint(model),
            layer=int(options.layers[0]),
            pool=pool,
            prompt=prompt_text(model.sentence, options.prompt),
            dimensions=width,
            normalized=options.normalize,
            near=os.path.relpath(os.path.realpath(text), os.path.realpath(out)),
        )
        io.write_text(new / INFO, json.dumps(info._asdict(), indent=2) + "\n")
    return len(offsets)


def _index_options(model: Model, options: EmbedOptions) -> EmbedOptions:
    """The options of an index: one vector per text, of length 1 unless the model compares by dot
    product."""
    options = options.resolve(model)
    one = options.layers != "words" and len(options.layers) == 1
    if options.pool not in features.ONE_VECTOR or not one:
        raise ValueError(
            f"pool is {options.pool!r} and layers {options.layers!r}: an index has one vector per "
            "text; expected pool sentence, mean or cls, and one layer"
        )
    function = model.similarity_function
    if function not in ("cosine", "dot") and not options.normalize:
        raise ValueError(
            f"the model compares by {function} distance, and an index by cosine or dot product: "
            "normalize the vectors (--normalize)"
        )
    prompt = "document" if options.prompt is None else options.prompt
    return replace(options, prompt=prompt, normalize=options.normalize or function == "cosine")


def _write_vectors(model: Model, text: Path, lines: int, path: Path, options: EmbedOptions) -> int:
    """Write the vectors of all lines to a .npy file, and return their width."""
    vectors, done = None, 0
    for chunk in _chunks(text):
        x = options.encode(model, _texts(chunk, text, done))[0]
        check_vectors(x, f"{text}, line", done)
        if vectors is None:
            vectors = io.new_npy(path, (lines, x.shape[1]))
        vectors[done : done + len(x)] = x
        done += len(x)
    assert vectors is not None
    vectors.flush()
    return vectors.shape[1]


def _chunks(file: Path) -> Iterator[list[bytes]]:
    """The lines of a file with their ends, in lists (`text_chunks`)."""
    try:
        with file.open("rb") as f:
            yield from text_chunks(f)
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e}") from e


def _texts(lines: Sequence[bytes], file: Path, first: int) -> list[str]:
    return [without_end(decode_line(line, n, file)) for n, line in enumerate(lines, first + 1)]


# ---- searching


@dataclass(frozen=True)
class SearchIndex:
    """An index that is open for searching; vectors stay on disk."""

    folder: Path
    info: IndexInfo
    vectors: np.ndarray  # [lines d], a memory map
    offsets: np.ndarray
    graph: Any = None  # of FAISS

    @staticmethod
    def open(folder: str | Path, exact: bool = False) -> SearchIndex:
        """The index; with `exact` its graph is not read.

        ValueError: no index, files that do not belong together, a vector of zeros, a graph without
        FAISS.
        """
        folder = Path(folder)
        try:
            info = IndexInfo(**json.loads((folder / INFO).read_text(encoding="utf-8")))
            vectors = np.load(folder / VECTORS, mmap_mode="r")
            offsets = np.load(folder / OFFSETS)
        except (OSError, ValueError, TypeError, EOFError, RecursionError) as e:
            raise ValueError(
                f"{folder} is not a readable index ({e}): write one with bert-jax embed --index"
            ) from None
        if vectors.shape != (info.lines, info.dimensions) or offsets.shape != (info.lines,):
            raise ValueError(
                f"{folder} has vectors {list(vectors.shape)} and {len(offsets)} offsets, but "
                f"{INFO} says {info.lines} lines of width {info.dimensions}: write it again"
            )
        for begin in range(0, len(vectors), CHECKED_AT_A_TIME):
            check_vectors(vectors[begin : begin + CHECKED_AT_A_TIME], f"{folder}, line", begin)
        graph = None if exact else faiss_index.read_graph(folder, vectors.shape)
        return SearchIndex(folder, info, vectors, offsets, graph)

    def check_model(self, model: Model) -> None:
        """Raise ValueError unless `model` is the one that wrote the index."""
        if fingerprint(model) != self.info.fingerprint:
            raise ValueError(
                f"{self.folder} was written with another model than this one (it names "
                f"{self.info.model}): give that one with --model, or write the index again"
            )

    @functools.cached_property
    def text(self) -> Path:
        """The text file, as it was when the index was written: where it was, or where it lay from
        the index. ValueError: it is in neither place."""
        places = [Path(self.info.text)]
        if self.info.near:
            places.append(Path(os.path.realpath(self.folder), self.info.near))
        for place in places:
            with contextlib.suppress(OSError), place.open("rb") as f:
                if hashlib.file_digest(f, "sha256").hexdigest() == self.info.text_sha256:
                    return place
        changed = [place for place in places if place.is_file()]
        if changed:
            raise ValueError(
                f"{changed[0]} has changed since the index was written: write it again"
            )
        raise ValueError(
            f"the text of the index cannot be read: expected {' or '.join(map(str, places))}: "
            "bring it back"
        )

    def check_text(self) -> Path:
        """`text`. ValueError: the file has changed or is gone."""
        return self.text

    def search(
        self,
        model: Model,
        queries: Sequence[str],
        top: int = 10,
        truncate: bool = False,
        prompt: str = "query",
        first: int = 0,
    ) -> list[list[Hit]]:
        """The `top` most similar lines of each query, best first; equal scores in line order. With
        a graph some may be missed. `prompt` is a text before each query, or the name of one of the
        model's prompts; `first` the number of the first query, for messages.
        `model` wrote the index (`check_model`).

        ValueError: a text that has changed or is gone, `top` below 1, a query that is too long
        unless `truncate`, a vector of zeros.
        """
        if top < 1:
            raise ValueError(f"top is {top}: expected at least 1")
        info = self.info
        options = EmbedOptions(
            (info.layer,),
            info.pool,
            truncate=truncate,
            normalize=info.normalized,
            prompt=prompt,
            dimensions=info.dimensions,
        )
        vectors = options.encode(model, queries)[0]
        check_vectors(vectors, "query", first)
        if self.graph is None:
            hits = retrieval.top_k(vectors, self.vectors, top)
        else:
            hits = faiss_index.top_k(self.graph, vectors, self.vectors, top)
        with self.text.open("rb") as f:
            return [
                [
                    Hit(rank, float(score), int(n) + 1, self._line(f, int(n)))
                    for rank, (n, score) in enumerate(zip(numbers, scores, strict=True), 1)
                ]
                for numbers, scores in zip(*hits, strict=True)
            ]

    def _line(self, file: Any, number: int) -> str:
        file.seek(self.offsets[number])
        return without_end(decode_line(file.readline(), number + 1, self.text))
