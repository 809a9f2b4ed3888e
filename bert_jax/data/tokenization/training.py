"""Training of the three kinds of tokenizer, from a stream of texts."""

from __future__ import annotations

import hashlib
import heapq
import io
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator

import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.data.documents import split_sentences
from bert_jax.data.tokenization import backends
from bert_jax.data.tokenization.tokenizer import KINDS, SPECIAL_TOKENS, Kind, Tokenizer

_INSIDE = 0xF0000  # the plane where letters inside a word go while WordPiece is trained
_ALPHABET = 1000  # most characters of a WordPiece vocabulary, as in the published one
_CUT = "\ue000"  # a private character: no piece is trained across it
_LONGEST = 65_536  # bytes of a training sentence; longer ones are left out by SentencePiece


def train_tokenizer(
    texts: Iterable[str], kind: Kind, vocab_size: int, cased: bool = False
) -> Tokenizer:
    """Learns a vocabulary of exactly `vocab_size` pieces. The texts are read once."""
    trainers_: dict[str, Callable[[Iterator[str], int, bool], Tokenizer]] = {
        "wordpiece": _wordpiece,
        "unigram": _unigram,
        "bpe": _bpe,
    }
    if kind not in trainers_:
        raise ValueError(f"the kind of tokenizer is {kind!r}: expected {', '.join(KINDS)}")
    if vocab_size < 1:
        raise ValueError(f"the vocabulary size is {vocab_size}: expected at least 1")
    stream = (t for t in texts if t.strip())
    first = next(stream, None)
    if first is None:
        raise ValueError("the training text is empty: give a file with text in it")
    return trainers_[kind](itertools.chain([first], stream), vocab_size, cased)


def sample_texts(texts: Iterable[str], megabytes: float) -> Iterator[str]:
    """All texts, or where they are more than so many million characters, about that much of
    them, drawn evenly and in their order: those whose numbers have the smallest hashes. It
    follows from the texts alone, and no more is ever held in memory."""
    if megabytes <= 0:
        raise ValueError(f"the sample is {megabytes} million characters: expected above 0")
    kept: list[tuple[int, int, str]] = []  # a heap: the largest hash first
    size, below = 0, 1 << 64
    for number, text in enumerate(texts):
        if (drawn := _hash(number)) >= below:
            continue
        heapq.heappush(kept, (-drawn, number, text))
        size += len(text)
        while size > megabytes * 1e6 and len(kept) > 1:
            largest, _, dropped = heapq.heappop(kept)
            size, below = size - len(dropped), -largest
    return (text for _, _, text in sorted(kept, key=operator.itemgetter(1)))


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.blake2b(b"%d" % number, digest_size=8).digest())


def _check_size(wanted: int, made: int, kind: str) -> None:
    if made < wanted:
        raise ValueError(
            f"a vocabulary of {wanted} pieces is more than this text allows: "
            f"at most {made} for {kind}; ask for fewer or give more text"
        )
    if made > wanted:
        raise ValueError(
            f"a vocabulary of {wanted} pieces is too small for this text's characters: "
            f"at least {made} for {kind}; ask for more"
        )


# ---- WordPiece


def _wordpiece(texts: Iterator[str], vocab_size: int, cased: bool) -> Tokenizer:
    """WordPiece by merging the most frequent pairs, as the `tokenizers` library does it; BERT's
    own trainer was never released.

    The library numbers continuing letters in the order of a hash table, so that two runs
    disagree. Here letters inside a word are moved to another plane of Unicode instead, plain
    BPE is trained on that, and the letters are moved back: "the" -> t h' e' -> the, ##he.
    """
    specials = wordpiece_special_tokens(vocab_size)
    base = backends.wordpiece_pipeline({"[UNK]": 0}, lower=not cased)
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    free = max(vocab_size - len(specials), 2)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        # a character may take two pieces, and half the vocabulary is for longer ones
        limit_alphabet=min(2 * _ALPHABET, max(free // 2, 2)),
        show_progress=False,
    )
    core.train_from_iterator((_moved_apart(t, base) for t in texts), trainer)
    found = core.get_vocab()
    pieces = (
        specials + [_moved_back(p) for p in sorted(found, key=found.__getitem__)][len(specials) :]
    )
    _check_size(vocab_size, len(pieces), "wordpiece")
    vocab = {p: i for i, p in enumerate(pieces)}
    built = backends.wordpiece_pipeline(vocab, lower=not cased)
    built.add_special_tokens(list(SPECIAL_TOKENS["wordpiece"]))
    return Tokenizer("wordpiece", backends.TokenizersBackend(built), cased)


def wordpiece_special_tokens(vocab_size: int) -> list[str]:
    """BERT's published layout: [PAD] is 0, [UNK] [CLS] [SEP] [MASK] are 100 to 103, and unused
    pieces stand between. Below 1,000 pieces that would be a waste: there they are 0 to 4."""
    pad, *others = SPECIAL_TOKENS["wordpiece"]
    return [pad, *([f"[unused{i}]" for i in range(1, 100)] if vocab_size >= 1000 else []), *others]


def _moved_apart(text: str, base: tokenizers.Tokenizer) -> str:
    assert base.normalizer is not None
    assert base.pre_tokenizer is not None
    words = base.pre_tokenizer.pre_tokenize_str(base.normalizer.normalize_str(text))
    return " ".join(
        w[0] + w[1:].translate(_UP) for w, _ in words if len(w) <= 100 and max(w) < "\U00020000"
    )


class _Up(dict[int, int]):
    def __missing__(self, point: int) -> int:
        self[point] = point + _INSIDE
        return self[point]


_UP = _Up()


def _moved_back(piece: str) -> str:
    plain = "".join(chr(ord(c) - _INSIDE) if ord(c) >= _INSIDE else c for c in piece)
    return plain if ord(piece[0]) < _INSIDE else "##" + plain


# ---- byte-level BPE


def _bpe(texts: Iterator[str], vocab_size: int, cased: bool) -> Tokenizer:
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
    core.train_from_iterator(texts, trainer)
    backend = backends.TokenizersBackend(core)
    _check_size(vocab_size, len(backend.pieces) + 1, "bpe")
    vocab = {p: i for i, p in enumerate([*backend.pieces, "<mask>"])}
    merges = [tuple(m.split(" ")) for m in backend.weights.decode().split("\n") if m]
    built = backends.byte_bpe_pipeline(vocab, merges)  # type: ignore[arg-type]
    built.add_special_tokens(list(SPECIAL_TOKENS["bpe"]))
    return Tokenizer("bpe", backends.TokenizersBackend(built), cased=True)


# ---- Unigram


def _unigram(texts: Iterator[str], vocab_size: int, cased: bool) -> Tokenizer:
    """ALBERT's settings (albert, README): ids, control and user symbols, coverage, sampling.

    Its rule that a digit and the comma after it are two pieces is trained in: no piece here
    crosses from one to the other, so the rule has nothing left to split and a pipeline that
    does not know it gives the same ids.
    """
    found = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_unigram_sentences(texts, cased),
            model_writer=found,
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
            character_coverage=0.99995,
            input_sentence_size=10_000_000,
            shuffle_input_sentence=True,
            max_sentence_length=_LONGEST,
            pretokenization_delimiter=_CUT,
            num_threads=8,  # fixed: sums of floats depend on it
            minloglevel=2,
        )
    except RuntimeError as e:
        if at_most := re.search(r"value <= (\d+)", str(e)):
            _check_size(vocab_size, int(at_most[1]), "unigram")
        if at_least := re.search(r"required_chars\. \d+ vs (\d+)", str(e)):
            _check_size(vocab_size, int(at_least[1]) + 1, "unigram")
        raise ValueError(f"SentencePiece cannot train on this text: {e}") from e
    model = _rounded(found.getvalue())
    return Tokenizer("unigram", backends.SentencePieceBackend(model, cased), cased)


def _rounded(model: bytes) -> bytes:
    """Scores in 1024ths: sums of them are exact in floats of 32 and of 64 bits, so that every
    implementation breaks the same ties in the same way."""
    proto = backends.model_proto(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * 1024) / 1024
    return proto.SerializeToString()


def _unigram_sentences(texts: Iterator[str], cased: bool) -> Iterator[str]:
    for text in texts:
        for sentence in split_sentences(text):
            cleaned = backends.clean_text(sentence, cased).replace(_CUT, "")
            yield re.sub(r"(?<=\d),", _CUT + ",", cleaned)
