"""Models between Hugging Face's layout and ours.

rules      one table per family, theirs <-> ours
configs    their config.json <-> our Encoder
tasks      their classes for fine-tuning <-> our Supervised
tensors    their tensors <-> our parameters: from_hf, to_hf
folder     their folders on disk, read with suspicion
growth     more pieces, more positions
"""

from bert_jax.convert.heads import HEADS, head_modules, param_shapes, with_heads
from bert_jax.convert.hf_electra import join_electra
from bert_jax.convert.hf_folder import (
    TOKENIZER_FILES,
    check_tokenizer,
    is_hf_folder,
    read_hf_experiment,
    read_hf_folder,
    read_json,
)
from bert_jax.convert.hf_params import HfModel, from_hf, nest, select_network, to_hf
from bert_jax.convert.hf_tasks import rescale_label_head
from bert_jax.convert.resize import resize_position_embeddings, resize_token_embeddings

__all__ = [
    "HEADS",
    "TOKENIZER_FILES",
    "HfModel",
    "check_tokenizer",
    "from_hf",
    "head_modules",
    "is_hf_folder",
    "join_electra",
    "nest",
    "param_shapes",
    "read_hf_experiment",
    "read_hf_folder",
    "read_json",
    "rescale_label_head",
    "resize_position_embeddings",
    "resize_token_embeddings",
    "select_network",
    "to_hf",
    "with_heads",
]
