"""Rounding to bfloat16 changes what is learned by .03 nat at most of one seed. Where a run is
sensitive to every rounding, the mean of three seeds is within three of its standard errors of 0:
.15 nat. The demo's recipe: hours of two cores, `pytest -m hours`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bfloat16
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = ROOT / "benchmarks/demo_corpora.sh"
    subprocess.run([script, folder], check=True, env=os.environ | {"PATH": programs})
    return folder


# ELECTRA's generator samples; RoBERTa is compared where it learns fastest.
SEEDS = {"demo_electra": 3, "demo_roberta": 3}


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.hours
@pytest.mark.parametrize("config", bfloat16.CORPORA)
def test_bfloat16_learns_as_float32_does(config: str, corpora: Path, tmp_path: Path) -> None:
    cases = [
        bfloat16.compare(config, seed, corpora, tmp_path / "out.json")
        for seed in range(SEEDS.get(config, 1))
    ]
    for case in cases:
        below = case["unigram"] - case["float32"]
        # whole spans are hidden from SpanBERT: its recipe ends before it is 1 nat below
        assert below >= (0.9 if config == "demo_spanbert" else bfloat16.BELOW_FREQUENCIES)
    limit = 0.03 if len(cases) == 1 else 0.15
    assert abs(np.mean([case["bfloat16"] for case in cases])) < limit


def test_a_run_is_read_only_where_it_was_evaluated(tmp_path: Path) -> None:
    assert bfloat16.read_evaluations(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 20, "loss": 7.0}\n'
        '{"step": 50, "loss": 6.5, "eval_mask_loss": 6.25, "eval_unigram_loss": 6.5}\n'
        '{"step": 60, "loss": 6'
    )
    (line,) = bfloat16.read_evaluations(tmp_path)
    assert (line["step"], bfloat16.margin(line)) == (50, 0.25)
