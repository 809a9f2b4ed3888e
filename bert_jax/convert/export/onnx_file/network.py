"""The encoder as ONNX nodes: the same computation as model/encoder.py, one layer after another.

Axes: b batch, l length, d hidden, e embedding width, h heads, k head width, r = k/2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bert_jax.config import Encoder
from bert_jax.convert.export.onnx_file.graph import Graph

Params = Any  # nested dicts of NumPy arrays

# What a masked score gets, as in Hugging Face's first exports, whose pattern onnxruntime fuses.
MASKED_SCORE = -10000.0


class Layers:
    """The building blocks of a network with one config, as nodes of a graph."""

    def __init__(self, graph: Graph, config: Encoder) -> None:
        self.g, self.config = graph, config

    def dense(self, x: str, params: Params, name: str) -> str:
        """`x @ kernel + bias`; `name` is that of the parameters in the file."""
        y = self.g.op("MatMul", x, self.g.weight(f"{name}/kernel", params["kernel"]))
        if "bias" not in params:
            return y
        return self.g.op("Add", y, self.g.weight(f"{name}/bias", params["bias"]))

    def norm(self, x: str, params: Params, name: str) -> str:
        """LayerNorm, or RMSNorm if the config says so."""
        g, eps = self.g, self.config.layer_norm_eps
        scale = g.weight(f"{name}/scale", params["scale"])
        if self.config.norm == "rms":
            mean = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
            root = g.op("Sqrt", g.op("Add", mean, np.float32(eps)))
            return g.op("Mul", g.op("Div", x, root), scale)
        bias = params.get("bias")  # onnxruntime's fusions need one
        bias = np.zeros_like(params["scale"]) if bias is None else bias
        bias = g.weight(f"{name}/bias", bias)
        return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps)

    def activation(self, name: str, x: str) -> str:
        """An activation of model/layers.py, or another one by its ONNX name."""
        g = self.g
        if name == "gelu":
            erf = g.op("Erf", g.op("Div", x, math.sqrt(2.0)))
            return g.op("Mul", g.op("Mul", x, g.op("Add", erf, 1.0)), 0.5)
        if name == "gelu_tanh":
            cube = g.op("Mul", g.op("Mul", x, x), x)
            inner = g.op("Add", x, g.op("Mul", cube, 0.044715))
            tanh = g.op("Tanh", g.op("Mul", inner, math.sqrt(2.0 / math.pi)))
            return g.op("Mul", g.op("Mul", x, g.op("Add", tanh, 1.0)), 0.5)
        if name == "silu":
            return g.op("Mul", x, g.op("Sigmoid", x))
        return g.op({"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}[name], x)

    def head_activation(self, x: str) -> str:
        return self.activation(self.config.head_activation or self.config.activation, x)


class Inputs:
    """The inputs of a network and what is computed from them once.

    tokens types mask    int64 [b l]; types is None for networks without
    length               int64 [1]
    real                 float [b l], 1 where there is a token
    hidden_keys          float [b 1 1 l], added to the scores
    """

    def __init__(self, graph: Graph, tokens: str, mask: str, types: str | None) -> None:
        self.tokens, self.mask, self.types = tokens, mask, types
        self.length = graph.op("Shape", tokens, start=1, end=2)
        self.real = graph.op("Cast", mask, to=1)
        unsqueezed = graph.op("Unsqueeze", graph.op("Unsqueeze", mask, [1]), [2])
        padding = graph.op("Sub", 1.0, graph.op("Cast", unsqueezed, to=1))
        self.hidden_keys = graph.op("Mul", padding, MASKED_SCORE)

    def positions(self, graph: Graph) -> str:
        """0 ... l-1, int64 [l]."""
        return graph.op("Range", np.int64(0), graph.op("Squeeze", self.length), np.int64(1))


def encoder_nodes(graph: Graph, config: Encoder, params: Params, x: Inputs) -> str:
    """The hidden states [b l d] of the last layer."""
    layers = Layers(graph, config)
    h = _embeddings(layers, params["embeddings"], x)
    encoder = params["encoder"]
    if "projection" in encoder:
        h = layers.dense(h, encoder["projection"], "encoder/projection")
    masks, rotary = _masks(graph, config, x), _rotary_tables(graph, config, x)
    for i in range(config.layers):
        is_global = config.window is None or i % config.global_every == 0
        attention, mlp, name = _layer_params(config, encoder["layers"], i)
        h = _attention(layers, attention, name["attention"], h, masks[is_global], rotary[is_global])
        h = _mlp(layers, mlp, name["mlp"], h)
    return layers.norm(h, encoder["norm"], "encoder/norm") if config.pre_norm else h


def _embeddings(layers: Layers, params: Params, x: Inputs) -> str:
    g, c = layers.g, layers.config
    if "word_int8" in params:  # one scale per row (int8.py)
        rows = g.op("Gather", g.weight("embeddings/word_int8", params["word_int8"]), x.tokens)
        scales = g.op("Gather", g.weight("embeddings/word_scale", params["word_scale"]), x.tokens)
        h = g.op("Mul", g.op("Cast", rows, to=1), scales)
    else:
        h = g.op("Gather", g.weight("embeddings/word", params["word"]), x.tokens)
    if c.token_types == 1:  # an imported RoBERTa's: the same for all tokens
        h = g.op("Add", h, g.weight("embeddings/type", params["type"][0]))
    elif c.token_types:
        h = g.op("Add", h, g.op("Gather", g.weight("embeddings/type", params["type"]), x.types))
    if c.positions == "learned":
        table = g.weight("embeddings/position", params["position"][c.position_offset :])
        # a row of numbers per text, so that onnxruntime knows the sum's shape, and fuses norms
        ones = g.op("Add", g.op("Mul", x.tokens, np.int64(0)), np.int64(1))
        at = g.op("Sub", g.op("CumSum", ones, np.int64(1)), np.int64(1))
        h = g.op("Add", h, g.op("Gather", table, at))
    return layers.norm(h, params["norm"], "embeddings/norm")


def _masks(graph: Graph, config: Encoder, x: Inputs) -> dict[bool, str]:
    """What is added to the scores of global and of local layers."""
    if config.window is None:
        return {True: x.hidden_keys}
    at = graph.op("Cast", x.positions(graph), to=1)
    distance = graph.op("Abs", graph.op("Sub", graph.op("Unsqueeze", at, [1]), at))
    far = graph.op("Cast", graph.op("Greater", distance, float(config.window)), to=1)
    window = graph.op("Mul", far, MASKED_SCORE)
    return {True: x.hidden_keys, False: graph.op("Add", x.hidden_keys, window)}


def _rotary_tables(graph: Graph, config: Encoder, x: Inputs) -> dict[bool, tuple[str, str] | None]:
    """Cosines and sines [l r] of global and of local layers; None for learned positions."""
    if config.positions != "rotary":
        return {True: None, False: None}

    def tables(theta: float) -> tuple[str, str]:
        rates = theta ** (-np.arange(0, config.head_size, 2) / config.head_size)
        rates = rates.astype(np.float32)
        angles = np.arange(config.max_length, dtype=np.float32)[:, None] * rates
        parts = {"cos": np.cos(angles), "sin": np.sin(angles)}
        names = (graph.weight(f"rotary/{theta}/{k}", v) for k, v in parts.items())
        cos, sin = (graph.op("Slice", name, [0], x.length, [0]) for name in names)
        return cos, sin

    in_global = tables(config.rotary_theta)
    local = config.local_rotary_theta
    if config.window is None or local in (None, config.rotary_theta):
        return {True: in_global, False: in_global}
    return {True: in_global, False: tables(float(local))}  # type: ignore[arg-type]


def _layer_params(config: Encoder, stack: Params, i: int) -> tuple[Params, Params, dict[str, str]]:
    """The parameters of layer i's attention and MLP, and their names: equal for layers that share
    them."""
    group, within = divmod(i, config.layers // config.num_groups)
    own = None
    if config.share_params != "all":
        own = "mlp" if config.share_params == "attention" else "attention"

    def select(sublayer: str) -> Params:
        at: Any = (group, within) if sublayer == own else group
        tree = stack["own"] if sublayer == own else stack[sublayer]
        if sublayer == "attention" and not config.first_norm:
            norm = None if i == 0 else _map(lambda p: p[i - 1], tree["norm"])
            rest = {k: v for k, v in tree.items() if k != "norm"}
            return {**_map(lambda p: p[at], rest), "norm": norm}
        return _map(lambda p: p[at], tree)

    names = {s: f"layers/{i if s == own else group}/{s}" for s in ("attention", "mlp")}
    return select("attention"), select("mlp"), names


def _map(f: Any, tree: Params) -> Params:
    return {k: _map(f, v) for k, v in tree.items()} if isinstance(tree, dict) else f(tree)


def _attention(
    layers: Layers,
    params: Params,
    name: str,
    x: str,
    mask: str,
    rotary: tuple[str, str] | None,
) -> str:
    """The order of the nodes is the one that onnxruntime fuses into one attention kernel."""
    g, c = layers.g, layers.config
    inputs = x
    if c.pre_norm and params["norm"] is not None:
        inputs = layers.norm(x, params["norm"], f"{name}/norm")

    def heads(part: str) -> str:
        y = layers.dense(inputs, params[part], f"{name}/{part}")
        y = g.op("Reshape", y, [0, 0, c.heads, c.head_size])
        if part == "key" and rotary is None:
            return g.op("Transpose", y, perm=[0, 2, 3, 1])
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        return y if rotary is None or part == "value" else _rotate(g, y, rotary)

    q, k, v = (heads(part) for part in ("query", "key", "value"))
    if rotary is not None:
        k = g.op("Transpose", k, perm=[0, 1, 3, 2])
    scores = g.op("Div", g.op("MatMul", q, k), math.sqrt(c.head_size))
    weights = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
    h = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    h = g.op("Reshape", h, [0, 0, c.hidden_size])
    h = g.op("Add", layers.dense(h, params["out"], f"{name}/out"), x)
    return h if c.pre_norm else layers.norm(h, params["norm"], f"{name}/norm")


def _rotate(g: Graph, x: str, rotary: tuple[str, str]) -> str:
    cos, sin = rotary
    a, b = g.op("Split", x, axis=-1, outputs=2)
    first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    second = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
    return g.op("Concat", first, second, axis=-1)


def _mlp(layers: Layers, params: Params, name: str, x: str) -> str:
    g, c = layers.g, layers.config
    h = layers.norm(x, params["norm"], f"{name}/norm") if c.pre_norm else x
    up = layers.dense(h, params["up"], f"{name}/up")
    if c.gated_mlp:
        gate = layers.activation(c.activation, layers.dense(h, params["gate"], f"{name}/gate"))
        h = g.op("Mul", gate, up)
    else:
        h = layers.activation(c.activation, up)
    h = g.op("Add", layers.dense(h, params["down"], f"{name}/down"), x)
    return h if c.pre_norm else layers.norm(h, params["norm"], f"{name}/norm")
