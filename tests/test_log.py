"""What a run says about itself."""

import json
import time
from pathlib import Path

import pytest

from bert_jax import log

PLATEAU = {"loss": 7.0, "eval_loss": 7.0, "eval_mlm_loss": 6.5, "eval_unigram_loss": 6.5}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (PLATEAU, ["word frequencies"]),
        (PLATEAU | {"eval_mlm_loss": 6.0}, []),
        ({"eval_pair_loss": 0.692, "eval_pair_share": 0.5}, ["tells nothing apart"]),
        ({"eval_pair_loss": 0.6, "eval_pair_share": 0.5}, []),
        ({"eval_pair_loss": 0.6, "eval_pair_share": 0.71}, ["tells nothing apart"]),
        ({"eval_rtd_recall": 0.0, "eval_rtd_accuracy": 0.93}, ["called original"]),
        ({"eval_rtd_recall": 0.2}, []),
    ],
)
def test_trivial_answers_are_recognised(values: dict, says: list[str]) -> None:
    found = log.trivial(values)
    assert len(found) == len(says)
    assert all(s in f for s, f in zip(says, found, strict=True))


def test_a_run_that_stays_there_is_warned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = log.RunLog(tmp_path, 0, 10, dict)
    for _ in range(3):
        assert "warning" not in capsys.readouterr().err
        run.advance(1)
        run.defer(PLATEAU)
        run.flush()
    run.close()
    assert "for 3 evaluations in a row" in capsys.readouterr().err


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step" 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        log.read(tmp_path)


def test_every_line_has_its_step_loss_and_throughput(tmp_path: Path) -> None:
    run = log.RunLog(tmp_path, 0, 10, dict)
    with run.timed("evaluate"):
        time.sleep(0.2)
    run.advance(100)
    run.defer({"loss": 2.0, "learning_rate": 0.1})
    run.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert list(line) == ["step", "loss", "tokens_per_second", "learning_rate"]
    assert line["tokens_per_second"] > 100 / 0.2  # what was timed apart does not count
    timing = json.loads((tmp_path / "timing.jsonl").read_text())
    assert timing["what"] == "evaluate"
    assert timing["seconds"] >= 0.2
