"""`bench`: what its figures are made of, and the peer beside it. No time is asserted."""

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
from tests.helpers import tiny_configs
from tests.helpers.cli_runner import call
from tests.helpers.paths import ROOT, SAMPLE

TINY = replace(tiny_configs.FAMILIES["bert"], run=dict(steps=100))


def measured(experiment: Experiment, **asked: Any) -> dict[str, Any]:
    made = bench.bench(experiment, BenchOptions(steps=2, **asked), say=lambda _: None)
    return json.loads(json.dumps(made))


# ---- the clock


class Fake:
    """A side that notes when it is asked for a step."""

    warm_up, real_tokens, padded_tokens = 1, 1.0, 1

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self._notes = name, notes

    def step(self) -> None:
        self._notes.append(self.name)

    def wait(self) -> None: ...


def test_sides_take_turns_and_none_always_follows_the_same(monkeypatch: Any) -> None:
    notes: list[str] = []
    monkeypatch.setattr(timer, "timed", lambda f: f() or 1.0)
    times = timer.alternate([Fake(name, notes) for name in "abc"], 2)
    assert "".join(notes) == "abc" + "abc" + "cba"  # the first three are the warm-up
    assert times.seconds == {name: [1.0, 1.0] for name in "abc"}


def test_a_ratio_is_the_median_of_neighbours() -> None:
    times = timer.Times({"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 3.0, 12.0]})
    assert times.ratio("ours", "theirs") == 2.0
    assert times.ratio("ours", "theirs", tokens=1.5) == 3.0


def test_the_device_is_idle_from_the_end_of_a_step_to_the_next_call(monkeypatch: Any) -> None:
    begun, ended = iter([0.0, 0.5, 3.0]), iter([1.0, 2.5, 4.0])
    fake = types.SimpleNamespace(perf_counter=lambda: next(ended))
    monkeypatch.setattr(timer, "time", fake)
    share = timer.idle_share(lambda: ("made", next(begun)), lambda _: None, 3)
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
    found = batch_size.max_batch_size(peak, 1000, unit, 1000)
    assert (found.batch_size, found.limit) == (best, 1000)
    assert found.compiled <= 20


# ---- the device


@pytest.mark.parametrize(
    ("kind", "bf16"), [("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("TPU v5", 459)]
)
def test_a_known_device_has_its_published_peak(kind: str, bf16: float) -> None:
    found = device.peak(types.SimpleNamespace(device_kind=kind), "bfloat16")
    assert found == (bf16 * 1e12, "published")


def test_step_memory_counts_what_is_donated_once() -> None:
    f = jax.jit(lambda x, y: (x + y, y.sum()), donate_argnums=0)
    one = jax.ShapeDtypeStruct((1000,), jnp.float32)
    found = device.step_memory(f.lower(one, one).compile())
    assert found["arguments"] == 8000
    assert found["outputs"] < 1000
    assert found["peak"] == sum(v for k, v in found.items() if k != "peak")


# ---- the rows


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_random_rows_are_full_and_hold_no_special_token(family: str) -> None:
    asked = tiny_configs.FAMILIES[family]
    with ExitStack() as stack:
        made = inputs.of_random_ids(asked, stack)
        pool = made.pool()
    assert made.vocabulary is not None
    for batch in pool:
        assert inputs.real_tokens(batch) == batch["tokens"].size == 8 * tiny_configs.LENGTH
        assert not made.vocabulary.special[batch["tokens"]].any()
    assert any((a["tokens"] != b["tokens"]).any() for a, b in itertools.pairwise(pool))


@pytest.mark.parametrize("task", ["classification", "regression", "tagging", "choice", "qa"])
def test_a_config_of_fine_tuning_has_rows_too(task: Any) -> None:
    asked = replace(TINY, objective=Supervised(task=task))
    batch = inputs.labeled(asked)
    objective = objectives.build(asked)
    key = jax.random.key(0)
    params = jax.eval_shape(objective.init, key)
    terms = jax.eval_shape(objective.terms, params, batch, key)
    assert terms["task_loss"].total.shape == ()


# ---- the whole


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    asked = replace(TINY, mesh=dict(data=2, fsdp=2))
    return measured(asked, batch_size=4)


def test_the_figures_follow_from_each_other(found: dict[str, Any]) -> None:
    assert found["devices"] == 4
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert found["tokens_per_step"] == 4 * tiny_configs.LENGTH
    seconds = found["step_seconds"]
    assert found["tokens_per_second"] * seconds == pytest.approx(4 * tiny_configs.LENGTH)
    assert found["padded_tokens_per_second"] == found["tokens_per_second"]
    assert found["flops_per_step"] == flops.step(TINY, 4, tiny_configs.LENGTH)
    reached = found["utilisation"] * found["peak_flops"] * 4
    assert reached == pytest.approx(found["flops_per_second"])
    assert found["flops_per_second"] == pytest.approx(found["flops_per_step"] / seconds)
    assert found["peak"] == "measured"
    assert 0 <= found["idle_share"] <= 1
    assert found["compile_seconds"] > 0
    assert found["input"]["tokens_per_second"] > 0
    assert len(found["rounds"]) == 2


def test_devices_that_share_parameters_send_bytes(found: dict[str, Any]) -> None:
    assert found["collectives"]["all-reduce"] > 0
    assert found["memory"]["peak"] > found["memory"]["arguments"] > 0
    assert "compile" in bench.render_bench(found)


# ---- the peer


@pytest.mark.peer
@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_the_peer_has_the_same_loss(family: str) -> None:
    """One set of parameters, one corrupted batch: gathered, stock and ours agree."""
    from tests.helpers import hf_reference

    asked = tiny_configs.without_dropout(bench._masked_alone(tiny_configs.FAMILIES[family]))
    theirs = transformers_peer.family_of(tiny_configs.FAMILIES[family])
    objective = objectives.build(asked, tiny_configs.VOCABULARY)
    plain = tiny_configs.batch()
    plain["tokens"] = jnp.where(plain["tokens"] == 1, 4, plain["tokens"])  # RoBERTa's padding
    batch = objective.corrupt(plain, jax.random.key(0))
    gathered, stock = (
        transformers_peer.Peer(asked, theirs, [jax.device_get(batch)], "cpu", stock)
        for stock in (False, True)
    )
    if family == "roberta":  # theirs has a row of types, which ours came without
        gathered.model.roberta.embeddings.token_type_embeddings.weight.data.zero_()
    stock.model.load_state_dict(gathered.model.state_dict())
    _, params = hf_reference.imported(gathered.model)
    mean = objective.terms(params, batch, None)["mlm_loss"]
    for one in (gathered, stock):
        assert one.loss(**one._pool[0]).item() == pytest.approx(float(mean.value), rel=1e-5)


@pytest.mark.peer
def test_a_modern_encoder_stands_against_modernbert() -> None:
    modern = dict(pre_norm=True, positions="rotary", gated_mlp=True, biases=False, window=4)
    asked = bench._masked_alone(replace(TINY, encoder=modern | dict(global_every=2)))
    objective = objectives.build(asked, tiny_configs.VOCABULARY)
    batch = jax.device_get(objective.corrupt(tiny_configs.batch(), jax.random.key(0)))
    family = transformers_peer.family_of(asked)
    assert family == "modernbert"
    for stock in (False, True):
        one = transformers_peer.Peer(asked, family, [batch], "cpu", stock)
        one.step()
        one.wait()
    layers = one.model.config.layer_types
    assert layers == ["full_attention", "sliding_attention"]
    ours, theirs = objective.init(jax.random.key(0)), one.model.model.layers
    assert sum(x.size for x in jax.tree.leaves(ours["encoder"]["layers"])) == pytest.approx(
        sum(p.numel() for p in theirs.parameters()), rel=0.01
    )


@pytest.mark.peer
def test_against_gives_a_ratio_to_each_way() -> None:
    made = measured(tiny_configs.FAMILIES["electra"], batch_size=2, against=True, compile=False)
    against = made["against"]
    assert made["objective"] == "Masked"
    assert (against["family"], made["devices"]) == ("electra", 1)
    assert set(against["sides"]) == {"gathered", "stock"}
    pairs = zip(against["sides"]["gathered"]["rounds"], made["rounds"], strict=True)
    assert made["ratio"] == pytest.approx(np.median([a / b for a, b in pairs]))
    assert made["ratio_stock"] == against["sides"]["stock"]["ratio"]


# ---- what is refused


def test_without_pytorch_the_peer_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs PyTorch and transformers .*bert-jax\[peer\]"):
        measured(TINY, against=True)


def test_a_batch_that_the_mesh_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size 6 does not divide over 4 devices"):
        measured(replace(TINY, mesh=dict(data=4)), batch_size=6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "--batch-size is 0: expected at least 1"),
        ({"steps": 0}, "--steps is 0: expected at least 1"),
        ({"packed": "corpus"}, "it needs --against and --data"),
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BenchOptions(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data.path", "corpus"], "--data.path: rows are those of --data CORPUS"),
        (["--data.mix=a=1,b=2"], "--data.mix: rows are those of --data CORPUS"),
        (["--mesh.data", "1", "--against", "transformers"], "--mesh.data beside --against"),
        (["--no-compile"], "--no-compile is of their side: it needs --against"),
    ],
    ids=str,
)
def test_what_would_change_nothing_is_refused(given: list[str], message: str, capsys: Any) -> None:
    assert call("bench", "configs/tiny_bert.py", *given) == 2
    assert message in capsys.readouterr().err


def test_of_several_stages_the_last_is_timed() -> None:
    staged = replace(TINY, data=dict(stages="16x16=0.9,32x4=0.1", length=None))
    assert [(s.batch_size, s.length) for s in bench._shaped(staged, BenchOptions()).stages] == [
        (4, 32)
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text: plain/, packed/, and other/ by another tokenizer."""
    folder = tmp_path_factory.mktemp("bench")
    text = [d[:400] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:30]]
    (folder / "text").write_text("\n\n".join(text), encoding="utf-8")
    for name, pieces, pack in (("plain", 400, 0), ("packed", 400, 2), ("other", 300, 0)):
        train_tokenizer(text, "wordpiece", pieces).save(folder / str(pieces))
        made = [str(folder / "text")], folder / str(pieces), "full", tiny_configs.LENGTH
        prepare_corpus(*made, folder / name, progress=False, pack=pack)
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
def test_rows_that_theirs_cannot_take_are_refused_before_anything_is_compiled(
    data: str, packed: str | None, message: str, prepared: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bench, "BertJax", None)
    given = {"data": str(prepared / data), "packed": packed and str(prepared / packed)}
    with pytest.raises(ValueError, match=message):
        measured(TINY, against=True, **given)


def test_a_row_longer_than_the_model_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "configs/tiny_bert.py", "--length", "4096"])
    assert end.value.code == 2
    assert "data.length 4096 is beyond the model's encoder.max_length" in capsys.readouterr().err


def test_against_trains_the_masked_language_model_of_the_encoder() -> None:
    alone = bench._masked_alone(ELECTRA)
    assert isinstance(alone.objective, Masked)
    assert alone.encoder == ELECTRA.encoder
    assert alone.objective.masking == config.ELECTRA.objective.masking  # type: ignore[union-attr]


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


def test_the_table_goes_on_where_it_stopped(
    speed_table: Any, found: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """A cell that failed says why, and none is measured twice."""
    asked = []

    def measure(cell: Any, *_: Any) -> dict[str, Any]:
        asked.append(cell.model)
        return {"error": "no memory"} if cell.model == "tiny_bert" else found

    monkeypatch.setattr(speed_table, "measure", measure)
    for _ in range(2):
        speed_table.main(["--tiny", "--out", str(tmp_path / "table")])
    text = (tmp_path / "table.md").read_text()
    assert asked == ["tiny_bert", "tiny_electra"]
    assert "| tiny_bert | failed: no memory | 4 x 32 |" in text
    assert f"{found['tokens_per_second']:,.0f}" in text


def test_every_model_of_the_table_has_both_lengths(speed_table: Any) -> None:
    cells = list(speed_table.cells(False, 1.0))
    assert {c.length for c in cells} == {128, 512}
    assert {c.model for c in cells if c.against} == set(speed_table.ROWS)
