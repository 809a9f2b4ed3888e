"""Export a network as a StableHLO function of weights and tokens, which runs without bert_jax."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bert_jax import convert
from bert_jax.config import Encoder, Supervised
from bert_jax.convert.export.files import (
    ExportableModel,
    copy_tokenizer,
    write_json,
    write_pipeline,
    write_tensors,
)
from bert_jax.convert.hf_long_texts import long_texts_to_hf
from bert_jax.model import AttentionMask, Network
from bert_jax.model.encoder import Head
from bert_jax.model.task_heads import beam_size
from bert_jax.utils.pytree import flatten_with_names
from bert_jax.utils.types import Batch

logger = logging.getLogger(__name__)


def export_stablehlo(
    model: ExportableModel, folder: Path, out: Path, part: str | None
) -> list[str]:
    """Write the network of a model as StableHLO, its weights and its signature to `out`. Returns
    the names of the parameters that the function does not use, and what else it does not do."""
    encoder, heads, params = convert.select_network(model.config, model.params, part)
    task = model.config.objective if isinstance(model.config.objective, Supervised) else None
    params = convert.rescale_label_head(params, task)
    modules = convert.head_modules(heads, task)
    min_length = min(beam_size(task), encoder.max_length) if task is not None else 0
    weights = {k: np.asarray(v) for k, v in flatten_with_names(params).items()}
    left_out = [k for k in weights if k.split("/")[0] not in {"embeddings", "encoder", *modules}]
    weights = {k: v for k, v in weights.items() if k not in left_out}
    if task is not None:
        left_out += long_texts_to_hf(model.config)[1]
    exported = export_network(encoder, modules, weights, min_length)
    try:
        (out / "model.stablehlo").write_bytes(exported.serialize())
    except ImportError:
        raise ValueError(
            "jax.export writes its files with flatbuffers, which is not installed: "
            "pip install flatbuffers"
        ) from None
    write_tensors(out / "model.safetensors", weights)
    write_json(out / "signature.json", _signature(encoder, exported, min_length))
    copy_tokenizer(folder, out / "tokenizer", encoder)
    write_pipeline(model.tokenizer, out / "tokenizer")
    text = readme(max(min_length, 1), encoder.max_length)
    (out / "README.md").write_text(text, encoding="utf-8")
    logger.info("%s", EXPIRY.format(jax=jax.__version__))
    return left_out


def export_network(
    encoder: Encoder,
    heads: Mapping[str, Head],
    weights: dict[str, np.ndarray],
    min_length: int = 0,
) -> Any:
    """The network as a portable function of (weights, tokens, mask, types), for any batch size
    and any length from `min_length` to the model's. The masked-word head gives logits at every
    position. Float32, no dropout.
    """
    function = network_function(Network(encoder, heads))
    bounds = [f"l <= {encoder.max_length}"]
    bounds += [f"l >= {min_length}"] if min_length else []
    b, length = jax.export.symbolic_shape("b, l", constraints=bounds)
    ids = jax.ShapeDtypeStruct((b, length), jnp.int32)
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
    export: Callable[..., Any] = jax.export.export(
        jax.jit(function), platforms=("cpu", "cuda", "tpu")
    )
    return export(shapes, ids, ids, ids)


def network_function(network: Network) -> Callable[..., dict[str, Any]]:
    """(weights by name, tokens [b l], mask [b l], types [b l]) -> the outputs of a network."""

    def function(
        weights: dict[str, jax.Array], tokens: jax.Array, mask: jax.Array, types: jax.Array
    ) -> dict[str, Any]:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        batch: Batch = {"tokens": tokens, "types": types, "masked": positions}
        batch["attention_mask"] = AttentionMask(mask, packed=False)
        # for spans: the row's end, and the start of its second segment, the document
        batch |= {"size": mask.sum(axis=1), "context": jnp.argmax(types == 1, axis=1)}
        out: Any = network.apply({"params": traverse_util.unflatten_dict(weights, sep="/")}, batch)
        if "mlm" in out:
            out["mlm"] = out["mlm"].logits(weights["embeddings/word"])
        return {k: v for k, v in out.items() if v is not None}

    return function


def _signature(encoder: Encoder, exported: Any, min_length: int) -> dict[str, Any]:
    """Arguments and results of the function, for readers without jax."""
    numbers = range(len(exported.out_avals))
    names = flatten_with_names(jax.tree.unflatten(exported.out_tree, numbers))
    shapes = [[str(s) for s in a.shape] for a in exported.out_avals]
    return {
        "arguments": [
            "weights: every tensor of model.safetensors, by name, sorted",
            "tokens int32 [b, l]",
            "mask int32 [b, l]: 1 where there is a token",
            "types int32 [b, l]: segment numbers, 0 where there is one segment",
        ],
        "results": dict(zip(names, shapes, strict=True)),
        "longest": encoder.max_length,
        "shortest": max(min_length, 1),
        "platforms": list(exported.platforms),
        "jax": jax.__version__,  # that exported it
    }


def readme(shortest: int, longest: int) -> str:
    """README.md, whose example has a row that the function takes: of `shortest` to `longest`
    tokens."""
    length = max(shortest, 5)
    values = dict(jax=jax.__version__, shortest=shortest, longest=longest, length=length)
    return README.format(**values, padding=length - 4)


# By the compatibility guarantees of jax.export.
EXPIRY = (
    "model.stablehlo expires: jax {jax} exported it, and only versions of jax that are released up "
    "to six months later are sure to read it; export again after that"
)
README = """# A compiled encoder

`model.stablehlo` is a function of weights and token ids, for any batch size and {shortest} to
{longest} tokens per row; `model.safetensors` holds the weights. jax and safetensors are all that
it needs:

```python
import jax, numpy as np
from safetensors.numpy import load_file

function = jax.export.deserialize(open("model.stablehlo", "rb").read())
weights = load_file("model.safetensors")
tokens = np.array([[2, 11, 12, 3] + [0] * {padding}], np.int32)  # ids of the tokenizer
mask = np.array([[1, 1, 1, 1] + [0] * {padding}], np.int32)  # 1 where there is a token
outputs = function.call(weights, tokens, mask, np.zeros_like(tokens))
outputs["hidden"]  # [1, {length}, width]
```

`signature.json` lists arguments and results. The tokenizer in the same folder turns text into ids
(open it with `tokenizers` or `transformers`). The outputs of a fine-tuned model have the name of
its head: `label` (logits or, for regression, the number; for multiple choice the score of each
option, one option per row), `tag`, or `span`. For joint spans `types` must be 1 in the document.

## It expires

jax {jax} exported `model.stablehlo`. jax guarantees to read an export in versions that are released
up to six months after the one that made it (and in versions up to three weeks older); a later jax
may refuse it. Keep the run folder or a Hugging Face export, and export again by then.
`model.safetensors` does not expire.
"""
