"""The scheme of tags is recognized however they are spelled, and never changes what `f1` means."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.config import Supervised
from bert_jax.tasks import TaggingExample
from bert_jax.tasks.tag_scheme import entity_scores, recognize_scheme
from bert_jax.training.evaluation import EvalResult
from tests.helpers.labeled_rows import trained_tokenizer, write_task_dir

GOLD = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-PER"]
PREDICTED = ["B-PER", "O", "O", "B-LOC", "O", "O"]  # one of two found, one of three entities
SPELLINGS = {
    "prefix": lambda tag: tag,
    "underscore": lambda tag: tag.replace("-", "_"),
    "colon": lambda tag: tag.replace("-", ":"),
    "suffix": lambda tag: "-".join(reversed(tag.split("-"))),
    "suffix and underscore": lambda tag: "_".join(reversed(tag.split("-"))),
    "lower case": lambda tag: tag.lower(),
    "without types": lambda tag: tag[0],
    "BMEWO": lambda tag: tag.replace("I-", "E-"),
}


@pytest.mark.parametrize("name", sorted(SPELLINGS))
def test_f1_counts_entities_in_every_spelling(name: str) -> None:
    spell = SPELLINGS[name]
    gold, predicted = ([spell(tag) for tag in side] for side in (GOLD, PREDICTED))
    scheme = recognize_scheme(sorted(set(gold)))
    assert scheme is not None
    assert scheme.strays == ()
    scores = entity_scores(scheme, [gold], [predicted])
    assert scores == pytest.approx({"f1": 0.4, "precision": 0.5, "recall": 1 / 3})


def test_types_alone_are_entities_where_neighbors_belong_together() -> None:
    gold, predicted = ["PER", "PER", "O", "LOC", "O"], ["PER", "O", "O", "LOC", "O"]
    scheme = recognize_scheme(("LOC", "O", "PER"))
    assert str(scheme) == "IO, types without a marker"
    assert entity_scores(scheme, [gold], [predicted])["f1"] == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (("B-PER", "I-PER", "O"), "BIO, the marker before the type"),
        (("B-NP", "I-NP", "B-VP"), "BIO, the marker before the type"),
        (("B-X", "L-X", "U-X", "I-X", "O"), "BIOES, the marker before the type"),
        (("PER_B", "PER_E", "O"), "BIOES, the marker behind the type"),
        (("B", "M", "E", "S"), "BIOES, without types"),
        (("I-PER", "O"), "IO, the marker before the type"),
        (("B-PER", "I-PER", "MISC", "O"), "BIO, the marker before the type"),
        (("NOUN", "VERB", "ADJ"), None),
        (("A", "B", "C"), None),
        (("0", "1"), None),
        (("-LRB-", "NN", "S-NN"), None),
        (("S-PER", "S-LOC", "O"), "BIOES, the marker before the type"),
        (("PER_U", "O"), "BIOES, the marker behind the type"),
        (("S-PER", "LOC", "O"), "IO, types without a marker"),
    ],
)
def test_schemes_are_recognized_by_name(labels: tuple[str, ...], scheme: str | None) -> None:
    found = recognize_scheme(labels)
    assert (None if found is None else str(found)) == scheme


def test_strict_scoring_demands_the_scheme() -> None:
    scheme = recognize_scheme(("B-X", "I-X", "O"))
    assert scheme is not None
    gold, predicted = [["B-X", "I-X", "O"]], [["I-X", "I-X", "O"]]
    assert entity_scores(scheme, gold, predicted)["f1"] == 1
    assert entity_scores(scheme, gold, predicted, "strict")["f1"] == 0
    assert entity_scores(scheme, gold, gold, "strict")["f1"] == 1


def test_neighbors_in_a_scheme_of_single_words_are_entities_of_their_own() -> None:
    scheme = recognize_scheme(("O", "S-PER"))
    assert scheme is not None
    gold, predicted = [["S-PER", "S-PER", "O"]], [["S-PER", "O", "O"]]
    for scoring in ("lenient", "strict"):
        assert entity_scores(scheme, gold, predicted, scoring)["recall"] == 0.5


@pytest.mark.parametrize("labels", [("B-X", "I-X", "O", "Y"), ("B-X", "E-X", "O", "Y")])
@pytest.mark.parametrize("run", [1, 2, 3])
def test_strict_scoring_counts_tags_outside_of_the_scheme(
    labels: tuple[str, ...], run: int
) -> None:
    scheme = recognize_scheme(labels)
    assert scheme is not None
    assert scheme.strays == ("Y",)
    gold = [[*labels[:2], *["Y"] * run, "O"]]
    predicted = [[*labels[:2], "O", *["Y"] * (run - 1), "O"]]
    assert entity_scores(scheme, gold, gold, "strict")["f1"] == 1
    assert entity_scores(scheme, gold, predicted, "strict")["recall"] == 0.5


def test_words_without_a_label_are_not_scored() -> None:
    labels = ("B-X", "I-X", "O")
    examples = [TaggingExample(("a", "a", "a"), ("B-X", None, "O"))]
    encoded = tasks.encode_examples("tagging", examples, trained_tokenizer("wordpiece"), 24, labels)
    assert [tag for tag in encoded.rows[0]["tags"] if tag >= 0] == [0, 2]
    outputs = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 0]]  # [CLS] B I O [SEP]
    assert tasks.compute_metrics("tagging", encoded, [outputs], labels)["f1"] == 1


@pytest.mark.parametrize(("scoring", "f1"), [("lenient", 1.0), ("strict", 0.0)])
def test_the_scoring_of_the_objective_is_that_of_the_evaluation(scoring: Any, f1: float) -> None:
    """An entity that begins with I breaks its scheme."""
    labels = ("B-X", "I-X", "O")
    examples = [TaggingExample(("a", "a", "a"), ("B-X", "I-X", "O"))]
    encoded = tasks.encode_examples("tagging", examples, trained_tokenizer("wordpiece"), 24, labels)
    outputs = [np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]]]  # [CLS] I I O [SEP]
    direct = tasks.compute_metrics("tagging", encoded, outputs, labels, tag_scoring=scoring)
    assert direct["f1"] == f1
    objective = Supervised("tagging", labels=labels, tag_scoring=scoring)
    assert EvalResult(objective, encoded, outputs, 0.0).scores() == direct | {"loss": 0.0}


def notes_of(path: Path, *sentences: Sequence[str]) -> list[str]:
    rows = [{"tokens": ["w"] * len(tags), "tags": list(tags)} for tags in sentences]
    return tasks.read_dataset("tagging", write_task_dir(path, rows)).notes


def test_notes_say_what_f1_means(tmp_path: Path) -> None:
    [note] = notes_of(tmp_path / "a", ["PER-B", "PER-I", "O"])
    assert note == "tags mark entities (BIO, the marker behind the type): f1 is of whole entities"
    [note] = notes_of(tmp_path / "b", ["NOUN", "VERB"])
    assert "word_accuracy and word_f1" in note
    _, strays = notes_of(tmp_path / "c", ["B-PER", "I-PER", "O", "MISC", "MISC"])
    assert strays.endswith("each counted as an entity type: 'MISC' 2")
    _, bare = notes_of(tmp_path / "d", ["I-PER", "O", "B-PER", "I-PER", "O", "I-PER"])
    assert "although there is B: 2;" in bare
