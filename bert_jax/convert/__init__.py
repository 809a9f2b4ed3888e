"""Models between Hugging Face's layout and ours."""

from bert_jax.convert.electra import join
from bert_jax.convert.folder import TOKENIZER_FILES, check_tokenizer, is_hf_folder, read_folder
from bert_jax.convert.tensors import (
    HEADS,
    Exported,
    from_hf,
    nest,
    part_of,
    shapes_of,
    to_hf,
    with_heads,
)

__all__ = [
    "HEADS", "TOKENIZER_FILES", "Exported", "check_tokenizer", "from_hf", "is_hf_folder", "join",
    "nest", "part_of", "read_folder", "shapes_of", "to_hf", "with_heads",
]  # fmt: skip
