"""What the settings of a foreign tokenizer's folder say beside its vocabulary or pipeline, as
`transformers` reads them: the class, case and accents, added tokens, markers, token types."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import tokenizers

from bert_jax.data.tokenization.special_tokens import (
    ROLES,
    SPECIAL_TOKENS,
    read_template,
    special_token_strings,
)

logger = logging.getLogger(__name__)

# A bare vocabulary -> the classes of transformers that read it as we do.
_VOCAB_CLASSES = {
    "spiece.model": ("Albert",),
    "vocab.txt": ("Bert", "DistilBert", "Electra"),
    "vocab.json": ("Roberta", "GPT2", "Longformer", "Bart"),
}
_CLASSES_OF_FAMILIES = {
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
# With RoBERTa's special tokens, which published files of the last two do not name.
_ROBERTA_LIKE = ("Roberta", "XLMRoberta", "Camembert")
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# of the classes of BERT and RoBERTa in transformers
_DEFAULTS = {
    "do_lower_case": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "add_prefix_space": False,
}


def class_name_of(dir: Path, config: dict[str, Any]) -> str:
    """The class that transformers would open: of the tokenizer's settings, else of the model's,
    else that of the model's family."""
    name = config.get("tokenizer_class")
    if not name:
        model = read_settings(dir / "config.json")
        name = model.get("tokenizer_class") or _CLASSES_OF_FAMILIES.get(
            str(model.get("model_type"))
        )
    return str(name or "")


def with_default_tokens(
    class_name: str, config: dict[str, Any], core: tokenizers.Tokenizer
) -> dict[str, Any]:
    """The settings with the special tokens that the class has where they name none, if the pipeline
    has them."""
    if _base_name(class_name) not in _ROBERTA_LIKE:
        return config
    published = dict(zip(ROLES, SPECIAL_TOKENS["bpe"], strict=True))
    unnamed = {r: t for r, t in published.items() if not config.get(r)}
    return config | {r: t for r, t in unnamed.items() if core.token_to_id(t) is not None}


def keep_class(dir: Path, copy: Path) -> None:
    """Write the class of a folder's tokenizer to the settings of its copy, where config.json alone
    names it: the class decides how settings count, and a copy may have another config.json."""
    settings = [read_settings(d / "tokenizer_config.json") for d in (dir, copy)]
    class_name = class_name_of(dir, settings[0])
    if (copy / "tokenizer.json").is_file() and class_name and "tokenizer_class" not in settings[0]:
        text = json.dumps(settings[1] | {"tokenizer_class": class_name}, indent=2)
        (copy / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON object of a file; empty without the file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def gives_types(dir: Path, config: dict[str, Any]) -> bool:
    """Whether the folder's tokenizer gives the second of two texts the token type 1 in
    `transformers`; else all tokens have type 0."""
    names, base = config.get("model_input_names"), _base_name(class_name_of(dir, config))
    if base in _ROBERTA_LIKE if names is None else "token_type_ids" not in names:
        return False
    file = dir / "tokenizer.json"
    if not file.is_file() or base in ("Bert", "DistilBert", "Electra", "Albert"):
        return True
    try:
        template = read_template(json.loads(file.read_text(encoding="utf-8"))["post_processor"])
    except (ValueError, KeyError):  # whoever reads the tokenizer reports it
        return True
    return template is None or template.types


def _base_name(class_name: str) -> str:
    return class_name.removesuffix("Fast").removesuffix("Tokenizer")


def check_class(dir: Path, class_name: str, config: dict[str, Any]) -> None:
    """ValueError: the folder has a bare vocabulary, and its class is not the usual one for it: the
    same files would be read with other rules."""
    usual = next((names for file, names in _VOCAB_CLASSES.items() if (dir / file).is_file()), None)
    if usual is None:
        return
    base = _base_name(class_name)
    words = config.get("word_tokenizer_type", "basic")
    if words != "basic":
        class_name += f" with word_tokenizer_type {words}"
    if words != "basic" or base not in ("", "PreTrained", "TokenizersBackend", *usual):
        raise ValueError(
            f"its tokenizer is a {class_name}, which no tokenizer.json describes: expected one of "
            f"{', '.join(f'{name}Tokenizer' for name in usual)}; open the folder in transformers "
            "and save a fast tokenizer, if the class has one"
        )


def with_settings(
    core: tokenizers.Tokenizer, class_name: str, config: dict[str, Any], file: Path
) -> tokenizers.Tokenizer:
    """The pipeline of a tokenizer.json with what the folder's settings say otherwise: they count in
    the classes of BERT and RoBERTa. Where they say nothing, `transformers` 5 takes the defaults of
    the class, and the pipeline counts here."""
    spec = json.loads(core.to_str())
    base = _base_name(class_name)
    step, keys = {
        **dict.fromkeys(("Bert", "DistilBert", "Electra"), ("normalizer", _BERT_SETTINGS)),
        "Roberta": ("pre_tokenizer", {"add_prefix_space": "add_prefix_space"}),
    }.get(base, ("", {}))
    values = spec.get(step) or {}
    if values.get("type") not in ("BertNormalizer", "ByteLevel"):
        return core
    for key, name in keys.items():
        if key not in config and values[name] != _DEFAULTS[key]:
            logger.warning(
                "%s has %s %r, which counts, but the folder's settings have no %s, so that "
                "transformers 5 takes %r: write %s there to have the same in both",
                *(file, name, values[name], key, _DEFAULTS[key], key),
            )
    changed = {
        key: name for key, name in keys.items() if key in config and config[key] != values[name]
    }
    if not changed:
        return core
    for key, name in changed.items():
        logger.warning(
            "%s has %s %r, but the folder's settings have %s %r, which counts, as in transformers",
            *(file, name, values[name], key, config[key]),
        )
    spec[step] = values | {name: config[key] for key, name in changed.items()}
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def add_tokens(core: tokenizers.Tokenizer, dir: Path, config: dict[str, Any]) -> None:
    """Add the tokens that stand beside a bare vocabulary, in added_tokens.json or the settings.
    ValueError: their ids do not follow on those of the vocabulary."""
    tokens = dict[int, tokenizers.AddedToken]()
    listed = read_settings(dir / "added_tokens.json")
    special = {*special_token_strings("wordpiece", config), *listed_markers(config)}
    for text, id in listed.items():
        flags = dict(special=text in special, normalized=text not in special)
        tokens[int(id)] = tokenizers.AddedToken(text, **flags)
    for id, flags in config.get("added_tokens_decoder", {}).items():
        tokens[int(id)] = tokenizers.AddedToken(**without_id(flags))
    for id, token in sorted(tokens.items(), key=lambda pair: pair[0]):
        if core.token_to_id(token.content) is None and id != core.get_vocab_size():
            raise ValueError(
                f"its added token {token.content!r} has the id {id}: expected "
                f"{core.get_vocab_size()}, which follows on the vocabulary"
            )
        (core.add_special_tokens if token.special else core.add_tokens)([token])


def listed_markers(config: dict[str, Any]) -> list[str]:
    """The special tokens that the folder's settings list beside the five roles, such as [E1]."""
    listed: list[Any] = list(config.get("additional_special_tokens") or [])
    extra = config.get("extra_special_tokens") or []
    listed += extra.values() if isinstance(extra, dict) else extra
    return [t["content"] if isinstance(t, dict) else str(t) for t in listed]


def add_markers(core: tokenizers.Tokenizer, dir: Path, config: dict[str, Any]) -> None:
    """Append the special tokens that the settings list and the pipeline lacks, as `transformers`
    does."""
    lacking = [m for m in listed_markers(config) if core.token_to_id(m) is None]
    if lacking:
        logger.warning(
            "%s: the settings list %s, which the vocabulary lacks: appended with the ids from %d "
            "on, as in transformers",
            *(dir, ", ".join(lacking), core.get_vocab_size()),
        )
        core.add_special_tokens(lacking)


def special_markers(core: tokenizers.Tokenizer, config: dict[str, Any]) -> set[str]:
    """The special tokens beside the five roles and those of the beginning and end of a text, which
    a text that spells them becomes in `transformers`."""
    added = json.loads(core.to_str())["added_tokens"]
    ends = [config.get(role) for role in ("bos_token", "eos_token")]
    excluded = {t["content"] if isinstance(t, dict) else t for t in ends}
    return {t["content"] for t in added if t["special"]} - excluded


def with_markers(core: tokenizers.Tokenizer, markers: set[str]) -> tokenizers.Tokenizer:
    """Let a text that spells one of `markers` become that token: special tokens never do."""
    spec = json.loads(core.to_str())
    found = [t for t in spec["added_tokens"] if t["special"] and t["content"] in markers]
    if not found:
        return core
    for token in found:
        token["special"] = False
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def without_id(token: dict[str, Any]) -> dict[str, Any]:
    """The flags of an added token in tokenizer.json, as `AddedToken` takes them."""
    return {name: value for name, value in token.items() if name != "id"}
