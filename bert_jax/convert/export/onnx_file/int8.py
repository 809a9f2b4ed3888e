"""Weights of 8 bits: one scale per output channel of a matrix and per row of the word table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.config import Encoder
from bert_jax.convert.export.onnx_file.check import (
    BYTES,
    Rows,
    largest_width,
    open_session,
    row_bytes,
    run,
    token_outputs,
)
from bert_jax.utils.text_lines import read_lines

logger = logging.getLogger(__name__)

MAX_LINES = 1000  # that are compared, taken evenly over the text
BATCH = 16


def quantize_words(params: Any, head: str) -> Any:
    """The parameters with a word table of 8 bits and a scale per row. With the masked-word head the
    table stays as it is, since the logits are products with it."""
    if head == "mlm":
        return params
    table = params["embeddings"]["word"]
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
    rest = {k: v for k, v in params["embeddings"].items() if k != "word"}
    words = {"word_int8": np.rint(table / scale).astype(np.int8), "word_scale": scale}
    return {**params, "embeddings": {**rest, **words}}


def write_int8(
    out: Path, session: Any, tokenizer: Any, encoder: Encoder, text: Path
) -> list[tuple[str, str]]:
    """Quantize `unquantized.onnx` in `out` to `model_quantized.onnx`, and compare it with the
    float32 model, which `session` has open, on the lines of a text. Returns rows of a table.

    ValueError: a text without lines.
    """
    rows, long = _text_rows(tokenizer, encoder, text)
    file = out / "model_quantized.onnx"
    _quantize(out / "unquantized.onnx", file)
    for path in out.glob("unquantized.onnx*"):
        path.unlink()
    outputs = _compare_outputs(session, open_session(file), rows, encoder)
    sizes = [_megabytes(out, name) for name in ("model", "model_quantized")]
    cut = f", {long} of them cut to {encoder.max_length} tokens" if long else ""
    table = [
        ("int8 lines", f"{len(rows)} of {text.name}{cut}"),
        ("int8 size", f"{sizes[1]:.1f} MB, float32 {sizes[0]:.1f} MB"),
        *_summary(outputs),
    ]
    for name, value in table:
        logger.info("%s: %s", name, value)
    return table


def _quantize(source: Path, file: Path) -> None:
    """Dynamic quantization: activations are quantized as they come, one scale per tensor."""
    from onnxruntime.quantization import (  # type: ignore[import-not-found]
        QuantType,
        quantize_dynamic,
    )

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a pre-processing that is of no use here
    try:
        quantize_dynamic(
            source,
            file,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
            use_external_data_format=(source.parent / f"{source.name}_data").exists(),
        )
    finally:
        root.setLevel(level)


def lines_to_compare(text: Path) -> list[str]:
    """Up to `MAX_LINES` lines. ValueError: a file that cannot be read, or without lines."""
    lines = [line for line in read_lines(text) if line.strip()]
    if not lines:
        raise ValueError(f"{text} has no lines: --int8 compares the outputs of texts, one per line")
    return lines[:: -(-len(lines) // MAX_LINES)]


def _text_rows(tokenizer: Any, encoder: Encoder, text: Path) -> tuple[list[list[int]], int]:
    """The tokens of up to `MAX_LINES` lines, and how many of them were cut."""
    lines = lines_to_compare(text)
    rows = [tokenizer.build_row(ids)[0] for ids in tokenizer.encode_batch(lines)]
    cut = [len(row) > encoder.max_length for row in rows]
    short = [
        [*row[: encoder.max_length - 1], row[-1]] if is_cut else row
        for row, is_cut in zip(rows, cut, strict=True)
    ]
    return short, sum(cut)


def _compare_outputs(a: Any, b: Any, rows: list[list[int]], encoder: Encoder) -> np.ndarray:
    """Per line the cosine of the two sessions' outputs, [n]; where an output is one number, whose
    cosine says nothing, the two numbers, [n 2]."""
    choice_axis = 1 if len(a.get_inputs()[0].shape) == 3 else None
    per_token, longest = token_outputs(a), max(map(len, rows))
    size = max(1, min(BATCH, BYTES // row_bytes(encoder, largest_width(a), longest)))
    compared: list[Any] = []
    for start in range(0, len(rows), size):
        batch = _pad(rows[start : start + size], encoder.pad_id)
        x, y = (run(session, batch, choice_axis) for session in (a, b))
        for i in range(len(batch.tokens)):
            u, v = (_vector(out, i, batch.mask[i] > 0, per_token) for out in (x, y))
            compared.append((u[0], v[0]) if u.size == 1 else _cosine(u, v))
    return np.array(compared)


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    length = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / length) if length else 1.0


def _summary(outputs: np.ndarray) -> list[tuple[str, str]]:
    """Rows of a table for the result of `_compare_outputs`."""
    if outputs.ndim == 2:
        exact, quantized = outputs.T
        difference = np.abs(exact - quantized).max()
        spread = f"float32 outputs from {exact.min():.4g} to {exact.max():.4g}"
        return [("int8 largest difference", f"{difference:.4g}, {spread}")]
    return [
        ("int8 mean cosine", f"{outputs.mean():.4f}"),
        ("int8 lowest cosine", f"{outputs.min():.4f}"),
    ]


def _pad(rows: list[list[int]], pad_id: int) -> Rows:
    length = max(map(len, rows))
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, 1
    return Rows(tokens, mask, np.zeros_like(tokens))


def _vector(
    out: dict[str, np.ndarray], i: int, real: np.ndarray, per_token: set[str]
) -> np.ndarray:
    """What is compared of row i, whose tokens are at `real`: its sentence vector, the mean of its
    hidden states, or all logits, those `per_token` at its tokens."""
    if "sentence_embedding" in out:
        return out["sentence_embedding"][i]
    if "last_hidden_state" in out:
        return out["last_hidden_state"][i, real].mean(axis=0)
    parts = {name: x[i] for name, x in out.items() if not name.endswith("_index")}
    parts = {name: x[real] if name in per_token else x for name, x in parts.items()}
    flat = np.concatenate([np.ravel(x) for x in parts.values()])
    return np.where(flat > -1e20, flat, 0.0)


def _megabytes(out: Path, name: str) -> float:
    return sum(p.stat().st_size for p in out.glob(f"{name}.onnx*")) / 1e6
