"""Train a tokenizer of any of the four kinds on a stream of texts."""

from __future__ import annotations

import hashlib
import heapq
import io
import itertools
import logging
import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.data.sentences import split_sentences
from bert_jax.data.tokenization import backends, pipelines
from bert_jax.data.tokenization.albert_text import clean_text
from bert_jax.data.tokenization.long_lines import MAX_LINE_BYTES, cut_for_training
from bert_jax.data.tokenization.sentencepiece_rules import training_rules
from bert_jax.data.tokenization.tokenizer import KINDS, SPECIAL_TOKENS, Kind, Tokenizer
from bert_jax.data.tokenization.train_chars import train_chars
from bert_jax.data.tokenization.train_wordpiece import largest_vocabulary, train_wordpiece

logger = logging.getLogger(__name__)

Accents = Literal["keep", "strip"]

_BOUNDARY = "\ue000"  # a private-use character that no piece crosses
_MAX_SENTENCE_BYTES = 4 * MAX_LINE_BYTES  # SentencePiece skips longer ones; there are none
_COVERAGE = 0.99995  # of the characters, as ALBERT
_MAX_SENTENCES = 10_000_000  # that Unigram learns from, as ALBERT


def train_tokenizer(
    texts: Iterable[str],
    kind: Kind,
    vocab_size: int | None,
    cased: bool = False,
    max_input_chars_per_word: int | None = None,
    accents: Accents | None = None,
    alphabet: int | None = None,
    kmer: int = 1,
) -> Tokenizer:
    """Train a tokenizer with exactly `vocab_size` pieces; the texts are read once.

    `accents` None: kept if `cased`, else stripped, as published. WordPiece takes words of more than
    `max_input_chars_per_word` characters (100) for unknown. WordPiece and Unigram learn `alphabet`
    characters: by default those that train_wordpiece.py says, or 99.995 % of the text's. Of
    `chars`, `vocab_size` may be None: all characters and groups of `kmer` characters; it is a
    maximum (train_chars.py). Byte-level BPE changes no text. Long lines are cut for training.
    ValueError: as `check_options`; the text is empty, or allows only smaller or only larger
    vocabularies."""
    check_options(kind, vocab_size, max_input_chars_per_word, accents, alphabet, kmer)
    keep_accents = cased if accents is None else accents == "keep"
    stream = (t for t in texts if t.strip())
    first = next(stream, None)
    if first is None:
        raise ValueError("the training text is empty: give a file with text in it")
    stream = itertools.chain([first], stream)
    if kind == "chars":
        core = train_chars(stream, vocab_size, cased, keep_accents, kmer)
        backend = backends.TokenizersBackend(core, SPECIAL_TOKENS[kind])
        return Tokenizer(kind, backend, cased)
    assert vocab_size is not None
    match kind:
        case "wordpiece":
            max_chars = max_input_chars_per_word or pipelines.MAX_INPUT_CHARS
            return _wordpiece(stream, vocab_size, cased, keep_accents, max_chars, alphabet)
        case "unigram":
            return _unigram(stream, vocab_size, cased, keep_accents, alphabet)
        case "bpe":
            return _bpe(stream, vocab_size)
    raise AssertionError(kind)


def check_options(
    kind: Kind,
    vocab_size: int | None,
    max_input_chars_per_word: int | None,
    accents: Accents | None,
    alphabet: int | None,
    kmer: int,
) -> None:
    """ValueError: an option of `train_tokenizer` that the kind does not have, or a value out of
    range. No text is needed to say so."""
    if kind not in KINDS:
        raise ValueError(f"the kind of tokenizer is {kind!r}: expected {', '.join(KINDS)}")
    of_kinds = (
        ("max_input_chars_per_word", max_input_chars_per_word, ("wordpiece",)),
        ("alphabet", alphabet, ("wordpiece", "unigram")),
    )
    for name, value, kinds in of_kinds:
        if value is not None and kind not in kinds:
            raise ValueError(f"{name} is {value}, but {kind} has no such option: leave it out")
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: expected at least 1")
    if accents == "strip" and kind == "bpe":
        raise ValueError("accents is strip, but bpe encodes the bytes of a text: leave it out")
    if kmer < 1 or (kmer > 1 and kind != "chars"):
        raise ValueError(f"kmer is {kmer}: expected at least 1, and 1 for {kind}")
    if vocab_size is None and kind != "chars":
        raise ValueError(f"the vocabulary size is missing: expected a number of pieces for {kind}")
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"the vocabulary size is {vocab_size}: expected at least 1")


def sample_texts(texts: Iterable[str], megabytes: float) -> Iterator[str]:
    """All texts, or if they have more than so many million characters, an even sample of about that
    size, in the order of the texts: those whose numbers have the smallest hashes. The sample
    depends on the texts alone, and no more than it is held in memory."""
    if not megabytes > 0:  # NaN is not
        raise ValueError(f"the sample is {megabytes} million characters: expected more than 0")
    heap: list[tuple[int, int, str]] = []  # the largest hash first
    size, max_hash, total = 0, 1 << 64, 0
    for number, text in enumerate(texts):
        total += len(text)
        if (value := _hash(number)) >= max_hash:
            continue
        heapq.heappush(heap, (-value, number, text))
        size += len(text)
        while size > megabytes * 1e6 and len(heap) > 1:
            negative_hash, _, dropped = heapq.heappop(heap)
            size, max_hash = size - len(dropped), -negative_hash
    if size < total:
        logger.info(
            "the tokenizer learns from %.1f of %.1f million characters, drawn evenly from the "
            "lines (--sample-mb)",
            *(size / 1e6, total / 1e6),
        )
    return (text for _, _, text in sorted(heap, key=operator.itemgetter(1)))


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=8).digest())


def _check_size(expected: int, actual: int, kind: str) -> None:
    if actual < expected:
        raise ValueError(
            f"a vocabulary of {expected} pieces is more than this text allows: "
            f"at most {actual} for {kind}; choose fewer pieces or give more text"
        )
    if actual > expected:
        less = ", or learn fewer characters (--alphabet N)" if kind == "unigram" else ""
        raise ValueError(
            f"a vocabulary of {expected} pieces is too small for this text's characters: "
            f"at least {actual} for {kind}; choose more pieces{less}"
        )


# ---- WordPiece


def _wordpiece(
    texts: Iterator[str],
    vocab_size: int,
    cased: bool,
    keep_accents: bool,
    max_chars: int,
    alphabet: int | None,
) -> Tokenizer:
    # None is the default of the published folders: strip if uncased
    strip = None if keep_accents == cased else not keep_accents
    settings: Any = dict(lower=not cased, strip_accents=strip, max_input_chars_per_word=max_chars)
    base = pipelines.wordpiece_pipeline({"[UNK]": 0}, **settings)
    pieces = train_wordpiece(texts, base, vocab_size, max_chars, alphabet)
    if len(pieces) < vocab_size:
        _check_size(vocab_size, largest_vocabulary(pieces, vocab_size), "wordpiece")
    _check_size(vocab_size, len(pieces), "wordpiece")
    vocab = {p: i for i, p in enumerate(pieces)}
    built = pipelines.wordpiece_pipeline(vocab, **settings)
    built.add_special_tokens(list(SPECIAL_TOKENS["wordpiece"]))
    return Tokenizer("wordpiece", backends.TokenizersBackend(built), cased)


# ---- byte-level BPE


def _bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """RoBERTa's layout: <s> <pad> </s> <unk> first, <mask> last; always cased."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(first) + len(alphabet) + 1
    if vocab_size < smallest:
        _check_size(vocab_size, smallest, "bpe")
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=first,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator((part for t in texts for part in cut_for_training(t)), trainer)
    backend = backends.TokenizersBackend(core)
    _check_size(vocab_size, len(backend.pieces) + 1, "bpe")
    vocab = {p: i for i, p in enumerate([*backend.pieces, "<mask>"])}
    merges = [tuple(m.split(" ")) for m in backend.weights.decode().split("\n") if m]
    built = pipelines.byte_bpe_pipeline(vocab, merges)  # type: ignore[arg-type]
    built.add_special_tokens(list(SPECIAL_TOKENS["bpe"]))
    return Tokenizer("bpe", backends.TokenizersBackend(built), cased=True)


# ---- Unigram


def _unigram(
    texts: Iterator[str], vocab_size: int, cased: bool, keep_accents: bool, alphabet: int | None
) -> Tokenizer:
    """ALBERT's settings (albert, README): ids, control and user symbols, coverage, sampling. Its
    normalization rules cut words at non-joiners: see sentencepiece_rules.py.

    No piece is trained across a digit and the comma after it. So ALBERT's rule that splits them
    has nothing to split, and a pipeline without the rule gives the same ids.
    """
    trained = io.BytesIO()
    sentences, coverage = _unigram_sentences(texts, cased, keep_accents), _COVERAGE
    if alphabet is not None:
        sentences, coverage = _limit_alphabet(list(sentences), alphabet), 1.0
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=trained,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            unk_piece="<unk>",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            user_defined_symbols=list('()"-.\u2013£€'),
            normalizer=training_rules(),
            character_coverage=coverage,
            input_sentence_size=_MAX_SENTENCES,
            shuffle_input_sentence=True,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            pretokenization_delimiter=_BOUNDARY,
            num_threads=8,  # fixed, since sums of floats depend on it
            minloglevel=2,
        )
    except RuntimeError as e:
        if at_most := re.search(r"value <= (\d+)", str(e)):
            _check_size(vocab_size, int(at_most[1]), "unigram")
        if at_least := re.search(r"required_chars\. \d+ vs (\d+)", str(e)):
            _check_size(vocab_size, int(at_least[1]) + 1, "unigram")
        raise ValueError(f"SentencePiece cannot train on this text: {e}") from e
    model = _round_scores(trained.getvalue())
    return Tokenizer("unigram", backends.SentencePieceBackend(model, cased, keep_accents), cased)


def _round_scores(model: bytes) -> bytes:
    """Round scores to multiples of 1/1024: their sums are exact in float32 and float64, so every
    implementation breaks ties in the same way."""
    proto = backends.model_proto(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * 1024) / 1024
    return proto.SerializeToString()


def _unigram_sentences(texts: Iterator[str], cased: bool, keep_accents: bool) -> Iterator[str]:
    count = 0
    for text in texts:
        for sentence in split_sentences(text):
            cleaned = clean_text(sentence, cased, keep_accents).replace(_BOUNDARY, "").strip()
            for part in cut_for_training(cleaned) if cleaned else ():
                count += 1
                yield re.sub(r"(?<=\d),", _BOUNDARY + ",", part)
    if not count:
        raise ValueError("no text is left after normalization: use accents keep, or give more text")
    if count > _MAX_SENTENCES:
        logger.info("learned from %d of %d sentences, drawn at random", _MAX_SENTENCES, count)


def _limit_alphabet(sentences: list[str], alphabet: int) -> Iterator[str]:
    """The sentences, cut at characters that are not among the most frequent ones."""
    counts = Counter[str]()
    for sentence in sentences:
        counts.update(sentence)
    del counts[" "], counts[_BOUNDARY]
    rare = sorted(counts, key=lambda c: (-counts[c], c))[alphabet:]
    if rare:
        logger.warning(
            "%d of %d characters are not in the vocabulary: %.3f %% of those in the text; they "
            "become [UNK] (more pieces with a larger --alphabet keep more)",
            *(len(rare), len(counts), 100 * sum(counts[c] for c in rare) / counts.total()),
        )
    cuts = dict.fromkeys(map(ord, rare), _BOUNDARY)
    return (sentence.translate(cuts) for sentence in sentences)
