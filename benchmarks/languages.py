"""What every kind of tokenizer does to twelve languages, and what whole-word masking hides.

    pip install django jieba transformers
    python benchmarks/languages.py --out languages.json                # the whole table
    python benchmarks/languages.py --languages ko th --kinds unigram   # a part of it

The text is Django's translations, and for Chinese 6,000 lines of words drawn by jieba's
frequencies, long enough to have 8,000 different characters. A line of the table is a language and a
tokenizer trained on its text:

    unk          share of [UNK] among the pieces; of Chinese also in 1,000 further lines
    pieces       pieces per word; per character in scripts that write no spaces
    lost         share of the characters, without spaces, that normalization drops or replaces
    partial      share of the touched words that whole-word masking hides in part
    bare         share of rows of which nothing is hidden
    ids          lines whose ids differ from those of transformers on the saved folder: of the
                 text, and of 1,000 lines drawn from the Unicode blocks of the script

Words are counted from the text, not from the pieces: what stands between white space (WordPiece
also splits at punctuation, as BERT does); in Han, kana and Thai each piece is one, and so it is for
chars in a text without any white space.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from language_texts import LANGUAGES, RANDOM_LINES, chinese_lines, random_lines, text_of

from bert_jax.config import Masking
from bert_jax.data.tokenization import coverage
from bert_jax.data.tokenization.normalization import normalize
from bert_jax.data.tokenization.tokenizer import KINDS, Tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.tokenization.words import SPACE_MARK, WordEdges
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking import mask_tokens
from bert_jax.objectives.masking_budget import num_to_mask

UNSPACED = re.compile("CJK|HIRAGANA|KATAKANA|THAI|IDEOGRAPHIC")
SIZES = {"zh": 8000}  # pieces of a vocabulary; of the others:
SIZE = 2000
UNIGRAM_ALPHABET = 0.9  # at most this share of the pieces are single characters
FURTHER_LINES = 1000  # drawn as the Chinese text is, and not trained on
ROW = 64  # tokens of a row
BATCH = 512  # rows
MAX_VOCABULARY = 1 << 15
MASKED_CHARACTERS = 500_000  # of the first lines, which are masked
MASKING = Masking(granularity="word", mask_prob=1.0, random_prob=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, help="write the numbers to this file, as JSON")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    print("language  tokenizer                 vocab   unk  pieces   lost partial  bare   ids")
    rows = []
    for language in args.languages:
        lines, drawn = text_of(language), random_lines(language)
        further = list(chinese_lines(FURTHER_LINES, seed=1)) if language == "zh" else []
        for kind, folding in ((k, f) for k in args.kinds for f in foldings(k)):
            tokenizer = train(lines, kind, SIZES.get(language, SIZE), folding)
            row = measure(language, tokenizer, lines, drawn)
            row |= {"unk_further": unknown_share(tokenizer, further)} if further else {}
            rows.append({"language": language, "tokenizer": kind, **folding, **row})
            print(describe(rows[-1]), flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def describe(row: dict[str, Any]) -> str:
    """A line of the table."""
    case = {True: " cased", False: " uncased", None: ""}[row.get("cased")]
    name = row["tokenizer"] + case + (f" {row['accents']}" if "accents" in row else "")
    ids = f"{row['ids_text']}/{row['lines']} {row['ids_random']}/{RANDOM_LINES}"
    if "unk_further" in row:
        ids += f"   unk in further lines {row['unk_further']:.3%}"
    return (
        f"{row['language']:8}  {name:24} {row['vocab']:6} {row['unk']:5.2%} "
        f"{row['pieces']:7.2f} {row['lost']:6.2%} {row['partial']:7.2%} {row['bare']:5.1%}   {ids}"
    )


# ---- tokenizers


def foldings(kind: str) -> list[dict[str, Any]]:
    """Case and accents, kept or folded; byte-level BPE folds nothing."""
    pairs = itertools.product((True, False), ("keep", "strip"))
    return [{}] if kind == "bpe" else [{"cased": c, "accents": a} for c, a in pairs]


def train(lines: Sequence[str], kind: Any, size: int, folding: dict[str, Any]) -> Tokenizer:
    """A tokenizer of `size` pieces, or of as many as the text allows. Unigram learns as many
    characters as a vocabulary of this size has room for, and chars all of them."""
    options = dict(folding)
    while True:
        try:
            pieces = None if kind == "chars" else size
            return train_tokenizer(iter(lines), kind, pieces, **options)
        except ValueError as e:
            at_most, too_small = re.search(r"at most (\d+)", str(e)), "too small" in str(e)
            if at_most is not None and int(at_most[1]) < size:
                size = int(at_most[1])
            elif too_small and kind == "unigram" and "alphabet" not in options:
                options["alphabet"] = int(UNIGRAM_ALPHABET * size)
            else:
                raise


def measure(
    language: str, tokenizer: Tokenizer, lines: Sequence[str], drawn: Sequence[str]
) -> dict[str, Any]:
    """The numbers of a line of the table."""
    sizes = itertools.accumulate(map(len, lines))
    first = [line for line, size in zip(lines, sizes, strict=True) if size <= MASKED_CHARACTERS]
    partial, bare = masked_words([encode_words(line, tokenizer) for line in first], tokenizer)
    ids = np.concatenate([np.array(row) for row in tokenizer.encode_batch(lines)])
    units = sum(len(line.split()) for line in lines)
    if language in ("zh", "ja", "th"):
        units = sum(len(line.replace(" ", "")) for line in lines)
    unknown, lost = float((ids == tokenizer.unk_id).mean()), lost_characters(tokenizer, lines)
    row = {"lines": len(lines), "vocab": tokenizer.vocab_size, "unk": unknown, "lost": lost}
    row |= {"pieces": len(ids) / units, "partial": partial, "bare": bare}
    return row | {
        "ids_text": differing(tokenizer, lines),
        "ids_random": differing(tokenizer, drawn),
    }


def unknown_share(tokenizer: Tokenizer, lines: Sequence[str]) -> float:
    """The share of unknown pieces in lines."""
    return coverage.of_texts(tokenizer, lines).unknown_share


def differing(tokenizer: Tokenizer, lines: Sequence[str]) -> int:
    """How many lines have other ids in transformers, which opens the saved folder."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
    own = tokenizer.encode_batch(lines)
    other = theirs(list(lines), add_special_tokens=False)["input_ids"]
    return sum(a != b for a, b in zip(own, other, strict=True))


def lost_characters(tokenizer: Tokenizer, lines: Sequence[str]) -> float:
    """The share of characters, decomposed and without case, that normalization drops."""
    before = Counter(_folded("".join(lines)))
    after = Counter(_folded("".join(normalize(tokenizer, line) for line in lines)))
    return sum((before - after).values()) / before.total()


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKD", text).casefold().split())


# ---- words and masks

Words = tuple[np.ndarray, np.ndarray]  # the pieces of a line, and the number of the word of each


def encode_words(line: str, tokenizer: Tokenizer) -> Words:
    """Encode a line, and count its words by its characters."""
    ids, spans = tokenizer.encode_with_offsets(line)
    word_of, number = [], 0
    for i, c in enumerate(line):
        alone = tokenizer.kind == "wordpiece" and _is_punctuation(c)
        number += i > 0 and (line[i - 1].isspace() or alone or bool(word_of[-1][1]))
        word_of.append((number, alone))
    each = tokenizer.kind == "chars" and not _has_spaces(tokenizer)
    words, last, split = [], -1, 0
    for begin, end in spans:
        here = min(int(begin), len(line) - 1)
        text = line[here : int(end)] or line[here]
        after = bool(words) and last >= 0 and is_unspaced(line[last])
        new = is_unspaced(text[0]) or after or each
        # the bytes of a character stay together
        split += bool(new and (tokenizer.kind != "bpe" or int(begin) > last))
        words.append(word_of[here][0] * 10_000 + split)
        last = max(last, int(end) - 1)
    return np.array(ids, np.int32), np.array(words, np.int64)


@functools.cache
def _has_spaces(tokenizer: Tokenizer) -> bool:
    return SPACE_MARK in {tokenizer.token(i) for i in range(tokenizer.vocab_size)}


@functools.cache
def is_unspaced(c: str) -> bool:
    """Whether a character is a letter or a mark of a script that writes no spaces."""
    return bool(UNSPACED.match(unicodedata.name(c, ""))) and unicodedata.category(c)[0] in "LMN"


@functools.cache
def _is_punctuation(c: str) -> bool:
    return unicodedata.category(c)[0] == "P" or c in "$+<=>^`|~"


def masked_words(encoded: Sequence[Words], tokenizer: Tokenizer) -> tuple[float, float]:
    """The share of touched words that are hidden in part, of those that fit the budget of their
    row, and the share of rows without a hidden word."""
    room = tokenizer.special_tokens.text_capacity(ROW, 1)
    cuts = ((line, slice(i, i + room)) for line in encoded for i in range(0, len(line[0]), room))
    parts = [(ids[cut], words[cut]) for (ids, words), cut in cuts]
    parts = [p for p in parts if (p[0] != tokenizer.unk_id).any()]
    rows = -(-len(parts) // BATCH) * BATCH  # the last ones stay empty
    tokens = np.full((rows, ROW), tokenizer.pad_id, np.int32)
    words = np.full((rows, ROW), -1, np.int64)
    size = np.zeros(rows, np.int32)
    size[: len(parts)] = [len(ids) + 2 for ids, _ in parts]
    for i, (ids, word) in enumerate(parts):
        tokens[i, : size[i]] = tokenizer.build_row(ids.tolist())[0]
        words[i, 1 : size[i] - 1] = np.where(ids == tokenizer.unk_id, -1, word)
    hidden = hide(tokens, size, Vocabulary.of(tokenizer))
    budgets = num_to_mask(MASKING, MASKING.rate, ROW, None)[size]
    touched = partial = 0
    for row_words, row_hidden, budget in zip(words, hidden, budgets, strict=True):
        for word in {*row_words[row_hidden].tolist()}:
            whole = row_hidden[row_words == word]
            if len(whole) <= budget:
                touched, partial = touched + 1, partial + (not whole.all())
    return partial / max(1, touched), float((~hidden[: len(parts)].any(axis=1)).mean())


def hide(tokens: np.ndarray, size: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Which tokens whole-word masking hides: bool [n l]."""
    begins, number = vocabulary.words.begins_word(tokens), np.arange(len(size), dtype=np.int32)
    special = np.zeros(MAX_VOCABULARY, bool)  # one shape for all vocabularies: one compilation
    special[: len(vocabulary.special)] = vocabulary.special
    hidden = []
    for i in range(0, len(size), BATCH):
        batch = {
            "tokens": tokens,
            "size": size,
            "row": number,
            "epoch": 0 * number,
            "words": begins,
        }
        batch = {k: v[i : i + BATCH] for k, v in batch.items()}
        out = _mask(batch, special, vocabulary.mask_id, vocabulary.unk_id)
        hidden.append(np.asarray(out["tokens"]) == vocabulary.mask_id)
    return np.concatenate(hidden)


@jax.jit
def _mask(batch: Any, special: Any, mask_id: Any, unk_id: Any) -> Any:
    words = WordEdges.marked(np.zeros(len(special), bool))  # the batch says where words begin
    vocabulary = Vocabulary(mask_id, special, words, unk_id=unk_id)
    return mask_tokens(batch, MASKING, vocabulary, jax.random.key(0))


if __name__ == "__main__":
    main()
