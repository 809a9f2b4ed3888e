"""`export --format sentence-transformers`: a Hugging Face folder with the files of a sentence head.

Every version of sentence-transformers from 2 on reads them; those before 3 know no similarity.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bert_jax.convert.export.files import write_json, write_tensors
from bert_jax.convert.sentence_head import (
    ACTIVATIONS,
    ENCODER_SETTINGS,
    POOLING_KEYS,
    Dense,
    SentenceHead,
)
from bert_jax.utils.model_files import MODULES, SENTENCE_SETTINGS
from bert_jax.utils.types import Json


def write_sentence_head(head: SentenceHead, folder: Path, width: int, max_length: int) -> None:
    """Write the files of a head (convert/sentence_head.py) to `folder`. The encoder has the hidden
    size `width` and takes `max_length` tokens."""
    names = ["Transformer", "Pooling"]
    names += ["Normalize" if module == "normalize" else "Dense" for module in head.modules]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    write_json(folder / MODULES, modules)
    length = min(head.max_length or max_length, max_length)
    write_json(
        folder / ENCODER_SETTINGS, {"max_seq_length": length, "do_lower_case": head.lowercase}
    )
    settings = {
        "prompts": dict(head.prompts),
        "default_prompt_name": head.default_prompt,
        "similarity_fn_name": head.similarity,
    }
    write_json(folder / SENTENCE_SETTINGS, settings)
    for path, module in zip(paths[2:], head.modules, strict=True):
        (folder / path).mkdir()
        if isinstance(module, Dense):
            _write_dense(module, folder / path)
        else:
            write_json(folder / path / "config.json", {})
    (folder / paths[1]).mkdir()
    write_json(folder / paths[1] / "config.json", _pooling_config(head, width))


def _pooling_config(head: SentenceHead, width: int) -> Json:
    """The keys that all versions read, or those of version 6 where they cannot say the order."""
    modes = [mode for mode in POOLING_KEYS.values() if mode in head.pooling]
    if list(head.pooling) == modes:
        values: Json = {key: mode in modes for key, mode in POOLING_KEYS.items()}
        values["word_embedding_dimension"] = width
    else:
        values = {"embedding_dimension": width, "pooling_mode": list(head.pooling)}
    return values | {"include_prompt": head.include_prompt}


def _write_dense(dense: Dense, folder: Path) -> None:
    names = {ours: hf for hf, ours in ACTIVATIONS.items()}
    sizes = dict(zip(("in_features", "out_features"), dense.kernel.shape, strict=True))
    settings = {"bias": dense.bias is not None, "activation_function": names[dense.activation]}
    write_json(folder / "config.json", sizes | settings)
    tensors = {"linear.weight": np.ascontiguousarray(dense.kernel.T)}
    if dense.bias is not None:
        tensors["linear.bias"] = dense.bias
    write_tensors(folder / "model.safetensors", tensors)
