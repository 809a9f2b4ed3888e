"""Weights of 8 bits: one scale per output channel of a matrix and per row of the word table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.config import Encoder
from bert_jax.convert.export.onnx_file.check import Rows, open_session, run
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
    cosines = _cosines(session, open_session(file), rows, encoder)
    sizes = [_megabytes(out, name) for name in ("model", "model_quantized")]
    cut = f", {long} of them cut to {encoder.max_length} tokens" if long else ""
    table = [
        ("int8 lines", f"{len(rows)} of {text.name}{cut}"),
        ("int8 size", f"{sizes[1]:.1f} MB, float32 {sizes[0]:.1f} MB"),
        ("int8 mean cosine", f"{cosines.mean():.4f}"),
        ("int8 lowest cosine", f"{cosines.min():.4f}"),
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


def _text_rows(tokenizer: Any, encoder: Encoder, text: Path) -> tuple[list[list[int]], int]:
    """The tokens of up to `MAX_LINES` lines, and how many of them were cut."""
    lines = [line for line in read_lines(text) if line.strip()]
    if not lines:
        raise ValueError(f"{text} has no lines: --int8 compares the outputs of texts, one per line")
    lines = lines[:: -(-len(lines) // MAX_LINES)]
    rows = [tokenizer.build_row(ids)[0] for ids in tokenizer.encode_batch(lines)]
    cut = [len(row) > encoder.max_length for row in rows]
    short = [
        [*row[: encoder.max_length - 1], row[-1]] if is_cut else row
        for row, is_cut in zip(rows, cut, strict=True)
    ]
    return short, sum(cut)


def _cosines(a: Any, b: Any, rows: list[list[int]], encoder: Encoder) -> np.ndarray:
    """Per line: the cosine of the two sessions' outputs."""
    cosines = []
    choice_axis = 1 if len(a.get_inputs()[0].shape) == 3 else None
    for start in range(0, len(rows), BATCH):
        batch = _pad(rows[start : start + BATCH], encoder.pad_id)
        x, y = (_vectors(run(session, batch, choice_axis), batch.mask) for session in (a, b))
        for u, v in zip(x, y, strict=True):
            length = np.linalg.norm(u) * np.linalg.norm(v)
            cosines.append(float(u @ v / length) if length else 1.0)
    return np.array(cosines)


def _pad(rows: list[list[int]], pad_id: int) -> Rows:
    length = max(map(len, rows))
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, 1
    return Rows(tokens, mask, np.zeros_like(tokens))


def _vectors(out: dict[str, np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    """What is compared of each row: its sentence vector, the mean of its hidden states, or all
    logits at its tokens."""
    if "sentence_embedding" in out:
        return list(out["sentence_embedding"])
    if "last_hidden_state" in out:
        sizes = mask.sum(axis=1, keepdims=True)
        return list((out["last_hidden_state"] * mask[..., None]).sum(axis=1) / sizes)
    floats = [x for name, x in out.items() if not name.endswith("_index")]
    vectors = []
    for i, real in enumerate(mask > 0):
        parts = [x[i] for x in floats]
        parts = [p[real] if p.shape[:1] == real.shape else p for p in parts]
        flat = np.concatenate([np.ravel(p) for p in parts])
        vectors.append(np.where(flat > -1e20, flat, 0.0))
    return vectors


def _megabytes(out: Path, name: str) -> float:
    return sum(p.stat().st_size for p in out.glob(f"{name}.onnx*")) / 1e6
