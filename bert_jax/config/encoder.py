"""The encoder: sizes, and what was built otherwise in one family or another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.ranges import LARGEST, check


@dataclass(frozen=True)
class Encoder:
    """`layers` layers made of `groups` sets of parameters, over one embedding block."""

    layers: int = 12
    hidden_size: int = 768
    heads: int = 12
    mlp_size: int | None = None  # None: four times the hidden size
    embedding_size: int | None = None  # None: the hidden size; else a projection follows
    groups: int | None = None  # None: one per layer (BERT); 1: one for all (ALBERT)
    share_params: Literal["all", "attention", "mlp"] = "all"  # which part a group's layers share
    vocab_size: int = 30522
    max_length: int = 512  # usable tokens; the table has `position_offset` rows more
    position_offset: int = 0  # RoBERTa: 2, the rows 0 and 1 are never looked up
    token_types: int = 2  # 0: no table
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init: Literal["truncated_normal", "normal"] = "truncated_normal"
    initializer_range: float = 0.02
    projection_init: Literal["same", "glorot"] = "same"  # ELECTRA: Glorot
    pad_id: int = 0
    zero_pad_row: bool = False  # RoBERTa starts the padding token's row at zero
    # What came after the five papers; off, so that each is built as published
    pre_norm: bool = False  # norms in front of attention and MLP, and one behind all layers
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["learned", "rotary"] = "learned"  # rotary: of queries and keys, no table
    rotary_theta: float = 10_000.0
    gated_mlp: bool = False  # activation(gate) * up, with a third matrix of mlp_size
    biases: bool = True  # False: only layers that give logits have one
    window: int | None = None  # tokens to either side that a layer sees; None: all
    global_every: int = 3  # beside a window: every so many layers, from the first, one sees all

    def __post_init__(self) -> None:
        sizes = ("layers", "hidden_size", "heads", "vocab_size", "max_length")
        for name in (*sizes, "mlp_size", "embedding_size", "groups"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"encoder.{name} is {value}: expected at least 1")
        for name in (*sizes, "mlp_size", "embedding_size", "token_types", "position_offset"):
            if (getattr(self, name) or 0) > LARGEST:
                raise ValueError(f"encoder.{name} is {getattr(self, name)}: expected at most 2^30")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} does not divide into "
                f"encoder.heads {self.heads}: choose a multiple"
            )
        if self.layers % self.num_groups:
            raise ValueError(
                f"encoder.layers {self.layers} does not divide into encoder.groups "
                f"{self.num_groups}: choose a divisor"
            )
        share, places = "0 <= x < 1", "1 to 2^30"
        holds = {
            "token_types": (self.token_types >= 0, "at least 0"),
            "position_offset": (self.position_offset >= 0, "at least 0"),
            "layer_norm_eps": (self.layer_norm_eps >= 0, "at least 0"),
            "dropout": (0 <= self.dropout < 1, share),
            "attention_dropout": (0 <= self.attention_dropout < 1, share),
            "initializer_range": (0 <= self.initializer_range < float("inf"), "at least 0"),
            "rotary_theta": (1 < self.rotary_theta < float("inf"), "above 1"),
            "window": (self.window is None or 1 <= self.window <= LARGEST, places),
            "global_every": (1 <= self.global_every <= LARGEST, places),
        }
        check("encoder", self, holds)
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(
                f"encoder.positions is rotary, which turns pairs of numbers, but heads are "
                f"{self.head_size} wide (encoder.hidden_size {self.hidden_size} / encoder.heads "
                f"{self.heads}): choose an even width"
            )

    @property
    def num_groups(self) -> int:
        return self.layers if self.groups is None else self.groups

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def mlp_width(self) -> int:
        return self.mlp_size or 4 * self.hidden_size

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    @property
    def position_rows(self) -> int:
        return self.max_length + self.position_offset
