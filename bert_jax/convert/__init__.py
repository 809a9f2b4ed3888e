"""Models between Hugging Face's layout and ours.

rules      one table per family, theirs <-> ours
configs    their config.json <-> our Encoder
tasks      their classes for fine-tuning <-> our Supervised
tensors    their tensors <-> our parameters: from_hf, to_hf
folder     their folders on disk, read with suspicion
growth     more pieces, more positions
"""

from bert_jax.convert.heads import HEADS, modules, shapes_of, with_heads
from bert_jax.convert.hf_electra import join
from bert_jax.convert.hf_folder import (
    TOKENIZER_FILES,
    check_tokenizer,
    is_hf_folder,
    read_experiment,
    read_folder,
    read_json,
)
from bert_jax.convert.hf_params import Exported, from_hf, nest, part_of, to_hf
from bert_jax.convert.hf_tasks import scaled
from bert_jax.convert.resize import resize_position_embeddings, resize_token_embeddings

__all__ = [
    "HEADS",
    "TOKENIZER_FILES",
    "Exported",
    "check_tokenizer",
    "from_hf",
    "is_hf_folder",
    "join",
    "modules",
    "nest",
    "part_of",
    "read_experiment",
    "read_folder",
    "read_json",
    "resize_position_embeddings",
    "resize_token_embeddings",
    "scaled",
    "shapes_of",
    "to_hf",
    "with_heads",
]
