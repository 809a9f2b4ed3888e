"""Their side: a masked language model of transformers on PyTorch, with its best settings.

attention   SDPA, without a mask where rows are full
head        at the masked positions alone, as here; `stock`: the class's own, at all places
optimiser   fused AdamW with our constants, decay and clipping, whatever ours is
compiled    by torch.compile where there is a GPU or a C++ compiler
precision   float32, TF32 for products on a GPU as in JAX; bfloat16 by autocast
rows        corrupted beforehand and on the device already: masking costs it nothing
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.config import Encoder, Experiment, Masked, ReplacedTokens
from bert_jax.convert import hf_config, rules
from bert_jax.utils.types import Batch

HEADS = {  # body, head from hidden states to logits
    "bert": ("bert", lambda m, h: m.cls(h)),
    "albert": ("albert", lambda m, h: m.predictions(h)),
    "roberta": ("roberta", lambda m, h: m.lm_head(h)),
    "electra": ("electra", lambda m, h: m.generator_lm_head(m.generator_predictions(h))),
    "modernbert": ("model", lambda m, h: m.decoder(m.head(h))),
}


MODERN: dict[str, Any] = {  # what ModernBERT has; its first norm, which it lacks, costs nothing
    "pre_norm": True,
    "norm": "layer",
    "positions": "rotary",
    "gated_mlp": True,
    "biases": False,
    "groups": None,
    "embedding_size": None,
}


def modules() -> tuple[Any, Any]:
    """torch and transformers. ValueError: they are not installed."""
    try:
        import torch
        import transformers
    except ImportError as e:
        raise ValueError(
            f"--against transformers needs PyTorch and transformers ({e}): "
            "pip install 'bert-jax[peer]', or leave it out"
        ) from None
    return torch, transformers


def place(platform: str) -> str:
    """PyTorch's name of the device that JAX computes on. ValueError: PyTorch cannot use it."""
    torch, _ = modules()
    if platform == "cpu":
        return "cpu"
    if platform == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise ValueError(
        f"--against transformers: JAX computes on a {platform}, which PyTorch cannot use here; "
        "install a PyTorch that can, or set JAX_PLATFORMS=cpu"
    )


def compilable(device: str) -> bool:
    """Whether torch.compile has what it needs."""
    return device == "cuda" or any(shutil.which(cc) for cc in ("g++", "clang++"))


def family_of(experiment: Experiment) -> str:
    """The family whose masked language model has this encoder, or, for what came after those
    families, does the same work: ModernBERT. ELECTRA's discriminator is an encoder with an
    embedding width of its own. ValueError: there is none."""
    encoder = experiment.encoder
    if all(getattr(encoder, name) == value for name, value in MODERN.items()):
        return "modernbert"
    narrow = encoder.embedding_width != encoder.hidden_size and encoder.groups is None
    if isinstance(experiment.objective, ReplacedTokens) or narrow:
        return "electra"
    return hf_config.hf_family(encoder, Masked(sentence_pair=False)).name


def network(family: str, encoder: Encoder) -> Any:
    """A fresh model of theirs, in training mode."""
    torch, transformers = modules()
    if family == "modernbert":
        name, fields = "ModernBertForMaskedLM", _modern(encoder)
    else:
        of = rules.FAMILIES[family]
        name = next(name for name in of.classes if name.endswith("ForMaskedLM"))
        fields = hf_config.encoder_to_hf_config(of, encoder, name, ("mlm",))
    kind = getattr(transformers, f"{name.removesuffix('ForMaskedLM')}Config")
    for key in ("architectures", "model_type", "dtype"):
        fields.pop(key, None)
    torch.manual_seed(0)
    made = getattr(transformers, name)(kind(**fields, attn_implementation="sdpa"))
    return made.train()


def _modern(encoder: Encoder) -> dict[str, Any]:
    """Its config: a window counts both sides, and wholly seeing layers come as ours do."""
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


class Peer:
    """One model of theirs in training."""

    def __init__(
        self,
        experiment: Experiment,
        family: str,
        batches: Sequence[Batch],
        device: str,
        stock: bool = False,
        compile: bool = False,
    ) -> None:
        torch, _ = modules()
        self.name = ("stock" if stock else "gathered") + (", compiled" if compile else "")
        self._torch, self._stock, self._family = torch, stock, family
        self.model = network(family, experiment.encoder).to(device)
        self._bf16, self._device = experiment.run.dtype == "bfloat16", device
        self._typed = experiment.encoder.token_types > 1
        self._clip = experiment.optim.clip_norm
        self._adam = _optimizer(self.model, experiment)
        self._pool = [self._tensors(batch) for batch in batches]
        self._ahead = itertools.cycle(self._pool)
        loss = self.stock_loss if stock else self.gathered_loss
        self.loss = torch.compile(loss) if compile else loss
        self.real_tokens = statistics.mean(float(np.sum(b["size"])) for b in batches)
        self.padded_tokens = batches[0]["tokens"].size
        shapes = {tuple(x.shape for x in one.values() if x is not None) for one in self._pool}
        # Every shape is seen before the clock starts: torch.compile compiles for each, or once
        # more for all.
        self.warm_up = 2 if len(shapes) == 1 else len(self._pool) + 1

    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """A corrupted batch of ours as theirs; `rows`, `at` and `targets` of what is predicted."""
        tokens, size = np.asarray(batch["tokens"]), np.asarray(batch["size"])
        at, first = np.arange(tokens.shape[1]), np.asarray(batch["first"])
        real = at < size[:, None]
        second = real & (at >= first[:, None])
        rows, slots = np.nonzero(batch["weights"])
        at = np.asarray(batch["masked"])[rows, slots]
        targets = np.asarray(batch["targets"])[rows, slots]
        one: dict[str, Any] = {"tokens": tokens, "types": second & self._typed}
        if self._stock:
            labels = np.full_like(tokens, -100)
            labels[rows, at] = targets
            one["labels"] = labels
        else:
            one |= {"rows": rows, "at": at, "targets": targets}
        made = {k: self._torch.tensor(v, device=self._device).long() for k, v in one.items()}
        mask = None if real.all() else self._torch.tensor(real, device=self._device).long()
        return {**made, "mask": mask}

    def gathered_loss(
        self, tokens: Any, types: Any, mask: Any, rows: Any, at: Any, targets: Any
    ) -> Any:
        body, head = HEADS[self._family]
        hidden = getattr(self.model, body)(tokens, attention_mask=mask, **self._types(types))[0]
        logits = head(self.model, hidden[rows, at])
        return self._torch.nn.functional.cross_entropy(logits.float(), targets)

    def stock_loss(self, tokens: Any, types: Any, mask: Any, labels: Any) -> Any:
        return self.model(tokens, attention_mask=mask, labels=labels, **self._types(types)).loss

    def _types(self, types: Any) -> dict[str, Any]:
        return {} if self._family == "modernbert" else {"token_type_ids": types}

    def step(self) -> None:
        torch = self._torch
        kind = self._device if self._bf16 else None
        half = torch.autocast(kind, torch.bfloat16) if kind else contextlib.nullcontext()
        with half:
            loss = self.loss(**next(self._ahead))
        loss.backward()
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def _optimizer(model: Any, experiment: Experiment) -> Any:
    torch, o = modules()[0], experiment.optim
    named = list(model.named_parameters())
    bare = {n for n, _ in named if n.endswith("bias") or "norm" in n.lower()}
    bare = set() if o.decay == "all" else bare
    groups = [
        {"params": [p for n, p in named if n not in bare], "weight_decay": o.weight_decay},
        {"params": [p for n, p in named if n in bare], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    return torch.optim.AdamW(groups, o.peak_lr, betas=(o.b1, o.b2), eps=o.eps, fused=True)


def sides(
    experiment: Experiment,
    family: str,
    batches: Sequence[Batch],
    platform: str,
    compile: bool = True,
) -> list[Peer]:
    """Their model, gathered and stock, each as it is and compiled where that can be. What
    torch.compile cannot do here is left out: the others stand."""
    torch, _ = modules()
    device = place(platform)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    ways = (False, True) if compile and compilable(device) else (False,)
    made = []
    for stock, way in itertools.product((False, True), ways):
        peer = Peer(experiment, family, batches, device, stock, way)
        try:
            peer.step()
            peer.wait()
        except Exception:
            if not way:
                raise
            continue
        made.append(peer)
    return made


def versions() -> dict[str, str]:
    torch, transformers = modules()
    return {"torch": torch.__version__, "transformers": transformers.__version__}
