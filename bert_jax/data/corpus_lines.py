"""Read the lines of a file of a corpus, which may be compressed; memory does not grow with it.

A line ends at a line feed, at a carriage return, or at both, as in Python's text files. One that is
longer than a limit is split. Bytes that are not UTF-8 are replaced and counted, or refused.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from bert_jax.data.text_formats import check_first_bytes

# Of a Zstandard file, read at a time. Their data, which may be 30,000 times as long, is in memory.
ZSTD_READ_BYTES = 512


class Line(NamedTuple):
    """A line, with the characters that end it."""

    text: str
    replaced_bytes: int  # bytes that were not UTF-8, each replaced by U+FFFD
    number: int  # from 1; the parts of a line that is split have the same


def read_lines(file: str, strict: bool, longest: int) -> Iterator[Line]:
    """The lines of a file. One of more than `longest` bytes is split, at a space if it has any.
    `strict` refuses bytes that are not UTF-8. ValueError: the file cannot be read; the reason."""
    try:
        with _open(file) as f:
            number, begun = 1, False
            for raw in _split_lines(f, longest):
                if not begun:
                    check_first_bytes(raw, file)
                    _refuse_utf16(raw, file)
                    _refuse_nul(raw, file)
                    raw, begun = raw.removeprefix(codecs.BOM_UTF8), True
                yield decode(raw, number, file, strict)
                number += raw.endswith((b"\n", b"\r"))
    except (ValueError, MemoryError):
        raise
    except Exception as e:  # each format raises its own kind
        raise ValueError(f"{file} cannot be read: {_reason(e, file)}") from e


def _reason(e: Exception, file: str) -> str:
    """Why a file cannot be read, and what to do."""
    if isinstance(e, OSError) and e.strerror:  # of the system; those of a format have none
        return f"{e.strerror}; check the file and its disk"
    if "too much memory" in str(e):
        return (
            "its window is above 128 MiB, as after zstd --long; decompress it first, with "
            f"zstd -d --long=31 {file}"
        )
    return f"{e}; check that the file's format matches its name"


def split_at_byte_limit(text: str, longest: int) -> Iterator[str]:
    """The parts of a line without its end that a plain file of it would be split into."""
    if 4 * len(text) < longest or len(text.encode()) < longest:
        yield text
    else:
        yield from (raw.decode() for raw in _split_lines(io.BytesIO(text.encode()), longest))


def _open(file: str) -> BinaryIO:
    name = file.lower()
    if name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(file))
    if name.endswith(".bz2"):
        return cast(BinaryIO, bz2.open(file))
    if name.endswith(".xz"):
        return cast(BinaryIO, lzma.open(file))
    if name.endswith(".zst"):
        raw = open(file, "rb")  # noqa: SIM115, closed with its reader
        return cast(BinaryIO, io.BufferedReader(_ZstdReader(raw), 1 << 16))
    return open(file, "rb")


class _ZstdReader(io.RawIOBase):
    """The data of a Zstandard file of one or more frames. EOFError: the last frame is incomplete,
    which zstandard's own reader takes for the end of the file."""

    def __init__(self, file: BinaryIO):
        import zstandard

        self._file, self._decompressor = file, zstandard.ZstdDecompressor()
        self._frame: Any = None  # that has begun and not ended
        self._compressed = b""  # that was read and belongs to the next frame
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._data:
            if not self._decompress():
                return 0
        size = min(len(buffer), len(self._data))
        buffer[:size], self._data = self._data[:size], self._data[size:]
        return size

    def _decompress(self) -> bool:
        """Decompress the next bytes of the file; False at its end."""
        compressed = self._compressed or self._file.read(ZSTD_READ_BYTES)
        if not compressed:
            if self._frame is not None:
                raise EOFError("Compressed file ended before the end of its last frame")
            return False
        self._frame = self._frame or self._decompressor.decompressobj()
        self._data = memoryview(self._frame.decompress(compressed))
        self._compressed = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _refuse_utf16(start: bytes, file: str) -> None:
    """UTF-8 never begins with the byte-order mark of UTF-16 or UTF-32, and nothing of such a text
    would be left."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise ValueError(
            f"{file} begins with the byte-order mark of UTF-16 or UTF-32: expected UTF-8; convert "
            f"it: iconv -f UTF-16 -t UTF-8 {file}"
        )


def _refuse_nul(start: bytes, file: str) -> None:
    """Text of UTF-16 without a byte-order mark is UTF-8 where all letters are below U+0080 or in
    scripts such as Cyrillic."""
    if b"\0" in start[:4096]:
        raise ValueError(
            f"{file} begins with NUL bytes: expected UTF-8 text; if it is UTF-16, convert it: "
            f"iconv -f UTF-16LE -t UTF-8 {file}"
        )


def _split_lines(f: BinaryIO, longest: int) -> Iterator[bytes]:
    """Yield lines; split lines that are longer than the limit."""
    rest = b""
    while raw := f.readline(longest):
        raw, rest = rest + raw, b""
        if not raw.endswith(b"\n") and len(raw) >= longest:
            cut = _cut_position(raw)
            raw, rest = raw[:cut], raw[cut:]
        yield from _split_at_returns(raw)
    if rest:
        yield from _split_at_returns(rest)


def _split_at_returns(raw: bytes) -> Iterator[bytes]:
    """The lines of `raw`, which has a line feed at its end at most."""
    if b"\r" in raw.rstrip(b"\r\n"):
        yield from raw.splitlines(keepends=True)  # of bytes: at \n, \r and \r\n alone
    else:
        yield raw


def _cut_position(raw: bytes) -> int:
    """The position after the last carriage return or space, or if there is none before the last
    character, which may be incomplete."""
    last = len(raw) - 1  # a carriage return there may be half of a line's end
    if cut := max(raw.rfind(b"\r", 0, last), raw.rfind(b" ")) + 1:
        return cut
    first_bytes = (len(raw) - i for i in range(1, 5) if raw[-i] & 0xC0 != 0x80)
    return next(first_bytes, len(raw))


def decode(raw: bytes, number: int, file: str, strict: bool, unit: str = "line") -> Line:
    """A line or another `unit` of UTF-8 as text. ValueError: `strict`, and a byte is not UTF-8."""
    try:
        return Line(raw.decode(), 0, number)
    except UnicodeDecodeError as e:
        if strict:
            raise ValueError(
                f"{file}, {unit} {number}, byte {e.start + 1}: 0x{raw[e.start]:02x} is not UTF-8; "
                "convert the file, or remove --strict to replace such bytes"
            ) from e
    text = raw.decode(errors="surrogateescape")  # one lone surrogate per bad byte
    replaced = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in text)
    return Line(replaced, sum("\udc80" <= c <= "\udcff" for c in text), number)
