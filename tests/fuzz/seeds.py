"""Valid inputs, small, from which the wrong ones are made."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bert_jax import config
from bert_jax.data import corpus
from bert_jax.data.corpus import SplitCounts
from bert_jax.data.tokenization import backends, pipelines, tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.tasks.glue import GLUE_COLUMNS

TEXT = (
    "A cat sat. It slept, 3 hours.\nSecond line of it.\n\nZoë's café — naïve \u4e2d\u6587 text!\n"
    "e\u0301 \U0001f600\tx\n\nThe end\n"
)
SENTENCES = ("the cat sat.", "it is café, no?", "a dog \u4e2d ran")
CONTEXT = "The cat Zoë sat on the mat, in 1990, and slept."


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in records).encode()


def document() -> bytes:
    return TEXT.encode()


def compressed(suffix: str) -> bytes:
    packs: dict[str, Any] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.compress,
    }
    return packs[suffix](document())


def records() -> bytes:
    return lines({"text": TEXT, "id": 1}, {"text": "one line", "meta": {"a": [1]}}, {"text": ""})


def parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    table = pyarrow.table({"text": [TEXT, None, "two"], "n": [1, 2, 3]})
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


# ---- tasks


def rows(kind: str) -> bytes:
    first, second, third = SENTENCES
    by_kind: dict[str, list[dict[str, Any]]] = {
        "classification": [
            {"text": first, "text_pair": second, "label": "yes"},
            {"text": third, "label": "no"},
            {"text": second, "label": 3},
        ],
        "regression": [{"text": first, "label": 1.5}, {"text": second, "label": 3}],
        "tagging": [
            {"tokens": ["Zoë", "sat"], "tags": ["B-PER", "O"]},
            {"tokens": ["in", "New", "York"], "tags": ["O", "B-LOC", "I-LOC"]},
        ],
        "choice": [
            {"text": first, "question": "who _ ?", "options": ["cat", "dog"], "label": 0},
            {"text": second, "question": "what?", "options": ["x", "y", "z"], "label": 2},
        ],
        "qa": [
            {
                "id": "a", "question": "who?", "context": CONTEXT,
                "answers": {"text": ["cat"], "answer_start": [4]},
            },
            {"question": "when?", "context": CONTEXT, "is_impossible": True, "answers": []},
        ],
    }  # fmt: skip
    return lines(*by_kind[kind])


def race() -> bytes:
    text = {"article": CONTEXT, "questions": ["who _?", "where?"], "answers": ["A", "D"]}
    return lines(text | {"options": [["cat", "dog", "mat", "x"], ["a", "b", "c", "on it"]]})


def glue(task: Any, test: bool) -> bytes:
    columns = GLUE_COLUMNS[task]
    at = columns.test if test else columns.texts
    count = max(columns.fields or 0, max(at) + 2, columns.label + 1)
    rows = [["column"] * count] if columns.header or test else []
    for n in range(4):
        fields = [f"f{n}"] * count
        for i in at:
            fields[i] = SENTENCES[(n + i) % 3]
        if not test:
            labels = columns.labels or ("1.0", "3.5")
            fields[columns.label] = labels[n % len(labels)]
        rows.append(fields)
    return "".join("\t".join(fields) + "\n" for fields in rows).encode()


def squad() -> bytes:
    questions: list[dict[str, Any]] = [
        {"id": "1", "question": "who?", "answers": [{"text": "cat Zoë", "answer_start": 4}]},
        {"id": "2", "question": "when?", "answers": [{"text": "1990", "answer_start": 0}]},
        {"id": "3", "question": "why?", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": CONTEXT, "qas": questions}]
    return json.dumps(
        {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    ).encode()


# ---- tokenizers


@cache
def wordpiece() -> tokenizer.Tokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!é中"
    pieces = [*tokenizer.SPECIAL_TOKENS["wordpiece"], *letters, *(f"##{c}" for c in letters), "cat"]
    core = pipelines.wordpiece_pipeline({p: i for i, p in enumerate(pieces)}, lower=True)
    return tokenizer.Tokenizer("wordpiece", backends.TokenizersBackend(core), cased=False)


@cache
def saved(kind: str) -> dict[str, bytes]:
    """The files of a tokenizer's folder."""
    if kind == "wordpiece":
        saved_tokenizer = wordpiece()
    elif kind == "bpe":
        from tokenizers import pre_tokenizers

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        pieces = [*tokenizer.SPECIAL_TOKENS["bpe"], *letters, "ca", "cat"]
        vocab = {p: i for i, p in enumerate(dict.fromkeys(pieces))}
        core = pipelines.byte_bpe_pipeline(vocab, [("c", "a"), ("ca", "t")])
        saved_tokenizer = tokenizer.Tokenizer("bpe", backends.TokenizersBackend(core), cased=True)
    else:
        proto = backends.model_proto(spiece_with_map())
        proto.normalizer_spec.precompiled_charsmap = b""
        saved_tokenizer = tokenizer.Tokenizer(
            "unigram",
            backends.SentencePieceBackend(proto.SerializeToString(), cased=False),
            cased=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        saved_tokenizer.save(folder)
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


@cache
def spiece_with_map() -> bytes:
    """A SentencePiece model with its table of characters, which is all of its size."""
    trained = train_tokenizer(TEXT.splitlines() * 20, "unigram", 40)
    assert isinstance(trained._backend, backends.SentencePieceBackend)
    return trained._backend.model


def files_of(kind: str, names: Sequence[str]) -> list[bytes]:
    return [saved(kind)[name] for name in names]


# ---- models and runs


def experiment(objective: config.Objective = config.BERT.objective) -> bytes:
    changed = config.replace(
        config.BERT,
        encoder=dict(layers=2, hidden_size=8, heads=2, vocab_size=40, max_length=16),
        objective=objective,
    )
    return json.dumps(config.to_dict(changed)).encode()


def experiments() -> list[bytes]:
    task = config.Supervised(task="classification", labels=("a", "b"))
    return [experiment(), experiment(config.ReplacedTokens()), experiment(task)]


@cache
def model() -> list[bytes]:
    """config.json and safetensors of a small BERT as Hugging Face would have it, without heads."""
    import jax
    from safetensors.numpy import save

    from bert_jax import convert
    from bert_jax.convert import hf_config, hf_families

    h = config.replace(config.BERT.encoder, layers=1, hidden_size=4, heads=2, vocab_size=7)
    small = config.replace(h, max_length=8, mlp_size=4)
    shapes = convert.param_shapes(small, ("pooler",), None)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    imported = config.Experiment(encoder=small, objective=config.Imported("bert", pooler=True))
    exported = convert.to_hf(imported, params)
    assert hf_config.family_from_hf_config(exported.config) is hf_families.BERT
    return [json.dumps(exported.config).encode(), save(exported.tensors)]


def tensors() -> bytes:
    from safetensors.numpy import save

    return save({"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4), "c": np.zeros((0, 2))})


def pickle() -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"a": torch.ones(2, 3), "b": torch.zeros(4)}, out)
    return out.getvalue()


def index() -> list[bytes]:
    where = {"a.weight": "one.safetensors", "b": "one.safetensors", "c": "one.safetensors"}
    content = {"metadata": {"total_size": 56}, "weight_map": where}
    return [json.dumps(content).encode(), tensors()]


def manifest() -> bytes:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of abc
    return json.dumps({"step": 5, "files": {"state/a": [3, digest]}}).encode()


def run() -> list[bytes]:
    """metrics.jsonl, timing.jsonl and results.json."""
    evaluated = {
        "eval_loss": 2.0, "eval_mask_loss": 2.0, "eval_mask_accuracy": 0.4,
        "eval_unigram_loss": 3.0, "eval_pair_accuracy": 0.5, "eval_pair_baseline_loss": 0.7,
        "eval_pair_loss": 0.6, "eval_rtd_recall": 0.1, "eval_rtd_precision": 0.2,
        "eval_rtd_auc": 0.6,
    }  # fmt: skip
    first = {"step": 1, "loss": 3.0, "tokens_per_second": 9.5, "mlm_loss": None}
    metrics = lines(first, {"step": 2, "loss": 2.5, "tokens_per_second": 9.0, **evaluated})
    spent = [{"what": "begin", "step": 0, "seconds": 0.0, "at": 1.0}]
    spent += [{"what": "steps", "step": 2, "seconds": 3.0, "wait": 0.1, "after": 0, "at": 2.0}]
    spent += [{"what": "begin", "step": 1, "seconds": 0.0, "at": 3.0}]
    spent += [{"what": "save", "step": 2, "seconds": 0.5, "at": 4.0}]
    scores, spread = {"accuracy": 0.7, "loss": 0.6}, {"sd": 0.1, "min": 0.1, "max": 1}
    seeds = [{"run": "seed_0", "seed": 0, "best_step": 2, "dev": scores}]
    results = {
        "task": "rte", "task_type": "classification", "model": "m", "metric": "accuracy",
        "steps": 4, "best_step": 2, "dev": scores, "test": scores, "seeds": seeds,
        "spread": {"dev": dict.fromkeys(scores, spread), "test": dict.fromkeys(scores, spread)},
        "confusion": {"labels": ["a", "b"], "dev": [[1, 2], [3, 4]], "test": [[1, 0], [0, 1]]},
    }  # fmt: skip
    return [metrics, lines(*spent), json.dumps(results).encode()]


def prepared() -> list[bytes]:
    """corpus.json and unigram.npy."""
    counts = SplitCounts(**{f.name: 3 for f in dataclasses.fields(SplitCounts)})
    info = corpus.CorpusInfo(
        "nsp", 16, 0, 1, "wordpiece", wordpiece().fingerprint, 90, 0, 0, counts, counts
    )
    out = io.BytesIO()
    np.save(out, np.arange(5))
    return [json.dumps(dataclasses.asdict(info)).encode(), out.getvalue()]
