"""`mine --rerank`: the candidates that a first stage finds for each query, for a reranker."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.mine import QUERIES_AT_A_TIME, text_vectors
from bert_jax.inference.model import Model
from bert_jax.inference.text_lengths import refuse_long_texts
from bert_jax.tasks import pairs, retrieval
from bert_jax.tasks.encode_pairs import merge_equal_texts
from bert_jax.tasks.pairs import RetrievalSet
from bert_jax.utils import io, strict_json


class CandidateCounts(NamedTuple):
    """What `write_candidates` found."""

    queries: int
    relevant: int  # judged documents with a grade above 0
    found: int  # of them, those among the candidates
    added: int  # of the others, those that were put behind the candidates


def write_candidates(
    model: Model,
    source: Path,
    out: Path,
    candidates: int = 50,
    add_positives: bool = False,
    truncate: bool = False,
) -> CandidateCounts:
    """Write a row of tasks/rerank.py for each query of `source` to the new file `out`.

    `source` is a retrieval set (a folder) or a file of pairs, whose texts are then the documents. A
    row has the `candidates` documents that are most similar (the cosine, or the dot product of a
    model that compares so), best first, and their grades (0 for those that are not judged); of
    pairs a query's own text is no candidate. Grades of relevant documents that are not among them
    are `missing`; with `add_positives`, for training, those documents come last instead.

    ValueError: pairs with a score, an `out` that exists, fewer than 1 candidate, a text that is too
    long unless `truncate`.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}: expected at least 1")
    io.require_new_jsonl(out)
    found = _read(source, model.tokenizer)
    pool = model.default_pool
    refuse_long_texts(model, found.documents, "document", truncate, pool, "document")
    refuse_long_texts(model, found.queries, "query", truncate, pool, "query")
    unit = model.similarity_function != "dot"
    documents = text_vectors(model, found.documents, "document", truncate, normalize=unit)
    lines, num_relevant, num_found = [], 0, 0
    for begin in range(0, len(found.queries), QUERIES_AT_A_TIME):
        part = slice(begin, begin + QUERIES_AT_A_TIME)
        texts = found.queries[part]
        queries = text_vectors(model, texts, "query", truncate, begin, normalize=unit)
        hits = retrieval.hits_without(queries, documents, candidates, found.own[part])
        for i, (numbers, _) in enumerate(hits, begin):
            grades = found.grades[i]
            relevant = [n for n, grade in grades.items() if grade > 0]
            others = [n for n in relevant if n not in set(numbers)]
            num_relevant += len(relevant)
            num_found += len(relevant) - len(others)
            chosen = [*numbers, *others] if add_positives else numbers
            row = {
                "text": found.queries[i],
                "documents": [found.documents[n] for n in chosen],
                "labels": [max(grades.get(n, 0), 0) for n in chosen],
            }
            if others and not add_positives:
                row["missing"] = [grades[n] for n in others]
            lines.append(strict_json.dumps(row, ensure_ascii=False) + "\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    io.write_text(out, "".join(lines))
    added = num_relevant - num_found if add_positives else 0
    return CandidateCounts(len(lines), num_relevant, num_found, added)


def _read(source: Path, tokenizer: Tokenizer) -> RetrievalSet:
    if source.is_dir():
        return pairs.read_retrieval_set(source)
    rows = pairs.read_pairs(source)
    pairs.refuse_scores(rows, source)
    return pairs.pairs_as_retrieval_set(merge_equal_texts(rows, tokenizer))
