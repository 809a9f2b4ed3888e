"""Compare an ONNX file with the network that it was made from, at the shapes at which exports
fail: one token, odd lengths, the longest, with padding and without, one row and several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_jax.config import Encoder
from bert_jax.model.task_heads import MASKED_LOGIT

TOLERANCE = 1e-4  # of an output's largest difference to its largest value
ROWS = 7
ODD_LENGTH = 23
# The largest array of a network, attention weights or logits of the vocabulary:
BYTES = 1 << 30  # up to which several of the longest rows are run
MAX_BYTES = 4 << 30  # and one row

Arrays = dict[str, np.ndarray]
Reference = Callable[[np.ndarray, np.ndarray, np.ndarray], Arrays]  # of tokens, mask, types


class Rows(NamedTuple):
    """Random rows, padded on the right; all [b l]."""

    tokens: np.ndarray
    mask: np.ndarray
    types: np.ndarray

    def part(self, rows: slice, length: int) -> Rows:
        return Rows(*(x[rows, :length] for x in self))


class Parity(NamedTuple):
    """The result of a comparison."""

    difference: float  # the largest relative one
    shapes: list[str]  # that were compared


def open_session(file: Path) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime  # type: ignore[import-not-found]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def check_parity(session: Any, encoder: Encoder, reference: Reference, choice: bool) -> Parity:
    """The differences of all outputs at real tokens. `choice`: the inputs are [b n l].

    ValueError: an output that differs by more than `TOLERANCE`.
    """
    worst, shapes, per_token = 0.0, [], token_outputs(session)
    for rows, lengths in _rows_to_compare(encoder, largest_width(session)):
        expected = reference(*rows)
        for part, length in lengths:
            batch = rows.part(part, length)
            shape = f"{len(batch.tokens)} x {length}"
            for axis in (0, 1) if choice else (None,):
                got = run(session, batch, axis)
                for name, x in got.items():
                    y = expected[name][part]
                    if name.endswith("_index"):
                        scores = got[name.replace("index", "log_probs")]
                        error = _index_difference(x, y, scores)
                    else:
                        error = _difference(x, y, batch.mask if name in per_token else None)
                    worst = max(worst, error)
                    if not error <= TOLERANCE:
                        raise ValueError(
                            f"the ONNX graph's {name} differs from the model's by {error:.1e} at "
                            f"{shape} tokens (at most {TOLERANCE:.0e} was expected), so nothing "
                            "was written: please report this config"
                        )
            shapes.append(shape)
    return Parity(worst, shapes)


def run(session: Any, rows: Rows, choice_axis: int | None = None) -> Arrays:
    """The outputs of rows by name. `choice_axis`: the axis that is added to [b l]; that of the
    outputs is removed."""
    given = {"input_ids": rows.tokens, "attention_mask": rows.mask, "token_type_ids": rows.types}
    names = {i.name for i in session.get_inputs()}
    inputs = {k: v.astype(np.int64) for k, v in given.items() if k in names}
    if choice_axis is not None:
        inputs = {k: np.expand_dims(v, choice_axis) for k, v in inputs.items()}
    outputs = [o.name for o in session.get_outputs()]
    out = dict(zip(outputs, session.run(None, inputs), strict=True))
    return out if choice_axis is None else {k: v.reshape(-1, 1) for k, v in out.items()}


def token_outputs(session: Any) -> set[str]:
    """The names of the outputs [b l ...]. Only the file says so: there may be as many labels as
    tokens in a row."""
    return {o.name for o in session.get_outputs() if o.shape[1:2] == ["sequence_length"]}


def largest_width(session: Any) -> int:
    """The numbers per token of the widest output [b l ...]."""
    shapes = [o.shape for o in session.get_outputs() if o.name in token_outputs(session)]
    return max((shape[2] for shape in shapes if len(shape) == 3), default=1)


def row_bytes(encoder: Encoder, width: int, length: int) -> int:
    """The larger of a row's attention weights and of its output of `width` numbers per token."""
    return 4 * length * max(encoder.heads * length, width)


def _rows_to_compare(
    encoder: Encoder, width: int
) -> Iterator[tuple[Rows, list[tuple[slice, int]]]]:
    """Rows for one call of the reference, and the parts of them for calls of the file. `width`:
    the numbers per token of the widest output."""
    odd, longest = min(ODD_LENGTH, encoder.max_length), encoder.max_length
    while row_bytes(encoder, width, longest) > MAX_BYTES:
        longest //= 2
    sizes = np.linspace(odd, 1, ROWS).astype(int)
    first = slice(0, 1)
    one, several = slice(ROWS, ROWS + 1), slice(ROWS, None)
    yield (
        _random_rows(encoder, np.append(sizes, [1] * ROWS), odd),
        [(first, odd), (slice(0, ROWS), odd), (one, 1), (several, 1)],
    )
    if longest > odd:
        count = ROWS if ROWS * row_bytes(encoder, width, longest) <= BYTES else 1
        sizes = np.linspace(longest, longest // 3, count).astype(int)
        parts = [(first, longest), *([(slice(0, ROWS), longest)] if count > 1 else [])]
        yield _random_rows(encoder, sizes, longest), parts


def _random_rows(encoder: Encoder, sizes: np.ndarray, length: int) -> Rows:
    rng, at = np.random.default_rng(0), np.arange(length)
    mask = (at < sizes[:, None]).astype(np.int32)
    tokens = rng.integers(0, encoder.vocab_size, mask.shape, dtype=np.int32)
    tokens = np.where(mask, tokens, encoder.pad_id).astype(np.int32)
    types = (mask * (at >= sizes[:, None] // 3)).astype(np.int32)
    return Rows(tokens, mask, types)


def _difference(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None) -> float:
    """The largest difference, relative to the largest value; of an output per token with `mask`,
    at real tokens. Values that mean "impossible" must be so in both. Row by row, since logits of
    a vocabulary may fill the memory."""
    y = y[tuple(slice(n) for n in x.shape)]  # a shorter row has fewer candidates for an answer
    if x.shape != y.shape:
        return float("inf")
    largest = difference = np.float32(0)
    for i in range(len(x)):
        u, v = (z[i, mask[i] > 0] if mask is not None else z[i : i + 1] for z in (x, y))
        masked = v <= MASKED_LOGIT / 2
        if (masked != (u <= MASKED_LOGIT / 2)).any():
            return float("inf")
        possible = ~masked
        largest = np.maximum(largest, np.abs(v).max(initial=0, where=possible))
        difference = np.maximum(difference, np.abs(u - v).max(initial=0, where=possible))
    return float(difference / max(largest, 1e-30))


def _index_difference(x: np.ndarray, y: np.ndarray, scores: np.ndarray) -> float:
    """0, or infinity if positions differ whose scores are possible and not nearly equal to the next
    candidate's."""
    y = y[tuple(slice(n) for n in x.shape)]
    gaps = np.abs(
        np.diff(scores, axis=-1, append=scores[..., -1:] - 1, prepend=scores[..., :1] + 1)
    )
    clear = (scores > MASKED_LOGIT / 2) & (np.minimum(gaps[..., 1:], gaps[..., :-1]) > 1e-3)
    return float("inf") if (x != y)[clear].any() else 0.0
