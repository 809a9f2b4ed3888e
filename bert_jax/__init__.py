"""The BERT family (BERT, ALBERT, RoBERTa, ELECTRA, SpanBERT) in JAX and Flax.

model = bert_jax.load("runs/demo")
model.fill("Paris is the [MASK] of France.")
model.encode(["a text"], layers=(0, -1))
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_jax.inference.model import Model, load

__all__ = ["Model", "__version__", "load"]

__version__: str

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent until the user configures it


def __getattr__(name: str) -> Any:
    """jax is imported on first use, so that `bert-jax --help` and text work start at once."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("bert-jax")
        except PackageNotFoundError:  # the sources are on the path, and nothing is installed
            return "unknown"
    if name in __all__:
        from bert_jax.inference import model as inference_model

        return getattr(inference_model, name)
    raise AttributeError(f"module bert_jax has no attribute {name}")
