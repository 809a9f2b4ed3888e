"""A reranker comes back from a Hugging Face folder, which transformers and CrossEncoder open."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax import convert
from bert_jax.config import Supervised, replace
from bert_jax.convert.export import export_model
from bert_jax.training import kept_head
from tests.convert.test_heads import saved, tuned

ROW = {"text": "a b c", "documents": ["d e", "b c a " * 9, "q", "b a"], "labels": [0, 1, 0, 0]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reranker")
    model = saved(path / "hf", "bert", "rerank")
    model = model._replace(config=replace(model.config, data=dict(length=20)))
    assert export_model(model, path / "hf", "hf", path / "out") == []
    return path / "out"


def test_an_exported_reranker_is_loaded_as_one(exported: Path) -> None:
    model = bert_jax.load(exported)
    assert model.task.task == "rerank"
    assert model.config.data.length == 20
    one, alone = model.predict([ROW, {"text": "a b c", "documents": ["b a"]}])
    assert one["ranks"] == (1 + np.argsort(np.argsort(-np.array(one["scores"])))).tolist()
    assert alone["scores"] == pytest.approx(one["scores"][3:], rel=1e-6)
    with pytest.raises(ValueError, match="row 0: `documents` is empty: expected at least one"):
        model.predict([{"text": "a", "documents": []}])


def test_one_label_is_a_reranker_if_its_logit_is_the_score_and_a_regression_otherwise() -> None:
    written, tensors, _ = convert.to_hf(*tuned("bert", "rerank"))
    for activation, task in (("Identity", "rerank"), ("Sigmoid", "regression")):
        name = f"torch.nn.modules.linear.{activation}"
        changed = written | {"sentence_transformers": {"activation_fn": name}}
        objective = convert.from_hf(changed, tensors)[0].objective
        assert isinstance(objective, Supervised)
        assert objective.task == task
        head = kept_head.decide(objective, replace(objective, task="rerank"), "m")
        assert head.kept, "published rerankers are trained further"


def test_a_reranker_of_any_version_of_cross_encoder_is_one(exported: Path, tmp_path: Path) -> None:
    """Before version 4 a key of config.json says so, since 5.4 a file beside it."""
    identity = "torch.nn.modules.linear.Identity"
    for version in ("old", "new"):
        folder = shutil.copytree(exported, tmp_path / version)
        settings = json.loads((folder / "config.json").read_text())
        del settings["sentence_transformers"]
        (folder / "config.json").write_text(json.dumps(settings))
        assert bert_jax.load(folder).task.task == "regression"
        if version == "old":
            settings["sbert_ce_default_activation_function"] = identity
            (folder / "config.json").write_text(json.dumps(settings))
        else:
            types = [{"idx": 0, "name": "0", "path": "", "type": "x.Transformer"}]
            (folder / "modules.json").write_text(json.dumps(types))
            values = {"model_type": "CrossEncoder", "activation_fn": identity}
            (folder / "config_sentence_transformers.json").write_text(json.dumps(values))
        model = bert_jax.load(folder)
        assert model.task.task == "rerank"
        assert model.sentence is None


@pytest.mark.peer
def test_the_logits_equal_those_of_transformers_and_of_cross_encoder(exported: Path) -> None:
    torch, T = (pytest.importorskip(name) for name in ("torch", "transformers"))
    ours = np.array(bert_jax.load(exported).predict([ROW])[0]["scores"])
    tokenizer = T.AutoTokenizer.from_pretrained(exported)
    hf = T.AutoModelForSequenceClassification.from_pretrained(exported).eval()
    pairs: Any = [(ROW["text"], document) for document in ROW["documents"]]
    rows = tokenizer(pairs, padding=True, truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        logits = hf(**rows).logits
    assert logits.shape == (4, 1)
    assert np.allclose(logits[:, 0].numpy(), ours, atol=1e-5)
    library = pytest.importorskip("sentence_transformers")
    peer = library.CrossEncoder(str(exported), device="cpu", max_length=20)
    assert np.allclose(peer.predict(pairs), ours, atol=1e-5)
    ranked = peer.rank(ROW["text"], ROW["documents"])
    assert [hit["corpus_id"] for hit in ranked] == np.argsort(-ours).tolist()
