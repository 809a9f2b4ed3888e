"""Batches of texts: a row's shape depends on its own length, a batch on a number of tokens."""

import numpy as np
import pytest

from bert_jax import load
from bert_jax.inference import features
from bert_jax.inference.model import Model
from tests.helpers import toy_tasks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(toy_tasks.write_model_dir(tmp_path_factory.mktemp("model") / "model"))


@pytest.mark.parametrize("max_length", [40, 128, 512, 1000])
@pytest.mark.parametrize(
    ("backend", "shortest", "most_padding", "programs"),
    [("cpu", 8, 5 / 4, 28), ("tpu", 16, 3 / 2, 13)],
)
def test_padded_length_depends_only_on_the_row_and_the_backend(
    backend: str,
    shortest: int,
    most_padding: float,
    programs: int,
    max_length: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features.jax, "default_backend", lambda: backend)
    sizes = range(1, max_length + 1)
    lengths = [features.padded_length(n, max_length) for n in sizes]
    assert all(n <= length for n, length in zip(sizes, lengths, strict=True))
    long = [(n, length) for n, length in zip(sizes, lengths, strict=True) if n > shortest * 2]
    assert all(length < n * most_padding for n, length in long)
    assert lengths[0] == shortest
    assert len(set(lengths)) <= programs


def test_a_batch_has_rows_of_one_padded_length_and_one_size() -> None:
    batches = list(features.length_batches([5, 30, 5, 7, 31], max_length=64))
    assert [sorted(some) for some, *_ in batches] == [[0, 2, 3], [1, 4]]
    assert all(rows == features.SHAPES["cpu"].tokens // length for _, length, rows in batches)


def test_a_small_batch_gives_the_same_vectors_whatever_the_other_texts(model: Model) -> None:
    texts = ["red ?", "which red one is red ?", "red"]
    vectors = model.encode(texts, batch_tokens=1)
    assert np.allclose(vectors, model.encode(texts), rtol=0, atol=1e-5)
    assert np.array_equal(vectors[:, :1], model.encode(texts[:1], batch_tokens=1))
    assert list(features.length_batches([5, 5], 64, batch_tokens=1)) == [
        ([0], 8, 1),
        ([1], 8, 1),
    ]
    with pytest.raises(ValueError, match="batch_tokens is 0: expected at least 1"):
        model.encode(texts, batch_tokens=0)
