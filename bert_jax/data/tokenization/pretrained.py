"""Open the files of a tokenizer's folder, of this package or of Hugging Face.

An ALBERT folder of Hugging Face gives the ids that AlbertTokenizer of `transformers` 5 gives. That
class takes the vocabulary of tokenizer.json, or else of spiece.model, and builds its own pipeline.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from bert_jax.data.tokenization import backends, folder_settings, pipelines
from bert_jax.data.tokenization.special_tokens import Kind, read_template, special_token_strings
from bert_jax.utils import hub

logger = logging.getLogger(__name__)


class Opened(NamedTuple):
    """The arguments of `Tokenizer`."""

    kind: Kind
    backend: backends.Backend
    cased: bool
    specials: list[str]
    doubled: bool | None = None
    mask_takes_space: bool | None = None


UNUSED = "NOTUSED"  # at the end of a repeated piece's name, as in transformers
CONTROL, USER_DEFINED = 3, 4  # types of a SentencePiece piece
SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json")
FINGERPRINT_FILE = "fingerprint.txt"  # in a folder that we saved, to detect damage
MANY_CAPITALS = 100  # pieces of an uncased vocabulary with them are few
_PIPELINE_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


def tokenizer_folder(path: str | Path) -> Path:
    """The folder of a model's tokenizer, without reading the weights; a tokenizer's folder is its
    own. ValueError: the folder is missing; a name that cannot be downloaded."""
    return inner_folder(Path(hub.model_folder(path, weights=False).path))


def inner_folder(folder: Path) -> Path:
    """The tokenizer's folder in a model's, such as a run's; else the folder itself."""
    return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder


def read_config(dir: Path) -> dict[str, Any]:
    """The settings of a folder; empty without a file."""
    config, tokens = (folder_settings.read_settings(dir / name) for name in SETTINGS_FILES)
    # of two names for a role that of the map counts, as in transformers, unless the map is outdated
    return tokens | config if "added_tokens_decoder" in config else config | tokens


def open_folder(dir: Path, config: dict[str, Any], original: bool) -> Opened:
    """What the folder says of its tokenizer. ValueError: there is none, or none that is
    supported."""
    class_name = folder_settings.class_name_of(dir, config)
    spiece, pipeline = dir / "spiece.model", dir / "tokenizer.json"
    saved = (dir / FINGERPRINT_FILE).is_file()
    own = saved or "keep_accents" in config or not pipeline.is_file()
    if spiece.is_file() and (original or (own and class_name in _PIPELINE_CLASSES)):
        cased = not config.get("do_lower_case", True)
        accents = bool(config.get("keep_accents", False))
        model = backends.SentencePieceBackend(spiece.read_bytes(), cased, accents)
        return Opened("unigram", model, cased, special_token_strings("unigram", config))
    if original:
        raise ValueError(f"it has no {spiece.name}, which ALBERT's own code reads")
    if not pipeline.is_file():
        folder_settings.check_class(dir, class_name, config)
    if class_name.startswith("Albert") or (
        spiece.is_file() and not (class_name and pipeline.is_file())
    ):
        core = _albert(spiece, pipeline, config)
    elif pipeline.is_file():
        core = _open_pipeline(pipeline)
        core = folder_settings.with_settings(core, class_name, config, pipeline)
    elif (dir / "vocab.txt").is_file():
        core = _load_vocab_txt(dir / "vocab.txt", config)
        folder_settings.add_tokens(core, dir, config)
    elif (dir / "vocab.json").is_file() and (dir / "merges.txt").is_file():
        core = _load_vocab_and_merges(dir, config)
        folder_settings.add_tokens(core, dir, config)
    else:
        raise ValueError(
            "expected tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model "
            "(of sentencepiece.bpe.model alone transformers makes a tokenizer.json: open the "
            "folder there and save it)"
        )
    config = folder_settings.with_default_tokens(class_name, config, core)
    if not saved:
        folder_settings.add_markers(core, dir, config)
    spec = json.loads(core.to_str())
    kind, template = _detect_kind(spec), read_template(spec["post_processor"])
    specials = special_token_strings(kind, config, template)
    flags = {t["content"]: t for t in spec["added_tokens"] if t["special"]}
    core.add_special_tokens(
        [s for s in specials if s not in flags and core.token_to_id(s) is not None]
    )
    markers = {*folder_settings.listed_markers(config)}
    if not saved:  # of those that we saved, the markers are not special any more
        markers |= folder_settings.special_markers(core, config)
    core = folder_settings.with_markers(core, markers - {*specials})
    backend = backends.TokenizersBackend(core, specials)
    doubled = None if template is None else template.doubled
    takes_space = flags[specials[4]]["lstrip"] if specials[4] in flags else None
    return Opened(kind, backend, not backend.lowercases, specials, doubled, takes_space)


def _open_pipeline(file: Path) -> tokenizers.Tokenizer:
    """The pipeline of tokenizer.json. CamemBERT's Unigram has the piece <unk> twice: as in
    transformers, the first one counts, and the second gets a name that no text spells."""
    core = tokenizers.Tokenizer.from_file(str(file))
    if core.get_vocab_size(False) == len(core.get_vocab(False)):
        return core
    spec = json.loads(core.to_str())
    if spec["model"]["type"] != "Unigram":
        return core
    first: dict[str, int] = {}
    repeated = [
        i for i, (piece, _) in enumerate(spec["model"]["vocab"]) if first.setdefault(piece, i) != i
    ]
    for i in repeated:
        spec["model"]["vocab"][i][0] += UNUSED
    names = {piece for piece, _ in spec["model"]["vocab"]}
    for token in spec["added_tokens"]:
        token["id"] = first.get(token["content"], token["id"])
    distinct = tokenizers.Tokenizer.from_str(json.dumps(spec))
    moved = [
        t["content"]
        for t in spec["added_tokens"]
        if t["content"] not in names and distinct.token_to_id(t["content"]) != t["id"]
    ]
    if moved:
        raise ValueError(
            f"its Unigram has pieces twice, and without them the id of {moved[0]!r} would change: "
            "download or copy it again"
        )
    return distinct


# ---- ALBERT


def _albert(spiece: Path, pipeline: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    if pipeline.is_file():
        spec = json.loads(pipeline.read_text(encoding="utf-8"))
        vocab = [(piece, float(score)) for piece, score in spec["model"]["vocab"]]
        charsmap = _charsmap(spec["normalizer"])
        added = [
            tokenizers.AddedToken(**folder_settings.without_id(t)) for t in spec["added_tokens"]
        ]
    else:
        proto = backends.model_proto(spiece.read_bytes())
        vocab = [(p.piece, float(p.score)) for p in proto.pieces]
        charsmap = proto.normalizer_spec.precompiled_charsmap
        added = [
            tokenizers.AddedToken(p.piece, normalized=False, special=p.type == CONTROL)
            for p in proto.pieces
            if p.type in (CONTROL, USER_DEFINED)
        ]
    lower, accents = config.get("do_lower_case", True), config.get("keep_accents", False)
    steps = pipelines.hf_albert_normalizers(not lower, accents)
    core = pipelines.unigram_pipeline(vocab, 1, steps, charsmap)
    core.add_special_tokens([t for t in added if t.special])
    core.add_tokens([t for t in added if not t.special])
    return core


def _charsmap(normalizer: dict[str, Any] | None) -> bytes | None:
    steps = backends.inner_steps(normalizer or {})
    maps = (s["precompiled_charsmap"] for s in steps if s.get("type") == "Precompiled")
    encoded = next(maps, None)
    return base64.b64decode(encoded) if encoded else None


# ---- BERT and RoBERTa


def _load_vocab_txt(file: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    vocab = _read_vocab_txt(file)
    capitals = sum(p != p.lower() and not p.startswith("[") for p in vocab)
    if "do_lower_case" not in config and capitals >= MANY_CAPITALS:
        logger.warning(
            "%s has %d pieces with capital letters, and no settings say do_lower_case: texts are "
            "lower-cased, as in transformers; of a cased model import it with --cased",
            *(file, capitals),
        )
    return pipelines.wordpiece_pipeline(
        vocab,
        lower=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        chinese=config.get("tokenize_chinese_chars", True),
        unk=special_token_strings("wordpiece", config)[1],
        max_input_chars_per_word=config.get("max_input_chars_per_word", pipelines.MAX_INPUT_CHARS),
    )


def _read_vocab_txt(file: Path) -> dict[str, int]:
    """The id of each piece: the number of its line. If lines are equal, the last one counts, as in
    `transformers`; the ids of the others get names that no text spells."""
    pieces = file.read_text(encoding="utf-8").split("\n")
    pieces = pieces[:-1] if pieces[-1] == "" else pieces
    if pieces and pieces[0].startswith("\ufeff"):
        raise ValueError(
            f"{file.name}, line 1: the piece {pieces[0][1:]!r} begins with a byte-order mark; "
            "save the file as UTF-8 without one"
        )
    vocab = {p: i for i, p in enumerate(pieces)}
    unused = {i: p for i, p in enumerate(pieces) if vocab[p] != i}
    for i, piece in unused.items():
        logger.warning(
            "%s: line %d has the piece %r again in line %d; the last one counts, as in "
            "transformers",
            *(file, i + 1, piece, vocab[piece] + 1),
        )
    return vocab | {f"[unused line {i + 1}]": i for i in unused}


def _load_vocab_and_merges(dir: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    vocab = json.loads((dir / "vocab.json").read_text(encoding="utf-8"))
    lines = (dir / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = [tuple(m.split(" ")) for m in lines if m and not m.startswith("#version")]
    bad = next((p for p in pairs if len(p) != 2), None)
    if bad is not None:
        raise ValueError(
            f"merges.txt has a line without two pieces: {' '.join(bad)[:40]!r}; download or copy "
            "it again"
        )
    return pipelines.byte_bpe_pipeline(vocab, pairs, config.get("add_prefix_space", False))  # type: ignore[arg-type]


def _detect_kind(spec: dict[str, Any]) -> Kind:
    model = spec["model"]["type"]
    if model == "BPE" and "ByteLevel" not in json.dumps(spec["pre_tokenizer"]):
        spaces = json.dumps([spec["normalizer"], spec["pre_tokenizer"]], ensure_ascii=False)
        if not spec["model"].get("byte_fallback") or backends.SPACE_MARK not in spaces:
            raise ValueError(
                "its BPE is neither byte-level nor SentencePiece's, which has byte fallback and "
                f"{backends.SPACE_MARK} for spaces"
            )
        return "sentencepiece_bpe"
    kinds: dict[str, Kind] = {"WordPiece": "wordpiece", "BPE": "bpe", "Unigram": "unigram"}
    if spec["model"].get("continuing_subword_prefix") == "" and model == "WordPiece":
        return "chars"  # train_chars.py
    if model not in kinds:
        raise ValueError(f"its model is {model}, expected {', '.join(kinds)}")
    return kinds[model]
