"""Encoders and heads. Knows nothing of losses, data or optimisers."""

from bert_jax.model.attention import AttentionMask
from bert_jax.model.encoder import Inputs, Network, inputs

__all__ = ["AttentionMask", "Inputs", "Network", "inputs"]
