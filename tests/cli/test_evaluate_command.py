"""`bert-jax evaluate`: one object or tables, and one line for input that it cannot use."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import Imported
from tests.helpers import toy_tasks
from tests.helpers.cli_runner import call


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    toy_tasks.write_model_dir(folder / "model")
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(toy_tasks.WORDS[:8], 20)) for _ in range(60)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "counts.txt").write_text("\n".join(lines[::-1]))
    return folder


@pytest.mark.slow
def test_json_is_one_object(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = (home / "model", "--text", home / "text.txt", "--max-words", 9, "--json")
    assert call("evaluate", *args) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["mask_loss"] > values["unigram_loss"] > 0
    assert values["words"] == 9
    assert call("evaluate", *args, "--counts", home / "counts.txt") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mask_loss"] == values["mask_loss"]
    assert again["bigram_loss"] != values["bigram_loss"]


def test_tables_name_the_baselines(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--max-rows", 5, "--max-words", 9, "--fold", "case", "accents")
    assert call("evaluate", home / "model", "--text", home / "text.txt", *args) == 0
    out = capsys.readouterr().out
    for words in (
        "counts of both neighbors",
        "frequencies of tokens",
        "5 of 27 rows",
        "9 of 1,200",
    ):
        assert words in out, out


def test_a_model_without_a_masked_word_head_is_refused_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bert_jax.config import read_config, replace, save_config

    toy_tasks.write_model_dir(tmp_path / "bare")
    config = read_config(tmp_path / "bare/config.json")
    save_config(replace(config, objective=Imported(pooler=True)), tmp_path / "bare/config.json")
    assert call("evaluate", tmp_path / "bare", "--text", home / "text.txt") == 2
    error = capsys.readouterr().err
    assert "has no masked-word head" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "give either --data CORPUS or --text FILE"),
        (("--data", "a", "--text", "b"), "give either --data CORPUS or --text FILE"),
        (("--data", "a", "--counts", "b"), "--counts needs --text"),
        (("--data", "a", "--max-words", 5), "--max-words needs --text"),
        (("--data", "a", "--length", 32), "--length needs --text"),
        (("--data", "a", "--fold", "case"), "--fold needs --text"),
        (("--data", "missing"), "missing is not a corpus"),
        (("--text", "missing.txt"), "missing.txt does not exist"),
        (("--text", "missing.txt", "--fold", "color"), "--fold"),
    ],
)
def test_wrong_flags_are_refused(
    flags: tuple[object, ...], message: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", home / "model", *flags) == 2
    assert message in capsys.readouterr().err
