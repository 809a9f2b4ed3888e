"""What a text is scored beside: counts of another file, or of the other half of the text.

document 0   document 1          document 2        the middle, in characters: between documents
             first | second                        if one ends near it, or else between words

the first half is scored by counts of the second, and the second by counts of the first
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_jax.data.documents import TEXT_FIELD, Document, read_documents
from bert_jax.data.tokenization.normalization import Fold, fold_text
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.neighbor_counts import NeighborCounts
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.token_rows import TokenRows, spaced_lines, text_rows

MAX_COUNT_TOKENS = 20_000_000  # about a gigabyte of tables
MIN_ROWS = 4  # of a text, two of each half
REPEATED_LINE = 30  # characters of a line that does not occur twice by chance
REPEATED_SHARE = 0.01  # of the text that may stand in what is counted before a note says so

Position = tuple[int, int]  # of a text: the number of the document, and the character in it


@dataclass(frozen=True)
class TextCounts:
    """The rows of a text, and the counts that score them and the words of the text."""

    rows: TokenRows
    by_row: CountsByRow
    middle: Position | None  # where the second of `by_row.counts` begins to score, if there are two
    made_from: str
    notes: tuple[str, ...]

    def by_word(self, positions: Sequence[Position]) -> CountsByRow:
        """The counts for the words that begin at these positions of the text."""
        middle = self.middle
        index = [0 if middle is None else int(position >= middle) for position in positions]
        return CountsByRow(self.by_row.counts, np.array(index))


class _FirstRows(NamedTuple):
    rows: TokenRows
    lines: set[int]  # hashes of long lines
    is_cut: bool  # whether the file has more


@dataclass(frozen=True)
class TextReader:
    """Makes rows of `length` tokens from documents. `field` of records holds their text."""

    tokenizer: Tokenizer
    length: int
    fold: Sequence[Fold] = ()
    field: str = TEXT_FIELD

    def parts(self, documents: Iterable[Document]) -> list[TokenRows]:
        """The rows of each document that has tokens."""
        folded = (fold_document(document, self.fold) for document in documents)
        return text_rows(folded, self.tokenizer, self.length)

    def row_start(self, document: Document, row: int) -> int:
        """The character of the document's text at which one of its rows begins."""
        tokens = row * self.tokenizer.special_tokens.text_capacity(self.length, 1)
        if not tokens:
            return 0
        folded = fold_document(document, self.fold)
        lines = zip(folded.paragraphs, spaced_lines(folded, self.tokenizer), strict=True)
        at = 0  # of the line in the text
        for line, spaced in lines:
            _, spans = self.tokenizer.encode_with_offsets(spaced)
            if tokens < len(spans):
                return max(0, at + len(line) - len(spaced) + int(spans[tokens, 0]))
            tokens -= len(spans)
            at += len(line) + 1
        return at

    def rows(self, documents: Iterable[Document], file: str | Path) -> TokenRows:
        """The rows of all documents. ValueError: they have no tokens."""
        return _concatenate(self.parts(documents), file)

    def first_rows(self, file: str | Path) -> _FirstRows:
        """The first documents of a file, up to the number of tokens that are counted."""
        parts, lines, tokens = [], set(), 0
        documents = iter(read_documents([file], field=self.field))
        for document in documents:
            lines |= _long_lines(document.paragraphs)
            for part in self.parts([document]):
                parts.append(part)
                tokens += int(part.size.sum())
            if tokens >= MAX_COUNT_TOKENS:
                break
        return _FirstRows(_concatenate(parts, file), lines, next(documents, None) is not None)

    def fit(self, tokens: np.ndarray, file: str | Path) -> NeighborCounts:
        """The counts of rows. ValueError: too few of them have known tokens."""
        try:
            return NeighborCounts.fit(tokens, TokenKinds.of(self.tokenizer))
        except ValueError as e:
            share = unknown_share(tokens, self.tokenizer)
            raise ValueError(
                f"{file}: {e} ({share:.0%} of its pieces are unknown to the model's tokenizer)"
            ) from e


def count_file(
    documents: Sequence[Document], file: str | Path, counts_file: str | Path, reader: TextReader
) -> TextCounts:
    """The counts of another file.

    ValueError: it is the same file, or one of them has too little text."""
    if Path(counts_file).resolve() == Path(file).resolve():
        raise ValueError(f"{file} is also the text to score: give another file as --counts")
    counted = reader.first_rows(counts_file)
    tokens = counted.rows.tokens
    counts = reader.fit(tokens, counts_file)
    number = int((~TokenKinds.of(reader.tokenizer).excluded[tokens]).sum())
    made_from = f"{counts_file}, {'the first ' if counted.is_cut else ''}{number:,} tokens"
    rows = reader.rows(documents, file)
    lines = [line for document in documents for line in document.paragraphs]
    repeated = _repeated_note(lines, counted.lines, str(counts_file))
    return TextCounts(rows, CountsByRow.same(counts, len(rows)), None, made_from, repeated)


def count_halves(documents: Sequence[Document], file: str | Path, reader: TextReader) -> TextCounts:
    """The counts of the other half of the text, in rows.

    ValueError: the text is too short for counts."""
    parts = [reader.parts([document]) for document in documents]
    rows = _concatenate([part for of_document in parts for part in of_document], file)
    if len(rows) < MIN_ROWS:
        raise _too_short(file, rows, reader.tokenizer)
    per_document = [sum(map(len, of_document)) for of_document in parts]
    middle = find_middle(per_document)
    halves = [rows.tokens[:middle], rows.tokens[middle:]]
    limit = max(2, MAX_COUNT_TOKENS // reader.length)
    counts = [reader.fit(half[:limit], file) for half in reversed(halves)]
    index = (np.arange(len(rows)) >= middle).astype(int)
    cut = f" of which at most {limit * reader.length:,} tokens are counted,"
    made_from = (
        f"the other half of the text,{cut if max(map(len, halves)) > limit else ''} so each half "
        "is scored by the other"
    )
    number = int(np.searchsorted(np.cumsum(per_document), middle, side="right"))
    at = reader.row_start(documents[number], middle - sum(per_document[:number]))
    first, second = _split_lines(documents, (number, at))
    notes = _repeated_note(first, _long_lines(second), "the other half")
    return TextCounts(rows, CountsByRow(counts, index), (number, at), made_from, notes)


def find_middle(rows: Sequence[int]) -> int:
    """The first row of the second half, from the number of rows of each document: between the
    documents nearest to the middle, or within one where this would leave less than a quarter to one
    side."""
    ends = np.cumsum(rows)
    total = int(ends[-1])
    end = int(ends[np.abs(ends - total / 2).argmin()])
    return end if total / 4 <= end <= total * 3 / 4 else total // 2


def _too_short(file: str | Path, rows: TokenRows, tokenizer: Tokenizer) -> ValueError:
    unknown = unknown_share(rows.tokens, tokenizer)
    why = f" ({unknown:.0%} of its pieces are unknown to the model's tokenizer)" if unknown else ""
    return ValueError(
        f"{file} gives {len(rows)} row{'s' if len(rows) != 1 else ''} of tokens{why}, too few for "
        "counts of each half: give a longer text, or --counts FILE"
    )


def _concatenate(parts: Sequence[TokenRows], file: str | Path) -> TokenRows:
    if not parts:
        raise ValueError(f"{file} has no text that the tokenizer keeps: give another text")
    return TokenRows.concatenate(parts)


def unknown_share(tokens: np.ndarray, tokenizer: Tokenizer) -> float:
    """The share of unknown pieces among the tokens of text of some rows."""
    unknown = (tokens == tokenizer.unk_id).sum()
    known = (~TokenKinds.of(tokenizer).excluded[tokens]).sum()
    return float(unknown / max(1, unknown + known))


def fold_document(document: Document, fold: Sequence[Fold]) -> Document:
    """The document without the distinctions `fold`."""
    if not fold:
        return document
    return document._replace(paragraphs=tuple(fold_text(p, fold) for p in document.paragraphs))


def document_text(document: Document) -> str:
    """The paragraphs, with a space between."""
    return " ".join(document.paragraphs)


# ---- repeated text


def _split_lines(documents: Sequence[Document], middle: Position) -> tuple[list[str], list[str]]:
    """The lines that begin before a position, and the others."""
    halves: tuple[list[str], list[str]] = [], []
    for number, document in enumerate(documents):
        at = 0
        for line in document.paragraphs:
            halves[(number, at) >= middle].append(line)
            at += len(line) + 1  # and the space after it
    return halves


def _long_lines(lines: Iterable[str]) -> set[int]:
    return {hash(line) for line in lines if len(line) >= REPEATED_LINE}


def _repeated_note(lines: Sequence[str], known: set[int], name: str) -> tuple[str, ...]:
    """A note if lines of the text stand in what is counted too: the counts know the answers."""
    repeated = sum(len(x) for x in lines if len(x) >= REPEATED_LINE and hash(x) in known)
    total = sum(map(len, lines))
    if repeated < REPEATED_SHARE * total or not repeated:
        return ()
    share = f"{repeated / total:.0%}"
    return (f"{share} of the text stands in {name} word for word, so the counts know it already",)
