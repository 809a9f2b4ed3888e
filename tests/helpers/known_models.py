"""Models whose predictions are known: without context, they give every token a chosen probability.

All word vectors are zero, so the logits are the bias of the masked-word head."""

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import BERT, Experiment, Imported, Masked, replace
from bert_jax.data.tokenization.tokenizer import Tokenizer
from bert_jax.inference.model import Model
from tests.helpers import tiny_configs

SIZES = dict(layers=1, hidden_size=8, heads=1, mlp_size=8)


def small_model(tokenizer: Tokenizer, base: Experiment = BERT, max_length: int = 32) -> Model:
    """A model with random parameters, large enough to predict something."""
    sizes = SIZES | dict(max_length=max_length, vocab_size=tokenizer.vocab_size)
    config = replace(base, encoder=sizes | dict(initializer_range=0.5, pad_id=tokenizer.pad_id))
    return Model(config, tiny_configs.initial_params(config), tokenizer)


def contextless_model(
    tokenizer: Tokenizer, log_p: np.ndarray, max_length: int = 32, pair: bool = False
) -> Model:
    """A model that always predicts tokens with these log probabilities [v]."""
    objective = Masked(sentence_pair=True) if pair else Imported(mlm=True)
    model = small_model(tokenizer, replace(BERT, objective=objective), max_length)
    params = jax.tree.map(lambda x: x, model.params)
    params["embeddings"]["word"] = jnp.zeros_like(params["embeddings"]["word"])
    params["mlm"]["bias"] = jnp.asarray(log_p, jnp.float32)
    return Model(model.config, params, tokenizer)
