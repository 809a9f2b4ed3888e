"""`mine`: hard negatives for pairs: documents close to a query that are not its positives.

Every text of the file is encoded once, and the result depends on nothing but the model and the
file: equal scores are ordered by first occurrence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_jax.inference.model import Model
from bert_jax.inference.sentence_vectors import check_vectors
from bert_jax.inference.text_lengths import refuse_long_texts
from bert_jax.tasks import pairs, retrieval, tables
from bert_jax.tasks.encode_pairs import first_equal_texts
from bert_jax.utils import io, strict_json
from bert_jax.utils.text_lines import text_chunks

QUERIES_AT_A_TIME = 256
NEGATIVES, MARGIN = 4, 0.05  # defaults


class MiningCounts(NamedTuple):
    """What `mine_negatives` found."""

    rows: int
    mined: int  # negatives, over all rows
    too_close: int  # documents that were left out because of the margin
    incomplete: int  # rows with fewer mined negatives than requested


def mine_negatives(
    model: Model,
    source: Path,
    out: Path,
    negatives: int = NEGATIVES,
    margin: float = MARGIN,
    candidates: int = 50,
    truncate: bool = False,
) -> MiningCounts:
    """Write the pairs of `source` with mined negatives to the new JSONL file `out`, in their order
    and with all their fields.

    For each row the `candidates` documents that are closest to its query are considered, among all
    positives and negatives of the file, closest first. Left out are the query's own text, all its
    positives and negatives in the file, and documents whose similarity is not at least `margin`
    below that of the row's positive: those may be positives that nobody marked. The first
    `negatives` of the others are added behind the row's own ones. Similarity is the cosine. Texts
    with the same tokens are one text.

    ValueError: rows with a score or without a positive, an `out` that exists, counts below 1, a
    text that is too long unless `truncate`.
    """
    if min(negatives, candidates) < 1 or not 0 <= margin < math.inf:
        raise ValueError(
            f"negatives is {negatives}, candidates {candidates} and margin {margin}: expected at "
            "least 1, 1 and 0"
        )
    io.require_new_jsonl(out)
    records = list(tables.read_records("pairs", source))
    rows = pairs.parse_pairs(records, source)
    pairs.refuse_scores(rows, source)
    of_rows = [(row.text, row.positive, *row.negatives) for row in rows]
    first = first_equal_texts([text for texts in of_rows for text in texts], model.tokenizer)
    known: dict[str, set[str]] = defaultdict(set)
    for row_texts in of_rows:
        known[first[row_texts[0]]] |= {first[text] for text in row_texts}
    texts = list(dict.fromkeys(first[text] for row_texts in of_rows for text in row_texts[1:]))
    pool = model.default_pool
    refuse_long_texts(model, texts, "document", truncate, pool, "document")
    refuse_long_texts(model, [row.text for row in rows], "query", truncate, pool, "query")
    documents = text_vectors(model, texts, "document", truncate)
    number = {text: i for i, text in enumerate(texts)}
    lines, mined, too_close, incomplete = [], 0, 0, 0
    for begin in range(0, len(rows), QUERIES_AT_A_TIME):
        part = rows[begin : begin + QUERIES_AT_A_TIME]
        queries = text_vectors(model, [row.text for row in part], "query", truncate, begin)
        hits = retrieval.top_k(queries, documents, candidates)
        for row, query, numbers, scores in zip(part, queries, *hits, strict=True):
            own = documents[number[first[row.positive]]]
            positive = retrieval.dot(query[None], own[None])[0, 0]
            found = ((texts[n], score) for n, score in zip(numbers, scores, strict=True))
            others = [hit for hit in found if hit[0] not in known[first[row.text]]]
            far = [text for text, score in others if score <= positive - margin]
            too_close += len(others) - len(far)
            mined += len(far[:negatives])
            incomplete += len(far) < negatives
            record = records[len(lines)][1] | {
                "text": row.text,
                "positive": row.positive,
                "negatives": [*row.negatives, *far[:negatives]],
            }
            line = strict_json.dumps(record, ensure_ascii=False) + "\n"
            lines.append(line.encode(errors="replace").decode())  # of half a surrogate pair
    out.parent.mkdir(parents=True, exist_ok=True)
    io.write_text(out, "".join(lines))
    return MiningCounts(len(rows), mined, too_close, incomplete)


def text_vectors(
    model: Model,
    texts: Sequence[str],
    prompt: str,
    truncate: bool,
    first: int = 0,
    normalize: bool = True,
) -> np.ndarray:
    """The vectors [n d] of texts after a prompt; of length 1 with `normalize`. `first` is the
    number of the first text, for messages."""
    vectors = np.concatenate(
        [
            model.encode(chunk, truncate=truncate, prompt=prompt, normalize=normalize)[0]
            for chunk in text_chunks(texts)
        ]
    )
    check_vectors(vectors, f"{prompt} text", first)
    return vectors
