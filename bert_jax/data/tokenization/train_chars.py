"""A vocabulary of the characters of a text, with or without k-mers: for proteins, DNA, and other
sequences of symbols.

    text      MKVLA LA            white space is one piece, ▁
    --kmer 1  M K V L A ▁ L A
    --kmer 3  MKV L A ▁ L A       groups of three from the left; the rest, and groups that are not
                                  in the vocabulary, in characters
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from bert_jax.data.tokenization import pipelines
from bert_jax.data.tokenization.special_tokens import SPECIAL_TOKENS
from bert_jax.data.tokenization.words import SPACE_MARK

logger = logging.getLogger(__name__)


def train_chars(
    texts: Iterable[str], vocab_size: int | None, cased: bool, keep_accents: bool, kmer: int
) -> tokenizers.Tokenizer:
    """All characters of the text, then the most frequent k-mers, at most `vocab_size` pieces with
    the special tokens; None: all of them. ValueError: the characters alone are more."""
    core = _pipeline({"[UNK]": 0}, cased, keep_accents, kmer)
    assert core.normalizer is not None
    assert core.pre_tokenizer is not None
    groups = Counter[str]()
    for text in texts:
        pieces = core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(text))
        groups.update(piece for piece, _ in pieces)
    characters = Counter[str]()
    for group, count in groups.items():
        for c in group:
            characters[c] += count
    specials = list(SPECIAL_TOKENS["chars"])
    kmers = Counter({g: n for g, n in groups.items() if len(g) > 1})
    fixed = specials + _by_frequency(characters)
    size = len(fixed) + len(kmers) if vocab_size is None else vocab_size
    if len(fixed) > size:
        raise ValueError(
            f"a vocabulary of {size} pieces is too small for this text's characters: at least "
            f"{len(fixed)} for chars; choose more pieces"
        )
    pieces = (fixed + _by_frequency(kmers))[:size]
    if len(pieces) < size:
        logger.info("the text has only %d pieces, so the vocabulary is smaller", len(pieces))
    if left := kmers.total() - sum(kmers[p] for p in pieces):
        share = 100 * left / groups.total()
        logger.info("%.2f %% of the groups are not in the vocabulary: they are characters", share)
    vocab = {p: i for i, p in enumerate(pieces)}
    built = _pipeline(vocab, cased, keep_accents, kmer, characters)
    built.add_special_tokens(specials)
    return built


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _pipeline(
    vocab: dict[str, int],
    cased: bool,
    keep_accents: bool,
    kmer: int,
    known: Collection[str] = (),
) -> tokenizers.Tokenizer:
    """`known` are the characters of the vocabulary, if there are any yet."""
    # without a mark for continuing pieces, a group that is unknown becomes its characters
    model = models.WordPiece(vocab, unk_token="[UNK]", continuing_subword_prefix="")
    core = tokenizers.Tokenizer(model)
    strip = [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]
    core.normalizer = normalizers.Sequence(
        [
            *([] if keep_accents else strip),
            *([] if cased else [normalizers.Lowercase()]),
            normalizers.Strip(left=False),  # a word after a space keeps it, as in byte-level BPE
            normalizers.Replace(tokenizers.Regex("\\s+"), SPACE_MARK),
        ]
    )
    letter = f"[^{SPACE_MARK}]"
    groups = f"{letter}{{{kmer}}}|." if kmer > 1 else "."
    core.pre_tokenizer = _split(f"(?m:{groups})")
    if kmer > 1 and known:
        # else one unknown character would make its whole group unknown
        letters = "".join(f"\\x{{{ord(c):x}}}" for c in sorted(known))
        alone = _split(f"[^{letters}]")
        core.pre_tokenizer = pre_tokenizers.Sequence([core.pre_tokenizer, alone])
    core.decoder = decoders.Sequence([decoders.Replace(SPACE_MARK, " "), decoders.Fuse()])
    if "[SEP]" in vocab:
        cls, sep = (("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"]))
        core.post_processor = pipelines.pair_template(cls, sep)
    return core


def _split(regex: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
