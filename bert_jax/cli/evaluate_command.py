"""The command `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from bert_jax.cli.command import Command, Model, optional
from bert_jax.utils import strict_json


@dataclass(frozen=True)
class Evaluate(Command):
    """Score how well a model predicts masked text, beside baselines made of counts.

    Example: bert-jax evaluate runs/demo --data runs/demo-data/corpus
    """

    model: Model
    # Corpus that was prepared with the model's tokenizer. The model predicts masked tokens of its
    # validation rows; the baselines count its training rows.
    data: Annotated[str | None, optional("CORPUS")] = None
    # Raw text instead, for models with any tokenizer; adds bits per character. A file or a quoted
    # glob: plain, .jsonl or .parquet, compressed or not.
    text: Annotated[str | None, optional("FILE")] = None
    # Raw text for the baselines to count. Without it, the baselines of each half of the text are
    # counts of the other half.
    counts: Annotated[str | None, optional("FILE")] = None
    # Maximum number of rows to mask; the sample depends on --seed only.
    max_rows: Annotated[int, arg(metavar="N")] = 1000
    # Number of times that each row is masked.
    maskings: Annotated[int, arg(metavar="N")] = 3
    # Number of tokens per row of text, and of a word with the text around it; the default is 128,
    # or less if the model's maximum or the rows of its training are shorter.
    length: Annotated[int | None, optional("L")] = None
    # Maximum number of words for bits per character; the sample depends on --seed only. The default
    # is 1000.
    max_words: Annotated[int | None, optional("N")] = None
    # Remove case or accents from the text, to compare with a model whose tokenizer removes them.
    fold: Annotated[tuple[Literal["case", "accents"], ...], optional("case|accents")] = ()
    # With --text and --counts: field of records, or column, that holds the text.
    field: Annotated[str | None, optional("NAME")] = None
    # Seed of the samples and the masks.
    seed: Annotated[int, arg(metavar="N")] = 0
    # Print one JSON object.
    json: bool = False

    def run(self, extra: list[str]) -> int:
        if (self.data is None) == (self.text is None):
            raise ValueError("give either --data CORPUS or --text FILE")
        if self.text is None:
            self._check_text_flags()
        from bert_jax import load
        from bert_jax.data.corpus import open_corpus
        from bert_jax.data.documents import TEXT_FIELD
        from bert_jax.inference.evaluation import evaluate
        from bert_jax.inference.evaluation.tables import render_evaluation

        model = load(self.model)
        if self.data is not None:
            corpus = open_corpus(self.data)
            result = evaluate.evaluate_corpus(
                model, corpus, self.max_rows, self.maskings, self.seed
            )
        else:
            assert self.text is not None
            result = evaluate.evaluate_text(
                model,
                self.text,
                self.counts,
                self.length,
                self.max_rows,
                evaluate.MAX_WORDS if self.max_words is None else self.max_words,
                self.fold,
                self.maskings,
                self.seed,
                self.field or TEXT_FIELD,
            )
        print(strict_json.dumps(result.to_json()) if self.json else render_evaluation(result))
        return 0

    def _check_text_flags(self) -> None:
        """Raise ValueError for a flag that does nothing without --text."""
        if self.counts is not None:
            raise ValueError(
                "--counts needs --text: with --data the training rows of the corpus are counted"
            )
        for flag, value in (
            ("--length", self.length),
            ("--max-words", self.max_words),
            ("--fold", self.fold or None),
            ("--field", self.field),
        ):
            if value is not None:
                raise ValueError(f"{flag} needs --text: a corpus is scored as it was prepared")
