"""Encoder config: sizes, and the options in which the families differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.ranges import MAX_SIZE, RangeChecks, check_ranges

DROPOUT_RATES = (  # fields that do not change what a trained network computes
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "attention_output_dropout",
    "mlp_dropout",
)


@dataclass(frozen=True)
class Encoder:
    """`layers` layers that share `groups` sets of parameters, after one embedding block."""

    # Number of layers.
    layers: int = 12
    # Width of the hidden states.
    hidden_size: int = 768
    # Number of attention heads; it must divide `hidden_size`.
    heads: int = 12
    # Width of the MLP; None means four times `hidden_size`.
    mlp_size: int | None = None
    # Width of the embeddings; None means `hidden_size`. Any other width adds a projection.
    embedding_size: int | None = None
    # Number of parameter sets that the layers share: None means one per layer (BERT), 1 means one
    # for all layers (ALBERT).
    groups: int | None = None
    # Part of a layer that all layers of a group share: everything, the attention, or the MLP.
    share_params: Literal["all", "attention", "mlp"] = "all"
    # Number of tokens in the vocabulary; a prepared corpus overrides it.
    vocab_size: int = 30522
    # Maximum number of tokens in a row. The position table has `position_offset` more rows.
    max_length: int = 512
    # Number of unused rows at the start of the position table; RoBERTa has 2.
    position_offset: int = 0
    # Number of token types (segments); 0 removes the token-type table.
    token_types: int = 2
    # Activation function of the MLP and of the heads.
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    # Epsilon that the norms add to the variance.
    layer_norm_eps: float = 1e-12
    # Dropout rate of hidden states and embeddings.
    dropout: float = 0.1
    # Dropout rate of attention probabilities.
    attention_dropout: float = 0.1
    # Distribution from which the initial weights are drawn.
    init: Literal["truncated_normal", "normal"] = "truncated_normal"
    # Standard deviation of the initial weights.
    initializer_range: float = 0.02
    # Initializer of the embedding projection: `same` as all other weights, or Glorot's as in
    # ELECTRA.
    projection_init: Literal["same", "glorot"] = "same"
    # Id of the padding token; a prepared corpus overrides it.
    pad_id: int = 0
    # Initialize the embedding of the padding token with zeros, as RoBERTa does.
    zero_pad_row: bool = False
    # Apply the norms before attention and MLP, and once more after the last layer. This field and
    # those below came after the five families, which use the defaults.
    pre_norm: bool = False
    # Type of the norms: LayerNorm or RMSNorm.
    norm: Literal["layer", "rms"] = "layer"
    # Type of positions: `learned` uses a table, `rotary` rotates queries and keys.
    positions: Literal["learned", "rotary"] = "learned"
    # Base of the rotary frequencies.
    rotary_theta: float = 10_000.0
    # With `window`: base of the rotary frequencies in local layers; None means `rotary_theta`.
    local_rotary_theta: float | None = None
    # With `pre_norm`: apply the norm before the attention of the first layer, too. ModernBERT has
    # none there, because its embeddings end in one.
    first_norm: bool = True
    # Use a gated MLP, activation(gate) * up, with a third matrix of width `mlp_size`.
    gated_mlp: bool = False
    # Give dense layers and norms a bias. Layers that output logits always have one.
    biases: bool = True
    # Give the layers of the attention, of the MLP, the norms or the dense layers of the heads a
    # bias; None means `biases`.
    attention_biases: bool | None = None
    # See `attention_biases`.
    mlp_biases: bool | None = None
    # See `attention_biases`.
    norm_biases: bool | None = None
    # See `attention_biases`.
    head_biases: bool | None = None
    # Give the logits over the vocabulary a bias.
    vocab_bias: bool = True
    # Activation function of the heads; None means `activation`.
    head_activation: Literal["gelu", "gelu_tanh", "relu", "silu"] | None = None
    # Dropout rate of the embeddings; None means `dropout`.
    embedding_dropout: float | None = None
    # Dropout rate of the attention's output; None means `dropout`.
    attention_output_dropout: float | None = None
    # Dropout rate inside the MLP, before its last layer.
    mlp_dropout: float = 0.0
    # Initializer of the layers whose output is added to the hidden states: `same` as all other
    # weights, or `scaled`, with a deviation divided by sqrt(2 layers), as in ModernBERT.
    residual_init: Literal["same", "scaled"] = "same"
    # Number of tokens to each side that a local layer attends to; None makes all layers attend to
    # all tokens.
    window: int | None = None
    # With `window`: every N-th layer attends to all tokens, starting with the first.
    global_every: int = 3
    # Hugging Face's model type that an export has, if the other fields fit several: import sets it,
    # to distilbert instead of bert, and to xlm-roberta or camembert instead of roberta.
    model_type: Literal["distilbert", "xlm-roberta", "camembert"] | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_ranges()
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(
                f"encoder.positions is rotary, which needs an even head width, but heads are "
                f"{self.head_size} wide (encoder.hidden_size {self.hidden_size} / encoder.heads "
                f"{self.heads}): choose an even width"
            )
        if not self.first_norm and not self.pre_norm:
            raise ValueError("encoder.first_norm is False: expected encoder.pre_norm True")
        if not self.first_norm and (self.num_groups, self.share_params) != (self.layers, "all"):
            raise ValueError(
                "encoder.first_norm is False, but layers share parameters (encoder.groups "
                f"{self.groups}, encoder.share_params {self.share_params}): the first layer's "
                "parameters must be its own"
            )
        if not self.first_norm and self.layers < 2:
            raise ValueError(
                "encoder.layers is 1 and encoder.first_norm is False (ModernBERT): expected at "
                "least 2 layers"
            )

    def _check_sizes(self) -> None:
        names = ("layers", "hidden_size", "heads", "vocab_size", "max_length", "mlp_size")
        sizes = {name: getattr(self, name) for name in (*names, "embedding_size", "groups")}
        checks: RangeChecks = {
            **{name: (n is None or 1 <= n <= MAX_SIZE, "1 to 2^30") for name, n in sizes.items()},
            "token_types": (0 <= self.token_types <= MAX_SIZE, "0 to 2^30"),
            "position_offset": (0 <= self.position_offset <= MAX_SIZE, "0 to 2^30"),
        }
        check_ranges("encoder", self, checks)
        if self.hidden_size % self.heads:
            raise ValueError(
                f"encoder.hidden_size {self.hidden_size} is not divisible by encoder.heads "
                f"{self.heads}: choose a multiple"
            )
        if self.layers % self.num_groups:
            raise ValueError(
                f"encoder.layers {self.layers} is not divisible by encoder.groups "
                f"{self.num_groups}: choose a divisor"
            )

    def _check_ranges(self) -> None:
        size, local = "1 to 2^30", self.local_rotary_theta
        checks = {
            "layer_norm_eps": (self.layer_norm_eps >= 0, "at least 0"),
            **{name: (0 <= (getattr(self, name) or 0) < 1, "0 <= x < 1") for name in DROPOUT_RATES},
            "initializer_range": (0 <= self.initializer_range < float("inf"), "at least 0"),
            "rotary_theta": (1 < self.rotary_theta < float("inf"), "above 1"),
            "local_rotary_theta": (local is None or 1 < local < float("inf"), "above 1"),
            "window": (self.window is None or 1 <= self.window <= MAX_SIZE, size),
            "global_every": (1 <= self.global_every <= MAX_SIZE, size),
        }
        check_ranges("encoder", self, checks)

    @property
    def num_groups(self) -> int:
        """The number of parameter sets."""
        return self.layers if self.groups is None else self.groups

    @property
    def embedding_width(self) -> int:
        """The width of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def mlp_width(self) -> int:
        """The width of the MLP."""
        return self.mlp_size or 4 * self.hidden_size

    @property
    def head_size(self) -> int:
        """The width of an attention head."""
        return self.hidden_size // self.heads

    @property
    def position_rows(self) -> int:
        """The number of rows of the position table."""
        return self.max_length + self.position_offset
