"""Rows: their shapes for every way of pre-training, and their laws against the originals'."""

from __future__ import annotations

import functools
import random
from itertools import chain

import numpy as np
import pytest

from bert_jax.data import documents, segments, sentence_pairs
from bert_jax.data.segments import Sentences
from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenization.special_tokens import SpecialTokens
from bert_jax.data.tokenization.training import train_tokenizer
from tests.helpers.paths import SAMPLE

BERT, ROBERTA = SpecialTokens(101, 102), SpecialTokens(0, 2, doubled=True)
LENGTH = 64


@functools.cache
def sample() -> list[list[list[int]]]:
    """Documents of 20 to 40 sentences of the sample text."""
    read = list(documents.read_documents([SAMPLE]))
    tok = train_tokenizer((p for d in read[::6] for p in d.paragraphs), "wordpiece", 2000)
    rng, encoded_documents = random.Random(0), []
    for document in read:
        split = [s for p in document.paragraphs for s in split_sentences(p)]
        encoded, start = tok.encode_batch(split), 0
        while start < len(encoded):
            stop = start + rng.randint(20, 40)
            encoded_documents.append(encoded[start:stop])
            start = stop
    return encoded_documents


def counting(lengths: list[int], start: int = 1000) -> Sentences:
    """Sentences of consecutive numbers, so that every token says where it comes from."""
    flat = np.arange(start, start + sum(lengths), dtype=np.int32)
    return Sentences(flat, np.array(lengths))


def random_lengths(seed: int, longest: int = 40) -> list[int]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, longest, rng.integers(1, 60)).tolist()


def other(rng: np.random.Generator) -> Sentences:
    return counting([5, 9, 30, 2, 14], start=900_000)


KINDS = {
    "nsp": lambda d, n, f, r: sentence_pairs.next_sentence_pairs(d, n, f, r, other),
    "sop": lambda d, n, f, r: sentence_pairs.sentence_order_pairs(d, n, f, r, other),
    "electra": segments.electra_segments,
    "scrambled": functools.partial(segments.electra_segments, scramble=True),
    "full": lambda d, n, f, r: segments.full_sentences([d, counting([3, 4])], n, f),
    "doc": lambda d, n, f, r: segments.doc_sentences(d, n, f),
    "single": lambda d, n, f, r: segments.single_segments(d, n, f),
}


def text_of(row: segments.TokenRow, special_tokens: SpecialTokens) -> list[int]:
    return [i for i in row.tokens.tolist() if i not in (special_tokens.cls, special_tokens.sep)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special_tokens", [BERT, ROBERTA])
@pytest.mark.parametrize("length", [8, 33, 64])
def test_rows_fit_and_begin_and_end_with_specials(kind, special_tokens, length):
    for seed in range(20):
        document, rng = counting(random_lengths(seed)), np.random.default_rng(seed)
        for row in KINDS[kind](document, length, special_tokens, rng):
            ids = row.tokens
            assert ids.dtype == np.int32
            assert 3 <= len(ids) <= length
            assert ids[0] == special_tokens.cls
            assert ids[-1] == ids[row.first - 1] == special_tokens.sep
            assert 2 <= row.first <= len(ids)
            assert row.pair in ((0, 1) if kind in ("nsp", "sop") else (-1,))


@pytest.mark.parametrize("kind", ["full", "doc", "single"])
def test_whole_sentence_rows_use_every_token_once(kind):
    for seed in range(20):
        document = counting(random_lengths(seed, longest=200))
        rows = KINDS[kind](document, LENGTH, ROBERTA, None)
        used = [i for row in rows for i in text_of(row, ROBERTA)]
        expected = document.tokens.tolist() + ([*range(1000, 1007)] if kind == "full" else [])
        assert used == expected


@pytest.mark.parametrize("kind", ["nsp", "sop", "electra", "scrambled"])
@pytest.mark.parametrize("special_tokens", [BERT, ROBERTA])
def test_rows_of_two_segments_count_the_tokens_that_are_in_no_row(kind, special_tokens):
    """Also of sentences that are longer than a row, and of documents of one sentence."""
    for seed in range(30):
        lengths = [[300], [5, 200, 5], random_lengths(seed), random_lengths(seed, 90)][seed % 4]
        document, rng = counting(lengths), np.random.default_rng(seed)
        rows = list(KINDS[kind](document, LENGTH, special_tokens, rng))
        own = {i for row in rows for i in text_of(row, special_tokens) if 1000 <= i < 900_000}
        assert sum(row.text for row in rows) == len(document.tokens)
        assert sum(row.dropped for row in rows) == len(document.tokens) - len(own)
        assert all(0 <= row.overlong <= row.dropped <= row.text for row in rows)
        if max(lengths) <= special_tokens.text_capacity(LENGTH, 2):
            assert sum(row.overlong for row in rows) == 0


def test_full_sentences_close_each_line_and_announce_a_document():
    rows = segments.full_sentences([counting([2, 1]), counting([2], 50)], 12, ROBERTA)
    assert [r.tokens.tolist() for r in rows] == [[0, 1000, 1001, 2, 1002, 2, 2, 50, 51, 2]]


def test_doc_and_single_never_cross_a_document():
    a, b = counting([2, 1]), counting([2], 50)
    for rows in (segments.doc_sentences, segments.single_segments):
        assert len([*rows(a, 12, BERT), *rows(b, 12, BERT)]) == 2
    [row] = segments.single_segments(a, 12, BERT)
    assert row.tokens.tolist() == [101, 1000, 1001, 1002, 102]


def test_next_segments_go_on_in_the_text_and_random_ones_do_not():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for row in sentence_pairs.next_sentence_pairs(
            counting(random_lengths(seed)), LENGTH, BERT, rng, other
        ):
            a, b = row.tokens[1 : row.first - 1], row.tokens[row.first : -1]
            assert (np.diff(a) == 1).all()
            assert (np.diff(b) == 1).all()
            assert (b[0] >= 900_000) == bool(row.pair)
            assert row.pair or b[0] > a[-1]


def test_untruncated_pairs_are_contiguous_and_leave_no_gap():
    """Every sentence of the document is used, in order, when nothing needs to be cut."""
    document = counting([1] * 500)  # a chunk of one-token sentences always fits exactly
    tiny = lambda rng: counting([1], 900_000)  # noqa: E731
    rng = np.random.default_rng(0)
    rows = list(sentence_pairs.next_sentence_pairs(document, LENGTH, BERT, rng, tiny))
    used = [i for row in rows for i in text_of(row, BERT) if i < 900_000]
    assert used == document.tokens.tolist()


def test_swapped_segments_are_the_text_in_the_other_order():
    rng = np.random.default_rng(0)
    swapped = 0
    for row in sentence_pairs.sentence_order_pairs(counting([1] * 500), LENGTH, BERT, rng, other):
        a, b = row.tokens[1 : row.first - 1], row.tokens[row.first : -1]
        assert b[0] < 900_000, "no sentence of one token fills a row"
        first, second = (b, a) if row.pair else (a, b)
        assert second[0] == first[-1] + 1
        swapped += row.pair
    assert swapped > 1


@pytest.mark.parametrize("lengths", [(70, 3), (3, 70), (40, 40), (41, 40), (0, 99), (30, 31)])
@pytest.mark.parametrize("room", [61, 60, 5])
def test_truncation_is_the_originals_one_token_at_a_time(lengths, room):
    a, b = lengths
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    assert sentence_pairs.truncated_sizes(*lengths, room) == (a, b)


def test_truncation_takes_from_both_ends_alike():
    rng = np.random.default_rng(0)
    cut = [sentence_pairs._trim_both_ends(np.arange(30), 10, rng)[0] for _ in range(4000)]
    assert abs(np.mean(cut) - 10) < 4 * np.sqrt(20 / 4 / 4000)
    assert abs(np.var(cut) - 20 / 4) < 0.6


def test_a_tenth_of_documents_has_a_shorter_target():
    rng = np.random.default_rng(0)
    drawn = np.array([sentence_pairs.pair_target(61, rng) for _ in range(40_000)])
    share = 0.1 * 59 / 60  # a short target may be the full one by chance
    assert abs((drawn < 61).mean() - share) < 4 * np.sqrt(share * (1 - share) / 40_000)
    assert set(drawn) == set(range(2, 62))


# ---- the originals, rendered from their description, one token at a time


def reference_pairs(corpus, index, room, rng: random.Random, swap: bool):
    """BERT's and ALBERT's walk over a document: (length A, length B, label, short)."""
    document, chunk, i, out = corpus[index], [], 0, []
    short = rng.random() < 0.1
    target = rng.randint(2, room) if short else room
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(map(len, chunk)) >= target:
            cut = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a, b = list(chain(*chunk[:cut])), list(chain(*chunk[cut:]))
            label = 0
            if len(chunk) == 1 or (not swap and rng.random() < 0.5):
                label, b = 1, reference_random(corpus, index, target - len(a), rng)
                i -= len(chunk) - cut
            elif swap and rng.random() < 0.5:
                a, b, label = b, a, 1
            while len(a) + len(b) > room:
                longer = a if len(a) > len(b) else b
                del longer[0 if rng.random() < 0.5 else -1]
            out.append((len(a), len(b), label))
            chunk = []
        i += 1
    return out


def reference_random(corpus, index, target, rng: random.Random):
    for _ in range(10):
        drawn = rng.randrange(len(corpus))
        if drawn != index:
            break
    b: list[int] = []
    for sentence in corpus[drawn][rng.randrange(len(corpus[drawn])) :]:
        b += sentence
        if len(b) >= target:
            break
    return b


def reference_electra(corpus, index, length, rng: random.Random):
    target, first_target, out, buffer = length, 0, [], []
    target = rng.randint(5, length) if rng.random() < 0.05 else length
    for i, sentence in enumerate(corpus[index]):
        buffer.append(sentence)
        if sum(map(len, buffer)) < target and i < len(corpus[index]) - 1:
            continue
        first_target = 100_000 if rng.random() < 0.1 else (target - 3) // 2
        first, second = [], []
        for s in buffer:
            short = len(first) + len(s) < first_target and not second
            crossing = not second and len(first) < first_target and rng.random() < 0.5
            (first if not first or short or crossing else second).extend(s)
        first = first[: length - 2]
        out.append((len(first), len(second[: max(0, length - len(first) - 3)]), -1))
        buffer = []
        target = rng.randint(5, length) if rng.random() < 0.05 else length
    return out


def statistics(rows: list[tuple[int, int, int]]) -> list[float]:
    """Of one document: rows, short ones, label 1, single segments, tokens of A and of B."""
    a, b, label = np.array(rows).T
    short = a + b < LENGTH - 3
    return [len(rows), short.sum(), (label == 1).sum(), (b == 0).sum(), a.sum(), b.sum()]


def another(documents: list[Sentences], index: int, rng: np.random.Generator) -> Sentences:
    return documents[(index + int(rng.integers(1, len(documents)))) % len(documents)]


@pytest.mark.parametrize("kind", ["nsp", "sop", "electra"])
def test_rows_follow_the_original_s_law(kind):
    """Means over documents, ours and the reference's, within four standard errors."""
    corpus, rng = sample(), random.Random(1)
    documents = [
        Sentences(np.array([*chain(*d)], np.int32), np.array([*map(len, d)])) for d in corpus
    ]
    native, reference = [], []
    for index, document in enumerate(documents):
        generator = np.random.default_rng(index)
        draw = functools.partial(another, documents, index)
        walk = {
            "nsp": sentence_pairs.next_sentence_pairs,
            "sop": sentence_pairs.sentence_order_pairs,
        }.get(kind)
        rows = (
            walk(document, LENGTH, BERT, generator, draw)
            if walk
            else segments.electra_segments(document, LENGTH, BERT, generator)
        )
        sizes = [(r.first - 2, max(0, len(r.tokens) - r.first - 1), r.pair) for r in rows]
        native.append(statistics(sizes))
        if kind == "electra":
            expected = reference_electra(corpus, index, LENGTH, rng)
        else:
            expected = reference_pairs(corpus, index, LENGTH - 3, rng, swap=kind == "sop")
        reference.append(statistics(expected))
    x, y = np.array(native, float), np.array(reference, float)
    error = np.sqrt((x.var(0) + y.var(0)) / len(x)) + 1e-9
    assert (abs(x.mean(0) - y.mean(0)) < 4 * error).all(), (x.mean(0), y.mean(0), error)


def test_electra_scrambles_only_when_asked():
    def scrambled(flag: bool) -> int:
        rng = np.random.default_rng(0)
        rows = segments.electra_segments(
            counting([30, 2, 2, 25, 2, 2] * 200), LENGTH, BERT, rng, flag
        )
        return sum((np.diff(text_of(row, BERT)) < 0).any() for row in rows)

    assert scrambled(False) == 0
    assert scrambled(True) > 0
