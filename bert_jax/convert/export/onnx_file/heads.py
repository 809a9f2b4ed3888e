"""Heads as ONNX nodes: the same computations as model/heads.py, model/task_heads.py, and the
sentence head's. Output names are those that transformers' exports have.

Axes: b batch, l length, d hidden, e embedding width, v vocabulary, n labels or options, w width,
k starts and m ends of a search.
"""

from __future__ import annotations

import numpy as np

from bert_jax.config import Supervised
from bert_jax.convert.export.onnx_file.graph import Graph
from bert_jax.convert.export.onnx_file.network import Inputs, Layers, Params
from bert_jax.convert.sentence_head import SentenceHead
from bert_jax.model.pooling import PoolingMode
from bert_jax.model.task_heads import MASKED_LOGIT, beam_size

TOKENS = ("batch_size", "sequence_length")


def encoder_outputs(layers: Layers, params: Params, h: str) -> None:
    """`last_hidden_state` [b l d] and, if the model has a pooler, `pooler_output` [b d]."""
    width = layers.config.hidden_size
    layers.g.output("last_hidden_state", h, (*TOKENS, width))
    if "pooler" in params:
        pooled = _pooler(layers, params, h)
        layers.g.output("pooler_output", pooled, ("batch_size", width))


def sentence_outputs(layers: Layers, head: SentenceHead, x: Inputs, h: str) -> None:
    """`last_hidden_state` [b l d] and `sentence_embedding` [b m]."""
    g, c = layers.g, layers.config
    g.output("last_hidden_state", h, (*TOKENS, c.hidden_size))
    parts = [_pool(g, mode, x, h) for mode in head.pooling]
    v = parts[0] if len(parts) == 1 else g.op("Concat", *parts, axis=-1)
    width = c.hidden_size * len(parts)
    for i, module in enumerate(head.modules):
        if module == "normalize":
            squared = g.op("ReduceSum", g.op("Mul", v, v), [-1], keepdims=1)
            v = g.op("Div", v, g.op("Sqrt", g.op("Max", squared, np.float32(1e-24))))
            continue
        dense = {"kernel": module.kernel, "bias": module.bias}
        dense = {k: x for k, x in dense.items() if x is not None}
        v = layers.dense(v, dense, f"sentence/{i}")
        if module.activation != "identity":
            v = layers.activation(module.activation, v)
        width = module.kernel.shape[1]
    g.output("sentence_embedding", v, ("batch_size", width))


def _pool(g: Graph, mode: PoolingMode, x: Inputs, h: str) -> str:
    """[b l d] to [b d]; see model/pooling.py."""
    if mode == "cls":
        return _first(g, h)
    real = g.op("Unsqueeze", x.real, [2])
    if mode == "max":
        lowest = np.float32(np.finfo(np.float32).min)
        return g.op("ReduceMax", g.op("Where", _is_true(g, real), h, lowest), axes=[1], keepdims=0)
    if mode == "lasttoken":
        last = g.op("Sub", g.op("ReduceSum", x.mask, [1], keepdims=1), np.int64(1))
        is_last = g.op("Equal", g.op("Unsqueeze", x.positions(g), [0]), last)
        real = g.op("Unsqueeze", g.op("Cast", is_last, to=1), [2])
        return g.op("ReduceSum", g.op("Mul", h, real), [1], keepdims=0)
    if mode == "weightedmean":
        at = g.op("Cast", g.op("Add", x.positions(g), np.int64(1)), to=1)
        real = g.op("Mul", real, g.op("Unsqueeze", at, [1]))
    total = g.op("ReduceSum", g.op("Mul", h, real), [1], keepdims=0)
    count = g.op("Max", g.op("ReduceSum", real, [1], keepdims=0), 1.0)
    return g.op("Div", total, g.op("Sqrt", count) if mode == "mean_sqrt_len_tokens" else count)


def pretraining_outputs(layers: Layers, head: str, params: Params, x: Inputs, h: str) -> None:
    """`logits` of a pre-training head: mlm [b l v], rtd [b l], pair [b 2]."""
    g, c = layers.g, layers.config
    if head == "pair":
        logits = layers.dense(_pooler(layers, params, h), params["pair"]["dense"], "pair/dense")
        return g.output("logits", logits, ("batch_size", 2))
    h = layers.head_activation(layers.dense(h, params[head]["dense"], f"{head}/dense"))
    if head == "rtd":
        logits = g.op("Squeeze", layers.dense(h, params["rtd"]["out"], "rtd/out"), [2])
        return g.output("logits", logits, TOKENS)
    h = layers.norm(h, params["mlm"]["norm"], "mlm/norm")
    rows = g.op("Reshape", h, [-1, c.embedding_width])
    operands = [rows, g.weight("embeddings/word", params["embeddings"]["word"])]
    if "bias" in params["mlm"]:
        operands.append(g.weight("mlm/bias", params["mlm"]["bias"]))
    logits = g.op("Gemm", *operands, transB=1)
    shape = g.op("Concat", g.op("Shape", x.tokens), [c.vocab_size], axis=0)
    return g.output("logits", g.op("Reshape", logits, shape), (*TOKENS, c.vocab_size))


def task_outputs(layers: Layers, task: Supervised, params: Params, x: Inputs, h: str) -> None:
    """The outputs of a fine-tuned model.

    classification, multilabel, regression   logits [b n]
    choice       logits [b n], inputs being [b n l]
    tagging      logits [b l n]
    qa           start_logits, end_logits [b l], the lowest at padding; of a joint head the outputs
                 of a search, see `_joint_span`
    """
    g, per_token = layers.g, task.task_type in ("tagging", "qa")
    if "prediction" in params:
        h = _prediction(layers, params["prediction"], task, x, h)
    if task.task_type == "tagging":
        logits = layers.dense(h, params["tag"]["dense"], "tag/dense")
        return g.output("logits", logits, (*TOKENS, task.num_outputs))
    if per_token and task.span == "joint":
        return _joint_span(layers, task, params["span"], x, h)
    if per_token:
        return _span(layers, params["span"], x, h)
    v = h
    if task.head == "pooler":
        v = _pooler(layers, params, h)
    elif task.head != "prediction":
        v = _first(g, h)
    if task.head in ("gelu", "relu"):
        v = layers.activation(task.head, layers.dense(v, params["label"]["first"], "label/first"))
    logits = layers.dense(v, params["label"]["dense"], "label/dense")
    if task.task_type == "choice":
        shape = g.op("Shape", "input_ids", start=0, end=2)
        return g.output("logits", g.op("Reshape", logits, shape), ("batch_size", "num_choices"))
    return g.output("logits", logits, ("batch_size", task.num_outputs))


def _first(g: Graph, h: str) -> str:
    return g.op("Gather", h, np.int64(0), axis=1)


def _is_true(g: Graph, x: str) -> str:
    return g.op("Greater", x, np.float32(0.5))


def _pooler(layers: Layers, params: Params, h: str) -> str:
    first = _first(layers.g, h)
    return layers.g.op("Tanh", layers.dense(first, params["pooler"]["dense"], "pooler/dense"))


def _prediction(layers: Layers, params: Params, task: Supervised, x: Inputs, h: str) -> str:
    """A dense layer, an activation and a norm, on each token or on what stands for a text."""
    if task.task_type not in ("tagging", "qa"):
        h = _pool(layers.g, task.pooling, x, h)
    h = layers.head_activation(layers.dense(h, params["dense"], "prediction/dense"))
    return layers.norm(h, params["norm"], "prediction/norm")


def _span(layers: Layers, params: Params, x: Inputs, h: str) -> None:
    g = layers.g
    logits = layers.dense(h, params["dense"], "span/dense")
    real = _is_true(g, x.real)
    for i, name in enumerate(("start_logits", "end_logits")):
        part = g.op("Gather", logits, np.int64(i), axis=2)
        g.output(name, g.op("Where", real, part, np.float32(MASKED_LOGIT)), TOKENS)


def _joint_span(layers: Layers, task: Supervised, params: Params, x: Inputs, h: str) -> None:
    """The best starts and the best ends of each, as in `JointSpanHead`, with the output names of
    transformers' joint heads: start_top_log_probs [b k], start_top_index [b k],
    end_top_log_probs [b k m], end_top_index [b k m], cls_logits [b] (positive: no answer)."""
    g, c, albert = layers.g, layers.config, task.family == "albert"
    act = "tanh" if albert else "gelu"
    allowed = _allowed(g, x, albert)
    beam = min(beam_size(task), c.max_length)
    count = g.op("Min", x.length, [beam])
    logits = g.op("Squeeze", layers.dense(h, params["start"], "span/start"), [2])
    logits = g.op("Where", allowed, logits, np.float32(MASKED_LOGIT))
    weights = g.op("Unsqueeze", g.op("Softmax", logits, axis=-1), [1])
    expected = g.op("Squeeze", g.op("MatMul", weights, h), [1])
    pooled = g.op("Concat", _first(g, h), expected, axis=-1)
    pooled = layers.dense(pooled, params["answerable_first"], "span/answerable_first")
    pooled = layers.activation(act, pooled)
    cls = g.op("Squeeze", layers.dense(pooled, params["answerable"], "span/answerable"), [1])

    log_probs = g.op("LogSoftmax", logits, axis=-1)
    starts, start_at = g.op("TopK", log_probs, count, axis=-1, outputs=2)
    index = g.op("Expand", g.op("Unsqueeze", start_at, [2]), [1, 1, c.hidden_size])
    states = g.op("GatherElements", h, index, axis=1)
    first, d = params["end_first"], c.hidden_size
    of_state = g.op("MatMul", states, g.weight("span/end_first/state", first["kernel"][:d]))
    token = {"kernel": first["kernel"][d:], "bias": first["bias"]}
    of_token = layers.dense(h, token, "span/end_first/token")
    ends = g.op("Add", g.op("Unsqueeze", of_state, [2]), g.op("Unsqueeze", of_token, [1]))
    ends = layers.activation(act, ends)
    if "end_norm" in params:
        ends = layers.norm(ends, params["end_norm"], "span/end_norm")
    ends = g.op("Squeeze", layers.dense(ends, params["end"], "span/end"), [3])
    ends = g.op("Where", g.op("Unsqueeze", allowed, [1]), ends, np.float32(MASKED_LOGIT))
    ends, end_at = g.op("TopK", g.op("LogSoftmax", ends, axis=-1), count, axis=-1, outputs=2)
    b, k, m = "batch_size", "starts", "ends"
    g.output("start_top_log_probs", starts, (b, k))
    g.output("start_top_index", start_at, (b, k), integer=True)
    g.output("end_top_log_probs", ends, (b, k, m))
    g.output("end_top_index", end_at, (b, k, m), integer=True)
    g.output("cls_logits", cls, (b,))


def _allowed(g: Graph, x: Inputs, albert: bool) -> str:
    """Positions that may answer, bool [b l]: [CLS], and the document, which begins where
    token_type_ids is 1 for the first time."""
    assert x.types is not None
    at = g.op("Unsqueeze", x.positions(g), [0])
    size = g.op("Sub", g.op("ReduceSum", x.mask, [1], keepdims=1), np.int64(albert))
    is_document = g.op("Cast", g.op("Equal", x.types, np.int64(1)), to=7)
    context = g.op("ArgMax", is_document, axis=1, keepdims=1)
    inside = g.op("And", g.op("Not", g.op("Less", at, context)), g.op("Less", at, size))
    return g.op("Or", g.op("Equal", at, np.int64(0)), inside)
