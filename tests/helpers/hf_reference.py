"""Models of transformers with random weights, and helpers to compare with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import transformers as T

from bert_jax import convert
from bert_jax.config import ROBERTA_LIKE, Experiment

torch.set_num_threads(1)  # models this small lose more to threads than they gain

CLASSES = {
    "bert": (T.BertConfig, T.BertForPreTraining),
    "albert": (T.AlbertConfig, T.AlbertForPreTraining),
    "roberta": (T.RobertaConfig, T.RobertaForMaskedLM),
    "electra": (T.ElectraConfig, T.ElectraForPreTraining),
    "electra_generator": (T.ElectraConfig, T.ElectraForMaskedLM),
    "xlm-roberta": (T.XLMRobertaConfig, T.XLMRobertaForMaskedLM),
    "camembert": (T.CamembertConfig, T.CamembertForMaskedLM),
    "distilbert": (T.DistilBertConfig, T.DistilBertForMaskedLM),
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
    if kind == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    if kind in ROBERTA_LIKE:
        sizes |= dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
    if kind == "albert":
        groups = [g for g in range(1, layers + 1) if layers % g == 0]
        sizes |= dict(num_hidden_groups=int(rng.choice(groups)), hidden_act="gelu_new")
    if kind == "albert" or kind.startswith("electra"):
        # never the hidden size, for which transformers has a projection and we do not
        width = int(rng.integers(6, 20)) | 1
        sizes |= dict(embedding_size=width + 2 * (width == sizes["hidden_size"]))
    return CLASSES[kind][0](**(sizes | changes), attn_implementation="eager")


def make_model(kind: str, config: Any, seed: int = 0, scale: float | None = 0.3) -> Any:
    """The model with random weights, biases and layer norms too, dropout off. `scale` None
    keeps the matrices as they are initialised."""
    torch.manual_seed(seed)
    model = CLASSES[kind][1](config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p += 0.2 * torch.randn_like(p)
            elif scale is not None:
                p.normal_(std=scale)
    return model.eval()


def tensors(model: Any) -> Arrays:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def gradients(model: Any) -> Arrays:
    """The gradient of every parameter, tied ones once; zero if there is none."""
    named = model.named_parameters()
    return {n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy() for n, p in named}


def to_native(model: Any) -> tuple[Experiment, Any]:
    experiment, params = convert.from_hf(config_json(model), tensors(model))
    return experiment, jax.tree.map(jnp.asarray, params)


def config_json(model: Any) -> dict[str, Any]:
    return {**model.config.to_dict(), "architectures": [type(model).__name__]}


def make_batch(config: Any, seed: int, rows: int = 4, slots: int = 5) -> Arrays:
    """A batch of ours: rows of random length, padded on the right, with masked positions."""
    rng = np.random.default_rng(seed)
    roberta = config.model_type in ROBERTA_LIKE
    length = config.max_position_embeddings - (2 if roberta else 0)
    size = rng.integers(slots + 1, length + 1, rows)
    real = np.arange(length) < size[:, None]
    tokens = np.where(real, rng.integers(2, config.vocab_size, (rows, length)), config.pad_token_id)
    num_types = getattr(config, "type_vocab_size", 1)  # DistilBERT and ModernBERT have none
    types = rng.integers(0, num_types, (rows, length)) * real
    masked = np.stack([np.sort(rng.choice(np.arange(1, n), slots, replace=False)) for n in size])
    used = rng.integers(2, slots + 1, rows)  # later slots are unused
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
    dtypes = {"weights": np.float32, "sampling": np.uint32}
    return {k: v.astype(dtypes.get(k, np.int32)) for k, v in out.items()}


def is_real(batch: Arrays) -> np.ndarray:
    return np.arange(batch["tokens"].shape[1]) < batch["size"][:, None]


def forward(model: Any, batch: Arrays, tokens: np.ndarray | None = None, **kwargs: Any) -> Any:
    """The outputs of a transformers model for a batch of ours."""
    long = lambda x: torch.tensor(x).long()  # noqa: E731
    if hasattr(model.config, "type_vocab_size"):
        kwargs["token_type_ids"] = long(batch["types"])
    return model(
        input_ids=long(batch["tokens"] if tokens is None else tokens),
        attention_mask=long(is_real(batch)),
        **kwargs,
    )


def masked_loss(logits: torch.Tensor, batch: Arrays) -> torch.Tensor:
    """Mean cross-entropy at the masked positions, from logits at all positions."""
    rows, slots = np.nonzero(batch["weights"])
    at = batch["masked"][rows, slots]
    return F.cross_entropy(logits[rows, at], torch.from_numpy(batch["targets"][rows, slots]).long())


def pair_loss(logits: torch.Tensor, batch: Arrays) -> torch.Tensor:
    return F.cross_entropy(logits, torch.from_numpy(batch["pair"]).long())


def replaced_loss(logits: torch.Tensor, batch: Arrays, tokens: np.ndarray) -> torch.Tensor:
    """Mean binary cross-entropy over the real tokens; an unchanged token counts as original."""
    labels = torch.from_numpy((np.asarray(tokens) != batch["labels"]).astype(np.float32))
    keep = torch.from_numpy(is_real(batch))
    return F.binary_cross_entropy_with_logits(logits[keep], labels[keep])


def pretraining_loss(model: Any, batch: Arrays, tokens: np.ndarray | None = None) -> torch.Tensor:
    """The pre-training loss of each class, from its logits."""
    out = forward(model, batch, tokens)
    if isinstance(model, T.BertForPreTraining):
        nsp_loss = pair_loss(out.seq_relationship_logits, batch)
        return masked_loss(out.prediction_logits, batch) + nsp_loss
    if isinstance(model, T.AlbertForPreTraining):
        return masked_loss(out.prediction_logits, batch) + pair_loss(out.sop_logits, batch)
    if isinstance(model, T.ElectraForPreTraining):
        assert tokens is not None
        return replaced_loss(out.logits, batch, tokens)
    return masked_loss(out.logits, batch)


def relative_error(a: Any, b: Any) -> float:
    """The largest difference relative to the largest entry of b; inf if an entry is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, (a.shape, b.shape)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    largest = float(np.abs(a - b).max())
    return largest / float(np.abs(b).max()) if largest else 0.0


def relative_errors(native: Arrays, hf: Arrays) -> dict[str, float]:
    """`relative_error` by tensor. The gradient of a key bias is zero in exact arithmetic; its error
    is relative to the query bias of its layer."""
    assert native.keys() == hf.keys(), native.keys() ^ hf.keys()
    out = {name: relative_error(native[name], hf[name]) for name in hf}
    for name in [n for n in hf if n.endswith("key.bias")]:
        scale = np.abs(hf[name.replace("key.bias", "query.bias")]).max()
        out[name] = float(np.abs(native[name] - hf[name]).max() / scale) if scale else 0.0
    return out
