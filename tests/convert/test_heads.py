"""Fine-tuned heads to Hugging Face's classes and back; needs no peer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bert_jax
from bert_jax import config, convert, objectives
from bert_jax.config import Imported, Supervised, replace
from bert_jax.convert.export import export_model
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.inference import import_model
from bert_jax.perf import param_table
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.hf_fixtures import LoadedModel, relative_error, write_hf_folder

SIZES: dict[str, Any] = dict(layers=2, hidden_size=12, heads=3, vocab_size=37, max_length=24)
BASES = {"bert": config.BERT, "albert": config.ALBERT, "electra": config.ELECTRA}
LABELS = ("no", "perhaps", "yes")


def tuned(family: str, task: Any, **changes: Any) -> tuple[Any, Any]:
    """An experiment with a random head, as if it had been fine-tuned."""
    labels = LABELS if task in ("classification", "tagging") else ()
    objective = config.supervised_objective(family, task, labels, **changes)
    extra = {} if family == "bert" else dict(embedding_size=8)
    experiment = replace(BASES[family], encoder=SIZES | extra, objective=objective)
    shapes = objectives.param_shapes(experiment)
    rng = np.random.default_rng(0)
    return experiment, jax.tree.map(
        lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes
    )


TOKENS = jnp.arange(32).reshape(4, 8)
BATCH = {"tokens": TOKENS, "size": jnp.array([7, 5, 8, 6]), "first": jnp.array([3, 5, 4, 2])}


def outputs(experiment: Any, params: Any) -> Any:
    params = jax.tree.map(jnp.asarray, params)
    return jax.jit(objectives.build(experiment).outputs)(params, BATCH)


@pytest.mark.parametrize("task", ["classification", "stsb", "tagging"])
@pytest.mark.parametrize("family", ["bert", "electra"])
def test_fine_tuned_model_computes_the_same_after_export_and_import(family: str, task: Any) -> None:
    """ELECTRA's linear head comes back with a GELU in it, STS-B's scale inside its weights."""
    native = tuned(family, task)
    written, tensors, left_out = convert.to_hf(*native)
    back = convert.from_hf(written, tensors)
    assert not left_out
    objective = back[0].objective
    assert isinstance(objective, Supervised)
    assert (objective.scale, objective.labels) == (1.0, native[0].objective.labels)
    assert relative_error(outputs(*back), outputs(*native)) <= 1e-5
    again = convert.to_hf(*back)
    assert again.config == written
    assert all(np.array_equal(again.tensors[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize(
    ("family", "task", "changes", "message"),
    [
        ("electra", "qa", {}, "no class with joint spans: fine-tune with --objective.span linear"),
        ("bert", "classification", dict(head="first"), "BertForSequenceClassification has no such"),
        ("electra", "choice", dict(head="pooler"), "fine-tune with --objective.head gelu"),
        ("electra", "classification", dict(labels=tuple("abcdefg")), "at most 6 labels, and this"),
        ("albert", "tagging", dict(family="bert"), "Hugging Face's bert has no projection"),
    ],
)
def test_heads_without_a_hugging_face_class_are_refused(
    family: str, task: Any, changes: Any, message: str
) -> None:
    experiment, params = tuned(family, task)
    experiment = replace(experiment, objective=changes)
    if "labels" in changes:
        params["label"]["dense"] = {"kernel": np.ones((12, 7)), "bias": np.ones(7)}
    with pytest.raises(ValueError, match=message):
        convert.to_hf(experiment, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(problem_type="ranking"), "for the encoder alone, drop"),
        (
            dict(problem_type="multi_label_classification", thresholds={"a": 0.5}),
            "expected a number for each label",
        ),
        (dict(problem_type="regression"), "problem_type 'regression' with 3 labels"),
        (dict(id2label={"0": "a", "2": "b"}), "expected a name for each number from 0 on"),
        (dict(id2label=None, num_labels=0), "expected a name for each number"),
        (dict(id2label={"0": "a", "1": "b"}), r"wrong shape classifier.bias \[3\], expected \[2\]"),
        (dict(classifier_dropout="much"), "a dropout of 'much'"),
        (dict(text_pairs="yes"), "text_pairs 'yes': expected true or false"),
    ],
)
def test_unsupported_hugging_face_heads_are_refused(changes: Any, message: str) -> None:
    written, tensors, _ = convert.to_hf(*tuned("bert", "classification"))
    with pytest.raises(ValueError, match=message):
        convert.from_hf(written | changes, tensors)


@pytest.mark.parametrize("task", ["classification", "stsb"])
def test_whether_texts_come_in_pairs_survives_an_export(task: Any) -> None:
    for pairs in (True, False, None):
        experiment, params = tuned("bert", task, pairs=pairs)
        written, tensors, _ = convert.to_hf(experiment, params)
        assert written.get("text_pairs") is pairs
        assert convert.from_hf(written, tensors)[0].objective.pairs is pairs


def test_long_texts_survive_an_export_and_are_said_to_be_lost_in_transformers() -> None:
    experiment, params = tuned("bert", "classification")
    changes = dict(long="windows", window_pool="max", max_windows=3)
    experiment = replace(experiment, objective=changes, data=dict(length=16))
    written, tensors, left_out = convert.to_hf(experiment, params)
    assert left_out == ["objective.long windows, rows of 16 tokens"]
    read, _ = convert.from_hf(written, tensors)
    assert {k: getattr(read.objective, k) for k in changes} == changes
    assert read.data.length == 16
    for wrong in ({"long": "all"}, {"window": 1}, [], {"max_windows": 0}):
        with pytest.raises(ValueError, match=r"config\.json has long_texts .*correct or remove"):
            convert.from_hf(written | {"long_texts": wrong}, tensors)


def test_labels_without_names_get_hugging_face_names() -> None:
    written, tensors, _ = convert.to_hf(*tuned("bert", "tagging"))
    for key in ("id2label", "label2id"):
        written.pop(key)
    objective = convert.from_hf(written | dict(num_labels=3), tensors)[0].objective
    assert objective.labels == ("LABEL_0", "LABEL_1", "LABEL_2")  # type: ignore[union-attr]


def test_head_can_be_dropped_on_import() -> None:
    written, tensors, _ = convert.to_hf(*tuned("bert", "classification"))
    experiment, params = convert.from_hf(written, tensors, drop=["classifier."])
    assert experiment.objective == Imported("bert", pooler=True)
    assert set(params) == {"embeddings", "encoder", "pooler"}
    with pytest.raises(
        ValueError, match="fine-tuned for classification and cannot have other heads"
    ):
        convert.with_heads(*convert.from_hf(written, tensors), ["mlm"])


def test_unused_pooler_is_ignored() -> None:
    """As in the published models for SQuAD."""
    written, tensors, _ = convert.to_hf(*tuned("bert", "qa"))
    idle = {"bert.pooler.dense.weight": np.ones((12, 12)), "bert.pooler.dense.bias": np.ones(12)}
    assert "pooler" not in convert.from_hf(written, tensors | idle)[1]
    with pytest.raises(ValueError, match=r"unexpected cls\.seq"):
        convert.from_hf(written, tensors | {"cls.seq.weight": np.ones(2)})


# ---- folders


def saved(folder: Path, family: str, task: Any, **changes: Any) -> LoadedModel:
    """A fine-tuned model beside the tokenizer of `folder`, which is made."""
    write_hf_folder(folder)
    return LoadedModel(*tuned(family, task, **changes), tokenizers.load_tokenizer(folder), 7)


@pytest.mark.slow
def test_hugging_face_folder_and_its_import_give_the_same_predictions(tmp_path: Path) -> None:
    model = saved(tmp_path / "hf", "electra", "classification")
    export_model(model, tmp_path / "hf", "hf", tmp_path / "out")
    import_model.import_folder(tmp_path / "out", tmp_path / "ours")
    assert (
        convert.read_hf_experiment(tmp_path / "out") == convert.read_hf_folder(tmp_path / "out")[0]
    )
    table = param_table.parameter_table(convert.read_hf_experiment(tmp_path / "out"))["parameters"]
    for folder in ("out", "ours"):
        loaded = bert_jax.load(tmp_path / folder)
        assert loaded.config.objective.labels == LABELS  # type: ignore[union-attr]
        assert sum(p.size for p in jax.tree.leaves(loaded.params)) == table["total"]
        out = jax.jit(loaded.objective.outputs)(loaded.params, BATCH)
        assert relative_error(out, outputs(model.config, model.params)) <= 1e-5
        with pytest.raises(ValueError, match="no masked-word head"):
            loaded.fill("a [MASK]")
    export_model(bert_jax.load(tmp_path / "ours"), tmp_path / "ours", "hf", tmp_path / "back")  # type: ignore[arg-type]
    a, b = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "back"))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_model_card_of_a_fine_tuned_model(tmp_path: Path) -> None:
    model = saved(tmp_path / "hf", "bert", "classification")
    results = {"metric": "accuracy", "steps": 4, "best_step": 2}
    results |= {"dev": {"accuracy": 0.75}, "test": {"accuracy": 0.5}}
    (tmp_path / "hf/results.json").write_text(json.dumps(results))
    experiment = replace(model.config, objective=dict(task="mnli", labels=("a|b", *LABELS)))
    params = model.params | {"label": {"dense": {"kernel": np.ones((12, 4)), "bias": np.ones(4)}}}
    export_model(
        model._replace(config=experiment, params=params), tmp_path / "hf", "hf", tmp_path / "out"
    )
    card = (tmp_path / "out/README.md").read_text()
    for part in (
        "| task | mnli, a classification |",
        "| labels | a\\|b, no, perhaps, yes |",
        "| dev accuracy | 0.7500 |",
        "| test accuracy | 0.5000 |",
        "import AutoModelForSequenceClassification, AutoTokenizer",
    ):
        assert part in card


@pytest.mark.slow_unless("albert-qa")
@pytest.mark.parametrize(
    ("family", "task"), [("bert", "stsb"), ("electra", "qa"), ("albert", "qa")]
)
def test_stablehlo_export_of_a_fine_tuned_model_has_the_head(
    family: str, task: Any, tmp_path: Path
) -> None:
    pytest.importorskip("flatbuffers")
    changes = dict(long="windows") if task == "stsb" else {}
    model, out = saved(tmp_path / "hf", family, task, scale=5.0, **changes), tmp_path / "out"
    left_out = export_model(model, tmp_path / "hf", "stablehlo", out)
    assert [x.startswith("objective.long windows") for x in left_out] == [True] * len(changes)
    exported = jax.export.deserialize(bytearray((out / "model.stablehlo").read_bytes()))
    weights = load_file(out / "model.safetensors")
    signature = json.loads((out / "signature.json").read_text())
    rng = np.random.default_rng(0)
    for rows, length in [(2, 20), (3, 24)]:
        size, first = rng.integers(12, length + 1, rows), rng.integers(3, 9, rows)
        at = np.arange(length)
        mask, types = at < size[:, None], (at >= first[:, None]) & (at < size[:, None])
        tokens = rng.integers(0, 37, (rows, length))
        results = exported.call(weights, *(x.astype(np.int32) for x in (tokens, mask, types)))
        assert flatten_with_names(results).keys() == signature["results"].keys()
        batch = {"tokens": tokens, "size": size, "first": first, "context": first}
        batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}
        params = jax.tree.map(jnp.asarray, model.params)
        native = jax.jit(objectives.build(model.config).outputs)(params, batch)
        native = {"label": native[:, None]} if task == "stsb" else native
        head = results["span"] if task == "qa" else results
        assert all(relative_error(head[k], np.asarray(v)) <= 1e-5 for k, v in native.items())


@pytest.mark.peer
def test_sharded_pickles_are_read_by_index(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    hf = write_hf_folder(tmp_path / "hf")
    whole = convert.read_hf_folder(hf)[1]
    tensors = load_file(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    where = {k: f"pytorch_model-{i % 2}.bin" for i, k in enumerate(tensors)}
    for file in sorted(set(where.values())):
        part = {k: torch.from_numpy(v) for k, v in tensors.items() if where[k] == file}
        torch.save(part, hf / file)
    index = hf / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    same = jax.tree.map(np.array_equal, convert.read_hf_folder(hf, allow_pickle=True)[1], whole)
    assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match="a pickle, which could run code"):
        convert.read_hf_folder(hf)
    for name, file, message in (
        ("bert.pooler.dense.bias", "../x.bin", "expected the name of a file in the same folder"),
        ("bert.pooler.dense.bias", "x.bin", "which is missing"),
        ("bert.more", "pytorch_model-0.bin", r"its files lack: bert\.more"),
    ):
        index.write_text(json.dumps({"weight_map": where | {name: file}}))
        with pytest.raises(ValueError, match=message):
            convert.read_hf_folder(hf, allow_pickle=True)
    torch.save({"a": Path.cwd}, hf / "pytorch_model-0.bin")
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(ValueError, match="is not a file of tensors only"):
        convert.read_hf_folder(hf, allow_pickle=True)
    save_file(tensors, hf / "model.safetensors")  # which is taken before any pickle
    convert.read_hf_folder(hf, allow_pickle=True)
