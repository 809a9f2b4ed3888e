"""A model as an encoder of mteb, the benchmark of text embeddings (extra `mteb`).

encoder = MtebEncoder(bert_jax.load("runs/pairs"), "me/pairs")
mteb.evaluate(encoder, mteb.get_tasks(tasks=["STSBenchmark"]))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from bert_jax.inference.fingerprint import fingerprint
from bert_jax.inference.model import Model
from bert_jax.utils import extras

ROLES = ("query", "document")


class MtebEncoder:
    """`model` with the methods of mteb's `EncoderProtocol` (mteb 2, models_protocols.py). Texts are
    cut to the model's length, as in the benchmark's own models. `name` is OWNER/NAME; the revision
    is a hash of the weights, the encoder's config, prompts and similarity, so that results which
    mteb has cached are never those of others.

    ValueError: mteb is not installed.
    """

    def __init__(self, model: Model, name: str = "bert-jax/model") -> None:
        try:
            from mteb.models.model_meta import ModelMeta  # type: ignore[import-not-found]
        except ImportError:
            raise extras.missing("MtebEncoder", "mteb", "mteb") from None
        self.model = model
        known: dict[str, Any] = {"name": name, "revision": _revision(model)}
        known["max_tokens"] = model.max_tokens(model.default_pool)
        known["similarity_fn_name"] = model.similarity_function
        self._meta = ModelMeta.create_empty(overwrites=known)

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's `ModelMeta`: the name, and the hash as the revision."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> np.ndarray:
        """The vectors [n d] of the texts of all batches, with the model's prompt for queries or for
        documents where the task has such. ValueError: batches without texts."""
        batches = list(inputs)
        if not all("text" in batch for batch in batches):
            fields = ", ".join(sorted({name for batch in batches for name in batch}))
            raise ValueError(f"the task has {fields or 'nothing'} to encode: expected text")
        texts = [text for batch in batches for text in batch["text"]]
        role = getattr(prompt_type, "value", prompt_type)
        return self.model.encode(texts, truncate=True, prompt=role if role in ROLES else None)[0]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """The similarity [n m] of vectors [n d] and [m d]."""
        return self.model.similarity(np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """The similarity [n] of vectors [n d] and [n d], row by row."""
        pairs = zip(np.atleast_2d(embeddings1), np.atleast_2d(embeddings2), strict=True)
        return np.array([self.similarity(a, b)[0, 0] for a, b in pairs])


def _revision(model: Model) -> str:
    """A hash of all that decides a text's vector and how vectors are compared."""
    head = model.sentence
    prompts = None if head is None else (sorted(head.prompts.items()), head.default_prompt)
    settings = repr((model.config.encoder, prompts, model.similarity_function))
    return hashlib.sha256(f"{fingerprint(model)} {settings}".encode()).hexdigest()[:16]
