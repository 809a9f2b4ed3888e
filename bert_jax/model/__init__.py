"""Encoders and heads. This package does not depend on losses, data or optimizers."""

from bert_jax.model.attention import AttentionMask
from bert_jax.model.encoder import EncoderInputs, Network, encoder_inputs

__all__ = ["AttentionMask", "EncoderInputs", "Network", "encoder_inputs"]
