"""Commands that read text: `tokenizer` and `prepare`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.command import Command, Extra, optional

logger = logging.getLogger(__name__)

COVERAGE_LINES = 10_000  # of the text, spread evenly, that `tokenizer` counts unknown tokens in

Text = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="TEXT...",
        help="Files and globs: plain text with blank lines between documents, .fasta, .jsonl or "
        ".json with one object per line, also with .gz, .bz2, .xz or .zst, or .parquet (field "
        "`text`); tfds:NAME/SPLIT; or a dataset of the Hugging Face Hub, "
        "hf:datasets/OWNER/NAME[@REVISION][/CONFIG]/SPLIT.",
        help_behavior_hint="(required)",
    ),
]


@dataclass(frozen=True)
class Tokenizer(Command):
    """Train a tokenizer. Its folder also loads in Hugging Face.

    Example: bert-jax tokenizer data/sample.txt --kind wordpiece --vocab-size 4000 --out tok
    """

    text: Text
    # Type of tokenizer: WordPiece (BERT), Unigram (ALBERT), byte-level BPE (RoBERTa), or single
    # characters (proteins, DNA).
    kind: Literal["wordpiece", "unigram", "bpe", "chars"]
    # New folder for the tokenizer.
    out: Annotated[str, arg(metavar="DIR")]
    # Number of pieces, including special tokens. With chars it is a maximum and may be left out.
    vocab_size: Annotated[int | None, optional("N")] = None
    # chars only: groups of N characters are pieces, too, as codons are of DNA with 3.
    kmer: Annotated[int, arg(metavar="N")] = 1
    # Keep upper case, and by default accents. bpe always keeps both, and chars does by default.
    cased: bool = False
    # Lower-case all text, and by default strip accents. This is the default, except for
    # bpe and chars.
    uncased: bool = False
    # Keep or strip accents and other marks that are combined with a letter. Stripping turns ö into
    # o, but also が into か, İ into i, and drops Indic viramas and vowel marks; WordPiece then also
    # splits Korean syllables into jamo. WordPiece always drops joiners, such as the Persian ZWNJ;
    # the other kinds keep them.
    accents: Literal["keep", "strip"] | None = None
    # WordPiece only: longer words become the unknown token. The default is 100, as in Hugging Face;
    # BERT's and ELECTRA's own code uses 200.
    max_input_chars_per_word: Annotated[int | None, optional("N")] = None
    # WordPiece and unigram: number of characters to learn; the others become the unknown token. By
    # default WordPiece's alphabet takes up to half of the pieces, unigram's covers 99.995 % of the
    # text.
    alphabet: Annotated[int | None, optional("N")] = None
    # Maximum number of characters to learn from, in millions. Lines of longer text are sampled
    # evenly.
    sample_mb: Annotated[float, arg(metavar="N")] = 200
    # Field of records, or column, that holds the text.
    field: Annotated[str, arg(metavar="NAME")] = "text"
    # Refuse text with bytes that are not UTF-8, instead of replacing them.
    strict: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.data import documents
        from bert_jax.data.tokenization import training
        from bert_jax.data.worker_pool import Progress
        from bert_jax.utils import io

        def lines() -> Iterator[str]:
            with Progress("reading", "M characters") as bar:
                for document in documents.read_documents(self.text, self.strict, self.field):
                    yield from document.paragraphs
                    bar.add(document.characters / 1e6)

        if self.vocab_size is None and self.kind != "chars":
            raise ValueError("--vocab-size is missing: expected a number of pieces, such as 8000")
        if self.uncased and (self.cased or self.kind == "bpe"):
            other = "--cased" if self.cased else "--kind bpe, which keeps case"
            raise ValueError(f"--uncased cannot be combined with {other}: leave one out")
        options: Any = dict(
            max_input_chars_per_word=self.max_input_chars_per_word,
            accents=self.accents,
            alphabet=self.alphabet,
            kmer=self.kmer,
        )
        training.check_options(self.kind, self.vocab_size, **options)  # before hours of reading
        io.require_new(Path(self.out))
        texts = list(training.sample_texts(lines(), self.sample_mb))
        tokenizer = training.train_tokenizer(
            texts,
            self.kind,
            self.vocab_size,
            cased=self.cased or (self.kind == "chars" and not self.uncased),
            **options,
        )
        with io.atomic_dir(Path(self.out)) as folder:
            tokenizer.save(folder)
        _report_coverage(tokenizer, texts)
        print(f"{self.kind} tokenizer of {tokenizer.vocab_size} pieces in {self.out}")
        return 0


@dataclass(frozen=True)
class Prepare(Command):
    """Turn text into a corpus: a TFDS dataset of rows of token ids.

    Example: bert-jax prepare data/sample.txt --tokenizer tok --segments nsp --length 128 --out corpus
    """  # noqa: E501

    extra: ClassVar[Extra] = "beam"

    text: Text
    # Folder of the tokenizer or of a run, or the name of a model on the Hugging Face Hub.
    tokenizer: Annotated[str, arg(metavar="DIR")]
    # How rows are cut from documents: pairs of segments (nsp for BERT, sop for ALBERT, electra), as
    # many sentences as fit, across documents (full) or within one (doc), as in RoBERTa, or single
    # blocks of one document (single, SpanBERT).
    segments: Literal["nsp", "sop", "electra", "electra_original", "full", "doc", "single"]
    # Number of tokens per row; with --pack, per sequence.
    length: Annotated[int, arg(metavar="L")]
    # New folder for the corpus.
    out: Annotated[str, arg(metavar="DIR")]
    # Language of the text, as a code such as ko, de or th: its rules split the sentences.
    language: Annotated[str, arg(metavar="CODE")] = "en"
    # The text has spaces between its words, though its script writes none (Chinese, Thai). Whole
    # words are then masked, not single pieces.
    segmented: bool = False
    # With full and doc: put a separator after each line of the text (the default, as RoBERTa does)
    # or after each sentence.
    separators: Annotated[Literal["line", "sentence"] | None, optional("{line,sentence}")] = None
    # Number of processes. It does not change the rows.
    workers: Annotated[int, arg(metavar="N")] = 1
    # Pack up to N sequences into a row; they do not attend to each other. Without N, the number
    # follows from the lengths of the sequences.
    pack: Annotated[tuple[()] | tuple[int] | None, optional("[N]")] = None
    # Number of tokens per packed row; the default is --length. Longer rows need less padding, but
    # more compute for attention.
    row_length: Annotated[int | None, optional("L")] = None
    # Seed of all random choices.
    seed: Annotated[int, arg(metavar="N")] = 0
    # Number of passes over the text. Each pass cuts it into new pairs, so that N epochs see
    # different pairs. The default is as published: 10 for nsp and 40 for sop, but at most 4.3
    # billion tokens in total (14 to 18 GB); and 1 for the other segments.
    duplicates: Annotated[int | None, optional("N")] = None
    # Engine that does the work; it does not change the corpus. Beam also takes its own options,
    # such as --runner=FlinkRunner; without a runner it keeps the whole text in memory.
    engine: Literal["local", "beam"] = "local"
    # Field of records, or column, that holds the text.
    field: Annotated[str, arg(metavar="NAME")] = "text"
    # Refuse text with bytes that are not UTF-8, instead of replacing them.
    strict: bool = False

    def run(self, extra: list[str]) -> int:
        from bert_jax.data.corpus_report import describe_split
        from bert_jax.data.prepare import prepare_corpus
        from bert_jax.data.splits import SPLITS
        from bert_jax.data.tokenization import coverage, normalization

        whole_lines = self.segments in ("full", "doc") and self.separators != "sentence"
        if whole_lines and self.language != "en":
            raise ValueError(
                f"--language is {self.language}, but --segments {self.segments} does not split "
                "lines into sentences: leave it out, or add --separators sentence"
            )
        corpus = prepare_corpus(
            self.text,
            self.tokenizer,
            self.segments,
            self.length,
            Path(self.out),
            workers=self.workers,
            seed=self.seed,
            duplicates=self.duplicates,
            strict=self.strict,
            field=self.field,
            engine=self.engine,
            flags=extra,
            pack=0 if self.pack is None else next(iter(self.pack), None),
            row_length=self.row_length,
            language=self.language,
            segmented=self.segmented,
            separators=self.separators,
        )
        for split in SPLITS:
            print(*describe_split(corpus.info, split), sep="\n")
        covered = corpus.coverage
        of_rows = covered._replace(unknown_characters=0)
        print(f"  {of_rows} in the training rows{covered.lost_text}")
        reason = "bert-jax tokenize TOKENIZER --file TEXT --report says which"
        coverage.warn_of_unknown(covered, "the training rows", reason)
        if self.language != "en" and "accents" in normalization.folds(corpus.tokenizer):
            logger.info(
                "this tokenizer removes accents and other marks, which are letters in many "
                "scripts: bert-jax tokenize TOKENIZER --file TEXT --report counts what is lost"
            )
        print(f"corpus: {self.out}")
        return 0


def _report_coverage(tokenizer: Any, texts: Sequence[str]) -> None:
    """Say how well the tokenizer covers the text that it was trained on."""
    from bert_jax.data.tokenization import coverage, normalization

    sample = texts[:: max(1, -(-len(texts) // COVERAGE_LINES))]
    covered = coverage.of_texts(tokenizer, sample)
    print(f"{covered} in {len(sample)} of the {len(texts)} lines that it learned from")
    characters = Counter("".join(sample))
    reason = coverage.unknown_reason(tokenizer, characters, coverage.longest_word(sample))
    coverage.warn_of_unknown(covered, "the text", reason)
    lost = normalization.lost_characters(tokenizer, characters)
    if lost:
        shown = coverage.show_characters(c for c, _ in lost.most_common(10))
        share = 100 * lost.total() / characters.total()
        hint = "" if tokenizer.keeps_accents else " (--accents keep keeps marks)"
        logger.info(
            "%.2f %% of the characters are removed or lose a mark, such as %s%s", share, shown, hint
        )
