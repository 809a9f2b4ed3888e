# ruff: noqa: E402  what follows is skipped where the peers are absent
"""With its options on, the stack equals transformers' ModernBERT: pre-norm, rotary positions,
GeGLU, no biases, windows between global layers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers

from bert_jax.config import Encoder
from bert_jax.model import Network
from bert_jax.model.heads import MlmHead
from bert_jax.objectives import losses
from tests.helpers import hf_reference

pytestmark = pytest.mark.peer

# transformers -> ours; {i} is the layer; kernels are transposed
TABLE = {
    "model.embeddings.tok_embeddings.weight": "embeddings/word",
    "model.embeddings.norm.weight": "embeddings/norm/scale",
    "model.layers.{i}.attn_norm.weight": "encoder/layers/attention/norm/scale",
    "model.layers.{i}.attn.Wo.weight": "encoder/layers/attention/out/kernel",
    "model.layers.{i}.mlp_norm.weight": "encoder/layers/mlp/norm/scale",
    "model.layers.{i}.mlp.Wo.weight": "encoder/layers/mlp/down/kernel",
    "model.final_norm.weight": "encoder/norm/scale",
    "head.dense.weight": "mlm/dense/kernel",
    "head.norm.weight": "mlm/norm/scale",
    "decoder.bias": "mlm/bias",
}
JOINED = {  # several of ours, concatenated
    "model.layers.{i}.attn.Wqkv.weight": [
        f"encoder/layers/attention/{n}/kernel" for n in ("query", "key", "value")
    ],
    "model.layers.{i}.mlp.Wi.weight": [f"encoder/layers/mlp/{n}/kernel" for n in ("gate", "up")],
}


def hf_model(seed: int) -> Any:
    """A ModernBERT with random odd sizes and weights, and with a norm before the first attention,
    whose absence is the only difference to our encoder."""
    rng = np.random.default_rng(seed)
    heads = int(rng.integers(2, 5))
    theta = dict(rope_type="default", rope_theta=float(rng.integers(50, 5000)))
    config = transformers.ModernBertConfig(
        vocab_size=int(rng.integers(40, 90)) | 1,
        hidden_size=heads * 2 * int(rng.integers(3, 8)),
        intermediate_size=int(rng.integers(20, 70)) | 1,
        num_hidden_layers=int(rng.integers(4, 8)),
        num_attention_heads=heads,
        max_position_embeddings=40,
        local_attention=2 * int(rng.integers(2, 6)),
        rope_parameters=dict(full_attention=dict(theta), sliding_attention=dict(theta)),
        **{f"{name}_token_id": 0 for name in ("pad", "bos", "cls", "eos", "sep")},
        attn_implementation="eager",
    )
    torch.manual_seed(seed)
    model: Any = transformers.ModernBertForMaskedLM(config)
    norm = torch.nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
    model.model.layers[0].attn_norm = norm
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p)) if p.ndim == 1 else p.normal_(std=0.15)
    return model.eval()


def encoder(config: Any) -> Encoder:
    return Encoder(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        mlp_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_length=config.max_position_embeddings,
        token_types=0,
        layer_norm_eps=config.norm_eps,
        pre_norm=True,
        positions="rotary",
        rotary_theta=config.rope_parameters["full_attention"]["rope_theta"],
        gated_mlp=True,
        biases=False,
        window=config.local_attention // 2,
        global_every=3,
    )


def native_tree(arrays: dict[str, np.ndarray], layers: int) -> Any:
    """Tensors or gradients of transformers as our tree; each is used exactly once."""
    arrays, flat = dict(arrays), {}
    for hf_name, names in {**{k: [v] for k, v in TABLE.items()}, **JOINED}.items():
        stacked = "{i}" in hf_name
        parts = [arrays.pop(hf_name.format(i=i)) for i in (range(layers) if stacked else [0])]
        leaf = np.stack(parts) if stacked else parts[0]
        for name, x in zip(names, np.split(leaf, len(names), -2 if stacked else 0), strict=True):
            flat[name] = jnp.asarray(x.swapaxes(-1, -2) if name.endswith("kernel") else x)
    assert not arrays, arrays.keys()
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outputs_and_gradients_equal_modernbert(seed: int) -> None:
    model = hf_model(seed)
    config = encoder(model.config)
    rng = np.random.default_rng(seed)
    size = np.array([40, 23, 9])
    real = np.arange(40) < size[:, None]
    tokens = np.where(real, rng.integers(1, config.vocab_size, (3, 40)), 0)
    masked = np.stack([np.sort(rng.choice(n, 5, replace=False)) for n in size])
    targets = rng.integers(1, config.vocab_size, (3, 5))

    out = model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(real).long(),
        output_hidden_states=True,
    )
    rows = np.arange(3)[:, None]
    loss = torch.nn.functional.cross_entropy(
        out.logits[rows, masked].reshape(15, -1), torch.tensor(targets).reshape(-1)
    )
    loss.backward()

    batch = dict(tokens=tokens, size=size, first=size, masked=masked)
    batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}
    network = Network(config, {"mlm": MlmHead}, return_layers=True)

    def f(params: Any) -> Any:
        out: Any = network.apply({"params": params}, batch)
        logits = out["mlm"].logits(params["embeddings"]["word"])
        value, _ = losses.cross_entropy(logits, jnp.asarray(targets), jnp.ones((3, 5)))
        return value.value, (out["layers"], logits)

    params = native_tree(hf_reference.tensors(model), config.layers)
    (value, (layers, logits)), grads = jax.jit(jax.value_and_grad(f, has_aux=True))(params)
    for native, hf in zip(layers, out.hidden_states, strict=True):
        assert hf_reference.relative_error(native[real], hf.detach().numpy()[real]) <= 1e-5
    assert hf_reference.relative_error(logits, out.logits.detach().numpy()[rows, masked]) <= 1e-5
    assert hf_reference.relative_error(value, loss.detach().numpy()) <= 1e-5
    expected = native_tree(hf_reference.gradients(model), config.layers)
    for name, error in jax.tree.map(hf_reference.relative_error, grads, expected).items():
        assert max(jax.tree.leaves(error)) <= 1e-4, name
