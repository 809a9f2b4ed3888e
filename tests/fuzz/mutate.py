"""Valid files made wrong, a little at a time: strategies of hypothesis, so that a failure
shrinks to the edits that matter.

An edit is a name and two numbers that say where, as shares of what is there; the same edit has
a meaning for every file.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from typing import Any

import zstandard
from hypothesis import strategies as st

from .targets import CUT, Target

Edit = tuple[str, int, int]
FULL = 1 << 16  # positions are shares of it
LONGEST = 1 << 18  # bytes of an input

# pieces of JSON as they stand in a file
VALUES = (
    "null", "true", "0", "-1", "1.5", "NaN", "-Infinity", "1e400", "9" * 5000,
    str(1 << 31), str(1 << 63), str(10**30),
    '""', '"1"', '" "', '"\\ud800"', '"\\u0000"', '"\\ufeff"', '"../x"', "[]", "{}",
    "[[1]]", '{"a": 1}', '"' + "a" * 3000 + '"', '"[MASK]"', '["a", 1, null]', '"\\u2028"',
    "[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 2000,
)  # fmt: skip
BYTES = (
    b"\xef\xbb\xbf", b"\x00", b"\r\n", b"\n", b"\n\n", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\t",
    b"\xe2\x80\xa8", b"\x1c", b"\x85", b" ", b'"', b"\\", b",", b"{", b"[", b"-", b"\xff\xfe",
    b"9" * 400, b"a" * 5000, b"\xf4\x90\x80\x80", b"\xcc\x81", b"\xf0\x9f\x98\x80", b"[MASK]",
    b"[UNK]",
)  # fmt: skip
BYTE_OPS = ("flip", "set", "drop", "cut", "insert", "insert", "again", "crlf")
JSON_OPS = ("value", "value", "remove", "rename", "wrap", "copy", "move", "more", "again")
LINE_OPS = ("remove", "again", "move", "cell", "cell", "less", "more")


def edits(ops: Sequence[str], max_edits: int) -> st.SearchStrategy[list[Edit]]:
    at = st.integers(0, FULL - 1)
    return st.lists(st.tuples(st.sampled_from(ops), at, at), max_size=max_edits)


def mutated(shape: str, data: bytes) -> st.SearchStrategy[bytes]:
    """The file with a few edits of its shape, and now and then of its bytes."""
    fine = {"json": JSON_OPS, "jsonl": JSON_OPS, "safetensors": JSON_OPS}
    shaped = edits(fine.get(shape, LINE_OPS), 0 if shape == "bytes" else 4)
    coarse = st.one_of(st.just([]), st.just([]), edits(BYTE_OPS, 3))
    return st.builds(
        lambda a, b: in_bytes(SHAPES[shape](data, a), b)[:LONGEST],
        shaped,
        edits(BYTE_OPS, 6) if shape == "bytes" else coarse,
    )


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Any of the target's seeds, each of its files mutated."""
    return st.one_of([_parts(target, parts) for parts in target.seeds()])


def _parts(target: Target, parts: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    parts_of_files = [mutated(shape, p) for (_, shape), p in zip(target.files, parts, strict=True)]
    return st.tuples(*parts_of_files).map(CUT.join)


# ---- bytes


def in_bytes(data: bytes, todo: Sequence[Edit]) -> bytes:
    for op, a, b in todo:
        at, length = a * (len(data) + 1) // FULL, 1 + b % 64
        if op == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << b % 8)]) + data[at + 1 :]
        elif op == "set":
            data = data[:at] + bytes([b % 256]) + data[at + 1 :]
        elif op == "drop":
            data = data[:at] + data[at + length :]
        elif op == "cut":
            data = data[:at]
        elif op == "insert":
            data = data[:at] + BYTES[b % len(BYTES)] + data[at:]
        elif op == "again":
            data = data[:at] + data[at : at + length] * (1 + b % 50) + data[at:]
        elif op == "crlf":
            data = data.replace(b"\n", b"\r\n")
    return data


# ---- JSON


def in_json(data: bytes, todo: Sequence[Edit]) -> bytes:
    if not todo:
        return data
    root = [json.loads(data)]
    for edit in todo:
        _edit(root, *edit)
    text = json.dumps(root[0] if root else None)
    for number, value in enumerate(VALUES):
        text = text.replace(f'"<{number}>"', value)
    return text.encode()


def _edit(root: list[Any], op: str, a: int, b: int) -> None:
    places = list(_places(root))
    if not places:
        return
    inside, key = places[a * len(places) // FULL]
    value = f"<{b % len(VALUES)}>"  # json.dumps could not write some of them
    other, other_key = places[b * len(places) // FULL]
    if op == "value":
        inside[key] = value
    elif op == "remove":
        del inside[key]
    elif op == "rename" and isinstance(inside, dict):
        inside[str(key)[: b % 8] + "x"] = inside.pop(key)
    elif op == "wrap":
        inside[key] = [inside[key]] if b % 2 else {"a": inside[key]}
    elif op == "copy":
        inside[key] = _copied(other[other_key])
    elif op == "move":
        inside[key], other[other_key] = _copied(other[other_key]), _copied(inside[key])
    elif op == "more":
        if isinstance(inside, dict):
            inside[f"{key}x"] = value
        else:
            inside.insert(key, value)
    elif op == "again" and isinstance(inside, list):
        inside[key:key] = [_copied(inside[key])] * (1 + b % 5)


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _places(node: Any) -> Any:
    """(container, key) of every node, from the outside in."""
    keys = range(len(node)) if isinstance(node, list) else list(node)
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def in_jsonl(data: bytes, todo: Sequence[Edit]) -> bytes:
    lines = data.splitlines()
    for edit in todo:
        at = edit[2] * len(lines) // FULL
        with contextlib.suppress(ValueError, RecursionError):  # it was made wrong before
            lines[at] = in_json(lines[at], [edit])
    return b"\n".join(lines) + b"\n"


def in_safetensors(data: bytes, todo: Sequence[Edit]) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = in_json(data[8 : 8 + size], todo)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


# ---- lines, and cells of them


def in_lines(data: bytes, todo: Sequence[Edit]) -> bytes:
    lines = data.split(b"\n")
    for op, a, b in todo:
        if not lines:
            break
        at, other = a * len(lines) // FULL, b * len(lines) // FULL
        cells = lines[at].split(b"\t")
        if op == "remove":
            del lines[at]
        elif op == "again":
            lines[at:at] = [lines[at]] * (1 + b % 20)
        elif op == "move":
            lines[at], lines[other] = lines[other], lines[at]
        elif op == "cell":
            cells[b % len(cells)] = (BYTES + tuple(v.encode() for v in VALUES[:20]))[
                b // len(cells) % (len(BYTES) + 20)
            ]
            lines[at] = b"\t".join(cells)
        elif op == "less":
            lines[at] = b"\t".join(cells[: b % len(cells)])
        elif op == "more":
            lines[at] = b"\t".join([*cells, *cells[: 1 + b % 3]])
    return b"\n".join(lines)


def _packed(compress: Callable[[bytes], bytes]) -> Callable[[bytes, Sequence[Edit]], bytes]:
    return lambda data, todo: compress(in_lines(data, todo))


SHAPES: dict[str, Callable[[bytes, Sequence[Edit]], bytes]] = {
    "bytes": lambda data, _: data,
    "lines": in_lines,
    "json": in_json,
    "jsonl": in_jsonl,
    "safetensors": in_safetensors,
    "gz": _packed(lambda data: gzip.compress(data, mtime=0)),
    "bz2": _packed(bz2.compress),
    "xz": _packed(lzma.compress),
    "zst": _packed(lambda data: zstandard.compress(data)),
}
