"""The fingerprint of a model: by it an index or a cached result knows the model that made it."""

from __future__ import annotations

import hashlib

import jax
import numpy as np

from bert_jax.inference.model import Model
from bert_jax.utils.pytree import flatten_with_names


def fingerprint(model: Model) -> str:
    """SHA-256 of the parameters that make vectors, of the sentence head, and of the vocabulary."""
    digest = hashlib.sha256(model.tokenizer.fingerprint.encode())
    _, params = model.objective.encoder(model.params)
    for name, leaf in flatten_with_names({k: params[k] for k in ("embeddings", "encoder")}).items():
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    head = model.sentence
    if head is not None:
        settings = (head.pooling, head.include_prompt, head.lowercase, head.max_length)
        digest.update(repr(settings).encode())
        for module in head.modules:
            for part in (module,) if module == "normalize" else module:
                is_array = isinstance(part, np.ndarray)
                digest.update(np.ascontiguousarray(part).data if is_array else repr(part).encode())
    return digest.hexdigest()
