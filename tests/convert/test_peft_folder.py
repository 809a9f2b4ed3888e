"""Folders of peft: what it wrote opens here, and what it cannot mean here is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bert_jax import convert, load
from bert_jax.convert.export.peft import _base_arguments
from bert_jax.inference.import_model import import_folder
from bert_jax.training import warm_start
from tests.helpers.paths import FIXTURES

PEFT = FIXTURES / "peft"  # written by peft 0.21.2: helpers/make_peft_folder.py


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder that peft wrote; its base is beside it."""
    shutil.copytree(PEFT, tmp_path / "peft")
    return tmp_path / "peft" / "adapter"


def change(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(file: Path, change: Any, **metadata: str) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"} | metadata)


def logits(folder: Path) -> np.ndarray:
    model, tokens = load(folder), np.load(PEFT / "outputs.npz")["tokens"]
    size = jnp.asarray((tokens > 0).sum(1))
    batch = dict(tokens=jnp.asarray(tokens), size=size, first=size)
    outputs = jax.jit(model.objective.outputs)  # type: ignore[attr-defined]
    return np.asarray(outputs(model.params, batch))


@pytest.mark.slow
def test_a_folder_that_peft_wrote_gives_its_outputs(folder: Path, tmp_path: Path) -> None:
    """With adapters beside all kernels and beside the pooler; also after an import."""
    expected = np.load(PEFT / "outputs.npz")["logits"]
    np.testing.assert_allclose(logits(folder), expected, atol=1e-5)
    import_folder(folder, tmp_path / "imported")
    np.testing.assert_allclose(logits(tmp_path / "imported"), expected, atol=1e-5)
    assert [row["label"] for row in load(folder).predict([{"text": "red one"}])]
    assert warm_start.load_config(folder).objective.labels == ("LABEL_0", "LABEL_1", "LABEL_2")  # type: ignore[union-attr]


def test_a_class_may_be_named_by_a_string(folder: Path) -> None:
    """A head that only the base has is kept if both are of one class."""
    expected = convert.read_hf_folder(folder)[1]
    base, weights = folder.parent / "base", folder / "adapter_model.safetensors"
    heads = {k: v for k, v in load_file(weights).items() if "lora" not in k}
    own = {k.removeprefix("base_model.model."): v for k, v in heads.items()}
    rewrite(weights, lambda t: {k: v for k, v in t.items() if k not in heads})
    rewrite(base / "model.safetensors", lambda t: t | own)
    config, name = json.loads((base / "config.json").read_text()), "BertForSequenceClassification"
    for path, architectures in ((base, [name]), (folder, name)):
        text = json.dumps(config | dict(architectures=architectures))
        (path / "config.json").write_text(text)
    found = convert.read_hf_folder(folder)[1]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(use_dora=True), "use_dora True: expected a plain LoRA adapter"),
        (dict(rank_pattern={"query": 4}), "rank_pattern"),
        (dict(bias="lora_only"), "bias 'lora_only'"),
        (dict(init_lora_weights="pissa"), "init_lora_weights 'pissa'"),
        (dict(peft_type="IA3"), "peft_type 'IA3'"),
        (dict(made_up_option=[1]), "made_up_option"),
        (dict(r=0), "r 0: expected a rank of at least 1"),
        (dict(lora_alpha="x"), "lora_alpha 'x': expected a number"),
        (dict(base_model_name_or_path=None), "no base_model_name_or_path"),
        (dict(base_model_name_or_path="./missing"), "missing does not exist"),
        (dict(base_model_name_or_path="."), "is no Hugging Face folder"),
    ],
)
def test_what_a_plain_adapter_is_not_is_refused_by_name(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    change(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: {k.replace("lora_A", "lora_E"): v for k, v in t.items()}, "not of a plain LoRA"),
        (lambda t: {k: v for k, v in t.items() if "lora_B" not in k}, "only one of lora_A and"),
        (lambda t: {k: v for k, v in t.items() if "lora" not in k}, "no lora_A and lora_B"),
        (lambda t: {k: v[:, :3] if "lora_A" in k else v for k, v in t.items()}, "does not fit"),
        (lambda t: {k.replace("layer.1", "layer.7"): v for k, v in t.items()}, "no bert.encoder"),
    ],
)
def test_tensors_that_do_not_fit_are_named(edit: Any, message: str, folder: Path) -> None:
    rewrite(folder / "adapter_model.safetensors", edit)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.peer
def test_the_base_may_be_a_pickle_if_pickles_are_allowed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch = pytest.importorskip("torch")
    base = folder.parent / "base"
    expected = convert.read_hf_folder(folder)[1]
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, base / "pytorch_model.bin")
    with pytest.raises(ValueError, match="--allow-pickle"):
        convert.read_hf_folder(folder)
    with caplog.at_level("INFO"):
        found = convert.read_hf_folder(folder, allow_pickle=True)[1]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))
    assert "an adapter of" in caplog.text


def test_a_folder_of_that_name_beside_the_working_directory_is_not_the_base(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is ../base from the adapter; ../base from here is something else."""
    for name in ("base", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert np.isfinite(logits(folder)).all()


def test_the_card_of_an_adapter_loads_the_commit_that_it_belongs_to() -> None:
    assert _base_arguments("owner/name", "0a1b") == '"owner/name", revision="0a1b"'
    assert _base_arguments("models/{x}", None) == '"models/{x}"'


def test_another_base_is_refused_by_its_hash(folder: Path) -> None:
    """peft's own folders have no hash; those that we write do."""
    rewrite(folder / "adapter_model.safetensors", dict, base_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"not the base that the adapters .* expected 0000"):
        load(folder)
