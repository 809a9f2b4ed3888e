"""Models trained here, exported and opened in transformers: how far apart the numbers are.

    python benchmarks/trained_parity.py RUN... --text FILE [--lines 64]

For each run folder: the ids of every line, single and as a pair with the next one, then on these
rows the hidden states of every layer and the logits of every head that was trained, as the
largest difference over the largest entry. Exit status 1 where ids differ or a difference is
above 1e-5. Needs torch and transformers.
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
from bert_jax.objectives.losses import project

Rows = list[tuple[list[int], int]]


def rows_of(model: Any, lines: list[str]) -> Rows:
    """(ids, tokens of segment 0) of each line, and of each with the next."""
    room = model.config.encoder.max_length
    coded = model.tokenizer.encode_batch(lines)
    single = [model.tokenizer.build_row(ids[: room - 2]) for ids in coded]
    half = (room - 4) // 2
    pairs = itertools.pairwise(coded)
    return single + [model.tokenizer.build_row(a[:half], b[:half]) for a, b in pairs]


def ids_differ(model: Any, tokenizer: Any, lines: list[str]) -> int:
    theirs = tokenizer(lines, add_special_tokens=False)["input_ids"]
    ours = model.tokenizer.encode_batch(lines)
    return sum(list(a) != list(b) for a, b in zip(ours, theirs, strict=True))


def ours(network: Network, params: Any, rows: Rows, pad: int) -> tuple[dict[str, Any], Any]:
    """What a network makes of the rows, every token in the place of a masked one."""
    length = max(len(ids) for ids, _ in rows)
    tokens = np.full((len(rows), length), pad, np.int32)
    for i, (ids, _) in enumerate(rows):
        tokens[i, : len(ids)] = ids
    size = np.array([len(ids) for ids, _ in rows], np.int32)
    at = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    zero = np.zeros_like(tokens)
    batch = {
        "tokens": tokens,
        "size": size,
        "first": np.array([first for _, first in rows], np.int32),
        "masked": at,
        **dict.fromkeys(("left", "right", "offset"), zero),
    }
    keeping = Network(network.config, network.heads, network.dtype, keep=True)
    out: Any = keeping.apply({"params": params}, {k: jnp.asarray(v) for k, v in batch.items()})
    made = {f"layer {i}": np.asarray(h) for i, h in enumerate(out["layers"])}
    if "mlm" in out:
        head = out["mlm"]
        made["mlm"] = np.asarray(project(head.features, head.bias, params["embeddings"]["word"]))
    made |= {name: np.asarray(out[name]) for name in ("pair", "rtd") if name in out}
    return made, batch


@torch.no_grad()
def theirs(folder: Path, batch: Any, heads: set[str]) -> dict[str, Any]:
    at = np.arange(batch["tokens"].shape[1])
    real, second = at < batch["size"][:, None], at >= batch["first"][:, None]
    given = {"input_ids": batch["tokens"], "attention_mask": real, "token_type_ids": second & real}
    settings = transformers.AutoConfig.from_pretrained(folder)
    if settings.model_type == "roberta":
        given.pop("token_type_ids")
    named = {k: torch.tensor(v, dtype=torch.long) for k, v in given.items()}
    found = getattr(transformers, settings.architectures[0]).from_pretrained(folder).eval()
    out = found(**named, output_hidden_states=True)
    made = {f"layer {i}": h.numpy() for i, h in enumerate(out.hidden_states)}
    logits = {"mlm": "prediction_logits", "pair": "seq_relationship_logits", "rtd": "logits"}
    if settings.model_type == "albert":
        logits["pair"] = "sop_logits"
    if len(heads) == 1:
        logits = dict.fromkeys(heads, "logits")
    return made | {name: getattr(out, logits[name]).numpy() for name in heads}


def worst(run: Path, lines: list[str]) -> tuple[int, dict[str, float]]:
    """Lines whose ids differ, and the largest relative difference of each output."""
    model = bert_jax.load(run)
    electra = isinstance(model.config.objective, config.ReplacedTokens)
    parts = ("generator", "discriminator") if electra else (None,)
    differ, found = 0, {}
    for part in parts:
        towers = {"generator": model.objective.filler, "discriminator": model.objective.encoder}
        network, params = towers[part or "discriminator"](model.params)
        mine, batch = ours(network, params, rows_of(model, lines), model.config.encoder.pad_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "hf"
            export_model(model, str(run), "hf", str(folder), part)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            differ += ids_differ(model, tokenizer, lines)
            other = theirs(folder, batch, {h for h in ("mlm", "pair", "rtd") if h in mine})
        real = np.arange(batch["tokens"].shape[1]) < batch["size"][:, None]
        for name, a in mine.items():
            a, b = (x if name == "pair" else x[real] for x in (a, other[name]))
            what = "hidden" if name.startswith("layer") else name
            off = float(np.abs(a - b).max() / np.abs(b).max())
            key = what if part is None else f"{part} {what}"
            found[key] = max(off, found.get(key, 0.0))
    return differ, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=64)
    args = parser.parse_args()
    text = [line for line in args.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    lines = text[:: max(1, len(text) // args.lines)][: args.lines]
    bad = False
    for run in args.runs:
        differ, found = worst(run, lines)
        bad |= differ > 0 or max(found.values()) > 1e-5
        listed = "  ".join(f"{name} {off:.1e}" for name, off in found.items())
        print(f"{run.name}: ids of {differ} lines differ; {listed}", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
