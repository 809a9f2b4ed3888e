"""Convert models between Hugging Face's format and the native one.

hf_families    one table of names per family, Hugging Face <-> native
hf_name_rules  what the entries of a table mean
hf_config      config.json <-> Encoder; the keys are in hf_config_keys
hf_modernbert  the same for ModernBERT; the keys are in hf_modernbert_keys
hf_long_texts  long texts in config.json
hf_tasks       classes for fine-tuning <-> Supervised; the keys are in hf_task_keys
hf_layout      what only Hugging Face's networks have; shared layers; half precision
hf_params      tensors <-> parameters: from_hf, to_hf
hf_electra     a discriminator's and a generator's folder -> one pre-training state
hf_folder      read Hugging Face folders, which are not trusted; their weights in hf_weights
peft_folder    read LoRA adapters of peft, merged into their base; keys in peft_config
sentence_head  read what follows the encoder in sentence-transformers folders: pooling, Dense
heads          heads by name: their modules, parameter shapes, new heads
resize         a larger vocabulary, more positions
export/        write a model as Hugging Face, sentence-transformers, peft, ONNX, Orbax or StableHLO
               files
"""

from bert_jax.convert.heads import HEADS, head_modules, param_shapes, with_heads
from bert_jax.convert.hf_config import hf_family
from bert_jax.convert.hf_electra import join_electra
from bert_jax.convert.hf_folder import (
    check_tokenizer,
    is_hf_folder,
    is_model_folder,
    read_hf_experiment,
    read_hf_folder,
)
from bert_jax.convert.hf_params import HfModel, from_hf, select_network, to_hf
from bert_jax.convert.hf_tasks import rescale_label_head
from bert_jax.convert.hf_weights import optional_json, read_json
from bert_jax.convert.peft_folder import is_peft_folder
from bert_jax.convert.resize import resize_position_embeddings, resize_token_embeddings
from bert_jax.convert.sentence_head import (
    SENTENCE_DIR,
    SentenceHead,
    encoder_folder,
    read_sentence_head,
    sentence_head,
)
from bert_jax.utils.model_files import TOKENIZER_FILES

__all__ = [
    "HEADS",
    "SENTENCE_DIR",
    "TOKENIZER_FILES",
    "HfModel",
    "SentenceHead",
    "check_tokenizer",
    "encoder_folder",
    "from_hf",
    "head_modules",
    "hf_family",
    "is_hf_folder",
    "is_model_folder",
    "is_peft_folder",
    "join_electra",
    "optional_json",
    "param_shapes",
    "read_hf_experiment",
    "read_hf_folder",
    "read_json",
    "read_sentence_head",
    "rescale_label_head",
    "resize_position_embeddings",
    "resize_token_embeddings",
    "select_network",
    "sentence_head",
    "to_hf",
    "with_heads",
]
