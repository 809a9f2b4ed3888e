"""`predict`: rows in, answers out, in the same order and as evaluation gave them."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax import config, load, tasks
from bert_jax.cli import main as cli
from bert_jax.convert import export
from bert_jax.inference import predict
from bert_jax.inference.model import Model
from bert_jax.tasks import ANSWERABLE_LABELS
from bert_jax.training.finetune import finetune
from tests.helpers import toy_tasks


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and runs on data of some kinds which evaluate and do not train."""
    folder = tmp_path_factory.mktemp("predict")
    toy_tasks.write_model_dir(folder / "model")

    def save_start(*args: Any, **_: Any) -> None:
        experiment, steps, _, _, checkpoints, *_ = args
        checkpoints.save(experiment.run.steps, steps.init(), experiment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bert_jax.training.loop.fit", save_start)
        for kind in ("classification", "tagging", "choice", "qa"):
            data = toy_tasks.write_task_dir(folder / "data" / kind, kind)
            run = folder / "model", kind, data, folder / kind
            finetune(toy_tasks.finetune_config_for(*run))
    return folder


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def close(a: object, b: object) -> bool:
    """The same but for the last digits of probabilities: batches are made up in another way."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    return a == pytest.approx(b, abs=1e-5) if isinstance(a, float) else a == b


@pytest.mark.slow_unless("tagging", "qa")
@pytest.mark.parametrize("kind", ["classification", "tagging", "qa"])
def test_predictions_equal_those_of_the_evaluation(
    kind: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "ROWS_PER_CHUNK", 5)  # in parts or at once, all the same
    file = home / "data" / kind / ("test.json" if kind == "qa" else "test.jsonl")
    out = tmp_path / "out.jsonl"
    assert predict.predict_file(load(home / kind), file, out) == (19, 0)
    assert close(read(out), read(home / kind / "predictions_test.jsonl"))
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("classification", {}), ("tagging", {}), ("qa", dict(stride=3))],
)
def test_an_export_reads_rows_of_the_same_length_and_gives_the_same_predictions(
    kind: str, objective: dict, home: Path, tmp_path: Path
) -> None:
    """Not of the default of its task, which would read more of a long text, or other windows."""
    model = with_config(load(home / kind), objective=objective, data=dict(length=16))
    export.export_model(model, str(home / kind), "hf", str(tmp_path / "hf"), None)
    exported = load(tmp_path / "hf")
    assert exported.row_length == 16
    long = "zero one two red three " * 6
    row = {"text": long, "tokens": long.split(), "question": "which ?", "context": long}
    rows = [row, *toy_tasks.random_rows(kind, 2, 3)]
    assert close(exported.predict(rows), model.predict(rows))


def test_a_classifier_that_does_not_say_how_long_its_rows_are_reads_all_it_can(
    home: Path, tmp_path: Path
) -> None:
    model = with_config(load(home / "classification"), data=dict(length=16))
    export.export_model(model, str(home / "classification"), "hf", str(tmp_path / "hf"), None)
    settings = json.loads((tmp_path / "hf/config.json").read_text())
    del settings["long_texts"]
    (tmp_path / "hf/config.json").write_text(json.dumps(settings))
    assert load(tmp_path / "hf").row_length == model.config.encoder.max_length == 48


def test_an_export_knows_that_questions_may_have_no_answer(home: Path, tmp_path: Path) -> None:
    """And from which score on: the best on dev, which only results.json has."""
    row = {"question": "which ?", "context": "zero one red two"}
    for threshold in (-1e9, 1e9):
        model = with_config(
            load(home / "qa"),
            objective=dict(labels=ANSWERABLE_LABELS, no_answer_threshold=threshold),
        )
        out = tmp_path / f"hf{threshold:g}"
        export.export_model(model, str(home / "qa"), "hf", str(out), None)
        ((answer,), (expected,)) = (m.predict([row]) for m in (load(out), model))
        assert close(answer, expected)
        assert 0 < answer["no_answer"] < 1
        assert (answer["answer"] == "") == (threshold < 0)


def with_config(model: Model, **changes: Any) -> Model:
    return dataclasses.replace(model, config=config.replace(model.config, **changes))


@pytest.mark.slow_unless("tagging")
@pytest.mark.parametrize("kind", ["tagging", "qa"])
def test_answers_of_windows_do_not_depend_on_the_batch(kind: str, home: Path) -> None:
    objective = dict(stride=3) if kind == "qa" else {}
    model = with_config(load(home / kind), objective=objective, data=dict(length=16))
    rows = [{"id": str(i), **r} for i, r in enumerate(toy_tasks.random_rows(kind, 20, 9))]
    long = "zero one two red three " * 6
    rows[1] |= {"text": long, "context": long, "tokens": long.split()}
    where = tasks.Location("rows", "row 1")
    example = tasks.parse_unlabeled_example(kind, rows[1], where)  # type: ignore[arg-type]
    windows = len(model.encode_examples([example]).rows)
    assert windows > 1
    if kind == "qa":
        default = with_config(model, objective=dict(stride=None))
        assert windows > len(default.encode_examples([example]).rows)
    together = model.predict(rows)
    assert [model.predict([r])[0] for r in rows[:3]] == together[:3]  # bit for bit
    assert model.predict(rows[::-1])[::-1] == together


def test_predictions_do_not_depend_on_the_batch(home: Path) -> None:
    model = load(home / "classification")
    rows = [{"text": r["text"]} for r in toy_tasks.random_rows("classification", 40, 9)]
    together = model.predict(rows)
    alone = [model.predict([r])[0] for r in rows[:3]]
    assert alone == together[:3]  # bit for bit
    long = {"text": "red " * 40}
    assert model.predict([long, *rows[:2], long])[1:3] == together[:2]
    assert sum(together[0]["probabilities"].values()) == pytest.approx(1)
    assert model.predict([]) == []
    choice, options = load(home / "choice"), toy_tasks.random_rows("choice", 20, 9)
    together = choice.predict(options)
    assert [choice.predict([row])[0] for row in options[:3]] == together[:3]


def test_outputs_that_are_not_numbers_are_no_predictions(home: Path) -> None:
    model = load(home / "classification")
    dense = model.params["label"]["dense"]
    bias = dense["bias"].at[0].set(np.nan)
    damaged = {**model.params, "label": {"dense": {**dense, "bias": bias}}}
    with pytest.raises(ValueError, match=r"outputs are not numbers: .*; use an earlier checkpoint"):
        dataclasses.replace(model, params=damaged).predict([{"text": "red"}])


def test_long_texts_are_truncated_and_counted(home: Path, tmp_path: Path) -> None:
    rows = [{"text": "red " * n} for n in (3, 46, 47, 200)]  # 48 with [CLS] and [SEP]
    file = toy_tasks.write_jsonl(tmp_path / "in.jsonl", rows)
    assert predict.predict_file(load(home / "classification"), file, tmp_path / "out") == (4, 2)


def test_long_contexts_and_sentences_are_predicted_in_windows(home: Path) -> None:
    words = ["one", "two"] * 60
    [prediction] = load(home / "tagging").predict([{"tokens": words}])
    assert len(prediction["tags"]) == 120
    context = " ".join(words)
    [prediction] = load(home / "qa").predict([{"question": "which ?", "context": context}])
    assert context[prediction["start"] : prediction["end"]] == prediction["answer"]


def test_predict_command_reports_row_counts_and_unknown_tokens(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["red", "blue " * 99, "हिन्दी", "ฝนตก", "학교"]
    toy_tasks.write_jsonl(tmp_path / "in.jsonl", [{"text": t} for t in texts])
    with pytest.raises(SystemExit) as e:
        cli.main(["predict", str(home / "classification"), *_files(tmp_path)])
    assert e.value.code == 0
    output = capsys.readouterr()
    assert "5 rows" in output.out
    assert "1 of 5 texts were cut, since rows have 48 tokens" in output.err
    assert "% unknown tokens, 1.00 pieces per word" in output.err
    assert "in.jsonl are unknown, so the model cannot tell them apart" in output.err
    assert [set(p) for p in read(tmp_path / "out.jsonl")] == 5 * [
        {"label", "probability", "probabilities"}
    ]


def edited(run: Path, out: Path, section: str, **fields: object) -> Path:
    """A copy of a run whose config.json has other values."""
    shutil.copytree(run, out)
    values = json.loads((out / "config.json").read_text())
    values[section] |= fields
    (out / "config.json").write_text(json.dumps(values))
    return out


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("encoder", {"vocab_size": 12}, "vocab_size was 16, now 12"),
        ("encoder", {"heads": 1}, "heads was 2, now 1"),
        ("objective", {"labels": ["a", "b", "c"]}, r"params/label/dense/bias \[2\], here \[3\]"),
    ],
)
def test_a_config_that_does_not_describe_its_checkpoint_is_refused_in_one_line(
    section: str, fields: dict, message: str, home: Path, tmp_path: Path
) -> None:
    run = edited(home / "classification", tmp_path / "run", section, **fields)
    with pytest.raises(ValueError, match=message) as e:
        load(run)
    assert "\n" not in str(e.value)
    assert e.value.__cause__ is None


def test_dropout_in_an_edited_config_changes_nothing(home: Path, tmp_path: Path) -> None:
    run = edited(home / "classification", tmp_path / "run", "encoder", dropout=0.5)
    row = [{"text": "red"}]
    assert load(run).predict(row) == load(home / "classification").predict(row)


def test_a_pair_is_asked_for_where_the_model_was_trained_on_pairs(home: Path) -> None:
    model = load(home / "classification")
    assert model.task.pairs is False
    with pytest.raises(ValueError, match="row 1: `text_pair` is given, but the model was trained"):
        model.predict([{"text": "red"}, {"text": "red", "text_pair": "blue"}])
    on_pairs = config.replace(model.config, objective={"pairs": True})
    with pytest.raises(ValueError, match="row 0: `text_pair` is missing, but the model was"):
        dataclasses.replace(model, config=on_pairs).predict([{"text": "red"}])


def test_a_question_longer_than_the_row_is_truncated_and_answered(
    home: Path, tmp_path: Path
) -> None:
    rows = [{"question": "which " * n, "context": "one red two"} for n in (1, 90)]
    file = toy_tasks.write_jsonl(tmp_path / "in.jsonl", rows)
    assert predict.predict_file(load(home / "qa"), file, tmp_path / "out") == (2, 1)
    assert len(read(tmp_path / "out")) == 2


BAD = {
    "a model without a head": ("model", '{"text": "red"}', "fine-tune it first"),
    "a row without its field": ("classification", '{"words": "red"}', "line 1: no field `text`"),
    "a line that is no object": ("classification", '"red"', "expected one JSON object per line"),
    "an empty file": ("classification", "", "is empty"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_invalid_input_is_reported_and_no_file_is_written(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, line, expected = BAD[name]
    (tmp_path / "in.jsonl").write_text(line + "\n")
    with pytest.raises(SystemExit) as e:
        cli.main(["predict", str(home / model), *_files(tmp_path)])
    assert e.value.code == 2
    assert expected in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_predict_does_not_overwrite_a_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="which exists: expected the name of a new file"):
        predict.predict_file(load(home / "qa"), tmp_path / "in.jsonl", tmp_path / "out")


def test_predictions_are_not_written_under_the_name_of_another_format(
    home: Path, tmp_path: Path
) -> None:
    for name in ("out.csv", "out.jsonl.gz"):
        with pytest.raises(ValueError, match=f"{name}, but rows are written as JSONL: name it"):
            predict.predict_file(load(home / "qa"), tmp_path / "in.jsonl", tmp_path / name)


def _files(folder: Path) -> list[str]:
    return [str(folder / "in.jsonl"), "--out", str(folder / "out.jsonl")]
