"""transformers as a contender: a masked language model on PyTorch, with its best settings.

attention   SDPA, without a mask if all rows are full
head        `gathered`: at the masked positions alone, like bert_jax; `stock`: at all positions
optimizer   fused AdamW with the config's constants, decay and clipping, whatever its optimizer
compile     torch.compile if there is a GPU or a C++ compiler
precision   float32, with TF32 products on a GPU as in JAX; bfloat16 by autocast
batches     masked beforehand and already on the device: masking costs nothing
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import Encoder, Experiment, Masked, Optim, ReplacedTokens
from bert_jax.convert import hf_config, hf_families
from bert_jax.utils import extras
from bert_jax.utils.types import Batch

HEADS = {  # family -> (attribute of the encoder, function from hidden states to logits)
    "bert": ("bert", lambda m, h: m.cls(h)),
    "albert": ("albert", lambda m, h: m.predictions(h)),
    "roberta": ("roberta", lambda m, h: m.lm_head(h)),
    "electra": ("electra", lambda m, h: m.generator_lm_head(m.generator_predictions(h))),
    "modernbert": ("model", lambda m, h: m.decoder(m.head(h))),
}

MODERNBERT: dict[str, Any] = {  # fields of its encoder; the first norm, which it lacks, is cheap
    "pre_norm": True,
    "norm": "layer",
    "positions": "rotary",
    "gated_mlp": True,
    "biases": False,
    "groups": None,
    "embedding_size": None,
}


def modules() -> tuple[Any, Any]:
    """The modules torch and transformers. ValueError: they are not installed."""
    try:
        import torch
        import transformers
    except ImportError as e:
        what = "--against transformers"
        raise extras.missing(what, f"PyTorch and transformers ({e})", "peer") from None
    return torch, transformers


def torch_device(platform: str) -> str:
    """PyTorch's name of the device that JAX uses. ValueError: PyTorch cannot use it."""
    torch, _ = modules()
    if platform == "cpu":
        return "cpu"
    if platform == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise ValueError(
        f"--against transformers: JAX uses a {platform}, which the installed PyTorch cannot use; "
        "install a PyTorch that can, or set JAX_PLATFORMS=cpu"
    )


def can_compile(device: str) -> bool:
    """Whether torch.compile has a GPU or a C++ compiler to work with."""
    return device == "cuda" or any(shutil.which(cc) for cc in ("g++", "clang++"))


def peer_family(config: Experiment) -> str:
    """The family of transformers whose masked language model has the config's encoder; for a
    modern encoder ModernBERT, which does the same work. ValueError: there is none."""
    encoder = config.encoder
    if all(getattr(encoder, name) == value for name, value in MODERNBERT.items()):
        return "modernbert"
    has_projection = encoder.embedding_width != encoder.hidden_size and encoder.groups is None
    if isinstance(config.objective, ReplacedTokens) or has_projection:
        return "electra"
    return hf_config.hf_family(encoder, Masked(sentence_pair=False)).name


def build_model(family: str, encoder: Encoder) -> Any:
    """A model of transformers with random parameters, in training mode."""
    torch, transformers = modules()
    if family == "modernbert":
        name, fields = "ModernBertForMaskedLM", _modernbert_config(encoder)
    else:
        hf_family = hf_families.FAMILIES[family]  # type: ignore[index]
        name = next(name for name in hf_family.classes if name.endswith("ForMaskedLM"))
        fields = hf_config.encoder_to_hf_config(hf_family, encoder, name, ("mlm",))
    config_class = getattr(transformers, f"{name.removesuffix('ForMaskedLM')}Config")
    for key in ("architectures", "model_type", "dtype"):
        fields.pop(key, None)
    torch.manual_seed(0)
    model = getattr(transformers, name)(config_class(**fields, attn_implementation="sdpa"))
    return model.train()


def _modernbert_config(encoder: Encoder) -> dict[str, Any]:
    """Fields of ModernBertConfig, whose window counts both sides of a token."""
    return {
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "intermediate_size": encoder.mlp_width,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "max_position_embeddings": encoder.max_length,
        "local_attention": 2 * (encoder.window or encoder.max_length),
        "global_attn_every_n_layers": encoder.global_every if encoder.window else 1,
        "attention_dropout": encoder.attention_dropout,
        "embedding_dropout": encoder.dropout,
        "mlp_dropout": encoder.dropout,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), None),
        "pad_token_id": encoder.pad_id,
    }


class Transformers:
    """One model of transformers in training; `stock`: with its own head and loss."""

    warm_up = 2

    def __init__(
        self,
        config: Experiment,
        family: str,
        batches: Sequence[Batch],
        device: str,
        stock: bool = False,
        compile: bool = False,
    ) -> None:
        torch, _ = modules()
        self.name = ("stock" if stock else "gathered") + (", compiled" if compile else "")
        self._torch, self._stock, self._family = torch, stock, family
        self.model = build_model(family, config.encoder).to(device)
        self._bfloat16, self._device = config.run.dtype == "bfloat16", device
        self._has_types = config.encoder.token_types > 1
        self._clip_norm = config.optim.clip_norm
        self._optimizer = _adamw(self.model, config)
        self._pool = [self._tensors(batch) for batch in batches]
        self._batches = itertools.cycle(self._pool)
        loss = self.stock_loss if stock else self.gathered_loss
        self.loss = torch.compile(loss) if compile else loss
        self.real_tokens = statistics.mean(float(np.sum(b["size"])) for b in batches)
        self.padded_tokens = batches[0]["tokens"].size

    def compile(self) -> None:
        """Make the first step, and one of every shape: torch.compile compiles for each, or once
        more for all."""
        shapes = {tuple(x.shape for x in b.values() if x is not None) for b in self._pool}
        for _ in range(1 if len(shapes) == 1 else len(self._pool) + 1):
            self.step()
        self.wait()

    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the loss, from a masked batch: the labels [rows, length] for `stock`, else
        the row, position and target of each prediction."""
        tokens, size = np.asarray(batch["tokens"]), np.asarray(batch["size"])
        column, first = np.arange(tokens.shape[1]), np.asarray(batch["first"])
        real = column < size[:, None]
        second = real & (column >= first[:, None])
        rows, slots = np.nonzero(batch["weights"])
        positions = np.asarray(batch["masked"])[rows, slots]
        targets = np.asarray(batch["targets"])[rows, slots]
        arrays: dict[str, Any] = {"tokens": tokens, "types": second & self._has_types}
        if self._stock:
            labels = np.full_like(tokens, -100)  # which its loss ignores
            labels[rows, positions] = targets
            arrays["labels"] = labels
        else:
            arrays |= {"rows": rows, "positions": positions, "targets": targets}
        tensors = {k: self._torch.tensor(v, device=self._device).long() for k, v in arrays.items()}
        mask = None if real.all() else self._torch.tensor(real, device=self._device).long()
        return {**tensors, "mask": mask}

    def gathered_loss(
        self, tokens: Any, types: Any, mask: Any, rows: Any, positions: Any, targets: Any
    ) -> Any:
        """Mean cross-entropy, with logits at the masked positions alone."""
        encoder, head = HEADS[self._family]
        hidden = getattr(self.model, encoder)(tokens, attention_mask=mask, **self._types(types))[0]
        logits = head(self.model, hidden[rows, positions])
        return self._torch.nn.functional.cross_entropy(logits.float(), targets)

    def stock_loss(self, tokens: Any, types: Any, mask: Any, labels: Any) -> Any:
        """The loss that the model's class computes from labels, with logits at all positions."""
        return self.model(tokens, attention_mask=mask, labels=labels, **self._types(types)).loss

    def _types(self, types: Any) -> dict[str, Any]:
        return {} if self._family == "modernbert" else {"token_type_ids": types}

    def step(self) -> None:
        torch = self._torch
        precision: Any = contextlib.nullcontext()
        if self._bfloat16:
            precision = torch.autocast(self._device, torch.bfloat16)
        with precision:
            loss = self.loss(**next(self._batches))
        loss.backward()
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def decay_groups(model: Any, optim: Optim) -> list[dict[str, Any]]:
    """A model's parameters in groups of torch.optim, with and without weight decay as `optim.decay`
    says: biases and norms, whatever a model calls them (DistilBERT: sa_layer_norm), have none."""
    groups: dict[float, list[Any]] = {}
    for name, parameter in model.named_parameters():
        is_weight = not (name.endswith("bias") or "norm" in name.lower())
        decay = optim.weight_decay if is_weight or optim.decay == "all" else 0.0
        groups.setdefault(decay, []).append(parameter)
    return [{"params": params, "weight_decay": decay} for decay, params in groups.items()]


def _adamw(model: Any, config: Experiment) -> Any:
    torch, optim = modules()[0], config.optim
    groups = decay_groups(model, optim)
    betas = (optim.b1, optim.b2)
    return torch.optim.AdamW(groups, optim.peak_lr, betas=betas, eps=optim.eps, fused=True)


def build_peers(
    config: Experiment,
    family: str,
    batches: Sequence[Batch],
    device: str,
    variants: Sequence[tuple[str, bool]],
) -> list[Transformers]:
    """The variants (head, whether it is compiled), after their first steps. Compiled ones are left
    out where torch.compile has no compiler or fails, if there are eager ones."""
    torch, _ = modules()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    peers = []
    for head, compiled in variants:
        if compiled and not can_compile(device):
            continue
        peer = Transformers(config, family, batches, device, head == "stock", compiled)
        try:
            peer.compile()
        except Exception:
            if not compiled or all(mode for _, mode in variants):
                raise
            continue
        peers.append(peer)
    if device == "cuda":
        torch.cuda.empty_cache()  # what the first step needed; the next one takes it again
    return peers


def versions() -> dict[str, str]:
    """Versions of PyTorch and transformers."""
    torch, transformers = modules()
    return {"torch": torch.__version__, "transformers": transformers.__version__}
