"""One tokenizer over WordPiece, SentencePiece Unigram, byte-level BPE and characters: load, save,
encode.

A saved folder describes itself and opens with `transformers.AutoTokenizer`:

    wordpiece   tokenizer.json  vocab.txt               tokenizer_config.json
    bpe         tokenizer.json  vocab.json  merges.txt  tokenizer_config.json
    unigram     tokenizer.json  spiece.model            tokenizer_config.json
    chars       tokenizer.json                          tokenizer_config.json

`load_tokenizer` also reads Hugging Face folders, among them those of SentencePiece's BPE, which is
not trained here. Where special tokens stand is read from the post-processor of `tokenizer.json`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bert_jax.data.tokenization import backends, folder_settings, pipelines, pretrained, saving
from bert_jax.data.tokenization.pretrained import FINGERPRINT_FILE
from bert_jax.data.tokenization.special_tokens import (
    KINDS,
    SPECIAL_TOKENS,
    Kind,
    SpecialTokens,
)
from bert_jax.data.tokenization.words import (
    BYTE_SPACE,
    SPACE_MARK,
    WordEdges,
    WordRule,
    byte_letters,
    word_edges,
)
from bert_jax.utils.errors import first_line

__all__ = ["FINGERPRINT_FILE", "KINDS", "SPECIAL_TOKENS", "Kind", "Tokenizer", "load_tokenizer"]


class Tokenizer:
    """Text to ids and back. `encode` neither adds nor recognizes special tokens."""

    def __init__(
        self,
        kind: Kind,
        backend: backends.Backend,
        cased: bool,
        specials: Sequence[str] | None = None,
        doubled: bool | None = None,
        mask_takes_space: bool | None = None,
    ):
        """`specials` are the pad, unk, cls, sep and mask token. `doubled`: two separators between
        segments. `mask_takes_space`: the mask token includes the space before it, as a word does.
        The defaults are those of the kind."""
        self.kind: Kind = kind
        self.cased = cased
        self._backend = backend
        self._ids = {piece: i for i, piece in enumerate(backend.pieces)}
        self._specials = tuple(specials or SPECIAL_TOKENS[kind])
        missing = [s for s in self._specials if s not in self._ids]
        if missing:
            raise ValueError(
                f"its vocabulary has no {' '.join(missing)}; name its special tokens in "
                "tokenizer_config.json, or copy it again"
            )
        ids = [self._ids[s] for s in self._specials]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        self.mask_token = self._specials[4]
        # never masked; the unknown token is not among them
        self.special_ids = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        doubled = kind == "bpe" if doubled is None else doubled
        self.special_tokens = SpecialTokens(self.cls_id, self.sep_id, doubled)
        self._mask_takes_space = kind == "bpe" if mask_takes_space is None else mask_takes_space

    def __repr__(self) -> str:
        case = "cased" if self.cased else "uncased"
        return f"Tokenizer({self.kind}, {self.vocab_size} pieces, {case})"

    @property
    def vocab_size(self) -> int:
        """The number of pieces, special tokens included."""
        return len(self._backend.pieces)

    @property
    def keeps_accents(self) -> bool:
        """Whether combining marks stay in the text."""
        return self._backend.normalize("é").lower() != "e"

    def token(self, id: int) -> str:
        """The piece of an id."""
        return self._backend.pieces[id]

    def piece_text(self, piece: str) -> str:
        """A piece as a reader expects it: of byte-level BPE the text of its bytes, without the
        space before a word; bytes that are no whole character are `\\x..`. Others are text."""
        letters = byte_letters()
        if self.kind != "bpe" or piece in self._specials or not set(piece) <= set(letters):
            return piece
        data = bytes(letters[c] for c in piece)
        return (data.removeprefix(b" ") or data).decode(errors="backslashreplace")

    def id(self, token: str) -> int:
        """The id of a piece. ValueError: there is no such piece."""
        if token not in self._ids:
            raise ValueError(f"{token!r} is not in the vocabulary of {self.vocab_size} pieces")
        return self._ids[token]

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return self._backend.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for several texts."""
        return self._backend.encode_batch(texts)

    def encode_with_offsets(self, text: str) -> tuple[list[int], np.ndarray]:
        """As `encode`, and int32 [n 2]: start and end character of each piece (offsets.py)."""
        from bert_jax.data.tokenization import offsets

        return offsets.encode_with_offsets(self._backend, text)

    def encode_with_masks(self, text: str) -> list[int]:
        """As `encode`, but the mask token in the text becomes its id. That of RoBERTa and others
        includes the space before it, as a word does."""
        if self._mask_backend is not None:
            return self._mask_backend.encode(text)
        parts = text.split(self.mask_token)
        ids: list[int] = []
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            ids += self.encode(part.rstrip() if self._mask_takes_space and not last else part)
            ids += [] if last else [self.mask_id]
        return ids

    @functools.cached_property
    def _mask_backend(self) -> backends.TokenizersBackend | None:
        """A pipeline that finds the mask token, where the parts of a text cannot be encoded one by
        one: it puts a space before the first part alone."""
        backend = self._backend
        if isinstance(backend, backends.SentencePieceBackend) or not backend.marks_first:
            return None
        core = tokenizers.Tokenizer.from_str(backend.core.to_str())
        if self.mask_token not in {t["content"] for t in backend.spec["added_tokens"]}:
            core.add_special_tokens([self.mask_token])
        core = folder_settings.with_markers(core, {self.mask_token})
        return backends.TokenizersBackend(core, self._specials[:4])

    @functools.cached_property
    def marks_spaces(self) -> bool:
        """Whether a word after a space has other pieces than the same word at the beginning of a
        text, so that the space has to be encoded with it. Not in a vocabulary without a piece for
        a space, as of characters of text without any: there it would be an unknown token."""
        marked = any(p.startswith((SPACE_MARK, BYTE_SPACE)) for p in self._backend.pieces)
        return marked and self._backend.marks_spaces

    @property
    def max_word_characters(self) -> int | None:
        """The characters of the longest word that WordPiece encodes; None for the other kinds."""
        limit = self._backend.word_limit.get("max_input_chars_per_word", pipelines.MAX_INPUT_CHARS)
        return limit if self.kind == "wordpiece" else None

    def build_row(self, a: list[int], b: list[int] | None = None) -> tuple[list[int], int]:
        """The ids of one segment or two with special tokens, and the size of segment 0."""
        return self.special_tokens.build_row(a, b)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return self._backend.decode(ids)

    def word_edges(self, rule: WordRule = "script") -> WordEdges:
        """Which pieces begin a word, and after which the next one does (words.py)."""
        pieces, added = self._backend.pieces, self._backend.added
        marks = self._backend.marks_spaces
        return word_edges(self.kind, pieces, added, self.special_ids, rule, marks)

    def with_words(self, words: Sequence[str]) -> tuple[Tokenizer, list[str]]:
        """A new tokenizer with the words appended to its vocabulary (added_tokens.py), and those of
        the words that were single pieces already and are not added."""
        from bert_jax.data.tokenization import added_tokens

        words = list(dict.fromkeys(words))
        known = [w for w in words if added_tokens.is_known(self._backend, w, self.unk_id)]
        is_known = set(known)
        new = [w for w in words if w not in is_known]
        extended = (
            added_tokens.append_words(self.kind, self._backend, new, self._specials)
            if new
            else self._backend
        )
        options = (self._specials, self.special_tokens.doubled, self._mask_takes_space)
        return Tokenizer(self.kind, extended, self.cased, *options), known

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ordered vocabulary and the settings that change ids."""
        settings = [self.kind, self.cased, self._specials, self._normalization()]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update(json.dumps(self._backend.pieces).encode())
        digest.update(self._backend.weights)
        return digest.hexdigest()

    def _normalization(self) -> list[Any]:
        """The settings of the pipeline except the case."""
        if isinstance(self._backend, backends.SentencePieceBackend):
            names = ("keep_accents", "keeps_joiners")
            return [name for name in names if getattr(self._backend, name)]
        spec, doubled = self._backend.spec, self.special_tokens.doubled
        if self.kind == "unigram":
            steps = pipelines.describe_normalizer(spec["normalizer"])
            return [*steps, self._backend.added, *(["doubled"] if doubled else [])]
        normal, split = spec["normalizer"] or {}, spec["pre_tokenizer"] or {}
        accents, chinese = normal.get("strip_accents"), normal.get("handle_chinese_chars")
        # Not `saving._is_own_pipeline`: saved folders and corpora have this fingerprint.
        if self.kind == "wordpiece":
            usual = normal.get("type") in (None, "BertNormalizer") and not doubled
        else:
            usual = self.kind == "bpe" and doubled and not normal
        foreign = [] if usual else [normal, split, doubled]
        optional = filter(None, (self._backend.added, self._backend.word_limit, foreign))
        return [accents, chinese, split.get("add_prefix_space"), *optional]

    def save(self, dir: str | Path) -> None:
        """Write a folder, with the files in the docstring of this module."""
        saving.save_tokenizer(self, Path(dir))


# ---- loading


def load_tokenizer(dir: str | Path, cased: bool = False, original: bool = False) -> Tokenizer:
    """Load a folder that `save` wrote, or a Hugging Face one. `cased` is for a folder that has only
    a vocabulary. An ALBERT folder gives the ids of `transformers`, or with `original` those of
    ALBERT's own code. ValueError: the folder is missing, damaged, or has no tokenizer that is
    supported."""
    dir = Path(dir)
    if not dir.is_dir():
        raise ValueError(f"{dir} is not a folder: expected a tokenizer's folder; train one")
    try:
        config = pretrained.read_config(dir)
        if cased and not (dir / "tokenizer.json").is_file():
            if config.get("do_lower_case"):
                raise ValueError(
                    "its settings have do_lower_case true, which --cased would contradict: leave "
                    "--cased out, or change it there"
                )
            config["do_lower_case"] = False
        tokenizer = Tokenizer(*pretrained.open_folder(dir, config, original))
    except Exception as e:  # the libraries raise bare Exception
        reason = first_line(e)
        if type(e) is ValueError:  # our own, which say what to do
            raise ValueError(f"{dir} is not a valid tokenizer: {reason}") from e
        raise ValueError(f"{dir} is not a valid tokenizer: {reason}; train or copy it again") from e
    saved = dir / FINGERPRINT_FILE
    if saved.exists() and saved.read_bytes().strip() != tokenizer.fingerprint.encode():
        raise ValueError(
            f"{dir} is damaged: its files do not match its {FINGERPRINT_FILE}; train or copy it "
            "again"
        )
    return tokenizer
