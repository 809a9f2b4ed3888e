"""Names of the files of a Hugging Face folder that bert_jax reads."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER_CONFIG = "adapter_config.json"  # of a peft folder
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
# A folder of sentence-transformers lists its modules, each in a folder of its own.
MODULES = "modules.json"
SENTENCE_SETTINGS = "config_sentence_transformers.json"
CROSS_ENCODER = "CrossEncoder"  # the model_type in these of a folder that scores pairs of texts
# What its encoder's settings are called: since version 1, and before it by the encoder's family.
ENCODER_SETTINGS_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
SENTENCE_FILES = (MODULES, SENTENCE_SETTINGS, *ENCODER_SETTINGS_FILES)
