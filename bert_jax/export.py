"""`export`: a model of ours as others can use it, in a folder of its own.

hf         config.json  model.safetensors  tokenizer files  README.md   opens in transformers
orbax      params/  config.json  tokenizer/                             a plain parameter tree
stablehlo  model.stablehlo  model.safetensors  signature.json  tokenizer/  README.md
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import save_file

from bert_jax import config, convert, folders, log, losses
from bert_jax.config import Encoder, Experiment
from bert_jax.model import Network
from bert_jax.trees import named_leaves

Format = Literal["hf", "orbax", "stablehlo"]


class Model(Protocol):
    """What `bert_jax.load` returns, as far as an export goes."""

    @property
    def config(self) -> Experiment: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def step(self) -> int: ...


def export(
    model: Model, folder: str | Path, format: Format, out: str | Path, part: str | None = None
) -> list[str]:
    """Write `model`, which was loaded from `folder`, to `out`; returns the names of parameters
    that the format has no place for.

    `part` is ELECTRA's `discriminator` (unless said) or `generator`. `out` appears when it is
    whole or not at all. ValueError: `out` is not empty, an unknown format, or a model that the
    format cannot hold.
    """
    out = Path(out)
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}: expected {', '.join(FORMATS)}")
    with folders.new_folder(out) as new:
        return FORMATS[format](model, Path(folder), new, part)


# ---- Hugging Face


def _hf(model: Model, folder: Path, out: Path, part: str | None) -> list[str]:
    written, tensors, left_out = convert.to_hf(model.config, model.params, part)
    if written["model_type"] in ("roberta", "albert"):
        written |= {"bos_token_id": model.tokenizer.cls_id, "eos_token_id": model.tokenizer.sep_id}
    _write_json(out / "config.json", written)
    _write_tensors(out / "model.safetensors", tensors)
    copy_tokenizer(folder, out, model.config.encoder.max_length)
    (out / "README.md").write_text(card(model, folder, written, left_out), encoding="utf-8")
    return left_out


def copy_tokenizer(folder: Path, out: Path, longest: int) -> None:
    """The tokenizer of a run, an imported or a Hugging Face folder, file by file. In one that
    was trained here the longest text becomes the model's; others are left as they were."""
    source = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    out.mkdir(exist_ok=True)
    for name in convert.TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if (source / "fingerprint.txt").is_file():  # which only our own `Tokenizer.save` writes
        settings = convert.read_json(out / "tokenizer_config.json")
        _write_json(out / "tokenizer_config.json", settings | {"model_max_length": longest})


def card(model: Model, folder: Path, written: dict[str, Any], left_out: list[str]) -> str:
    """The model card: recipe, data, steps and metrics, as far as the folder knows them."""
    c, kind = model.config, written["architectures"][0]
    reader = next(
        (
            r
            for suffix, r in (
                ("MaskedLM", "AutoModelForMaskedLM"),
                ("PreTraining", "AutoModelForPreTraining"),
            )
            if kind.endswith(suffix)
        ),
        "AutoModel",
    )
    size = f"{written['num_hidden_layers']} layers of width {written['hidden_size']}"
    rows = [("architecture", f"{kind}, {size}"), ("vocabulary", f"{written['vocab_size']} pieces")]
    if c.run.init is not None:
        rows.append(("begun from", Path(c.run.init).name))
    if model.step:
        objective = config.to_dict(c.objective)
        masking = objective.pop("masking", {})
        rows += [
            ("steps", f"{model.step} of {c.run.steps}, {c.data.batch_size} rows each"),
            ("data", f"{Path(c.data.path or c.data.mix or '?').name}, rows of {c.data.length}"),
            ("objective", _listed(objective)),
            ("masking", _listed(masking)),
            ("optimiser", _listed(config.to_dict(c.optim))),
        ]
    rows += [(name, f"{value:.4f}") for name, value in metrics(folder).items()]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    missing = f"\nNot in this export: {', '.join(left_out)}.\n" if left_out else ""
    return (
        f"---\nlibrary_name: transformers\ntags:\n- bert-jax\n- {written['model_type']}\n---\n"
        f"# {Path(c.run.dir).name}\n\n"
        f"{'Trained' if model.step else 'Imported, and exported again,'} with bert-jax.\n\n"
        f"| | |\n|---|---|\n{table}\n{missing}\n"
        f"```python\nfrom transformers import {reader}, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        f'model = {reader}.from_pretrained("FOLDER")\n```\n'
    )


def metrics(folder: Path) -> dict[str, float]:
    """The last evaluation of a run, and the results of a fine-tuning."""
    found: dict[str, float] = {}
    if (folder / "metrics.jsonl").is_file():
        for row in log.read(folder):
            found |= {k: v for k, v in row.items() if k.startswith("eval_")}
    if (folder / "results.json").is_file():
        dev = json.loads((folder / "results.json").read_text(encoding="utf-8")).get("dev", {})
        found |= {f"dev {k}": v for k, v in dev.items()}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items() if v is not None) or "-"


# ---- Orbax


def _orbax(model: Model, folder: Path, out: Path, part: str | None) -> list[str]:
    params = model.params if part is None else convert.part_of(model.config, model.params, part)[2]
    logging.getLogger("absl").setLevel(logging.WARNING)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((out / "params").absolute(), params)
    config.save(model.config, out / "config.json")
    copy_tokenizer(folder, out / "tokenizer", model.config.encoder.max_length)
    return []


# ---- StableHLO


def _stablehlo(model: Model, folder: Path, out: Path, part: str | None) -> list[str]:
    encoder, heads, params = convert.part_of(model.config, model.params, part)
    weights = {k: np.asarray(v) for k, v in named_leaves(params).items()}
    left_out = [k for k in weights if k.split("/")[0] not in {"embeddings", "encoder", *heads}]
    weights = {k: v for k, v in weights.items() if k not in left_out}
    exported = lowered(encoder, heads, weights)
    try:
        (out / "model.stablehlo").write_bytes(exported.serialize())
    except ImportError:
        raise ValueError(
            "jax.export writes its files with flatbuffers, which is not installed: "
            "pip install flatbuffers"
        ) from None
    _write_tensors(out / "model.safetensors", weights)
    _write_json(out / "signature.json", _signature(encoder, exported, weights))
    copy_tokenizer(folder, out / "tokenizer", encoder.max_length)
    (out / "README.md").write_text(PORTABLE, encoding="utf-8")
    return left_out


def lowered(encoder: Encoder, heads: set[str], weights: dict[str, np.ndarray]) -> Any:
    """The network as a portable function of (weights, tokens, mask, types), for any batch size
    and any length up to the model's; the heads answer at every position. Float32, no dropout.
    """
    network = Network(encoder, {h: convert.HEADS[h] for h in convert.HEADS if h in heads})

    def function(
        weights: dict[str, jax.Array], tokens: jax.Array, mask: jax.Array, types: jax.Array
    ) -> dict[str, jax.Array]:
        at = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        batch = {"tokens": tokens, "types": types, "mask": mask[:, None, :] > 0, "masked": at}
        out: Any = network.apply({"params": convert.nest(weights)}, batch)
        if "mlm" in out:
            features, bias = out["mlm"]
            out["mlm"] = losses.project(features, bias, weights["embeddings/word"])
        return {k: v for k, v in out.items() if v is not None}

    longest = f"l <= {encoder.max_length}"
    b, length = jax.export.symbolic_shape("b, l", constraints=[longest])
    ids = jax.ShapeDtypeStruct((b, length), jnp.int32)
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
    export: Callable[..., Any] = jax.export.export(
        jax.jit(function), platforms=("cpu", "cuda", "tpu")
    )
    return export(shapes, ids, ids, ids)


def _signature(encoder: Encoder, exported: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """What goes in and comes out, for readers without jax; weights in the function's order."""
    names = sorted({"hidden"} | {k.split("/")[0] for k in weights} - {"embeddings", "encoder"})
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
        "platforms": list(exported.platforms),
    }


PORTABLE = """# A compiled encoder

`model.stablehlo` is a function of weights and token ids, of any batch size and length;
`model.safetensors` holds the weights. jax and safetensors are all that it needs:

```python
import jax, numpy as np
from safetensors.numpy import load_file

function = jax.export.deserialize(open("model.stablehlo", "rb").read())
weights = load_file("model.safetensors")
tokens = np.array([[2, 11, 12, 3, 0]], np.int32)  # ids of the tokenizer in tokenizer/
mask = np.array([[1, 1, 1, 1, 0]], np.int32)
outputs = function.call(weights, tokens, mask, np.zeros_like(tokens))
outputs["hidden"]  # [1, 5, width]
```

`signature.json` lists arguments and results. Text is turned into ids by the tokenizer beside it
(`tokenizers` or `transformers` open it).
"""

FORMATS: dict[str, Callable[[Model, Path, Path, str | None], list[str]]] = {
    "hf": _hf,
    "orbax": _orbax,
    "stablehlo": _stablehlo,
}


def _write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})  # transformers insists on a format
    path.chmod(0o644)  # the library makes files that only their owner reads


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
