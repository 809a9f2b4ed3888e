"""Export models trained here to transformers, and compare the outputs.

    python benchmarks/trained_parity.py RUN... --text FILE [--lines 64]

Compares for each run folder the token ids of every line, then the hidden states of every layer and
the logits of every trained head, on lines and on pairs of consecutive lines. Prints the largest
difference over the largest entry. Exit status 1 if ids differ or a difference is above 1e-5. Needs
torch and transformers.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers

import bert_jax
from bert_jax import config
from bert_jax.convert.export import export_model
from bert_jax.model import Network

Rows = list[tuple[list[int], int]]


def build_rows(model: Any, lines: list[str]) -> Rows:
    """(ids, tokens of segment 0) of each line, and of each line with the next."""
    max_length = model.config.encoder.max_length
    encoded = model.tokenizer.encode_batch(lines)
    single = [model.tokenizer.build_row(ids[: max_length - 2]) for ids in encoded]
    half = (max_length - 4) // 2
    pairs = itertools.pairwise(encoded)
    return single + [model.tokenizer.build_row(a[:half], b[:half]) for a, b in pairs]


def count_different_ids(model: Any, tokenizer: Any, lines: list[str]) -> int:
    hf = tokenizer(lines, add_special_tokens=False)["input_ids"]
    native = model.tokenizer.encode_batch(lines)
    return sum(list(a) != list(b) for a, b in zip(native, hf, strict=True))


def native_outputs(
    network: Network, params: Any, rows: Rows, pad: int
) -> tuple[dict[str, Any], Any]:
    """The outputs of a network, with every position as a masked one, and the batch."""
    length = max(len(ids) for ids, _ in rows)
    tokens = np.full((len(rows), length), pad, np.int32)
    for i, (ids, _) in enumerate(rows):
        tokens[i, : len(ids)] = ids
    size = np.array([len(ids) for ids, _ in rows], np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    zero = np.zeros_like(tokens)
    batch = {
        "tokens": tokens,
        "size": size,
        "first": np.array([first for _, first in rows], np.int32),
        "masked": positions,
        **dict.fromkeys(("left", "right", "offset"), zero),
    }
    keeping = Network(network.config, network.heads, network.dtype, return_layers=True)
    out: Any = keeping.apply({"params": params}, {k: jnp.asarray(v) for k, v in batch.items()})
    outputs = {f"layer {i}": np.asarray(h) for i, h in enumerate(out["layers"])}
    if "mlm" in out:
        head = out["mlm"]
        outputs["mlm"] = np.asarray(head.logits(params["embeddings"]["word"]))
    outputs |= {name: np.asarray(out[name]) for name in ("pair", "rtd") if name in out}
    return outputs, batch


@torch.no_grad()
def hf_outputs(folder: Path, batch: Any, heads: set[str]) -> dict[str, Any]:
    positions = np.arange(batch["tokens"].shape[1])
    real, second = positions < batch["size"][:, None], positions >= batch["first"][:, None]
    inputs = {"input_ids": batch["tokens"], "attention_mask": real, "token_type_ids": second & real}
    settings = transformers.AutoConfig.from_pretrained(folder)
    if settings.model_type == "roberta":
        inputs.pop("token_type_ids")
    tensors = {k: torch.tensor(v, dtype=torch.long) for k, v in inputs.items()}
    model = getattr(transformers, settings.architectures[0]).from_pretrained(folder).eval()
    out = model(**tensors, output_hidden_states=True)
    outputs = {f"layer {i}": h.numpy() for i, h in enumerate(out.hidden_states)}
    logits = {"mlm": "prediction_logits", "pair": "seq_relationship_logits", "rtd": "logits"}
    if settings.model_type == "albert":
        logits["pair"] = "sop_logits"
    if len(heads) == 1:
        logits = dict.fromkeys(heads, "logits")
    return outputs | {name: getattr(out, logits[name]).numpy() for name in heads}


def compare_run(run: Path, lines: list[str]) -> tuple[int, dict[str, float]]:
    """The number of lines with different ids, and the largest relative difference per output."""
    model = bert_jax.load(run)
    electra = isinstance(model.config.objective, config.ReplacedTokens)
    parts = ("generator", "discriminator") if electra else (None,)
    different_lines, differences = 0, {}
    for part in parts:
        networks = {
            "generator": model.objective.mask_filler,
            "discriminator": model.objective.encoder,
        }
        network, params = networks[part or "discriminator"](model.params)
        rows, pad = build_rows(model, lines), model.config.encoder.pad_id
        native, batch = native_outputs(network, params, rows, pad)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "hf"
            export_model(model, str(run), "hf", str(folder), part)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            different_lines += count_different_ids(model, tokenizer, lines)
            hf = hf_outputs(folder, batch, {h for h in ("mlm", "pair", "rtd") if h in native})
        real = np.arange(batch["tokens"].shape[1]) < batch["size"][:, None]
        for name, a in native.items():
            a, b = (x if name == "pair" else x[real] for x in (a, hf[name]))
            output = "hidden" if name.startswith("layer") else name
            difference = float(np.abs(a - b).max() / np.abs(b).max())
            key = output if part is None else f"{part} {output}"
            differences[key] = max(difference, differences.get(key, 0.0))
    return different_lines, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=64)
    args = parser.parse_args()
    text = [line for line in args.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = text[:: max(1, len(text) // args.lines)][: args.lines]
    failed = False
    for run in args.runs:
        different_lines, differences = compare_run(run, lines)
        failed |= different_lines > 0 or max(differences.values()) > 1e-5
        details = "  ".join(f"{name} {value:.1e}" for name, value in differences.items())
        print(f"{run.name}: ids of {different_lines} lines differ; {details}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
