"""The command `demo` when it is repeated."""

from pathlib import Path

import pytest

from bert_jax.cli import demo_command, run_commands
from bert_jax.config import BERT, replace, save_config
from tests.helpers.cli_runner import call


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            "run.steps was 2400, now 300. Restore run.steps, or start one with another --run.dir",
            "runs/demo was made with 2400 steps, now 300: give --steps 2400 to keep it; to begin "
            "again, remove runs/demo",
        ),
        (
            "run.dir runs/demo was made by another config. Choose another --run.dir",
            "run.dir runs/demo was made by another config. Choose another --run.dir; to begin "
            "again, remove runs/demo",
        ),
        ("the tokenizer is damaged", "the tokenizer is damaged"),
    ],
)
def test_a_demo_that_cannot_go_on_says_how_to_begin_again(
    problem: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> int:
        raise ValueError(problem)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_command, "prepare_demo", lambda: None)
    monkeypatch.setattr(run_commands.Pretrain, "run", refuse)
    Path("runs/demo").mkdir(parents=True)
    save_config(replace(BERT, run=dict(steps=2400)), Path("runs/demo/config.json"))
    assert call("demo", "--steps", 300) == 2
    assert capsys.readouterr().err == f"bert-jax: {message}\n"
