"""Does ELECTRA learn pairs of letters that are far apart, where neighbors say nothing?

    python benchmarks/planted_pairs.py --out runs/planted_pairs

Makes sequences of a grammar as FASTA, and a `chars` tokenizer and a corpus of them; trains an
ELECTRA; scores it on held-out sequences at the paired places alone. Prints a table, and writes
results.json.

A sequence is a chain of motifs with up to three random letters between. A motif is a strand of
random letters, a turn that begins with a letter of its own, and a strand of the partners:

    crossing    A C D E F H I K   G x x x x x x x   Y W V T S R Q N    distance 16
                |___________________________________|
    nested      A C D E   P x x x   T V W Y                            distances 5, 7, 9, 11
                |_________________________|

The second letter of a pair is the partner of the first, but for a few (`NOISE`) that are any other
letter. Letters are uniform, and the two of a pair are never neighbors; so at a paired place both
neighbors are independent of the letter. The floor is the mean loss of a model that knows the
grammar and where the motifs are: the source's entropy given what is shown. No model has less.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bert_jax
from bert_jax.cli import logs
from bert_jax.config import ELECTRA, Experiment, demo_config, replace
from bert_jax.data.corpus import open_corpus
from bert_jax.data.documents import read_documents
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference.evaluation import masked_places, replaced_tokens
from bert_jax.inference.evaluation.counts_by_row import CountsByRow
from bert_jax.inference.evaluation.evaluate import count_corpus
from bert_jax.inference.evaluation.masked_places import MaskedRows, MaskedScores
from bert_jax.inference.evaluation.neighbor_tables import TokenKinds
from bert_jax.inference.evaluation.token_rows import TokenRows, text_rows
from bert_jax.inference.model import Model
from bert_jax.training.pretrain import pretrain
from bert_jax.utils import io, malloc
from bert_jax.utils.tables import format_table

LETTERS = "ACDEFHIKLMNQRSTVWY"  # letter i is the partner of the i-th from the end
TURNS = {"crossing": "G", "nested": "P"}  # the first letter of a turn
ALPHABET = LETTERS + "".join(TURNS.values())
SIZE = {"crossing": 8, "nested": 4}  # letters of a strand, and of a turn
MAX_LINKER = 3
NOISE = 0.05  # share of the pairs whose letters are not partners
LENGTH = 62  # letters of a sequence: a row of 64 tokens
NO_PARTNER = -1
REQUIRED_NAT, REQUIRED_AUC = 0.5, 0.1  # better than counts of both neighbors


# ---- the grammar


@dataclass(frozen=True)
class Sequences:
    """n sequences of l letters, and what was planted in them."""

    letters: np.ndarray  # uint8 [n l]: indices into ALPHABET
    partner: np.ndarray  # int16 [n l]: the place of the pair's other letter, or NO_PARTNER
    is_nested: np.ndarray  # bool [n l]: the pair is nested

    @property
    def is_paired(self) -> np.ndarray:
        return self.partner != NO_PARTNER

    def texts(self) -> list[str]:
        letters = np.frombuffer(ALPHABET.encode(), np.uint8)[self.letters]
        return [row.tobytes().decode() for row in letters]


def partners_of(letters: np.ndarray) -> np.ndarray:
    """The partner of each of LETTERS. No letter is its own."""
    return len(LETTERS) - 1 - letters


def motif_partners(kind: str) -> np.ndarray:
    """The place of the other letter of each place's pair within a motif, NO_PARTNER in the turn."""
    n = SIZE[kind]
    first, second = np.arange(n), np.arange(2 * n, 3 * n)
    partner = np.full(3 * n, NO_PARTNER)
    partner[first] = second[::-1] if kind == "nested" else second
    partner[partner[first]] = first
    return partner


def generate(count: int, rng: np.random.Generator, noise: float = NOISE) -> Sequences:
    """`count` sequences of the grammar. A motif that does not fit ends a sequence, which random
    letters fill."""
    shape = (count, LENGTH)
    partner, is_nested = np.full(shape, NO_PARTNER, np.int16), np.zeros(shape, bool)
    letters = rng.integers(len(LETTERS), size=shape, dtype=np.uint8)
    motifs = [(kind, motif_partners(kind), ALPHABET.index(TURNS[kind])) for kind in TURNS]
    for row in range(count):
        begin = int(rng.integers(MAX_LINKER + 1))
        while True:
            kind, inner, turn = motifs[rng.integers(len(motifs))]
            end = begin + len(inner)
            if end > LENGTH:
                break
            partner[row, begin:end] = np.where(inner == NO_PARTNER, NO_PARTNER, begin + inner)
            is_nested[row, begin:end] = (inner != NO_PARTNER) & (kind == "nested")
            letters[row, begin + SIZE[kind]] = turn
            begin = end + int(rng.integers(MAX_LINKER + 1))
    row, second = np.nonzero((partner != NO_PARTNER) & (partner < np.arange(LENGTH)))
    expected = partners_of(letters[row, partner[row, second]])
    other = rng.integers(1, len(LETTERS), len(row))  # so many letters on: never the partner
    wrong = (expected + other) % len(LETTERS)
    letters[row, second] = np.where(rng.random(len(row)) < noise, wrong, expected)
    return Sequences(letters, partner, is_nested)


def write_fasta(file: Path, sequences: Sequences) -> None:
    lines = [f">{i}\n{text}\n" for i, text in enumerate(sequences.texts())]
    file.write_text("".join(lines), encoding="utf-8")


# ---- training


def electra(out: Path, steps: int, seed: int) -> Experiment:
    """The recipe of `demo_electra` with fewer layers and a generator of half the width."""
    every = max(1, steps // 6)
    return replace(
        demo_config(ELECTRA),
        encoder=dict(layers=3),
        objective=dict(generator_size=0.5),
        data=dict(path=str(out / "corpus"), batch_size=32),
        run=dict(
            dir=str(out / "run"), steps=steps, seed=seed, log_every=50, eval_every=every,
            save_every=every, max_to_keep=1,
        ),
    )  # fmt: skip


def train(out: Path, count: int, steps: int, seed: int) -> dict[str, float]:
    """Make the training text, the tokenizer and the corpus, and train. Returns the seconds of
    each part."""
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    write_fasta(out / "train.fasta", generate(count, np.random.default_rng([seed, 0])))
    texts = [str(out / "train.fasta")]
    lines = (line for document in read_documents(texts) for line in document.paragraphs)
    train_tokenizer(lines, "chars", None, cased=True).save(out / "tokenizer")
    options: dict[str, Any] = dict(seed=seed, progress=False)
    prepare_corpus(texts, out / "tokenizer", "single", LENGTH + 2, out / "corpus", **options)
    prepared = time.monotonic()
    signal = pretrain(electra(out, steps, seed))
    if signal is not None:
        raise SystemExit(128 + signal)
    return {"prepare": prepared - begin, "pretrain": time.monotonic() - prepared}


# ---- scores


def floor_loss(sequences: Sequences, masked: MaskedRows) -> np.ndarray:
    """The entropy in nat of each hidden letter of a pair, given the grammar, the places of the
    motifs and what is shown, [m]; of other places it is not defined."""
    row, position = masked.places
    number = masked.row_number(row)
    partner = sequences.partner[number, position - 1]  # position 0 is [CLS]
    hidden = np.zeros(masked.labels.shape, bool)
    hidden[row, position] = True
    wrong = math.log((len(LETTERS) - 1) / NOISE)
    shown_entropy = NOISE * wrong - (1 - NOISE) * math.log1p(-NOISE)
    return np.where(hidden[row, partner + 1], math.log(len(LETTERS)), shown_entropy)


def loss_scores(scores: MaskedScores, floor: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Mean losses in nat at the chosen [m] of the hidden places."""
    model, counts = scores.model.loss[chosen], scores.bigram.loss[chosen]
    difference, error = masked_places.paired_difference(
        scores.row[chosen], model, counts, scores.num_rows
    )
    return {
        "hidden_letters": int(chosen.sum()),
        "mask_loss": float(model.mean()),
        "mask_accuracy": float(scores.model.in_top(1)[chosen].mean()),
        "bigram_loss": float(counts.mean()),
        "unigram_loss": float(scores.unigram.loss[chosen].mean()),
        "floor_loss": float(floor[chosen].mean()),
        "mask_minus_bigram": difference,
        "mask_minus_bigram_se": error,
    }


def replaced_letters(
    model: Model, counts: CountsByRow, masked: MaskedRows, sequences: Sequences, places: np.ndarray
) -> dict[str, float]:
    """AUC at the places [n l] of all copies: of the discriminator, and of what scores without it.
    The rule of the pairs flags every letter whose partner is not the one at the other place."""
    kinds = TokenKinds.of(model.tokenizer)
    at_tokens = np.pad(np.tile(places, (masked.maskings, 1)), ((0, 0), (1, 1)))
    scores = replaced_tokens.replaced_scores(model, counts, masked, kinds, places=at_tokens)
    assert scores is not None
    samples = replaced_tokens.sample_replacements(model, model.objective, masked)
    row, position = np.nonzero(at_tokens)
    to_letter = np.array([ALPHABET.find(model.tokenizer.token(i)) for i in range(len(kinds[0]))])
    partner = sequences.partner[masked.row_number(row), position - 1] + 1
    letter, other = (to_letter[samples[row, at]] for at in (position, partner))
    unlike, replaced = letter != partners_of(other), (samples != masked.labels)[row, position]
    return {
        "replaced_share": scores.replaced_share,
        "rtd_auc": scores.auc,
        "bigram_auc": scores.bigram_auc,
        "pair_rule_auc": replaced_tokens.area_under_roc(unlike.astype(float), replaced),
        "rtd_shuffled_auc": scores.shuffled_auc,
    }


def score(out: Path, count: int, seed: int) -> dict[str, dict[str, float]]:
    """The scores at paired places of `count` held-out sequences, by kind of pair."""
    model = bert_jax.load(out / "run")
    sequences = generate(count, np.random.default_rng([seed, 1]))
    write_fasta(out / "held_out.fasta", sequences)
    documents = read_documents([str(out / "held_out.fasta")])
    rows = TokenRows.concatenate(text_rows(documents, model.tokenizer, LENGTH + 2))
    assert len(rows) == count
    assert (rows.size == LENGTH + 2).all()  # [CLS], a token for each letter, [SEP]
    fitted, _ = count_corpus(open_corpus(out / "corpus"))
    counts = CountsByRow.same(fitted, len(rows))
    masked = masked_places.mask_rows(rows, Vocabulary.of(model.tokenizer))
    kinds = TokenKinds.of(model.tokenizer)
    scores = masked_places.masked_scores(model, counts, masked, kinds)
    floor = floor_loss(sequences, masked)
    _, position = masked.places
    paired, nested = sequences.is_paired, sequences.is_nested
    parts = {"all pairs": paired, "crossing": paired & ~nested, "nested": nested}
    return {
        name: loss_scores(scores, floor, places[scores.row, position - 1])
        | replaced_letters(model, counts, masked, sequences, places)
        for name, places in parts.items()
    }


ROWS = {
    "[MASK] loss of the generator (nat)": "mask_loss",
    "  counts of both neighbors": "bigram_loss",
    "  letter frequencies": "unigram_loss",
    "  floor: the grammar's entropy": "floor_loss",
    "  generator - counts": "mask_minus_bigram",
    "    standard error": "mask_minus_bigram_se",
    "AUC of the discriminator": "rtd_auc",
    "  counts, same samples": "bigram_auc",
    "  rule of the pairs": "pair_rule_auc",
    "  discriminator, shuffled rows": "rtd_shuffled_auc",
    "share of letters replaced": "replaced_share",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--sequences", type=int, default=60_000, help="to train on (60,000)")
    parser.add_argument("--held-out", type=int, default=1000, help="to score on (1,000)")
    parser.add_argument("--steps", type=int, default=2000, help="of 32 sequences (2,000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        io.require_new(args.out)
    except ValueError as e:
        parser.error(f"--out: {e}")
    malloc.tune()
    logs.configure()
    seconds = train(args.out, args.sequences, args.steps, args.seed)
    begin = time.monotonic()
    scores = score(args.out, args.held_out, args.seed)
    seconds["score"] = time.monotonic() - begin
    print("at paired places of held-out sequences:")
    rows = [[name, *(f"{s[field]:.3f}" for s in scores.values())] for name, field in ROWS.items()]
    print(format_table(["", *scores], rows))
    print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    pairs = scores["all pairs"]
    learned = {
        f"{REQUIRED_NAT} nat below counts": pairs["mask_minus_bigram"] <= -REQUIRED_NAT,
        f"AUC {REQUIRED_AUC} above counts": pairs["rtd_auc"] >= pairs["bigram_auc"] + REQUIRED_AUC,
    }
    print("; ".join(f"{name}: {'yes' if met else 'NO'}" for name, met in learned.items()))
    options = {name: str(value) for name, value in vars(args).items()}
    results = {"options": options, "seconds": seconds, "scores": scores, "learned": learned}
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
