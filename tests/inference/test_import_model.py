"""Hugging Face folders: what is read, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax import config, convert, load
from bert_jax.config import Imported
from bert_jax.convert import export, hf_weights
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference import import_model
from bert_jax.perf import param_table
from tests.helpers.cli_runner import call
from tests.helpers.hf_fixtures import read_imported_folder, write_hf_folder


@pytest.mark.slow
def test_requested_missing_heads_are_initialized_and_named(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    bare = {k: v for k, v in tensors.items() if not k.startswith(("cls.", "bert.pooler"))}
    save_file(bare, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing bert\.pooler\.dense\.weight"):
        import_model.import_folder(hf, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    drawn = import_model.import_folder(hf, tmp_path / "ours", heads=("mlm", "pair"))
    assert drawn == [
        "mlm/bias",
        "mlm/dense/bias",
        "mlm/dense/kernel",
        "mlm/norm/bias",
        "mlm/norm/scale",
        "pair/dense/bias",
        "pair/dense/kernel",
        "pooler/dense/bias",
        "pooler/dense/kernel",
    ]
    assert read_imported_folder(tmp_path / "ours").config.objective == config.BERT.objective
    with pytest.raises(ValueError, match="bert has no head 'rtd': expected mlm"):
        import_model.import_folder(hf, tmp_path / "x", heads=("mlm", "pair", "rtd"))


@pytest.mark.parametrize("inner", ["", "tokenizer"])  # a tokenizer's folder, or a run's
def test_import_with_tokenizer_from_another_folder_and_dropped_tensors(
    inner: str, tmp_path: Path
) -> None:
    hf = write_hf_folder(tmp_path / "hf", architectures=["Other"])
    tensors = load_file(hf / "model.safetensors")
    save_file({**tensors, "cls.extra.weight": np.ones((2, 2))}, hf / "model.safetensors")
    (tmp_path / "tok" / inner).mkdir(parents=True)
    shutil.move(hf / "vocab.txt", tmp_path / "tok" / inner / "vocab.txt")
    import_model.import_folder(
        hf, tmp_path / "ours", tokenizer=tmp_path / "tok", drop=["cls.extra", "cls.seq"]
    )
    assert read_imported_folder(tmp_path / "ours").config.objective == Imported(
        "bert", mlm=True, pooler=True
    )


def test_a_head_of_pre_training_can_be_dropped(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    import_model.import_folder(hf, tmp_path / "ours", drop=["cls."])
    assert read_imported_folder(tmp_path / "ours").config.objective == Imported("bert", pooler=True)
    message = r"--drop has 'pooler', with which no .* begins: names begin with bert, cls"
    refused(hf, message, drop=["pooler"])
    refused(hf, "--heads and --generator are both given", generator=hf, heads=["mlm"])


def test_float16_and_bfloat16_weights_become_float32_exactly(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    half = {k: v.astype(jnp.bfloat16) for k, v in load_file(hf / "model.safetensors").items()}
    save_file(half, hf / "model.safetensors")
    word = convert.read_hf_folder(hf)[1]["embeddings"]["word"]
    assert word.dtype == np.float32
    assert np.array_equal(word, half["bert.embeddings.word_embeddings.weight"])


def test_sharded_safetensors_are_read_by_index(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    whole = convert.read_hf_folder(hf)[1]
    shard(hf)
    same = jax.tree.map(np.array_equal, convert.read_hf_folder(hf)[1], whole)
    assert all(jax.tree.leaves(same))


def shard(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {k: f"model-{i % 2}.safetensors" for i, k in enumerate(tensors)}
    for file in set(where.values()):
        save_file({k: v for k, v in tensors.items() if where[k] == file}, folder / file)
    index(folder, where)
    return where


def index(folder: Path, where: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


@pytest.mark.parametrize("kind", ["bert", "albert", "roberta", "electra", "electra_generator"])
def test_inspect_reads_only_safetensors_headers(kind: str, tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf", kind)
    experiment, params, _ = convert.read_hf_folder(hf)
    assert convert.read_hf_experiment(hf) == experiment
    shard(hf)
    assert convert.read_hf_experiment(hf) == experiment
    table = param_table.parameter_table(experiment)["parameters"]
    assert table["total"] == sum(p.size for p in jax.tree.leaves(params))


def test_imported_folder_can_be_imported_again(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    import_model.import_folder(hf, tmp_path / "a")
    assert import_model.import_folder(tmp_path / "a", tmp_path / "b") == []
    a, b = (read_imported_folder(tmp_path / name) for name in "ab")
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, a.params, b.params)))
    assert (tmp_path / "b/tokenizer/vocab.txt").read_bytes() == (hf / "vocab.txt").read_bytes()
    refused(tmp_path / "a", "is not a Hugging Face folder: --generator", drop=["x"])


def test_new_positions_are_the_length_that_the_tokenizer_states(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    (hf / "tokenizer_config.json").write_text('{"model_max_length": 8, "do_lower_case": true}')
    length = load(hf).config.encoder.max_length * 2
    import_model.import_folder(hf, tmp_path / "a", positions=length)
    export.export_model(load(tmp_path / "a"), str(tmp_path / "a"), "hf", tmp_path / "b")
    for folder in (tmp_path / "a/tokenizer", tmp_path / "b"):
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert settings == {"model_max_length": length, "do_lower_case": True}
    assert load(tmp_path / "b").config.encoder.max_length == length


def test_cased_flag_for_a_bare_vocabulary(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    vocabulary = hf / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("\nb\n", "\nB\n"))
    assert tokenizers.load_tokenizer(hf).encode("B") == [1]
    import_model.import_folder(hf, tmp_path / "ours", cased=True)
    assert tokenizers.load_tokenizer(tmp_path / "ours/tokenizer").encode("B b") == [6, 1]
    tokenizers.load_tokenizer(hf).save(hf)
    refused(hf, "--cased is only for folders with nothing but a vocabulary", cased=True)


def test_an_albert_tokenizer_may_follow_albert_s_own_code(tmp_path: Path) -> None:
    """Which keeps vowel signs where transformers strips them with the accents."""
    hf, tok = write_hf_folder(tmp_path / "hf", "albert"), tmp_path / "tok"
    trained: Any = train_tokenizer(["कि कु क ab"] * 9, "unigram", 20, cased=True)
    tok.mkdir()
    (tok / "spiece.model").write_bytes(trained._backend.model)
    settings = {"tokenizer_class": "AlbertTokenizer", "keep_accents": False}
    (tok / "tokenizer_config.json").write_text(json.dumps(settings))
    encoded, texts = {}, ["कि", "कु", "क"]
    for original in (False, True):
        out = tmp_path / f"{original}"
        import_model.import_folder(hf, out, tokenizer=tok, albert_original=original)
        encoded[original] = tokenizers.load_tokenizer(out / "tokenizer").encode_batch(texts)
        expected = tokenizers.load_tokenizer(tok, original=original).encode_batch(texts)
        assert encoded[original] == expected
    assert [len(set(map(tuple, encoded[original]))) for original in (False, True)] == [1, 3]


# ---- what is refused, each with one message and nothing written


def refused(hf: Path, message: str, **kwargs: Any) -> None:
    out = hf.parent / "refused"
    with pytest.raises(ValueError, match=message):
        import_model.import_folder(hf, out, **kwargs)
    assert not [p for p in hf.parent.iterdir() if "refused" in p.name]


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd", "..", "a\\b", ""])
def test_index_path_outside_the_folder_is_refused(outside: str, tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    where = shard(hf)
    index(hf, where | {"bert.pooler.dense.bias": outside})
    refused(hf, "expected the name of a file in the same folder")


def test_inconsistent_index_is_refused(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    where = shard(hf)
    index(hf, where | {"bert.pooler.dense.bias": "model-7.safetensors"})
    refused(hf, r"names model-7\.safetensors, which is missing")
    index(hf, where | {"bert.other": "model-0.safetensors"})
    refused(hf, r"lists tensors that its files lack: bert\.other")
    index(hf, ["model-0.safetensors"])
    refused(hf, "has no weight_map")


def test_import_command_reports_a_damaged_file_in_one_line(tmp_path: Path, capsys: Any) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    path = hf / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert call("import", hf, out=tmp_path / "out") == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert "not a valid safetensors file" in message
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("how", ["cut", "absurd", "empty", "not json", "overflow"])
def test_damaged_weights_are_refused(how: str, tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    path = hf / "model.safetensors"
    raw = path.read_bytes()
    wide = json.dumps({"a": {"dtype": "F32", "shape": [2**40] * 2, "data_offsets": [0, 4]}})
    path.write_bytes(
        {
            "cut": raw[:-7],
            "absurd": (2**62).to_bytes(8, "little") + raw[8:],
            "empty": b"",
            "not json": raw[:8] + b"{" * (len(raw) - 8),
            "overflow": len(wide).to_bytes(8, "little") + wide.encode() + b"0000",
        }[how]
    )
    refused(hf, r"model\.safetensors is not a valid safetensors file")


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = np.nan
    save_file(tensors, hf / "model.safetensors")
    refused(hf, r"not finite bert\.encoder\.layer\.1\.output\.dense\.bias")


def test_folders_of_other_models_are_refused(tmp_path: Path) -> None:
    refused(
        write_hf_folder(tmp_path / "a", model_type="t5"), "model_type 't5': expected one of bert"
    )
    hf = write_hf_folder(tmp_path / "b")
    (hf / "config.json").write_text("[1]")
    refused(hf, "expected a JSON object")
    (hf / "config.json").write_text("{")
    refused(hf, "is not readable JSON")
    (hf / "config.json").unlink()
    refused(hf, r"has no config\.json: expected a Hugging Face folder")
    hf = write_hf_folder(tmp_path / "c")
    (hf / "model.safetensors").unlink()
    refused(hf, r"no weights: expected model\.safetensors")
    hf = write_hf_folder(tmp_path / "d", pieces=38)
    refused(hf, "38 pieces, but the embedding table has 37 rows")
    hf = write_hf_folder(tmp_path / "e", "roberta", pad_token_id=1)
    message = "padding id is 0, but the config's pad_token_id is 1, from which this model counts"
    refused(hf, message, tokenizer=write_hf_folder(tmp_path / "f"))


def test_a_padding_id_matters_only_where_positions_are_counted_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hf = write_hf_folder(tmp_path / "hf", pad_token_id=3)
    experiment, tokenizer = convert.read_hf_experiment(hf), tokenizers.load_tokenizer(hf)
    with caplog.at_level("INFO"):
        convert.check_tokenizer(experiment, tokenizer)
    assert "padding id is 0, and the config's pad_token_id 3: padding is masked" in caplog.text


@pytest.mark.parametrize("pickle", [False, True])
def test_a_single_file_counts_beside_an_index(
    pickle: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    whole = convert.read_hf_folder(hf)[1]
    index(hf, {"bert.pooler.dense.bias": "missing.safetensors"})
    if pickle:
        torch = pytest.importorskip("torch")
        (hf / "model.safetensors.index.json").rename(hf / "pytorch_model.bin.index.json")
        tensors = load_file(hf / "model.safetensors")
        (hf / "model.safetensors").unlink()
        torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, hf / "pytorch_model.bin")
    found = convert.read_hf_folder(hf, allow_pickle=pickle)[1]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, whole)))
    assert "the first is read, as in transformers" in caplog.text


@pytest.mark.parametrize("name", ["XLMRobertaTokenizer", "BertTokenizer"])
def test_a_tokenizer_that_gives_no_token_types_is_pointed_out_and_all_rows_are_kept(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In transformers, all tokens of such a model have the type 0."""
    caplog.set_level("INFO")
    hf = write_hf_folder(tmp_path / "hf")
    (hf / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    table = load_file(hf / "model.safetensors")["bert.embeddings.token_type_embeddings.weight"]
    experiment, params, _ = convert.read_hf_folder(hf)
    assert ("gives all tokens the type 0" in caplog.text) == (name == "XLMRobertaTokenizer")
    assert np.array_equal(params["embeddings"]["type"], table)
    assert convert.read_hf_experiment(hf) == experiment


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121"])
def test_a_pytorch_whose_loader_could_run_code_is_refused(version: str) -> None:
    hf_weights.refuse_old_torch("2.6.0+cpu")
    hf_weights.refuse_old_torch("2.10.0a0")
    with pytest.raises(ValueError, match=r"expected 2\.6 or later"):
        hf_weights.refuse_old_torch(version)


def test_pickle_is_refused_without_allow_pickle(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    (hf / "model.safetensors").rename(hf / "pytorch_model.bin")
    refused(hf, "a pickle, which could run code")


@pytest.mark.peer
def test_allow_pickle_reads_only_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    hf = write_hf_folder(tmp_path / "hf")
    whole = convert.read_hf_folder(hf)[1]
    tensors = load_file(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, hf / "pytorch_model.bin")
    same = jax.tree.map(np.array_equal, convert.read_hf_folder(hf, allow_pickle=True)[1], whole)
    assert all(jax.tree.leaves(same))

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"a": Trap()}, hf / "pytorch_model.bin")
    refused(hf, "is not a file of tensors only", allow_pickle=True)
    torch.save([1], hf / "pytorch_model.bin")
    refused(hf, "something other than named tensors", allow_pickle=True)
    assert not (tmp_path / "sprung").exists()
