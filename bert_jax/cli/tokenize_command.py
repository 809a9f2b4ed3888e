"""The command that shows what a tokenizer does to text: `tokenize`."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from bert_jax.cli.command import MODEL, Command, optional
from bert_jax.utils.text_lines import iter_lines, without_surrogates

if TYPE_CHECKING:
    from bert_jax.data.tokenization.tokenizer import Tokenizer

LONGEST = 3  # lines with the most pieces, which --report shows


@dataclass(frozen=True)
class Tokenize(Command):
    """Show the pieces of a text, or with --report how well a tokenizer covers a file.

    Example: bert-jax tokenize runs/demo "Unbelievable, isn't it?"
    """

    texts: ClassVar[tuple[str, ...]] = ("text",)

    model: Annotated[
        Positional[str], arg(metavar="MODEL", help=f"{MODEL[:-1]}; or a tokenizer's folder.")
    ]
    # Text to tokenize.
    text: Annotated[Positional[str | None], arg(metavar="TEXT", help_behavior_hint="")] = None
    # File with one text per line, instead of TEXT; or any other text that prepare reads (FASTA,
    # JSONL, parquet, compressed files, globs).
    file: Annotated[str | None, optional("FILE")] = None
    # With --file: field of records, or column, that holds the text.
    field: Annotated[str | None, optional("NAME")] = None
    # Print the share of unknown tokens, pieces per word, the characters that normalization removes
    # or changes, and the longest lines of the file.
    report: bool = False
    # Print one JSON object per text, or one for the report.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.data.documents import is_plain
        from bert_jax.data.tokenization.pretrained import tokenizer_folder
        from bert_jax.data.tokenization.tokenizer import load_tokenizer

        if (self.text is None) == (self.file is None):
            raise ValueError("expected either TEXT or --file FILE")
        if self.field is not None and (self.file is None or is_plain(self.file)):
            raise ValueError("--field is for a --file of records (.jsonl, .parquet): leave it out")
        tokenizer = load_tokenizer(tokenizer_folder(self.model))
        if self.report:
            report = _report(tokenizer, self._texts())
            print(json.dumps(report, ensure_ascii=False) if self.json else _render(report))
            return 0
        for text in self._texts():
            row = _describe(tokenizer, text)
            print(json.dumps(row, ensure_ascii=False) if self.json else _table(row))
        return 0

    def _texts(self) -> Iterator[str]:
        from bert_jax.data.documents import TEXT_FIELD

        if self.text is not None:
            return iter([without_surrogates(self.text)])
        return _lines(str(self.file), self.field or TEXT_FIELD)


def _lines(file: str, field: str) -> Iterator[str]:
    """The lines of a plain file, or the paragraphs of what else `prepare` reads."""
    from bert_jax.data import documents

    if not documents.is_plain(file):
        read = documents.read_documents([file], field=field)
        return (p for document in read for p in document.paragraphs)
    lines = iter_lines(file)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{file} is empty: expected one text per line")
    return itertools.chain([first], lines)


def _describe(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """The pieces of a text, their ids and characters, and which begin a word or are unknown."""
    import numpy as np

    ids, offsets = tokenizer.encode_with_offsets(text)
    row = np.array([tokenizer.cls_id, *ids])
    begins = tokenizer.word_edges().begins_word(row)[1:]
    return {
        "text": text,
        "pieces": [tokenizer.token(i) for i in ids],
        "ids": [int(i) for i in ids],
        "characters": [text[begin:end] for begin, end in offsets],
        "word_starts": begins.tolist(),
        "unknown": [bool(i == tokenizer.unk_id) for i in ids],
    }


def _table(row: dict[str, Any]) -> str:
    """One line per piece; `*` marks the beginning of a word."""
    columns = zip(*(row[k] for k in ("ids", "word_starts", "pieces", "characters")), strict=True)
    lines = [f"{i:>7} {'*' if start else ' '} {piece}  {text}" for i, start, piece, text in columns]
    words, unknown = sum(row["word_starts"]), sum(row["unknown"])
    total = f"{len(lines)} pieces, {words} words (each begins at *), {unknown} unknown"
    return "\n".join([f"{'id':>7}   piece  text", *lines, total])


def _report(tokenizer: Tokenizer, lines: Iterable[str]) -> dict[str, Any]:
    """The counts of lines, which are not held in memory."""
    from bert_jax.data.tokenization import coverage, normalization

    covered, characters, number, longest_word = coverage.Coverage(), Counter[str](), 0, 0
    longest: list[tuple[int, int]] = []  # negative tokens and number of a line
    for batch in coverage.batches(lines):
        ids = tokenizer.encode_batch(batch)
        covered = covered.add(coverage.of_encoded(tokenizer, batch, ids))
        sizes = [(-len(row), number + i + 1) for i, row in enumerate(ids)]
        longest = sorted([*longest, *sizes])[:LONGEST]
        number += len(batch)
        longest_word = max(longest_word, coverage.longest_word(batch))
        for line in batch:
            characters.update(line)
    lost = normalization.lost_characters(tokenizer, characters)
    reason = coverage.unknown_reason(tokenizer, characters, longest_word)
    return {
        "lines": number,
        "characters": characters.total(),
        "tokens": covered.tokens,
        "words": covered.words,
        "unknown": covered.unknown,
        "unknown_share": covered.unknown_share,
        "unknown_characters": covered.unknown_characters,
        "unknown_characters_share": covered.lost_share,
        "unknown_reason": reason if covered.unknown else None,
        "pieces_per_word": covered.tokens / max(1, covered.words),
        "lost_characters": lost.total(),
        "lost": dict(lost.most_common(10)),
        "longest": [{"line": line, "tokens": -size} for size, line in longest],
    }


def _render(report: dict[str, Any]) -> str:
    unknown = f"unknown tokens: {report['unknown']} ({report['unknown_share']:.3%})"
    if report["unknown"]:
        lost, share = report["unknown_characters"], report["unknown_characters_share"]
        unknown += f", with {lost} characters ({share:.3%} of those that are not white space)"
    lines = [
        f"{report['lines']} lines, {report['characters']} characters, {report['words']} words, "
        f"{report['tokens']} tokens",
        unknown,
        f"pieces per word: {report['pieces_per_word']:.2f}",
    ]
    if report["unknown_reason"]:
        lines.insert(2, f"  {report['unknown_reason']}")
    share = report["lost_characters"] / max(1, report["characters"])
    lines.append(
        f"characters that are removed or changed: {report['lost_characters']} ({share:.3%})"
    )
    lines += [f"  {c!r} (U+{ord(c):04X})  {n}" for c, n in report["lost"].items()]
    longest = ", ".join(f"line {x['line']} has {x['tokens']} tokens" for x in report["longest"])
    return "\n".join([*lines, f"longest: {longest}"])
