"""The loss at hidden tokens is that of transformers, computed directly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import load
from bert_jax.config import ALBERT, BERT, ELECTRA, ROBERTA, SPANBERT
from bert_jax.convert.export import export_model
from bert_jax.data import documents
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.inference import import_model
from bert_jax.inference.evaluation import token_rows
from bert_jax.inference.evaluation.evaluate import evaluate_text
from bert_jax.inference.evaluation.masked_places import mask_rows, model_scores
from tests.helpers.hf_fixtures import package
from tests.helpers.known_models import small_model
from tests.helpers.paths import SAMPLE

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")
pytestmark = pytest.mark.peer

FAMILIES = {
    "bert": (BERT, "wordpiece", None),
    "albert": (ALBERT, "unigram", None),
    "roberta": (ROBERTA, "bpe", None),
    "spanbert": (SPANBERT, "wordpiece", None),
    "electra": (ELECTRA, "wordpiece", "generator"),
}


def direct_losses(folder: Path, masked: Any, tokenizer: Any) -> np.ndarray:
    """Cross-entropy at the hidden tokens under `AutoModelForMaskedLM`."""
    model = T.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = torch.tensor(masked.rows.tokens.astype(np.int64))
    keep = torch.arange(tokens.shape[1]) < torch.tensor(masked.rows.size)[:, None]
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=keep.long()).logits
    log_p = torch.log_softmax(logits.double(), -1)
    row, position = masked.places
    return -log_p[row, position, torch.tensor(masked.targets)].numpy()


def compare(folder: Path, hf: Path, text: Path, length: int) -> None:
    model = load(folder)
    parts = token_rows.text_rows(documents.read_documents([text]), model.tokenizer, length)
    rows = token_rows.TokenRows.concatenate(parts).take(np.arange(8))
    masked = mask_rows(rows, Vocabulary.of(model.tokenizer), maskings=2)
    ours = model_scores(model, masked).loss
    theirs = direct_losses(hf, masked, model.tokenizer)
    assert abs(ours.mean() - theirs.mean()) <= 1e-4
    assert abs(ours - theirs).max() <= 1e-3


@pytest.mark.slow_unless("bert", "roberta", "spanbert", "electra")
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_of_an_exported_model_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    base, kind, part = FAMILIES[family]
    lines = SAMPLE.read_text()[:60_000].splitlines()
    tokenizer = train_tokenizer(lines, kind, 400, cased=True)  # type: ignore[arg-type]
    tokenizer.save(tmp_path / "run" / "tokenizer")
    (tmp_path / "text.txt").write_text("\n".join(lines[:100]))
    model = small_model(tokenizer, base)
    export_model(model, tmp_path / "run", "hf", tmp_path / "hf", part)
    compare(tmp_path / "hf", tmp_path / "hf", tmp_path / "text.txt", 32)


@pytest.mark.slow
def test_loss_of_antiberty_is_that_of_transformers(tmp_path: Path) -> None:
    """A real masked language model, over proteins."""
    trained = package("antiberty") / "trained_models"
    folder = trained / "AntiBERTy_md_smooth"
    drop = ("cls.species", "cls.chain", "cls.graft")
    import_model.import_folder(
        folder, tmp_path / "ours", tokenizer=trained, drop=drop, allow_pickle=True, cased=True
    )
    protein = "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKG"
    (tmp_path / "text.txt").write_text("\n\n".join([" ".join(protein)] * 12))
    compare(tmp_path / "ours", folder, tmp_path / "text.txt", 100)
    scores = evaluate_text(load(tmp_path / "ours"), tmp_path / "text.txt", max_words=3).to_json()
    assert 0 < scores["mask_loss"] < np.log(20)  # it knows antibodies better than 20 equal letters
    assert 0 < scores["bits_per_character"] < np.log2(20)
