"""Models of transformers with random weights, and what it takes to compare with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import transformers as T

from bert_jax import convert
from bert_jax.config import Experiment

torch.set_num_threads(1)  # models this small lose more to threads than they gain

CLASSES = {
    "bert": (T.BertConfig, T.BertForPreTraining),
    "albert": (T.AlbertConfig, T.AlbertForPreTraining),
    "roberta": (T.RobertaConfig, T.RobertaForMaskedLM),
    "electra": (T.ElectraConfig, T.ElectraForPreTraining),
    "electra_generator": (T.ElectraConfig, T.ElectraForMaskedLM),
}
Arrays = dict[str, np.ndarray]


def odd_config(kind: str, seed: int, **changes: Any) -> Any:
    """A config of random odd sizes."""
    rng = np.random.default_rng([seed, *kind.encode()])
    heads, layers = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    sizes: dict[str, Any] = dict(
        vocab_size=int(rng.integers(40, 90)) | 1,
        hidden_size=heads * (int(rng.integers(3, 13)) | 1),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=int(rng.integers(20, 70)) | 1,
        max_position_embeddings=int(rng.integers(20, 33)) | 1,
    )
    if kind == "roberta":
        sizes |= dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
    if kind == "albert":
        groups = [g for g in range(1, layers + 1) if layers % g == 0]
        sizes |= dict(num_hidden_groups=int(rng.choice(groups)), hidden_act="gelu_new")
    if kind == "albert" or kind.startswith("electra"):
        # never the hidden size: theirs would project even then, ours does not
        width = int(rng.integers(6, 20)) | 1
        sizes |= dict(embedding_size=width + 2 * (width == sizes["hidden_size"]))
    return CLASSES[kind][0](**(sizes | changes), attn_implementation="eager")


def model(kind: str, config: Any, seed: int = 0, scale: float | None = 0.3) -> Any:
    """The model with random weights, biases and layer norms too, dropout off. `scale` None
    keeps the matrices as they are initialised."""
    torch.manual_seed(seed)
    made = CLASSES[kind][1](config)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 1:
                p += 0.2 * torch.randn_like(p)
            elif scale is not None:
                p.normal_(std=scale)
    return made.eval()


def tensors(made: Any) -> Arrays:
    return {name: p.detach().numpy().copy() for name, p in made.named_parameters()}


def gradients(made: Any) -> Arrays:
    """Of every parameter, tied ones once; zero where none arrived."""
    named = made.named_parameters()
    return {n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy() for n, p in named}


def imported(made: Any) -> tuple[Experiment, Any]:
    experiment, params = convert.from_hf(config_json(made), tensors(made))
    return experiment, jax.tree.map(jnp.asarray, params)


def config_json(made: Any) -> dict[str, Any]:
    return {**made.config.to_dict(), "architectures": [type(made).__name__]}


def batch(config: Any, seed: int, rows: int = 4, slots: int = 5) -> Arrays:
    """Rows of random length, padded on the right, with masked places; the fields of ours."""
    rng = np.random.default_rng(seed)
    roberta = config.model_type == "roberta"
    length = config.max_position_embeddings - (2 if roberta else 0)
    size = rng.integers(slots + 1, length + 1, rows)
    real = np.arange(length) < size[:, None]
    tokens = np.where(real, rng.integers(2, config.vocab_size, (rows, length)), config.pad_token_id)
    types = rng.integers(0, config.type_vocab_size, (rows, length)) * real
    masked = np.stack([np.sort(rng.choice(np.arange(1, n), slots, replace=False)) for n in size])
    used = rng.integers(2, slots + 1, rows)  # the slots after those are not predictions
    weights = np.arange(slots) < used[:, None]
    out = {
        "tokens": tokens,
        "types": types,
        "size": size,
        "first": size // 2,
        "masked": np.where(weights, masked, 0),
        "weights": weights.astype(np.float32),
        "targets": rng.integers(0, config.vocab_size, (rows, slots)),
        "pair": rng.integers(0, 2, rows),
        "row": np.arange(rows),
        "epoch": np.zeros(rows),
        "sampling": rng.integers(0, 2**32, (rows, 2)),
    }
    out |= dict.fromkeys(("left", "right", "offset", "sbo_weights"), np.zeros((rows, slots)))
    labels = tokens.copy()
    for r, n in enumerate(used):
        labels[r, masked[r, :n]] = out["targets"][r, :n]
    out["labels"] = labels
    kinds = {"weights": np.float32, "sampling": np.uint32}
    return {k: v.astype(kinds.get(k, np.int32)) for k, v in out.items()}


def real(one: Arrays) -> np.ndarray:
    return np.arange(one["tokens"].shape[1]) < one["size"][:, None]


def call(made: Any, one: Arrays, tokens: np.ndarray | None = None, **kwargs: Any) -> Any:
    """The peer's outputs for a batch of ours."""
    long = lambda x: torch.tensor(x).long()  # noqa: E731
    return made(
        input_ids=long(one["tokens"] if tokens is None else tokens),
        attention_mask=long(real(one)),
        token_type_ids=long(one["types"]),
        **kwargs,
    )


def masked_loss(logits: torch.Tensor, one: Arrays) -> torch.Tensor:
    """Mean cross-entropy at the masked places, from logits at all places."""
    rows, slots = np.nonzero(one["weights"])
    at = one["masked"][rows, slots]
    return F.cross_entropy(logits[rows, at], torch.from_numpy(one["targets"][rows, slots]).long())


def pair_loss(logits: torch.Tensor, one: Arrays) -> torch.Tensor:
    return F.cross_entropy(logits, torch.from_numpy(one["pair"]).long())


def replaced_loss(logits: torch.Tensor, one: Arrays, tokens: np.ndarray) -> torch.Tensor:
    """Mean binary cross-entropy over the real tokens; a token as it was counts as original."""
    labels = torch.from_numpy((np.asarray(tokens) != one["labels"]).astype(np.float32))
    keep = torch.from_numpy(real(one))
    return F.binary_cross_entropy_with_logits(logits[keep], labels[keep])


def loss(made: Any, one: Arrays, tokens: np.ndarray | None = None) -> torch.Tensor:
    """What each class is pre-trained on, written over its logits."""
    out = call(made, one, tokens)
    if isinstance(made, T.BertForPreTraining):
        return masked_loss(out.prediction_logits, one) + pair_loss(out.seq_relationship_logits, one)
    if isinstance(made, T.AlbertForPreTraining):
        return masked_loss(out.prediction_logits, one) + pair_loss(out.sop_logits, one)
    if isinstance(made, T.ElectraForPreTraining):
        assert tokens is not None
        return replaced_loss(out.logits, one, tokens)
    return masked_loss(out.logits, one)


def error(a: Any, b: Any) -> float:
    """Largest difference relative to the largest entry of b; infinite if one is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, (a.shape, b.shape)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    worst = float(np.abs(a - b).max())
    return worst / float(np.abs(b).max()) if worst else 0.0


def errors(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """`error` by tensor; a key bias, whose gradient is zero in exact arithmetic, is measured
    by the query bias of its layer."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    out = {name: error(ours[name], theirs[name]) for name in theirs}
    for name in [n for n in theirs if n.endswith("key.bias")]:
        scale = np.abs(theirs[name.replace("key.bias", "query.bias")]).max()
        out[name] = float(np.abs(ours[name] - theirs[name]).max() / scale) if scale else 0.0
    return out
