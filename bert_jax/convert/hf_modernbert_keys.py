"""Keys of ModernBERT's config.json: the native fields behind them, defaults, and ignored ones."""

from __future__ import annotations

from bert_jax.convert.hf_long_texts import LONG_TEXTS
from bert_jax.convert.hf_task_keys import (
    CROSS_ENCODER,
    NO_ANSWER,
    OLD_CROSS_ENCODER,
    TEXT_PAIRS,
    THRESHOLDS,
)
from bert_jax.utils.types import Json

# native field -> key with the same value
FIELDS = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "heads": "num_attention_heads",
    "mlp_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_length": "max_position_embeddings",
    "layer_norm_eps": "norm_eps",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
    "embedding_dropout": "embedding_dropout",
    "attention_dropout": "attention_dropout",
    "mlp_dropout": "mlp_dropout",
}
# native field -> key of a boolean
BIASES = {
    "attention_biases": "attention_bias",
    "mlp_biases": "mlp_bias",
    "norm_biases": "norm_bias",
    "head_biases": "classifier_bias",
    "vocab_bias": "decoder_bias",
}
DEFAULTS: Json = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "pad_token_id": 50283,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "local_attention": 128,
    "embedding_dropout": 0.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "decoder_bias": True,
    "classifier_bias": False,
    "classifier_activation": "gelu",
}
GLOBAL_THETA, LOCAL_THETA, GLOBAL_EVERY = 160_000.0, 10_000.0, 3  # of missing keys
ROPE_KEYS = ("global_rope_theta", "local_rope_theta", "rope_parameters")
LAYER_KEYS = ("global_attn_every_n_layers", "layer_types")
REQUIRED: Json = {
    "tie_word_embeddings": True,
    "initializer_cutoff_factor": 2.0,
    "is_decoder": False,
    "add_cross_attention": False,
    "rope_scaling": None,
}
HEAD_KEYS = (
    OLD_CROSS_ENCODER,
    "classifier_pooling",
    "classifier_dropout",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    THRESHOLDS,
    NO_ANSWER,
    TEXT_PAIRS,
    LONG_TEXTS,
    CROSS_ENCODER,
)
# keys that change no output of a trained network
IGNORED = (
    "position_embedding_type",
    "layer_norm_eps",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_prediction",
    "sparse_pred_ignore_index",
    "deterministic_flash_attn",
    "gradient_checkpointing",
    "finetuning_task",
    "use_cache",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "torch_dtype",
    "dtype",
    "torchscript",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "use_return_dict",
    "use_bfloat16",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "tokenizer_class",
    "task_specific_params",
)
FILE_KEYS = ("model_type", "architectures", "transformers_version", "_name_or_path", "auto_map")
KNOWN = {
    *FIELDS.values(),
    *BIASES.values(),
    *DEFAULTS,
    *ROPE_KEYS,
    *LAYER_KEYS,
    *REQUIRED,
    *HEAD_KEYS,
    *FILE_KEYS,
}
