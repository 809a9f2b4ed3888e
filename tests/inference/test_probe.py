"""A probe: what a linear model reads off each layer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import load, tasks
from bert_jax.cli import main as cli
from bert_jax.inference import probe as probe_module
from bert_jax.inference.model import Model
from bert_jax.inference.probe import probe_layers, render_probe
from tests.helpers import hf_fixtures
from tests.helpers.labeled_rows import trained_tokenizer

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_fixtures.write_hf_folder(tmp_path_factory.mktemp("models") / "hf")


@pytest.fixture(scope="module")
def model(hf: Path) -> Model:
    return load(hf)


def write(folder: Path, make: Any) -> Path:
    """90 rows to train with and 40 for dev, of letters as words."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, n in (("train", 90), ("dev", 40)):
        rows = [make(list(rng.choice(list(LETTERS), rng.integers(1, 9)))) for _ in range(n)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    return folder


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tags that follow from the word, and some words of two pieces."""

    def make(words: list[str]) -> dict[str, Any]:
        tags = ["B-X" if w in "abc" else "O" for w in words]
        return {"tokens": [f"{w}1" if w in "bd" else w for w in words], "tags": tags}

    return write(tmp_path_factory.mktemp("data") / "tagged", make)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class that follows from whether the text has an `a`."""

    def make(words: list[str]) -> dict[str, Any]:
        return {"text": " ".join(words), "label": "yes" if "a" in words else "no"}

    return write(tmp_path_factory.mktemp("data") / "classes", make)


def by_layer(result: probe_module.ProbeResult, pool: str) -> dict[Any, dict[str, float]]:
    return {s.layer: s.metrics for s in result.scores if s.pool == pool}


@pytest.mark.slow
def test_probe_reads_word_identity_from_the_embedding_table(
    model: Model, tagged: Path, tmp_path: Path
) -> None:
    result = probe_layers(model, "tagging", tagged, tmp_path / "out", name="a model")
    first = by_layer(result, "first")
    assert list(first) == ["words", *range(model.config.encoder.layers + 1)]
    assert list(by_layer(result, "mean")) == list(first)
    assert first["words"]["word_accuracy"] == first["words"]["f1"] == 1.0
    assert result.metric == "f1"
    assert result.majority["f1"] == 0.0
    assert (
        render_probe(result)
        .splitlines()[-1]
        .startswith("best: layer words, first: f1 1.000 (90 train")
    )


def test_probe_on_the_embedding_of_the_first_token_is_at_majority_level(
    model: Model, classes: Path, tmp_path: Path
) -> None:
    result = probe_layers(model, "classification", classes, tmp_path / "out", layers=["words", -1])
    assert by_layer(result, "cls")["words"] == result.majority
    assert by_layer(result, "mean")["words"]["accuracy"] > result.majority["accuracy"] + 0.2
    assert {s.layer for s in result.scores} == {"words", model.config.encoder.layers}


def test_probe_writes_json_and_png(model: Model, classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = probe_layers(model, "classification", classes, out, layers=[0, 1], pools=["mean"])
    written = json.loads((out / "probe.json").read_text())
    assert written["best"]["layer"] == result.best.layer
    assert [s["metrics"] for s in written["scores"]] == [s.metrics for s in result.scores]
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_probing_layers_in_groups_equals_probing_all_at_once(
    model: Model, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = probe_layers(model, "tagging", tagged, tmp_path / "a", pools=["mean"], rows=30)
    monkeypatch.setattr(probe_module, "MAX_FEATURE_BYTES", 1)
    assert probe_layers(model, "tagging", tagged, tmp_path / "b", pools=["mean"], rows=30) == once
    assert once.rows == {"train": 30, "dev": 30}


def test_words_without_a_tag_teach_nothing(
    model: Model, tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tasks.read_dataset
    monkeypatch.setattr(tasks, "read_dataset", lambda *args: read(*args, unlabeled="O"))
    for split in ("train", "dev"):
        lines = (tagged / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row["tags"] = [f"B-{w[0]}" if w[0] in "ab" else "O" for w in row["tokens"]]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    result = probe_layers(
        model, "tagging", tmp_path, tmp_path / "out", layers=["words"], pools=["first"]
    )
    assert result.best.metrics["f1"] == 1.0


def test_probe_features_equal_those_of_encode(
    model: Model, tagged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tasks.read_dataset("tagging", tagged)
    part = probe_module._layer_split(model, data, "dev", 0, 0)
    texts = [" ".join(e.tokens) for e in data.splits["dev"]]  # type: ignore[union-attr]
    for layer in ("words", 1):
        probed = probe_module._features(model, part, [layer], "mean")[0]
        words = model.encode(texts, "words" if layer == "words" else [layer], pool="words")
        assert np.array_equal(probed, np.concatenate([w[0] for w in words]))


def test_the_last_word_ends_where_its_own_pieces_end(tmp_path: Path) -> None:
    """In byte-level BPE a word without a space before it has other pieces."""
    tokenizer = trained_tokenizer("bpe")
    text = "the cat (sat"
    example = tasks.TaggingExample(
        ("the", "cat", "(", "sat"), ("O",) * 4, text, ((0, 3), (4, 7), (8, 9), (9, 12))
    )
    encoded = tasks.encode_examples("tagging", [example], tokenizer, 100, ["O"])
    words, positions, end = encoded.alignments[0]  # type: ignore[misc]
    assert list(words) == [0, 1, 2, 3]
    pieces = list(encoded.rows[0]["tokens"][positions[-1] : end])
    assert pieces == list(tokenizer.encode("sat"))
    assert pieces != list(tokenizer.encode(" sat"))
    assert end == encoded.rows[0]["size"] - 1


def test_probe_features_of_a_text_in_windows_have_one_vector_per_word(
    model: Model, tmp_path: Path
) -> None:
    max_length = model.config.encoder.max_length
    tokens = ["a1", "b", "c"] * max_length
    data = write(
        tmp_path / "long", lambda _: {"tokens": tokens, "tags": ["A", "B", "C"] * max_length}
    )
    part = probe_module._layer_split(model, tasks.read_dataset("tagging", data), "dev", 1, 0)
    assert len(part.rows) > 1
    features = probe_module._features(model, part, ["words"], "mean")[0]
    alone = model.encode(["a1 b c"], "words", pool="words")[0][0]
    assert np.array_equal(features, np.tile(alone, (max_length, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(task="qa"), "qa is a qa task: expected tagging or classification"),
        (dict(task="stsb"), "stsb is a regression task"),
        (dict(task="parsing"), "the task is 'parsing'"),
        (dict(layers=[99]), "layer 99: the model has layers 0 to"),
        (dict(pools=["first"]), "classification has mean and cls"),
        (dict(rows=-1), "rows is -1"),
        (dict(seed=-1), "the seed is -1: expected a number from 0"),
        (dict(rows=1), "rows have the same label"),
        (dict(out=Path(__file__).parent), "choose another folder"),
        (dict(data="nowhere"), "nowhere"),
    ],
)
def test_invalid_probe_arguments_are_refused(
    changes: dict, message: str, model: Model, classes: Path, tmp_path: Path
) -> None:
    usual = dict(task="classification", data=classes, out=tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        probe_layers(model, **(usual | changes))
    assert not (tmp_path / "out").exists()


def test_probe_command_names_the_best_layer(
    hf: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["probe", str(hf), "--task", "classification", "--data", str(classes)]
    command += ["--layers", "words,0", "--pool", "mean", "--rows", "50", "--out"]
    with pytest.raises(SystemExit) as done:
        cli.main([*command, str(tmp_path / "out")])
    assert done.value.code == 0
    assert "best: layer" in capsys.readouterr().out
    for layers, message in (("words,one", "--layers is 'one'"), ("0", "choose another folder")):
        with pytest.raises(SystemExit) as done:
            cli.main([*command, str(tmp_path / "out"), "--layers", layers])
        assert done.value.code == 2
        assert message in capsys.readouterr().err
