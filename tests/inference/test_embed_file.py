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
from bert_jax.inference.embed_file import EmbedOptions, embed_file, new_npy
from bert_jax.inference.features import Pool

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


def test_features_of_every_token_are_computed_of_fewer_texts_at_a_time() -> None:
    encoder = Encoder(layers=12, hidden_size=768, heads=12, max_length=512)
    assert EmbedOptions(pool="mean").texts_per_chunk(encoder) == 4096
    assert EmbedOptions(pool=None).texts_per_chunk(encoder) == 170  # 268 MB
    assert EmbedOptions(pool="words", layers=tuple(range(13))).texts_per_chunk(encoder) == 13
    assert EmbedOptions(pool="words", layers="words").texts_per_chunk(encoder) == 170


def test_the_space_of_vectors_is_reserved_before_they_are_written(tmp_path: Path) -> None:
    array = new_npy(tmp_path / "x.npy", (1000, 100))
    array[:] = 1
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= array.nbytes
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
        new_npy(tmp_path / "x.npy", (3, 2))
    fail(errno.EOPNOTSUPP)  # a file system that cannot reserve
    assert new_npy(tmp_path / "x.npy", (3, 2)).shape == (3, 2)
