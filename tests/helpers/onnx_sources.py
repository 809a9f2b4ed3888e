"""Tiny networks of all families with all heads, for ONNX exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from bert_jax import config, convert
from bert_jax.config import ALBERT, BERT, ELECTRA, MODERNBERT, ROBERTA, Encoder, Supervised
from bert_jax.convert.export.onnx_file.source import Source
from bert_jax.convert.sentence_head import Dense, SentenceHead
from bert_jax.model.pooling import POOLING_MODES

TINY = dict(layers=3, hidden_size=24, heads=2, mlp_size=20, vocab_size=64, max_length=32, pad_id=0)


def encoder(base: config.Experiment, **changes: Any) -> Encoder:
    return config.replace(base.encoder, **(TINY | changes))  # type: ignore[type-var]


ENCODERS: dict[str, Encoder] = {
    "bert": encoder(BERT),
    "albert": encoder(ALBERT, embedding_size=12),
    "roberta": encoder(ROBERTA),
    "electra": encoder(ELECTRA, embedding_size=12),
    "modernbert": encoder(MODERNBERT, layers=4, window=4),
}
HEADS = {"electra": "gelu", "modernbert": "prediction", "distilbert": "relu"}
TASKS = ("classification", "multilabel", "regression", "rerank", "tagging", "choice", "qa")
UNUSUAL = dict(norm="rms", activation="silu", pre_norm=True, gated_mlp=True, biases=False)
UNUSUAL |= dict(positions="rotary", window=3, global_every=2, local_rotary_theta=100.0)


def source(
    encoder: Encoder,
    head: Any,
    modules: tuple[str, ...] = (),
    task: Supervised | None = None,
    sentence: SentenceHead | None = None,
) -> Source:
    """With random parameters of which none is close to a constant."""
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda s: (0.2 * rng.standard_normal(s.shape) + 0.1).astype(np.float32),
        convert.param_shapes(encoder, modules, task),
    )
    return Source(encoder, params, head, task, sentence or SentenceHead())


def task_source(family: str, task: Any, **changes: Any) -> Source:
    labels = ("a", "b", "c") if task in ("classification", "multilabel", "tagging") else ()
    fields = dict(head=HEADS.get(family, "pooler"), labels=labels, pooling="mean") | changes
    objective = Supervised(task, family, **fields)  # type: ignore[arg-type]
    return source(ENCODERS["bert" if family == "distilbert" else family], "task", task=objective)


def all_sources() -> Iterator[tuple[str, Source]]:
    """Name -> network: pre-training heads, hidden states, sentence vectors, tasks."""
    for family, e in ENCODERS.items():
        yield f"{family} mlm", source(e, "mlm", ("mlm",))
        for task in TASKS:
            yield f"{family} {task}", task_source(family, task)
    yield "bert pair", source(ENCODERS["bert"], "pair", ("pooler", "pair"))
    yield "electra rtd", source(ENCODERS["electra"], "rtd", ("rtd",))
    yield "bert pooler", source(ENCODERS["bert"], "encoder", ("pooler",))
    for family in ("albert", "electra"):
        yield f"{family} joint spans", task_source(family, "qa", span="joint")
    joint = task_source("roberta", "qa", span="joint")  # which has no token types
    yield "roberta joint spans", joint
    yield "hidden states of joint spans", joint._replace(head="encoder")
    yield "hidden states of multiple choice", task_source("bert", "choice")._replace(head="encoder")
    yield "distilbert", task_source("distilbert", "classification")
    yield "electra first token", task_source("electra", "classification", head="first")
    for share in ("attention", "mlp"):
        e = encoder(ALBERT, layers=4, groups=2, share_params=share)
        yield f"albert shares {share}", source(e, "encoder")
    yield "one token type", source(encoder(ROBERTA, token_types=1), "encoder")
    yield "unusual options", source(encoder(BERT, **UNUSUAL, vocab_bias=False), "mlm", ("mlm",))
    for mode in POOLING_MODES:
        head = SentenceHead((mode,), ("normalize",))
        yield f"sentence {mode}", source(ENCODERS["bert"], "sentence", sentence=head)
    kernel = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
    dense = SentenceHead(("cls", "mean"), (Dense(kernel, None, "tanh"), "normalize"))
    yield "sentence dense", source(ENCODERS["bert"], "sentence", sentence=dense)
