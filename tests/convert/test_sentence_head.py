"""Sentence-transformers folders: their vectors, there and back, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax import convert
from bert_jax.cli.configs import load_config_or_model
from bert_jax.convert.export import export_model
from bert_jax.convert.export.sentence_transformers import write_sentence_head
from bert_jax.inference.import_model import import_folder
from bert_jax.inference.model import Model
from tests.helpers.sentence_folders import write_sentence_folder

TEXTS = ["a b c", "z", "", "q w e r t y u i o p"]
KEYS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens")
KEYS += ("weightedmean_tokens", "lasttoken")
ALL_MODES = {f"pooling_mode_{key}": True for key in KEYS}


def pooled(tokens: np.ndarray, skip: int = 0) -> list[np.ndarray]:
    """The six poolings of hidden states [l d], in their order in sentence-transformers."""
    x, weights = tokens[skip:], np.arange(skip + 1, len(tokens) + 1)[:, None]
    mean = x.mean(0)
    weighted = (x * weights).sum(0) / weights.sum()
    return [x[0], x.max(0), mean, mean * len(x) ** 0.5, weighted, x[-1]]


def hidden(model: Model, texts: list[str]) -> list[np.ndarray]:
    return [x[0] for x in model.encode(texts, pool=None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every pooling mode, a dense layer, prompts that are not pooled, and a similarity."""
    settings = {"prompts": {"query": "a b ", "document": ""}, "similarity_fn_name": "dot"}
    path = tmp_path_factory.mktemp("sentence") / "folder"
    pooling = ALL_MODES | {"include_prompt": False}
    kernel = np.random.default_rng(0).normal(size=(6 * 15, 5)).astype(np.float32)
    return write_sentence_folder(path, pooling, (kernel, None), settings)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return bert_jax.load(folder)


@pytest.mark.slow
def test_encode_gives_the_vectors_of_the_folder(model: Model, folder: Path) -> None:
    """Without `pool`: poolings in a row, then tanh of the dense layer, then length 1."""
    assert model.sentence is not None
    (dense, normalize), out = model.sentence.modules, []
    assert normalize == "normalize"
    for x in hidden(model, TEXTS):
        y = np.tanh(np.concatenate(pooled(x)) @ dense.kernel)  # type: ignore[union-attr]
        out.append(y / np.linalg.norm(y))
    assert np.allclose(model.encode(TEXTS)[0], out, atol=1e-5)
    assert np.array_equal(model.encode(TEXTS), model.encode(TEXTS, pool="sentence"))
    assert not np.allclose(model.encode(TEXTS, pool="mean")[0, :, :5], out, atol=1e-2)


def test_tokens_of_a_prompt_are_read_but_not_pooled(model: Model) -> None:
    """The prompt has two tokens; with [CLS] three are left out, and positions count from 1."""
    assert model.sentence is not None
    (dense, _) = model.sentence.modules
    (x,) = hidden(model, ["a b c d"])
    y = np.tanh(np.concatenate(pooled(x, skip=3)) @ dense.kernel)  # type: ignore[union-attr]
    vector = model.encode(["c d"], prompt="query")[0, 0]
    assert np.allclose(vector, y / np.linalg.norm(y), atol=1e-5)
    assert np.array_equal(vector, model.encode(["c d"], prompt="a b ")[0, 0])  # the text itself
    assert np.array_equal(model.encode(["c"], prompt="document"), model.encode(["c"]))


def test_version_6_names_pooling_modes_in_any_order(tmp_path: Path) -> None:
    path = write_sentence_folder(tmp_path / "one", {"pooling_mode": ["max", "cls"]}, modules=())
    head = convert.read_sentence_head(path)
    assert head == convert.SentenceHead(("max", "cls"), max_length=16)
    write_sentence_head(head, tmp_path, width=15, max_length=19)
    assert convert.read_sentence_head(tmp_path) == head


def test_dimensions_cut_first_and_normalize_scales_then(model: Model) -> None:
    full = model.encode(TEXTS)[0]
    cut = model.encode(TEXTS, dimensions=3, normalize=True)[0]
    assert np.allclose(cut, full[:, :3] / np.linalg.norm(full[:, :3], axis=1)[:, None], atol=1e-6)
    assert np.array_equal(model.encode(TEXTS, dimensions=3)[0], full[:, :3])
    with pytest.raises(ValueError, match="dimensions is 6: expected 1 to 5"):
        model.encode(TEXTS, dimensions=6)


def test_max_seq_length_limits_sentence_vectors_alone(model: Model) -> None:
    long = "a " * 16
    with pytest.raises(ValueError, match="18 tokens, but the model takes 16"):
        model.encode([long])
    assert np.allclose(model.encode([long], truncate=True), model.encode(["a " * 14]), atol=1e-6)
    assert model.encode([long], pool="mean").shape[1] == 1


def test_similarity_is_that_of_the_folder(model: Model) -> None:
    a, b = model.encode(TEXTS[:2]), model.encode(TEXTS[1:])
    assert np.allclose(model.similarity(TEXTS[:2], TEXTS[1:]), a[0] @ b[0].T, atol=1e-6)
    assert model.similarity(a, b).shape == (2, 3)
    with pytest.raises(ValueError, match="width 5 and 4"):
        model.similarity(a, b[..., :4])


@pytest.mark.slow
def test_an_import_and_an_export_keep_the_vectors(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, tmp_path / "imported")
    imported = bert_jax.load(tmp_path / "imported")
    export_model(imported, tmp_path / "imported", "sentence-transformers", tmp_path / "out")
    expected = bert_jax.load(folder).encode(TEXTS, prompt="query")
    again = bert_jax.load(tmp_path / "out")
    for m in (imported, again):
        assert np.allclose(m.encode(TEXTS, prompt="query"), expected, atol=1e-6)
    assert again.sentence is not None
    assert again.sentence.similarity == "dot"
    assert "library_name: sentence-transformers" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "distilbert"])
def test_settings_may_be_named_after_the_encoder(family: str, tmp_path: Path) -> None:
    """As sentence-transformers named them before version 1."""
    path = write_sentence_folder(tmp_path / "old", {"pooling_mode": "cls"}, modules=())
    settings = {"max_seq_length": 9, "do_lower_case": True}
    (path / "sentence_bert_config.json").unlink()
    (path / f"sentence_{family}_config.json").write_text(json.dumps(settings))
    head = convert.read_sentence_head(path)
    assert head == convert.SentenceHead(("cls",), max_length=9, lowercase=True)


def test_new_positions_are_those_of_sentence_vectors_too(tmp_path: Path) -> None:
    path = write_sentence_folder(tmp_path / "one", {"pooling_mode": "cls"}, modules=())
    longer = 2 * bert_jax.load(path).config.encoder.max_length
    import_folder(path, tmp_path / "imported", positions=longer)
    head = bert_jax.load(tmp_path / "imported").sentence
    assert head is not None
    assert head.max_length == longer


def test_an_encoder_in_a_folder_of_its_own_is_found(folder: Path, tmp_path: Path) -> None:
    """As sentence-transformers wrote it before version 2.2: 0_Transformer."""
    write_sentence_folder(tmp_path / "old", {"pooling_mode": "cls"})
    modules = json.loads((tmp_path / "old/modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    inside = tmp_path / "old/0_Transformer"
    inside.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "sentence_bert_config.json"):
        (tmp_path / "old" / name).rename(inside / name)
    (tmp_path / "old/modules.json").write_text(json.dumps(modules))
    old = bert_jax.load(tmp_path / "old")
    assert old.sentence is not None
    assert (old.sentence.pooling, old.sentence.max_length) == (("cls",), 16)
    (tmp_path / "old/config.json").write_text('{"__version__": "1.0.0"}')  # before version 2
    again = bert_jax.load(tmp_path / "old")
    assert load_config_or_model(str(tmp_path / "old"), [], "inspect").encoder == old.config.encoder
    assert again.sentence == old.sentence
    assert again.config.encoder == old.config.encoder


def test_without_max_seq_length_the_tokenizer_says_how_long_texts_are(tmp_path: Path) -> None:
    """As sentence-transformers has written it since version 5.4."""
    path = write_sentence_folder(tmp_path / "new", {"pooling_mode": "mean"})
    settings = json.loads((path / "sentence_bert_config.json").read_text())
    (path / "sentence_bert_config.json").write_text('{"transformer_task": "feature-extraction"}')
    limit = settings["max_seq_length"] - 2
    for given, expected in ((limit, limit), (int(1e30), None)):
        (path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": given}))
        head = convert.read_sentence_head(path)
        assert head is not None
        assert head.max_length == expected


@pytest.mark.parametrize("format", ["hf", "orbax"])
def test_an_export_that_loses_the_sentence_head_says_so(format: Any, tmp_path: Path) -> None:
    path = write_sentence_folder(tmp_path / "one", {"pooling_mode": "cls"})
    left_out = export_model(bert_jax.load(path), path, format, tmp_path / "out")
    assert left_out[-1].startswith("what makes sentence vectors: pooling, prompts")


def test_a_cross_encoder_makes_no_vectors(tmp_path: Path) -> None:
    path = write_sentence_folder(tmp_path / "scores", {"pooling_mode": "mean"})
    (path / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert convert.read_sentence_head(path) is None


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("modules.json", ("Normalize", "CNN"), "module sentence_transformers.models.CNN"),
        ("modules.json", ("1_Pooling", "../1"), "path '../1': expected a folder beside it"),
        ("modules.json", ("Transformer", "CLIPModel"), "expected a Transformer module"),
        ("modules.json", ("[", "{"), "not readable JSON"),
        ("1_Pooling/config.json", ('"max"', '"sum"'), "pooling_mode .*expected some of cls, max"),
        ("1_Pooling/config.json", ("{", "["), "not readable JSON"),
        ("2_Dense/config.json", ('"bias": true', '"use_residual": true'), "use_residual True"),
        ("2_Dense/config.json", ('"out_features": 5', '"out_features": 6'), "expected linear.w"),
        ("config_sentence_transformers.json", ("dot", "cos"), "similarity_fn_name 'cos'"),
        ("config_sentence_transformers.json", ('"p"', "3"), "prompts .*expected texts by name"),
        ("sentence_bert_config.json", ("16", '"16"'), "max_seq_length '16'"),
    ],
)
def test_a_damaged_or_unknown_head_is_refused(
    file: str, change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    kernel = np.ones((16, 5), np.float32), np.ones(5, np.float32)
    settings = {"similarity_fn_name": "dot", "prompts": {"query": "p"}}
    path = write_sentence_folder(tmp_path / "bad", {"pooling_mode": "max"}, kernel, settings)
    text = (path / file).read_text()
    assert change[0] in text
    (path / file).write_text(text.replace(*change))
    with pytest.raises(ValueError, match=message):
        bert_jax.load(path)
