"""One tokenizer over WordPiece, SentencePiece Unigram and byte-level BPE: load, save, encode.

A saved folder describes itself and opens with `transformers.AutoTokenizer`:

    wordpiece   tokenizer.json  vocab.txt               tokenizer_config.json
    bpe         tokenizer.json  vocab.json  merges.txt  tokenizer_config.json
    unigram     tokenizer.json  spiece.model            tokenizer_config.json

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
from tokenizers import processors

from bert_jax.data.tokenization import backends, folder_settings, pipelines, pretrained
from bert_jax.data.tokenization.pretrained import FINGERPRINT_FILE
from bert_jax.data.tokenization.special_tokens import (
    KINDS,
    ROLES,
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
        backend: backends.TokenizersBackend | backends.SentencePieceBackend,
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
            raise ValueError(f"its vocabulary has no {' '.join(missing)}")
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
        return len(self._backend.normalize("e\u0301")) > 1 or self._backend.normalize("é") == "é"

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
        new = [w for w in words if w not in set(known)]
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
        # Not `_is_own_pipeline`: folders and corpora that were saved have this fingerprint.
        if self.kind == "wordpiece":
            usual = normal.get("type") in (None, "BertNormalizer") and not doubled
        else:
            usual = self.kind == "bpe" and doubled and not normal
        foreign = [] if usual else [normal, split, doubled]
        optional = filter(None, (self._backend.added, self._backend.word_limit, foreign))
        return [accents, chinese, split.get("add_prefix_space"), *optional]

    @property
    def _is_own_pipeline(self) -> bool:
        """Whether the pipeline is one that is trained here, for which `transformers` has a class
        that builds the same. Others are saved as they were read."""
        if isinstance(self._backend, backends.SentencePieceBackend):
            return True
        spec, doubled = self._backend.spec, self.special_tokens.doubled
        if self.kind == "unigram":
            return not doubled
        if self.kind == "wordpiece":
            return pipelines.is_bert(spec) and not doubled
        return self.kind == "bpe" and pipelines.is_roberta(spec) and doubled

    # ---- saving

    def save(self, dir: str | Path) -> None:
        """Write a folder, with the files in the docstring of this module."""
        dir = Path(dir)
        dir.mkdir(parents=True, exist_ok=True)
        pieces = self._backend.pieces
        if isinstance(self._backend, backends.SentencePieceBackend):
            (dir / "spiece.model").write_bytes(self._backend.model)
        elif self.kind == "wordpiece":
            (dir / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), encoding="utf-8")
        elif self.kind == "bpe":
            ids = json.dumps(self._ids, ensure_ascii=False)
            (dir / "vocab.json").write_text(ids, encoding="utf-8")
            merges = "#version: 0.2\n" + self._backend.weights.decode() + "\n"
            (dir / "merges.txt").write_text(merges, encoding="utf-8")
        (dir / "tokenizer.json").write_text(self._pipeline().to_str(pretty=True), encoding="utf-8")
        config = json.dumps(self._config(), indent=2, ensure_ascii=False) + "\n"
        (dir / "tokenizer_config.json").write_text(config, encoding="utf-8")
        (dir / FINGERPRINT_FILE).write_text(self.fingerprint + "\n", encoding="utf-8")

    def _pipeline(self) -> tokenizers.Tokenizer:
        """The pipeline for other libraries: with special tokens and the template of pairs."""
        core = tokenizers.Tokenizer.from_str(self._backend.core.to_str())
        core.add_special_tokens(
            [
                tokenizers.AddedToken(s, special=True, lstrip=self._mask_takes_space and i == 4)
                for i, s in enumerate(self._specials)
            ]
        )
        if not self._is_own_pipeline and core.post_processor is not None:
            return core
        cls, sep = (self._specials[2], self.cls_id), (self._specials[3], self.sep_id)
        if self.kind == "bpe":
            core.post_processor = processors.RobertaProcessing(
                sep, cls, trim_offsets=True, add_prefix_space=bool(self._normalization()[2])
            )
        else:
            core.post_processor = pipelines.pair_template(cls, sep)
        return core

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = dict(zip(ROLES, self._specials, strict=True))
        config |= {"model_max_length": 512, "do_lower_case": not self.cased}
        if not self._is_own_pipeline:
            config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        elif self.kind == "wordpiece":
            accents, chinese, *_ = self._normalization()
            config |= {"strip_accents": accents, "tokenize_chinese_chars": chinese}
            config |= pipelines.bert_class(self._backend.word_limit)
        elif self.kind == "bpe":
            config |= {"tokenizer_class": "RobertaTokenizer", "errors": "replace"}
            config |= {"bos_token": self._specials[2], "eos_token": self._specials[3]}
            config |= {"add_prefix_space": bool(self._normalization()[2])}
        else:
            # AlbertTokenizer would replace the pipeline of tokenizer.json by its own
            config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
            config |= {"keep_accents": self.keeps_accents}
            config |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        return config


# ---- training and loading


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
