"""Corpora on gs:// are downloaded once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bert_jax.data.corpus_cache import cached_download
from bert_jax.utils import io


def with_fields(listing: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """A listing whose objects have other fields."""
    return listing | {"items": [item | fields for item in listing["items"]]}


def test_a_corpus_is_downloaded_once_and_again_after_a_change(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    gs.put("corpora/c/tokenizer/vocab.txt", b"a\n" * 1000)
    first = cached_download("gs://bucket/corpora/c")
    assert (first / "tokenizer/vocab.txt").read_bytes() == b"a\n" * 1000
    assert cached_download("gs://bucket/corpora/c/") == first
    assert len(gs.downloads) == 2
    gs.put("corpora/c/corpus.json", b"{ }")
    second = cached_download("gs://bucket/corpora/c")
    assert second != first
    assert (second / "corpus.json").read_bytes() == b"{ }"
    assert cached_download("local") == Path("local")


def test_a_download_with_another_checksum_is_discarded(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    list_objects = gs.list_objects
    wrong = {"crc32c": "AAAAAA=="}
    monkeypatch.setattr(gs, "list_objects", lambda q: with_fields(list_objects(q), wrong))
    with pytest.raises(ValueError, match=r"corpus\.json changed or was damaged during"):
        cached_download("gs://bucket/corpora/c")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_an_error_of_the_disk_is_none_of_the_bucket(gs, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(io.CACHE, str(tmp_path / "file"))
    gs.put("corpora/c/corpus.json", b"{}")
    with pytest.raises(FileExistsError, match="file"):
        cached_download("gs://bucket/corpora/c")


def test_a_disk_that_reports_zeros_is_not_taken_for_full(gs, tmp_path, monkeypatch) -> None:
    """As some network file systems do."""
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=0, used=0, free=0))
    gs.put("corpora/c/corpus.json", b"{}")
    assert (cached_download("gs://bucket/corpora/c") / "corpus.json").read_bytes() == b"{}"


def test_a_corpus_larger_than_the_disk_is_refused(gs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(io.CACHE, str(tmp_path))
    gs.put("corpora/c/corpus.json", b"{}")
    list_objects = gs.list_objects
    large = {"size": str(1 << 60)}
    monkeypatch.setattr(gs, "list_objects", lambda q: with_fields(list_objects(q), large))
    with pytest.raises(ValueError, match=r"bytes free: set BERT_JAX_CACHE to a folder"):
        cached_download("gs://bucket/corpora/c")
