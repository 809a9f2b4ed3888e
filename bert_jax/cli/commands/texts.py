"""What is done to text."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


def tokenizer(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.data import documents
    from bert_jax.data.tokenization import training
    from bert_jax.data.tokenization.training import train_tokenizer
    from bert_jax.utils import io

    replaced = 0

    def lines() -> Iterator[str]:
        nonlocal replaced
        for document in documents.read_documents(args.text, strict=args.strict):
            replaced += document.replaced_bytes
            yield from document.paragraphs

    io.require_new(Path(args.out))
    texts = training.sample_texts(lines(), args.sample_mb)
    made = train_tokenizer(texts, args.kind, args.vocab_size, cased=args.cased)
    with io.atomic_dir(Path(args.out)) as new:
        made.save(new)
    if replaced:
        logger.warning("%d bytes were not UTF-8; U+FFFD stands for them", replaced)
    print(f"{args.kind} tokenizer of {made.vocab_size} pieces in {args.out}")
    return 0


def prepare(args: argparse.Namespace, rest: list[str]) -> int:
    from bert_jax.data.prepare import prepare_corpus

    corpus = prepare_corpus(
        args.text,
        args.tokenizer,
        args.segments,
        args.length,
        Path(args.out),
        workers=args.workers,
        seed=args.seed,
        duplicates=args.duplicates,
        strict=args.strict,
        engine=args.engine,
        flags=rest,
        pack=args.pack,
        row_length=args.row_length,
    )
    for split in ("train", "validation"):
        counts = getattr(corpus.info, split)
        packed = f" of {counts.sequences} sequences" if corpus.info.packed else ""
        print(
            f"{split}: {counts.documents} documents, {counts.rows} rows{packed}, "
            f"{counts.tokens} tokens, {corpus.info.padding(split):.1%} padding"
        )
    print(f"corpus: {args.out}")
    return 0
