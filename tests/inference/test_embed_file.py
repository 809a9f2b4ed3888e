"""`embed`: what is refused while vectors are written, and the space that they take."""

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from bert_jax.config import Encoder
from bert_jax.inference.embed_file import EmbedOptions, embed_file
from bert_jax.inference.features import Pool
from bert_jax.utils import io

MODEL: Any = SimpleNamespace(config=SimpleNamespace(encoder=Encoder()))


@dataclass(frozen=True)
class NanOptions(EmbedOptions):
    """Options of a model whose features are NaN."""

    pool: Pool | Literal["default"] = "mean"

    def resolve(self, model: Any) -> EmbedOptions:
        return self

    def check_lengths(self, model: Any, texts: Sequence[str], file: Path, begin: int) -> int:
        return 0

    def encode(self, model: Any, texts: Sequence[str]) -> Any:
        if self.pool == "mean":
            return np.full((1, len(texts), 4), np.nan, np.float32)
        return [np.full((1, 3, 4), np.nan, np.float32) for _ in texts]


@pytest.mark.parametrize("pool", ["mean", None])
def test_features_that_are_nan_are_refused_and_leave_no_file(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a\nb\n")
    with pytest.raises(ValueError, match="outputs are not numbers"):
        embed_file(MODEL, tmp_path / "texts", tmp_path / "x.npz", NanOptions(pool=pool))
    assert [p.name for p in tmp_path.iterdir()] == ["texts"]


@dataclass(frozen=True)
class FirstOptions(NanOptions):
    """Options of a command that cannot compute more than the first chunk."""

    def encode(self, model: Any, texts: Sequence[str]) -> Any:
        assert texts[0] == "a"
        assert len(texts) == 4096
        object.__setattr__(self, "encode", None)
        return np.zeros((1, len(texts), 4), np.float32)


@dataclass(frozen=True)
class StoppedOptions(NanOptions):
    """Options of a command that gets SIGTERM while it computes."""

    def encode(self, model: Any, texts: Sequence[str]) -> Any:
        signal.raise_signal(signal.SIGTERM)


def test_sigterm_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a\nb\n")
    with pytest.raises(SystemExit):
        embed_file(MODEL, tmp_path / "texts", tmp_path / "x.npz", StoppedOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["texts"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("pool", "layers", "line", "expected"),
    [
        ("mean", (-1,), "a " * 400, [200]),
        (None, (-1,), "a " * 400, [170, 30]),  # 170 full texts of BERT-base are 268 MB
        ("words", tuple(range(13)), "a " * 400, [13] * 15 + [5]),
        ("words", (-1,), "a", [200]),
    ],
)
def test_features_of_every_token_are_computed_of_fewer_long_texts_at_a_time(
    pool: Pool, layers: tuple[int, ...], line: str, expected: list[int], tmp_path: Path
) -> None:
    encoder = Encoder(layers=12, hidden_size=768, heads=12, max_length=512)
    (tmp_path / "texts").write_text(f"{line}\n" * 200)
    options = EmbedOptions(pool=pool, layers=layers)
    assert [len(chunk) for chunk in options.chunks(tmp_path / "texts", encoder)] == expected


def test_a_disk_without_room_for_the_archive_is_found_before_the_last_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io, "free_bytes", lambda _: 100)
    (tmp_path / "texts").write_text("a\nb\n" * 4096)
    with pytest.raises(OSError, match=r"No space left on device: .*x.npz"):
        embed_file(MODEL, tmp_path / "texts", tmp_path / "x.npz", FirstOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["texts"]


def test_the_space_of_vectors_is_reserved_before_they_are_written(tmp_path: Path) -> None:
    array = io.new_npy(tmp_path / "x.npy", (1000, 100))
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= array.nbytes
    array[:] = 1
    assert (np.load(tmp_path / "x.npy") == 1).all()


def test_a_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        def fallocate(*_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "posix_fallocate", fallocate)

    fail(errno.ENOSPC)
    with pytest.raises(OSError, match=r"No space left on device: .*x.npy"):
        io.new_npy(tmp_path / "x.npy", (3, 2))
    fail(errno.EOPNOTSUPP)  # a file system that cannot reserve
    assert io.new_npy(tmp_path / "x.npy", (3, 2)).shape == (3, 2)
