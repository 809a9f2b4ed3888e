"""Pairs of texts for sentence encoders, and retrieval sets: files to rows of tokens.

    train.jsonl   {"text", "positive", "negatives": [...]}   or   {"text", "text_pair", "score"}
    dev.jsonl     the same; or a folder dev/ with a retrieval set. test likewise, and optional

.csv and .tsv may stand for .jsonl (tables.py).

A retrieval set is BEIR's: `corpus.jsonl` {"_id", "title", "text"}, `queries.jsonl` {"_id", "text"},
`qrels.tsv` with the columns query, document, grade and perhaps a header. `title` may be absent, and
`id` may stand for `_id`. Pairs for evaluation become one: all their texts are the corpus.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.tasks import tables
from bert_jax.tasks.fields import EMPTY_TEXT, MAX_NUMBER, Fields, IssueCounts, Location, is_blank
from bert_jax.tasks.rerank import MAX_GRADE
from bert_jax.tasks.text_files import LocatedRecord, read_json_lines, read_lines

PAIR_SUFFIXES = (".jsonl", *tables.NAMED_COLUMNS)


class Pair(NamedTuple):
    """A query with its positive and hard negatives, or two texts with a score."""

    text: str
    positive: str
    negatives: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, documents in the order of their ids, and the judged documents of each query."""

    queries: list[str]
    documents: list[str]
    grades: list[dict[int, float]]  # per query: number of the document -> grade
    query_ids: list[str]
    document_ids: list[str]
    # Per query: number of the document that is its own text and is not ranked; None: none is.
    own: list[int | None]


Split = list[Pair] | RetrievalSet


@dataclass(frozen=True)
class PairDataset:
    """The splits `train`, `dev` and perhaps `test`; notes are messages with counts."""

    splits: dict[str, Split]
    scored: bool  # whether pairs have a score
    notes: list[str] = field(default_factory=list)

    task = task_type = "pairs"

    @property
    def train(self) -> list[Pair]:
        """The training pairs."""
        pairs = self.splits["train"]
        assert isinstance(pairs, list)
        return pairs


# ---- reading


def read_pair_dataset(folder: str | Path) -> PairDataset:
    """ValueError: a missing file, a missing or invalid field, rows with and without a score."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: expected one with train.jsonl and dev")
    files = {s: tables.split_file(folder, s, PAIR_SUFFIXES) for s in ("train", "dev", "test")}
    issues: IssueCounts = Counter()
    train = read_pairs(files["train"] or folder / "train.jsonl", issues)
    splits: dict[str, Split] = {"train": train}
    for split in ("dev", "test"):
        if (folder / split).is_dir():
            if (file := files[split]) is not None:
                raise ValueError(f"{folder} has {file.name} and a folder {split}: expected one")
            splits[split] = read_retrieval_set(folder / split)
        elif (file := files[split]) is not None:
            splits[split] = read_pairs(file, issues)
        elif split == "dev":
            raise ValueError(
                f"{folder} has neither dev.jsonl nor a folder dev: expected pairs, or a retrieval "
                "set with corpus.jsonl, queries.jsonl and qrels.tsv"
            )
    scored = {
        split: pairs[0].score is not None
        for split, pairs in splits.items()
        if isinstance(pairs, list)
    }
    if len(set(scored.values())) > 1:
        raise ValueError(
            f"{folder} has a score in {', '.join(s for s in scored if scored[s])} alone: expected "
            "a score in all splits of pairs or in none"
        )
    notes = [f"{file}: {what}: {n}" for (file, what), n in issues.items()]
    return PairDataset(splits, scored["train"], [*notes, *_notes(splits)])


def read_pairs(file: Path, issues: IssueCounts | None = None) -> list[Pair]:
    """The pairs of a .csv or .tsv file with named columns, or of JSONL. What is unusual in a table
    is counted in `issues`.

    ValueError: a file that is missing or empty, a missing or invalid field.
    """
    return parse_pairs(list(tables.read_records("pairs", file, issues)), file)


def parse_pairs(records: Sequence[LocatedRecord], file: Path) -> list[Pair]:
    """The pairs of a file's records. ValueError: there are none, a missing or invalid field."""
    pairs = [_parse_pair(record, location) for location, record in records]
    if not pairs:
        raise ValueError(f"{file} is empty: expected rows of pairs")
    scored = [pair.score is not None for pair in pairs]
    if any(scored) != all(scored):
        raise ValueError(
            f"{file}: {sum(scored)} of {len(pairs)} rows have a score: expected all or none"
        )
    return pairs


def refuse_scores(pairs: Sequence[Pair], source: Path) -> None:
    """ValueError: the pairs of `source` have scores, and no positives."""
    if pairs[0].score is not None:
        raise ValueError(f"{source} has pairs with a score: expected rows with a positive")


def _parse_pair(record: dict[str, Any], location: Location) -> Pair:
    fields = Fields(record, location)
    if "score" not in record and "text_pair" not in record:
        negatives = fields.texts("negatives") if "negatives" in record else ()
        return Pair(fields.text("text"), fields.text("positive"), negatives)
    score = fields.value("score", expected="a finite number")
    number = isinstance(score, int | float) and not isinstance(score, bool)
    if not number or not abs(score) <= MAX_NUMBER:
        raise ValueError(
            f"{location}: `score` is {score!r:.40}: expected a finite number, at most "
            f"{MAX_NUMBER:.0e} in size"
        )
    return Pair(fields.text("text"), fields.text("text_pair"), score=float(score))


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """ValueError: a missing or empty file, an id that occurs twice or that is in the judgments
    alone, no judgment above 0."""
    documents = _read_texts(folder / "corpus.jsonl")
    queries = _read_texts(folder / "queries.jsonl")
    order = sorted(documents)  # equal scores are ranked by id
    numbers = {id: i for i, id in enumerate(order)}
    grades: dict[str, dict[int, float]] = defaultdict(dict)
    for location, query, document, grade in _read_judgments(folder / "qrels.tsv"):
        for id, known, file in ((query, queries, "queries"), (document, documents, "corpus")):
            if id not in known:
                raise ValueError(
                    f"{location}: the id {id!r:.60} is not in {file}.jsonl: add it, or remove this "
                    "line"
                )
        if grades[query].get(numbers[document], grade) != grade:
            raise ValueError(
                f"{location}: document {document!r:.60} has two grades for query {query!r:.60}: "
                "remove one of the lines"
            )
        grades[query][numbers[document]] = grade
    judged = [id for id in queries if any(g > 0 for g in grades.get(id, {}).values())]
    if not judged:
        raise ValueError(f"{folder / 'qrels.tsv'} has no grade above 0: expected some")
    return RetrievalSet(
        [queries[id] for id in judged],
        [documents[id] for id in order],
        [grades[id] for id in judged],
        judged,
        order,
        [None] * len(judged),
    )


def _read_texts(file: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for location, record in read_json_lines(file):
        id = record.get("_id", record.get("id"))
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise ValueError(f"{location}: no `_id`: expected a string or an integer")
        if str(id) in texts:
            raise ValueError(f"{location}: the id {id!r:.60} occurs twice: expected distinct ids")
        fields = Fields(record, location)
        title = f"{fields.text('title')} " if record.get("title") else ""
        texts[str(id)] = title + fields.text("text")
    if not texts:
        raise ValueError(f"{file} is empty: expected one JSON object per line")
    return texts


def _read_judgments(file: Path) -> Iterable[tuple[Location, str, str, float]]:
    for number, (location, line) in enumerate(read_lines(file)):
        columns = line.split("\t")
        if not line.strip() or (number == 0 and columns[-1].strip() in ("score", "grade")):
            continue
        try:
            query, document, text = columns
            grade = float(text)
        except ValueError:
            raise ValueError(
                f"{location}: {line!r:.60}: expected query, document and grade, separated by tabs"
            ) from None
        if not abs(grade) <= MAX_GRADE:
            raise ValueError(
                f"{location}: the grade is {text.strip()}: expected a number of at most "
                f"{MAX_GRADE:.0e} in size"
            )
        yield location, query, document, grade


def pairs_as_retrieval_set(pairs: Sequence[Pair]) -> RetrievalSet:
    """Pairs without scores: each distinct text has to find all its positives among all positives
    and negatives, in the order of the rows. Its own text is left out, as in training, unless it is
    one of its positives."""
    numbers: dict[str, int] = {}
    grades: dict[str, dict[int, float]] = {}
    for pair in pairs:
        for text in (pair.positive, *pair.negatives):
            numbers.setdefault(text, len(numbers))
        grades.setdefault(pair.text, {})[numbers[pair.positive]] = 1.0
    ids = [str(i) for i in range(len(numbers))]
    queries = list(grades)
    own = [numbers.get(text) for text in queries]
    own = [None if n in grades[text] else n for text, n in zip(queries, own, strict=True)]
    return RetrievalSet(queries, list(numbers), list(grades.values()), queries, ids, own)


def _notes(splits: dict[str, Split]) -> list[str]:
    notes = []
    for split, pairs in splits.items():
        if isinstance(pairs, list):
            empty = sum(is_blank(p.text, p.positive, *p.negatives) for p in pairs)
            notes += [f"{split}: {EMPTY_TEXT}: {empty}"] if empty else []
    return notes
