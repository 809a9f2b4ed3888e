"""`bench`: its figures follow from each other, and the peer computes the same loss. No test
asserts a time."""

import importlib.util
import itertools
import json
import sys
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config, objectives
from bert_jax.cli import main as cli
from bert_jax.config import ELECTRA, Experiment, Masked, Supervised, replace
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.perf import bench, flops
from bert_jax.perf.bench import BenchOptions, batch_size, device, inputs, timer, transformers_peer
from bert_jax.perf.bench import result as bench_result
from bert_jax.perf.bench.options import bench_config, masked_lm_config
from tests.helpers import tiny_configs
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE

TINY = replace(tiny_configs.FAMILIES["bert"], run=dict(steps=100))


def run_bench(config: Experiment, **options: Any) -> dict[str, Any]:
    result = bench.bench(config, BenchOptions(steps=2, **options), log=lambda _: None)
    return json.loads(json.dumps(result))


# ---- timer


class FakeContender:
    """Notes its name at every step."""

    warm_up, real_tokens, padded_tokens = 1, 1.0, 1

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self._steps = name, steps

    def step(self) -> None:
        self._steps.append(self.name)

    def wait(self) -> None: ...


def test_contenders_alternate_and_every_second_round_is_reversed(monkeypatch: Any) -> None:
    steps: list[str] = []
    monkeypatch.setattr(timer, "timed", lambda f: f() or 1.0)
    contenders = [FakeContender(name, steps) for name in "abc"]
    times = timer.alternate(contenders, 2, after_round=lambda: steps.append("|"))
    assert "".join(steps) == "abc" + "abc|" + "cba|"  # the first three are the warm-up
    assert times.seconds == {name: [1.0, 1.0] for name in "abc"}


def test_the_ratio_is_the_median_over_rounds() -> None:
    times = timer.Times({"bert_jax": [1.0, 2.0, 4.0], "peer": [2.0, 3.0, 12.0]})
    assert times.ratio("bert_jax", "peer") == 2.0
    assert times.ratio("bert_jax", "peer", tokens_ratio=1.5) == 3.0


def test_the_device_is_idle_from_the_end_of_a_step_to_the_next_call(monkeypatch: Any) -> None:
    starts, ends = iter([0.0, 0.5, 3.0]), iter([1.0, 2.5, 4.0])
    clock = types.SimpleNamespace(perf_counter=lambda: next(ends))
    monkeypatch.setattr(timer, "time", clock)
    share = timer.idle_share(lambda: ("result", next(starts)), lambda _: None, 3)
    assert share == 0.5 / 4.0


# ---- the largest batch


@pytest.mark.parametrize("unit", [1, 3, 8])
@pytest.mark.parametrize(
    "peak",
    [
        lambda n: 100 + 7 * n,
        lambda n: 100 + n * n,
        lambda n: 100 + 7 * (n // 16) * 16,
        lambda n: None if n > 61 else 100 + n,
        lambda n: 2000,
    ],
    ids=["line", "square", "stairs", "no compile", "nothing fits"],
)
def test_the_largest_batch_fits_and_the_next_does_not(
    unit: int, peak: Callable[[int], int | None]
) -> None:
    sizes = range(unit, 1001, unit)
    best = max([n for n in sizes if (peak(n) or 10**9) <= 1000], default=0)
    result = batch_size.max_batch_size(peak, 1000, unit, 1000)
    assert (result.batch_size, result.limit) == (best, 1000)
    assert result.compiled <= 20


# ---- the device


@pytest.mark.parametrize(
    ("kind", "bf16"), [("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("TPU v5", 459)]
)
def test_a_known_device_has_its_published_peak(kind: str, bf16: float) -> None:
    meter = device.PeakMeter(types.SimpleNamespace(device_kind=kind), "bfloat16")
    meter.measure()
    assert meter.best() == (bf16 * 1e12, "published")


def test_an_unknown_device_has_the_best_peak_measured_over_the_run(monkeypatch: Any) -> None:
    """Products that other work slows down, before, between and after the rounds, do not count."""
    seconds = iter([*[4.0] * device.FIRST_PRODUCTS, 2.0, 3.0])
    monkeypatch.setattr(device, "SIZE", 2)
    monkeypatch.setattr(device, "timed", lambda _: next(seconds))
    meter = device.PeakMeter(jax.devices()[0], "float32")
    assert meter.best() == (16 / 4.0, "measured")
    timer.alternate([FakeContender("a", [])], 2, after_round=meter.measure)
    assert meter.best() == (16 / 2.0, "measured")


def test_step_memory_counts_donated_buffers_once() -> None:
    f = jax.jit(lambda x, y: (x + y, y.sum()), donate_argnums=0)
    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    memory = device.step_memory(f.lower(shape, shape).compile())
    assert memory["arguments"] == 8000
    assert memory["outputs"] < 1000
    assert memory["peak"] == sum(v for k, v in memory.items() if k != "peak")


# ---- inputs


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_random_rows_are_full_and_have_no_special_token(family: str) -> None:
    with ExitStack() as stack:
        random = inputs.random_inputs(tiny_configs.FAMILIES[family], stack)
        pool = random.pool()
    assert random.vocabulary is not None
    for batch in pool:
        assert inputs.real_tokens(batch) == batch["tokens"].size == 8 * tiny_configs.LENGTH
        assert not random.vocabulary.special[batch["tokens"]].any()
    assert any((a["tokens"] != b["tokens"]).any() for a, b in itertools.pairwise(pool))


@pytest.mark.parametrize("task", ["classification", "regression", "tagging", "choice", "qa"])
def test_random_rows_of_fine_tuning_have_labels(task: Any) -> None:
    config = replace(TINY, objective=Supervised(task=task))
    batch = inputs.labeled(config)
    objective = objectives.build(config)
    key = jax.random.key(0)
    params = jax.eval_shape(objective.init, key)
    terms = jax.eval_shape(objective.terms, params, batch, key)
    assert terms["task_loss"].total.shape == ()


# ---- the result


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return run_bench(replace(TINY, mesh=dict(data=2, fsdp=2)), batch_size=4)


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


def test_devices_that_share_parameters_send_bytes(result: dict[str, Any]) -> None:
    assert result["collectives"]["all-reduce"] > 0
    assert result["memory"]["peak"] > result["memory"]["arguments"] > 0
    assert "compile" in bench.render_bench(result)


@pytest.mark.parametrize("reliable", [True, False])
def test_a_utilization_above_the_peak_is_called_unreliable(
    reliable: bool, result: dict[str, Any]
) -> None:
    """So is it on a machine that is busy in every measurement of the peak."""
    text = bench.render_bench({**result, "utilisation_reliable": reliable})
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


# ---- the peer


@pytest.mark.peer
@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_the_peer_has_the_same_loss(family: str) -> None:
    """With the same parameters and masked batch, gathered, stock and bert_jax agree."""
    from tests.helpers import hf_reference

    config = tiny_configs.without_dropout(masked_lm_config(tiny_configs.FAMILIES[family]))
    peer_family = transformers_peer.peer_family(tiny_configs.FAMILIES[family])
    objective = objectives.build(config, tiny_configs.VOCABULARY)
    batch = tiny_configs.batch()
    batch["tokens"] = jnp.where(batch["tokens"] == 1, 4, batch["tokens"])  # RoBERTa's padding
    batch = objective.corrupt(batch, jax.random.key(0))
    gathered, stock = (
        transformers_peer.Transformers(config, peer_family, [jax.device_get(batch)], "cpu", stock)
        for stock in (False, True)
    )
    if family == "roberta":  # in transformers it has a table of types, in bert_jax none
        gathered.model.roberta.embeddings.token_type_embeddings.weight.data.zero_()
    stock.model.load_state_dict(gathered.model.state_dict())
    _, params = hf_reference.to_native(gathered.model)
    mean = objective.terms(params, batch, None)["mlm_loss"]
    for peer in (gathered, stock):
        assert peer.loss(**peer._pool[0]).item() == pytest.approx(float(mean.value), rel=1e-5)


@pytest.mark.peer
def test_the_peer_of_a_modern_encoder_is_modernbert() -> None:
    modern = dict(pre_norm=True, positions="rotary", gated_mlp=True, biases=False, window=4)
    config = masked_lm_config(replace(TINY, encoder=modern | dict(global_every=2)))
    objective = objectives.build(config, tiny_configs.VOCABULARY)
    batch = jax.device_get(objective.corrupt(tiny_configs.batch(), jax.random.key(0)))
    family = transformers_peer.peer_family(config)
    assert family == "modernbert"
    for stock in (False, True):
        peer = transformers_peer.Transformers(config, family, [batch], "cpu", stock)
        peer.step()
        peer.wait()
    assert peer.model.config.layer_types == ["full_attention", "sliding_attention"]
    layers = objective.init(jax.random.key(0))["encoder"]["layers"]
    peer_layers = peer.model.model.layers
    assert sum(x.size for x in jax.tree.leaves(layers)) == pytest.approx(
        sum(p.numel() for p in peer_layers.parameters()), rel=0.01
    )


@pytest.mark.peer
def test_against_gives_a_ratio_to_each_variant() -> None:
    result = run_bench(tiny_configs.FAMILIES["electra"], batch_size=2, against=True, compile=False)
    against = result["against"]
    assert result["objective"] == "Masked"
    assert (against["family"], result["devices"]) == ("electra", 1)
    assert set(against["sides"]) == {"gathered", "stock"}
    pairs = zip(against["sides"]["gathered"]["rounds"], result["rounds"], strict=True)
    assert result["ratio"] == pytest.approx(np.median([a / b for a, b in pairs]))
    assert result["ratio_stock"] == against["sides"]["stock"]["ratio"]
    assert "ratio to stock" in bench.render_bench(result)


# ---- invalid flags and configs


def test_without_pytorch_the_peer_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs PyTorch and transformers .*bert-jax\[peer\]"):
        run_bench(TINY, against=True)


def test_a_batch_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size 6 does not divide over 4 devices"):
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
        (["--mesh.data", "1", "--against", "transformers"], "--mesh.data beside --against"),
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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text as three corpora: plain/, packed/, and other/ by another tokenizer."""
    folder = tmp_path_factory.mktemp("bench")
    text = [d[:400] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:30]]
    (folder / "text").write_text("\n\n".join(text), encoding="utf-8")
    for name, pieces, pack in (("plain", 400, 0), ("packed", 400, 2), ("other", 300, 0)):
        train_tokenizer(text, "wordpiece", pieces).save(folder / str(pieces))
        args = [str(folder / "text")], folder / str(pieces), "full", tiny_configs.LENGTH
        prepare_corpus(*args, folder / name, progress=False, pack=pack)
    return folder


@pytest.mark.peer
@pytest.mark.parametrize(
    ("data", "packed", "message"),
    [
        ("packed", None, "--data has packed rows, which --against transformers cannot take"),
        ("packed", "packed", "--data has packed rows"),
        ("other", "packed", "--packed has a vocabulary of 400, --data of 300"),
    ],
)
def test_a_corpus_that_the_peer_cannot_train_on_is_refused_before_compiling(
    data: str, packed: str | None, message: str, prepared: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bench, "BertJax", None)
    corpora = {"data": str(prepared / data), "packed": packed and str(prepared / packed)}
    with pytest.raises(ValueError, match=message):
        run_bench(TINY, against=True, **corpora)


def test_a_row_longer_than_the_model_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "configs/tiny_bert.py", "--length", "4096"])
    assert stopped.value.code == 2
    assert "data.length 4096 is beyond the model's encoder.max_length" in capsys.readouterr().err


def test_against_trains_the_masked_language_model_of_the_encoder() -> None:
    masked_lm = masked_lm_config(ELECTRA)
    assert isinstance(masked_lm.objective, Masked)
    assert masked_lm.encoder == ELECTRA.encoder
    assert masked_lm.objective.masking == config.ELECTRA.objective.masking  # type: ignore[union-attr]


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
    speed_table: Any, result: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """A cell that failed says why, and no cell is measured twice."""
    measured = []

    def measure(cell: Any, *_: Any) -> dict[str, Any]:
        measured.append(cell.model)
        return {"error": "no memory"} if cell.model == "tiny_bert" else result

    monkeypatch.setattr(speed_table, "measure", measure)
    for _ in range(2):
        speed_table.main(["--tiny", "--out", str(tmp_path / "table")])
    text = (tmp_path / "table.md").read_text()
    assert measured == ["tiny_bert", "tiny_electra"]
    assert "| tiny_bert | failed: no memory | 4 x 32 |" in text
    assert f"{result['tokens_per_second']:,.0f}" in text


def test_every_model_of_the_speed_table_has_both_lengths(speed_table: Any) -> None:
    cells = list(speed_table.cells(False, 1.0))
    assert {c.length for c in cells} == {128, 512}
    assert {c.model for c in cells if c.against} == set(speed_table.ROWS)
