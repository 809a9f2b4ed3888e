"""GLUE's diagnostic set: read beside MNLI, with labels where they are there, scored by Matthews."""

from pathlib import Path

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.config import Supervised
from bert_jax.tasks import TextExample, results
from bert_jax.tasks.glue import GLUE_COLUMNS
from bert_jax.training.evaluation import EvalResult
from tests.helpers.labeled_rows import perfect_outputs, trained_tokenizer

HEADER = "Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain"
FULL = [
    f"{HEADER}\tPremise\tHypothesis\tLabel",
    "\t\tNegation\t\tNews\tthe cat\tno cat\tcontradiction",
    '\t\t\t\tNews\tthe cat\ta "cat\tentailment',
    "\t\t\t\tNews\tthe cat\tsat\t",
]


@pytest.fixture
def mnli(tmp_path: Path) -> Path:
    """A folder of GLUE's with MNLI in it."""
    folder = tmp_path / GLUE_COLUMNS["mnli"].folder
    folder.mkdir()
    width = max(GLUE_COLUMNS["mnli"].texts) + 3
    lines = ["\t".join(["x"] * (width - 1) + [label]) for label in ("gold", "neutral")]
    for name in ("train", "dev_matched", "dev_mismatched"):
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "diagnostic").mkdir()
    return tmp_path


def test_labeled_rows_are_scored_by_matthews_correlation(mnli: Path) -> None:
    assert "diagnostic" not in tasks.read_dataset("mnli", mnli).splits
    (mnli / "diagnostic" / "diagnostic-full.tsv").write_text("\n".join(FULL) + "\n")
    data = tasks.read_dataset("mnli", mnli)
    assert data.splits["diagnostic"] == [
        TextExample("the cat", "no cat", "contradiction"),
        TextExample("the cat", 'a "cat', "entailment"),
        TextExample("the cat", "sat", None),
    ]
    assert any("predicted and not scored: 1" in note for note in data.notes)
    assert "diagnostic" in results.SPLITS  # so fine-tuning scores and predicts it
    encoded = tasks.encode_examples(
        "classification", data.splits["diagnostic"], trained_tokenizer("wordpiece"), 24, data.labels
    )
    outputs = perfect_outputs(encoded, data.labels)
    objective = Supervised(task="mnli", labels=data.labels)
    result = EvalResult(objective, encoded, outputs, 0.5, "diagnostic")
    assert result.scores() == {"matthews": 1, "loss": 0.5}
    wrong = EvalResult(objective, encoded, [np.eye(3)[0]] * 3, 0.5, "diagnostic")
    assert wrong.scores()["matthews"] == 0
    assert set(EvalResult(objective, encoded, outputs, 0.5).scores()) == {"accuracy", "loss"}


def test_rows_without_labels_are_predicted_alone(mnli: Path) -> None:
    file = mnli / "diagnostic" / "diagnostic.tsv"
    file.write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    data = tasks.read_dataset("mnli", mnli)
    assert data.splits["diagnostic"] == [TextExample("a", "b")]
    file.write_text("index\ttext\n0\ta\n")
    with pytest.raises(ValueError, match=r"line 1: the columns are index, text: expected Premise"):
        tasks.read_dataset("mnli", mnli)
    file.write_text("index\tsentence1\tsentence2\n0\ta\n")
    with pytest.raises(ValueError, match=r"line 2: 2 columns: expected 3, as in the header"):
        tasks.read_dataset("mnli", mnli)
