"""What a notebook shows of a model."""

from pathlib import Path

import bert_jax
from bert_jax.config import replace
from bert_jax.inference.model_summary import summary
from tests.helpers.hf_fixtures import write_hf_folder
from tests.helpers.sentence_folders import write_sentence_folder


def test_a_notebook_shows_family_size_and_what_the_model_can_do(tmp_path: Path) -> None:
    folder = write_hf_folder(tmp_path / "<hf>", "electra_generator")
    model = bert_jax.load(folder)
    rows = summary(model)
    assert rows["family"] == "electra"
    assert rows["can"] == "encode(), similarity(), fill()"
    assert rows["from"] == str(folder)
    page = model._repr_html_()
    assert "&lt;hf&gt;" in page
    assert "<hf>" not in page
    sentences = bert_jax.load(write_sentence_folder(tmp_path / "s", {"pooling_mode": "mean"}))
    assert summary(sentences)["can"].startswith("encode(): sentence vectors")


def test_a_network_without_a_hugging_face_class_is_shown_too(tmp_path: Path) -> None:
    model = bert_jax.load(write_hf_folder(tmp_path / "hf"))
    encoder = replace(model.config, encoder=dict(norm="rms"))
    changed = type(model)(encoder, model.params, model.tokenizer)
    assert summary(changed)["family"] == "bert"
