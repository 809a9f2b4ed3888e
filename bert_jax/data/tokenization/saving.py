"""Write a tokenizer's folder, which other libraries open, too; tokenizer.py lists the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import processors

from bert_jax.data.tokenization import backends, pipelines
from bert_jax.data.tokenization.pretrained import FINGERPRINT_FILE
from bert_jax.data.tokenization.special_tokens import ROLES

if TYPE_CHECKING:
    from bert_jax.data.tokenization.tokenizer import Tokenizer


def save_tokenizer(tokenizer: Tokenizer, dir: Path) -> None:
    """Write the folder of `Tokenizer.save`."""
    dir.mkdir(parents=True, exist_ok=True)
    backend = tokenizer._backend
    if isinstance(backend, backends.SentencePieceBackend):
        (dir / "spiece.model").write_bytes(backend.model)
    elif tokenizer.kind == "wordpiece":
        lines = "".join(f"{p}\n" for p in backend.pieces)
        (dir / "vocab.txt").write_text(lines, encoding="utf-8")
    elif tokenizer.kind == "bpe":
        ids = json.dumps(tokenizer._ids, ensure_ascii=False)
        (dir / "vocab.json").write_text(ids, encoding="utf-8")
        merges = "#version: 0.2\n" + backend.weights.decode() + "\n"
        (dir / "merges.txt").write_text(merges, encoding="utf-8")
    pipeline = _pipeline(tokenizer).to_str(pretty=True)
    (dir / "tokenizer.json").write_text(pipeline, encoding="utf-8")
    config = json.dumps(_config(tokenizer), indent=2, ensure_ascii=False) + "\n"
    (dir / "tokenizer_config.json").write_text(config, encoding="utf-8")
    (dir / FINGERPRINT_FILE).write_text(tokenizer.fingerprint + "\n", encoding="utf-8")


def _pipeline(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The pipeline for other libraries: with special tokens and the template of pairs."""
    core = tokenizers.Tokenizer.from_str(tokenizer._backend.core.to_str())
    core.add_special_tokens(
        [
            tokenizers.AddedToken(s, special=True, lstrip=tokenizer._mask_takes_space and i == 4)
            for i, s in enumerate(tokenizer._specials)
        ]
    )
    if not _is_own_pipeline(tokenizer) and core.post_processor is not None:
        return core
    cls, sep = ((token, tokenizer.id(token)) for token in tokenizer._specials[2:4])
    if tokenizer.kind == "bpe":
        prefix = _adds_prefix_space(tokenizer)
        core.post_processor = processors.RobertaProcessing(
            sep, cls, trim_offsets=True, add_prefix_space=prefix
        )
    else:
        core.post_processor = pipelines.pair_template(cls, sep)
    return core


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    """What tokenizer_config.json says."""
    config: dict[str, Any] = dict(zip(ROLES, tokenizer._specials, strict=True))
    config |= {"model_max_length": 512, "do_lower_case": not tokenizer.cased}
    if not _is_own_pipeline(tokenizer):
        config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    elif tokenizer.kind == "wordpiece":
        normal = _step(tokenizer, "normalizer")
        config |= {
            "strip_accents": normal.get("strip_accents"),
            "tokenize_chinese_chars": normal.get("handle_chinese_chars"),
        }
        config |= pipelines.bert_class(tokenizer._backend.word_limit)
    elif tokenizer.kind == "bpe":
        config |= {"tokenizer_class": "RobertaTokenizer", "errors": "replace"}
        config |= {"bos_token": tokenizer._specials[2], "eos_token": tokenizer._specials[3]}
        config |= {"add_prefix_space": _adds_prefix_space(tokenizer)}
    else:
        # AlbertTokenizer would replace the pipeline of tokenizer.json by its own
        config |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {"keep_accents": tokenizer.keeps_accents}
        config |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    return config


def _is_own_pipeline(tokenizer: Tokenizer) -> bool:
    """Whether the pipeline is one that is trained here, for which `transformers` has a class that
    builds the same. Others are saved as they were read."""
    backend, doubled = tokenizer._backend, tokenizer.special_tokens.doubled
    if isinstance(backend, backends.SentencePieceBackend):
        return True
    if tokenizer.kind == "unigram":
        return not doubled
    if tokenizer.kind == "wordpiece":
        return pipelines.is_bert(backend.spec) and not doubled
    return tokenizer.kind == "bpe" and pipelines.is_roberta(backend.spec) and doubled


def _adds_prefix_space(tokenizer: Tokenizer) -> bool:
    return bool(_step(tokenizer, "pre_tokenizer").get("add_prefix_space"))


def _step(tokenizer: Tokenizer, name: str) -> dict[str, Any]:
    """The settings of a step of a pipeline; none if it lacks the step."""
    backend = tokenizer._backend
    assert isinstance(backend, backends.TokenizersBackend)
    return backend.spec[name] or {}
