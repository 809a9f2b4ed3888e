"""`bench`: its figures follow from each other. No test asserts a time."""

import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import pytest

from bert_jax import config
from bert_jax.cli import main as cli
from bert_jax.config import Experiment, replace
from bert_jax.perf import bench, flops
from bert_jax.perf.bench import BenchOptions, device, timer
from bert_jax.perf.bench import result as bench_result
from bert_jax.perf.bench.options import bench_config
from tests.helpers import tiny_configs
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT

TINY = replace(tiny_configs.FAMILIES["bert"], run=dict(steps=100))


def run_bench(config: Experiment, **options: Any) -> dict[str, Any]:
    result = bench.bench(config, BenchOptions(steps=2, **options), log=lambda _: None)
    return json.loads(json.dumps(result))


# ---- the result


RESULT: dict[str, Any] = {  # of a run, as far as tables show it
    **dict(date="2026-01-02T03:04", device="cpu", devices=4, jax="0.10.2", dtype="float32"),
    **dict(objective="Masked", rows="random", batch_size=4, length=32, attention={}),
    **dict(dropout=[0.1, 0.1], parameters=20_000, compile_seconds=2.5),
    **dict(step_seconds=0.004, rounds=[0.003, 0.005]),
    **dict(tokens_per_second=32_000.0, padded_tokens_per_second=32_000.0),
    **dict(flops_per_second=1e9, peak_flops=1e10, peak="measured", utilisation=0.025),
    **dict(utilisation_reliable=True, idle_share=0.1, collectives={"all-reduce": 80_000}),
    **dict(input={"tokens_per_second": 1e6}, memory={"peak": 1 << 20, "device_limit": 1 << 34}),
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return run_bench(replace(TINY, mesh=dict(data=2, fsdp=2)), batch_size=4)


@pytest.mark.slow
def test_the_figures_follow_from_each_other(result: dict[str, Any]) -> None:
    assert result["devices"] == 4
    assert result["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert result["tokens_per_step"] == 4 * tiny_configs.LENGTH
    seconds = result["step_seconds"]
    assert result["tokens_per_second"] * seconds == pytest.approx(4 * tiny_configs.LENGTH)
    assert result["padded_tokens_per_second"] == result["tokens_per_second"]
    assert result["flops_per_step"] == flops.per_step(TINY, 4, tiny_configs.LENGTH)
    reached = result["utilisation"] * result["peak_flops"] * 4
    assert reached == pytest.approx(result["flops_per_second"])
    assert result["flops_per_second"] == pytest.approx(result["flops_per_step"] / seconds)
    assert result["peak"] == "measured"
    assert result["utilisation_reliable"] == (result["utilisation"] <= 1)
    assert 0 <= result["idle_share"] <= 1
    assert result["compile_seconds"] > 0
    assert result["input"]["tokens_per_second"] > 0
    assert len(result["rounds"]) == 2
    assert RESULT.keys() <= result.keys()


@pytest.mark.slow
def test_devices_that_share_parameters_send_bytes(result: dict[str, Any]) -> None:
    assert result["collectives"]["all-reduce"] > 0
    assert result["memory"]["peak"] > result["memory"]["arguments"] > 0
    assert "compile" in bench.render_bench(result)


@pytest.mark.parametrize("reliable", [True, False])
def test_a_utilization_above_the_peak_is_called_unreliable(reliable: bool) -> None:
    """So is it on a machine that is busy in every measurement of the peak."""
    text = bench.render_bench({**RESULT, "utilisation_reliable": reliable})
    assert ("unreliable: above the peak; repeat on an idle machine" in text) == (not reliable)


def test_the_utilization_is_reliable_up_to_the_peak(one_step: Any) -> None:
    contender, times = one_step
    work = flops.per_step(TINY, 4, tiny_configs.LENGTH)
    for peak, reliable in ((work * 1.01, True), (work * 0.99, False)):
        speed = bench_result._speed(contender, times, device.Peak(peak, "measured"))
        assert speed["utilisation"] == pytest.approx(work / peak)
        assert speed["utilisation_reliable"] is reliable


@pytest.fixture
def one_step() -> Any:
    """A contender whose step of 4 rows takes one second on one device."""
    tokens = 4 * tiny_configs.LENGTH
    contender: Any = types.SimpleNamespace(
        name="bert_jax",
        inputs=types.SimpleNamespace(config=TINY),
        mesh=types.SimpleNamespace(size=1),
        real_tokens=tokens,
        padded_tokens=tokens,
    )
    return contender, timer.Times({"bert_jax": [1.0]})


# ---- invalid flags and configs


def test_a_batch_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size 6 is not divisible by 4 devices"):
        run_bench(replace(TINY, mesh=dict(data=4)), batch_size=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0: expected at least 1"),
        ({"steps": 0}, "--steps is 0: expected at least 1"),
        ({"packed": "corpus"}, "--packed needs --against transformers and --data"),
    ],
    ids=str,
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchOptions(**options)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.path", "corpus"], "--data.path is not used: give the corpus as --data CORPUS"),
        (["--data.mix=a=1,b=2"], "--data.mix is not used: give the corpus as --data CORPUS"),
        (["--length=8", "--data.length=16"], "--length and --data.length are given: leave one out"),
        (
            ["--mesh.data", "1", "--against", "transformers"],
            "--mesh.data cannot be used with --against",
        ),
        (["--no-compile"], "--no-compile needs --against transformers"),
    ],
    ids=str,
)
def test_flags_that_would_change_nothing_are_refused(
    flags: list[str], message: str, capsys: Any
) -> None:
    assert call("bench", "configs/tiny_bert.py", *flags) == 2
    assert message in capsys.readouterr().err


def test_the_last_of_several_stages_is_timed() -> None:
    staged = replace(TINY, data=dict(stages="16x16=0.9,32x4=0.1", length=None))
    (stage,) = bench_config(staged, BenchOptions()).stages
    assert (stage.batch_size, stage.length) == (4, 32)


def test_a_config_without_an_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="the config has no objective, so nothing can be trained"):
        bench_config(replace(TINY, objective=config.Imported()), BenchOptions())


def test_training_on_labeled_pairs_is_refused(capsys: Any) -> None:
    assert call("bench", "configs/simcse.py", "--objective.task", "pairs") == 2
    assert "bench does not support objective.task pairs" in capsys.readouterr().err


def test_a_row_longer_than_the_model_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "configs/tiny_bert.py", "--length", "4096"])
    assert stopped.value.code == 2
    assert "data.length 4096 is beyond the model's encoder.max_length" in capsys.readouterr().err


# ---- the table


@pytest.fixture
def speed_table() -> Any:
    path = ROOT / "benchmarks/speed_table.py"
    spec = importlib.util.spec_from_file_location("speed_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_speed_table_resumes_where_it_stopped(
    speed_table: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A cell that failed says why, and no cell is measured twice."""
    measured = []

    def measure(cell: Any, *_: Any) -> dict[str, Any]:
        measured.append(cell.model)
        return {"error": "no memory"} if cell.model == "tiny_bert" else RESULT

    monkeypatch.setattr(speed_table, "measure", measure)
    for _ in range(2):
        speed_table.main(["--tiny", "--out", str(tmp_path / "table")])
    text = (tmp_path / "table.md").read_text()
    assert measured == ["tiny_bert", "tiny_electra"]
    assert "| tiny_bert | failed: no memory | 4 x 32 |" in text
    assert "| 32,000 |" in text


def test_the_bound_beside_a_measured_step_is_that_of_its_chip(speed_table: Any) -> None:
    """Faster memory lowers it; a chip without figures, and a shape that was not compiled, have
    none."""
    cell = next(speed_table.cells(False, 1.0))
    least = [
        speed_table.least_seconds(cell, {**RESULT, "device": f"NVIDIA {chip}"})
        for chip in ("H100 80GB HBM3", "H200")
    ]
    assert least[0] / least[1] == pytest.approx(4.8 / 3.35, rel=0.2)
    assert speed_table.least_seconds(cell, RESULT) is None
    others = cell._replace(rows=8), cell._replace(model="electra_small")
    gpu = {**RESULT, "device": "NVIDIA H200"}
    assert [speed_table.least_seconds(other, gpu) for other in others] == [None, None]


def test_every_model_of_the_speed_table_has_both_lengths(speed_table: Any) -> None:
    cells = list(speed_table.cells(False, 1.0))
    assert {c.length for c in cells} == {128, 512}
    assert {c.model for c in cells if c.against} == set(speed_table.ROWS)
