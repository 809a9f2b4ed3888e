"""What others make of the folders that we write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

from bert_jax import config, objectives
from bert_jax.convert import hf_tasks
from bert_jax.convert.export import export_model, final_metrics
from bert_jax.convert.export.files import copy_tokenizer, write_json
from bert_jax.convert.export.model_card import model_card
from bert_jax.convert.export.stablehlo import readme
from bert_jax.convert.hf_families import BERT
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference import import_model
from bert_jax.model import AttentionMask
from tests.helpers import tiny_configs
from tests.helpers.hf_fixtures import (
    LoadedModel,
    make_network,
    random_params,
    read_hf_folder,
    read_imported_folder,
    relative_error,
    write_hf_folder,
)


@pytest.mark.parametrize("kind", ["bert", "albert", "electra", "electra_generator"])
def test_import_then_export_is_bitwise_identical(kind: str, tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf", kind)
    assert import_model.import_folder(hf, tmp_path / "ours") == []
    assert (
        export_model(
            read_imported_folder(tmp_path / "ours"), tmp_path / "ours", "hf", tmp_path / "back"
        )
        == []
    )
    a, b = (load_file(f / "model.safetensors") for f in (hf, tmp_path / "back"))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert (hf / "vocab.txt").read_bytes() == (tmp_path / "back/vocab.txt").read_bytes()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["back", "hf", "ours"]  # and no working folders


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "chars"])
def test_the_exported_tokenizer_gives_the_token_types_of_our_rows(
    kind: Any, tmp_path: Path
) -> None:
    """Also byte-level BPE, whose usual class gives none, and characters."""
    transformers = pytest.importorskip("transformers")
    a, b = "the cat sat", "on a mat"
    ours = train_tokenizer([f"{a} {b}"] * 9, kind, 265 if kind == "bpe" else 23)
    ours.save(tmp_path / "run" / "tokenizer")
    copy_tokenizer(tmp_path / "run", tmp_path / "out", tiny_configs.FAMILIES["bert"].encoder)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(a, b)
    ids, first = ours.build_row(*map(list, map(ours.encode, (a, b))))
    assert hf["input_ids"] == ids
    assert hf["token_type_ids"] == [0] * first + [1] * (len(ids) - first)


def test_export_does_not_overwrite_a_folder(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    with pytest.raises(ValueError, match="exists and is not empty"):
        import_model.import_folder(hf, hf)
    with pytest.raises(ValueError, match="exists and is not empty"):
        export_model(read_hf_folder(hf), hf, "hf", hf)
    with pytest.raises(ValueError, match=r"expected hf, .*, orbax, stablehlo, onnx"):
        export_model(read_hf_folder(hf), hf, "tf", tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only an ELECTRA with discriminator and generator"):
        export_model(read_hf_folder(hf), hf, "hf", tmp_path / "x", part="generator")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_model_card_lists_config_steps_and_metrics(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "eval_loss": 2.5}]
    (hf / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert final_metrics(hf) == {"eval_loss": 2.5}
    results = {"metric": "accuracy", "steps": 4, "best_step": 2, "dev": {"accuracy": 0.75}}
    (hf / "results.json").write_text(json.dumps(results))
    assert final_metrics(hf) == {"dev accuracy": 0.75}
    export_model(read_hf_folder(hf)._replace(step=40), hf, "hf", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    for part in ("| steps | 40 of 1000000", "| dev accuracy | 0.7500 |", "peak_lr 0.0001"):
        assert part in text


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (
            dict(path="c/wiki", length=64),
            ["| rows of a step | 256 of 64 tokens |", "| data | wiki |"],
        ),
        (dict(mix="a/de=0.3,b/en=2"), ["| rows of a step | 256 |", "| data | de 0.3, en 2 |"]),
        (
            dict(mix="a/de,b/en", mix_exponent=0.5),
            ["| data | de, en, weights by size to the power of 0.5 |"],
        ),
        (
            dict(path="wiki/{length}", stages="16x32=0.9,64=0.1"),
            [
                "| rows of a step | 32 of 16 tokens from step 0; 256 of 64 tokens from step 9 |",
                "| data | wiki |",
            ],
        ),
    ],
)
def test_model_card_names_the_corpora_and_the_shapes_of_batches(
    data: dict[str, Any], lines: list[str]
) -> None:
    trained = config.replace(config.BERT, data=data, run=dict(steps=10))
    written = dict(architectures=["BertModel"], vocab_size=1, model_type="bert")
    text = model_card(LoadedModel(trained, {}, None, step=3), Path("x"), written, [])
    assert all(line in text for line in lines)


def test_model_card_has_the_folders_name_where_there_was_no_run(tmp_path: Path) -> None:
    """That of the family's config would be the name of another model."""
    hf = write_hf_folder(tmp_path / "mine")
    export_model(read_hf_folder(hf), hf, "hf", tmp_path / "out")
    assert "\n# mine\n" in (tmp_path / "out/README.md").read_text()


def test_model_card_of_a_generator_has_its_size(tmp_path: Path) -> None:
    whole = config.replace(
        tiny_configs.FAMILIES["electra"], objective=dict(generator_size=0.5, generator_layers=0.5)
    )
    hf = write_hf_folder(tmp_path / "hf")  # for its tokenizer
    model = LoadedModel(whole, random_params(whole), read_hf_folder(hf).tokenizer)
    export_model(model, hf, "hf", tmp_path / "out", "generator")
    assert "ElectraForMaskedLM, 1 layers of width 12 |" in (tmp_path / "out/README.md").read_text()


def test_the_class_of_a_tokenizer_is_kept_where_config_json_has_it(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf", tokenizer_class="ElectraTokenizer")
    read_hf_folder(hf).tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved/tokenizer.json").rename(hf / "tokenizer.json")
    copy_tokenizer(hf, tmp_path / "out", config.BERT.encoder)
    settings = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert settings == {"tokenizer_class": "ElectraTokenizer"}


def test_a_half_of_a_surrogate_pair_in_a_label_is_exported_as_a_question_mark(
    tmp_path: Path,
) -> None:
    hf = write_hf_folder(
        tmp_path / "hf",
        architectures=["BertForSequenceClassification"],
        id2label={"0": "\ud83d", "1": "b"},
    )
    labels = hf_tasks.task_from_hf_config(BERT, json.loads((hf / "config.json").read_text()))
    assert labels is not None
    assert labels.labels == ("?", "b")
    write_json(tmp_path / "file.json", {"prompts": {"query": "\udcff"}})
    assert json.loads((tmp_path / "file.json").read_text()) == {"prompts": {"query": "?"}}


def test_orbax_export_is_read_by_orbax_alone(tmp_path: Path) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    model = read_hf_folder(hf)
    export_model(model, hf, "orbax", tmp_path / "out")
    with ocp.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore((tmp_path / "out/params").absolute())
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, model.params)))
    assert config.read_config(tmp_path / "out/config.json") == model.config
    assert (tmp_path / "out/tokenizer/tokenizer.json").is_file()  # of a vocab.txt alone


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_orbax_export_of_one_electra_network_matches_its_config(part: str, tmp_path: Path) -> None:
    whole, out = tiny_configs.FAMILIES["electra"], tmp_path / "out"
    params = jax.jit(objectives.build(whole).init)(jax.random.key(0))
    hf = write_hf_folder(tmp_path / "hf")  # for its tokenizer
    export_model(LoadedModel(whole, params, read_hf_folder(hf).tokenizer), hf, "orbax", out, part)
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((out / "params").absolute())
    of_config = objectives.build(config.read_config(out / "config.json"))
    like = jax.eval_shape(of_config.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, like)


@pytest.mark.parametrize(("shortest", "length"), [(1, 5), (20, 20)])
def test_the_example_of_a_stablehlo_readme_has_a_row_that_is_long_enough(
    shortest: int, length: int
) -> None:
    text = readme(shortest, 512)
    assert f"{shortest} to\n512 tokens per row" in text
    code = text.split("```python\n")[1].split("```")[0].splitlines()
    ran: dict[str, Any] = {"np": np}
    exec("\n".join(line for line in code if line.startswith(("tokens =", "mask ="))), ran)
    assert ran["tokens"].shape == ran["mask"].shape == (1, length)
    assert f"# [1, {length}, width]" in text


ALONE = """
import sys, jax, numpy as np
from safetensors.numpy import load_file
folder = sys.argv[1]
function = jax.export.deserialize(open(folder + "/model.stablehlo", "rb").read())
weights = load_file(folder + "/model.safetensors")
for i in range(2):
    inputs = np.load(f"{folder}/inputs{i}.npz")
    out = function.call(weights, inputs["tokens"], inputs["mask"], inputs["types"])
    np.savez(f"{folder}/outputs{i}.npz", **out)
assert not any(m.startswith(("bert_jax", "flax")) for m in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_stablehlo_export_runs_without_bert_jax(kind: str, tmp_path: Path) -> None:
    """Two batch sizes and lengths, in a process that never imports this package."""
    pytest.importorskip("flatbuffers")
    hf, out = write_hf_folder(tmp_path / "hf", kind), tmp_path / "out"
    model = read_hf_folder(hf)
    assert export_model(model, hf, "stablehlo", out) == []
    assert f"jax {jax.__version__} exported `model.stablehlo`" in (out / "README.md").read_text()
    rng, net = np.random.default_rng(0), make_network(model.config, model.params)
    expected = []
    for i, shape in enumerate([(2, 7), (5, 19)]):
        mask = np.arange(shape[1]) < rng.integers(3, shape[1] + 1, shape[0])[:, None]
        inputs = {
            "tokens": rng.integers(0, 37, shape),
            "mask": mask,
            "types": rng.integers(0, 2, shape),
        }
        inputs = {k: v.astype(np.int32) for k, v in inputs.items()}
        np.savez(out / f"inputs{i}.npz", **inputs)
        mask = AttentionMask(inputs["mask"], packed=False)
        masked = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        batch = {**inputs, "attention_mask": mask, "masked": masked}
        batch = jax.tree.map(jnp.asarray, batch)
        native: Any = jax.jit(net.apply)({"params": model.params}, batch)
        if "mlm" in native:
            table = jnp.asarray(model.params["embeddings"]["word"])
            native["mlm"] = native["mlm"].logits(table)
        expected.append(native)
    subprocess.run([sys.executable, "-c", ALONE, str(out)], check=True, cwd=tmp_path)
    signature = json.loads((out / "signature.json").read_text())
    for i, native in enumerate(expected):
        outputs = np.load(out / f"outputs{i}.npz")
        assert set(outputs) == set(signature["results"])
        real = np.load(out / f"inputs{i}.npz")["mask"] > 0
        for name in outputs:
            x, y = outputs[name], np.asarray(native[name])
            x, y = (z[real] if name == "mlm" else z for z in (x, y))
            assert relative_error(x, y) <= 1e-5


def test_stablehlo_export_without_flatbuffers_writes_nothing(
    tmp_path: Path, monkeypatch: Any
) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(ValueError, match="pip install flatbuffers"):
        export_model(read_hf_folder(hf), hf, "stablehlo", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
