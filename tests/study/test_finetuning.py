"""The rate of fine-tuning is chosen on training rows, and the scored rows have no part in it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study import finetuning
from study.datasets import sample_rows
from study.finetuning import finetune_run
from study.presets import SMOKE, Preset

RATES = replace(SMOKE, tune_rates=(1e-3, 3e-3, 1e-2))


class FakeFinetune:
    """Writes a folder with results: dev scores follow from the peak rate and the rows."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, int]] = []  # rate, folder of the rows, seeds
        self.dev_scores: dict[float, float] = {1e-3: 0.5, 3e-3: 0.7, 1e-2: float("nan")}
        self.stop_at: float | None = None

    def __call__(self, config: Any, seeds: int) -> int | None:
        rate = config.optim.peak_lr
        if rate == self.stop_at:
            return 15
        self.calls.append((rate, Path(config.data.path).name, seeds))
        Path(config.run.dir).mkdir(exist_ok=True)
        return None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeFinetune:
    fake = FakeFinetune()

    def dev_score(folder: Path, metric: str | None) -> float:
        return fake.dev_scores[float(folder.name.split("-rate-")[1])]

    monkeypatch.setattr(finetuning, "finetune", fake)
    monkeypatch.setattr(finetuning, "_dev_score", dev_score)
    monkeypatch.setattr(finetuning.finetune_config, "for_model", lambda recipe, f: f(recipe))
    return fake


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folders = tmp_path / "given", tmp_path / "task"
    for folder in folders:
        folder.mkdir()
    for split in ("train", "dev"):
        lines = [json.dumps({"text": f"{split} {i}", "label": i % 2}) + "\n" for i in range(60)]
        (folders[0] / f"{split}.jsonl").write_text("".join(lines))
    sample_rows(*folders, SMOKE)
    return folders[1]


def tune(rows: Path, preset: Preset = RATES, seeds: int = 1) -> int | None:
    out = rows.with_name("run")
    return finetune_run(Path("encoder"), "classification", rows, out, preset, seeds=seeds)


def test_the_rate_that_is_best_on_dev_trains_on_all_rows(fake: FakeFinetune, rows: Path) -> None:
    fake.dev_scores[1e-2] = 0.6
    assert tune(rows, seeds=3) is None
    choice = [(rate, "rates", 1) for rate in RATES.tune_rates]
    assert fake.calls == [*choice, (3e-3, "task", 3)]
    assert {p.name for p in rows.parent.iterdir()} == {"given", "task", "run"}


def test_one_rate_needs_no_choice(fake: FakeFinetune, rows: Path) -> None:
    tune(rows, SMOKE)
    assert fake.calls == [(*SMOKE.tune_rates, "task", 1)]


def test_a_stopped_choice_is_kept(fake: FakeFinetune, rows: Path) -> None:
    fake.stop_at = 1e-2
    assert tune(rows) == 15
    assert [p.name for p in rows.parent.glob("run-rate-*")] != []
    assert not rows.with_name("run").exists()


def test_a_score_that_is_not_a_number_is_the_worst(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = {"metric": "pearson", "dev": {"pearson": float("nan"), "loss": 0.5}}
    monkeypatch.setattr(finetuning.results, "read_results", lambda _: result)
    assert finetuning._dev_score(tmp_path, None) == -float("inf")
    assert finetuning._dev_score(tmp_path, "loss") == 0.5


def test_the_rows_that_choose_the_rate_are_training_rows(rows: Path) -> None:
    """Together they are all of them, one in six is dev, and no scored row is among them."""
    lines = {
        name: (rows / f"{name}.jsonl").read_text().splitlines()
        for name in ("train", "rates/train", "rates/dev", "dev")
    }
    assert sorted(lines["rates/train"] + lines["rates/dev"]) == sorted(lines["train"])
    assert len(lines["rates/dev"]) == len(lines["train"]) // 6
    assert not set(lines["dev"]) & {*lines["rates/train"], *lines["rates/dev"]}
