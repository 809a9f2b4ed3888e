"""Score demo runs on the 427 validation rows that are kept in tests/fixtures, beside counts of both
neighbors of the training rows; the rows stay the same whatever `prepare` makes.

    python benchmarks/demo_rows.py runs/demo_seed0 runs/demo_seed1 runs/demo_seed2

The first figures are of 15 % hidden tokens. The second are of 500 places where one whole word of a
row is hidden, and all others are shown: how often the true word is first, or among the first five.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

import bert_jax
from bert_jax.data.corpus import open_corpus
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.evaluate import count_corpus
from bert_jax.inference.evaluation.masked_places import MaskedRows, mask_rows, masked_scores
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.token_rows import TokenRows

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.helpers import demo_rows

WORDS = 500


def hide_one_word(rows: TokenRows, tokenizer: Tokenizer, seed: int = 0) -> MaskedRows:
    """`WORDS` copies of rows, in each of which one word that is a single piece is hidden."""
    pieces = [tokenizer.token(i) for i in range(tokenizer.vocab_size)]
    starts = np.array([p.isalpha() for p in pieces])
    goes_on = np.array([p.startswith("##") for p in pieces])
    following = np.pad(rows.tokens[:, 1:], ((0, 0), (0, 1)), constant_values=tokenizer.pad_id)
    places = np.argwhere(starts[rows.tokens] & ~goes_on[following])
    row, position = np.random.default_rng(seed).permutation(places)[:WORDS].T
    copies, at = rows.take(row), np.arange(len(row))
    tokens = copies.tokens.copy()
    tokens[at, position] = tokenizer.mask_id
    masked = position[:, None].astype(np.int32)
    shown = dataclasses.replace(copies, tokens=tokens)
    return MaskedRows(shown, copies.tokens, masked, np.ones_like(masked, bool), maskings=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    rows = TokenRows(**demo_rows.load())
    differences, losses, right = [], [], []
    for run in parser.parse_args().runs:
        model = bert_jax.load(run)
        if model.tokenizer.fingerprint != demo_rows.tokenizer_fingerprint():
            sys.exit(f"{run} has another tokenizer than the stored rows: train it with make demo")
        path = model.config.data.path.replace("{length}", "64")
        counts, _ = count_corpus(open_corpus(path))
        masked = mask_rows(rows, Vocabulary.of(model.tokenizer))
        by_row = CountsByRow.same(counts, len(rows))
        scores = masked_scores(model, by_row, masked, TokenKinds.of(model.tokenizer))
        difference, error = scores.difference()
        differences.append(difference)
        losses.append(scores.model.loss.mean())
        right.append(scores.model.in_top(1).mean())
        print(
            f"{run.name}: {losses[-1]:.3f} nat, {right[-1]:.1%}; "
            f"counts {scores.bigram.loss.mean():.3f}, {scores.bigram.in_top(1).mean():.1%}; "
            f"frequencies {scores.unigram.loss.mean():.3f}, {scores.unigram.in_top(1).mean():.1%}; "
            f"model - counts {difference:+.3f} ± {error:.3f}"
        )
        words = hide_one_word(rows, model.tokenizer)
        kinds = TokenKinds.of(model.tokenizer)
        scores = masked_scores(model, CountsByRow.same(counts, WORDS), words, kinds)
        for k in (1, 5):
            difference, error = scores.accuracy_difference(k)
            print(
                f"  the hidden word of {WORDS} rows is in the top {k}: "
                f"{scores.model.in_top(k).mean():.1%}; "
                f"counts {scores.bigram.in_top(k).mean():.1%}; "
                f"frequencies {scores.unigram.in_top(k).mean():.1%}; "
                f"model - counts {100 * difference:+.1f} ± {100 * error:.1f} points"
            )
    print(
        f"mean of {len(losses)}: {np.mean(losses):.3f} nat, {np.mean(right):.1%}; "
        f"model - counts {np.mean(differences):+.3f}"
    )


if __name__ == "__main__":
    main()
