"""The network itself as a function, with the names that an ONNX file gives its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bert_jax import convert
from bert_jax.convert.export.onnx_file.check import Reference
from bert_jax.convert.export.onnx_file.source import Source
from bert_jax.convert.export.stablehlo import network_function
from bert_jax.convert.sentence_head import apply_sentence_head
from bert_jax.model import Network
from bert_jax.utils.pytree import flatten_with_names


def reference_outputs(source: Source) -> Reference:
    """(tokens, mask, types) -> the outputs by name, computed on the CPU in float32."""
    modules = convert.head_modules(source.parts, source.used_task)
    network = Network(source.encoder, modules, attention="xla")
    weights = flatten_with_names({k: source.params[k] for k in sorted(source.parts)})
    function, cpu = network_function(network), jax.local_devices(backend="cpu")[0]

    def outputs(weights: Any, tokens: Any, mask: Any, types: Any) -> dict[str, Any]:
        out = _rename(function(weights, tokens, mask, types))
        if source.head == "sentence":
            size = mask.sum(axis=1)
            vectors = apply_sentence_head(source.sentence, out["last_hidden_state"], size)
            out["sentence_embedding"] = vectors
        return out

    compiled = jax.jit(outputs)

    def reference(tokens: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, np.ndarray]:
        with jax.default_device(cpu):
            return jax.device_get(compiled(weights, tokens, mask, types))

    return reference


def _rename(out: Mapping[str, Any]) -> dict[str, Any]:
    """A network's outputs by their names in the file."""
    renamed = {"last_hidden_state": out["hidden"], "pooler_output": out.get("pooler")}
    for name in ("mlm", "rtd", "pair", "label", "tag"):
        renamed["logits"] = out.get(name, renamed.get("logits"))
    span = out.get("span")
    if span is not None and "answerable" in span:
        renamed |= {"start_top_log_probs": span["start"], "start_top_index": span["start_at"]}
        renamed |= {"end_top_log_probs": span["end"], "end_top_index": span["end_at"]}
        renamed["cls_logits"] = span["answerable"]
    elif span is not None:
        renamed |= {"start_logits": span["start"], "end_logits": span["end"]}
    return {k: v for k, v in renamed.items() if v is not None}
