"""An encoder is compared with random weights and a bag of words, each side at its best rate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.encoder_tasks import baseline_rows, best_rate, rates_table, read_runs, scores_table
from bert_jax.config import FINETUNE, replace
from bert_jax.config.serialization import save_config


def seeds(dev: float, share: float, count: int = 3) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(int(1000 * share))
    rows = [(rng.random(400) < share).astype(int).tolist() for _ in range(count)]
    return {str(i): {"dev": dev, "rows": r} for i, r in enumerate(rows)}


TRAINED = {"sentiment": {1e-3: seeds(0.7, 0.65, 1), 3e-3: seeds(0.8, 0.8)}}
RANDOM = {"sentiment": {1e-3: seeds(0.6, 0.6)}}


def test_each_side_has_the_rate_that_is_best_on_dev() -> None:
    assert best_rate(TRAINED["sentiment"]) == 3e-3
    assert best_rate({1e-3: {"1": {"dev": 0.9}}, 3e-3: {"0": {"dev": 0.1}}}) == 3e-3
    with pytest.raises(ValueError, match="no run has seed 0"):
        best_rate({1e-3: {"1": {"dev": 0.9}}})


def test_the_table_has_differences_to_random_weights_and_to_a_bag_of_words() -> None:
    bag = [1, 1, 1, 0] * 100
    line = scores_table(TRAINED, RANDOM, {"sentiment": bag}).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0::2][:3] == ["`sentiment`", "0.003", "0.001"]
    means = [np.mean([s["rows"] for s in x["sentiment"][r].values()]) for x, r in
             ((TRAINED, 3e-3), (RANDOM, 1e-3))]  # fmt: skip
    assert cells[5].startswith(f"{means[0] - means[1]:+.3f}".replace("0.", "."))
    assert cells[6] == ".750"
    assert cells[7].startswith(f"{means[0] - 0.75:+.3f}".replace("0.", "."))
    assert scores_table(TRAINED, RANDOM, {}).splitlines()[2].endswith("|  |  |")


def test_all_rates_that_were_tried_are_told() -> None:
    lines = rates_table(TRAINED, RANDOM).splitlines()
    assert lines[0] == "| dev, seed 0 | | 0.001 | 0.003 |"
    assert lines[2:] == [
        "| `sentiment` | trained | .700 | .800 |",
        "| `sentiment` | random weights | .600 |  |",
    ]


def write_rows(folder: Path, split: str, rows: list[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_bag_of_words_is_scored_row_by_row(tmp_path: Path) -> None:
    rows = [{"text": f"{'good' if i % 2 else 'bad'} film", "label": str(i % 2)} for i in range(20)]
    odd = {"text": "good film", "label": "0"}
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / "sentiment", split, rows + [odd] * (split == "test"))
    assert baseline_rows("sentiment", tmp_path) == [1] * 20 + [0]
    tagged = [{"tokens": ["Ada", "met"], "tags": ["B-P", "O"]}] * 8
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / "ner", split, tagged)
    assert baseline_rows("ner", tmp_path) == [[1, 1, 1]] * 8
    assert baseline_rows("qa", tmp_path) is None


@pytest.mark.parametrize("labels", [(0, 1), ("0", "1")], ids=str)
def test_a_label_that_is_no_text_is_scored_like_its_text(
    labels: tuple[Any, Any], tmp_path: Path
) -> None:
    rows = [
        {"text": "good film" if i % 2 else "bad film", "label": labels[i % 2]} for i in range(20)
    ]
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / "sentiment", split, rows)
    assert baseline_rows("sentiment", tmp_path) == [1] * 20


def test_runs_are_told_apart_by_their_configs(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    for split in ("train", "dev", "test"):
        write_rows(tmp_path / "tasks/sentiment", split, rows)
    run = tmp_path / "runs/any name"
    write_rows(run, "predictions_test", [{"label": "x"}, {"label": "x"}])
    (run / "results.json").write_text('{"metric": "accuracy", "dev": {"accuracy": 0.5}}')
    config = replace(
        FINETUNE,
        data=dict(path=str(tmp_path / "tasks/sentiment")),
        optim=dict(peak_lr=2e-3),
        run=dict(seed=4, dir=str(run)),
    )
    save_config(config, run / "config.json")
    runs = read_runs(tmp_path / "runs", tmp_path / "tasks")
    assert runs == {"sentiment": {2e-3: {"4": {"dev": 0.5, "rows": [1, 0]}}}}
    with pytest.raises(ValueError, match="has no finished run"):
        read_runs(tmp_path / "tasks", tmp_path / "tasks")
