"""`plan` compiles steps for TPU slices that are not attached."""

import importlib.util
import math
import types
from collections.abc import Iterable
from typing import Any

import jax
import pytest

from bert_jax.config import Experiment, Imported, Mesh, from_python_file, replace
from bert_jax.distributed import sharding
from bert_jax.perf import flops, plan
from bert_jax.perf.hardware import CHIPS, GPUS, H100, PEAKS, Chip
from bert_jax.perf.plan import aot, costs, topologies
from bert_jax.perf.stand_ins import batch_shape
from bert_jax.utils.platform import NO_TPU
from tests.helpers.marks import NIGHTLY
from tests.helpers.paths import ROOT

CONFIGS = ROOT / "configs"
FAMILIES = ("albert", "bert", "electra", "roberta", "spanbert")


def tiny(family: str = "bert") -> Experiment:
    config = from_python_file(str(CONFIGS / f"tiny_{family}.py"))
    return replace(config, data=dict(batch_size=16, length=128), run=dict(dtype="bfloat16"))


LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install 'jax[tpu]'"
)


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_TPU.items():
        monkeypatch.setenv(name, value)


@LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=NIGHTLY * (f != "electra")) for f in FAMILIES],
)
def test_every_family_compiles_for_eight_chips(family: str) -> None:
    result = plan.plan(tiny(family), ["v5e:2x4"])
    (slice_plan,) = result["slices"]
    assert slice_plan["fits"]
    assert slice_plan["chips"] == 8
    assert 0 < slice_plan["state_bytes"] < slice_plan["bytes"] < CHIPS["v5e"].memory
    gradient = slice_plan["state_bytes"] / 3
    assert slice_plan["collectives"]["all-reduce"] == pytest.approx(gradient, rel=0.05)
    assert slice_plan["flops"] > 0
    text = plan.render_plan(result)
    assert "v5e:2x4" in text
    assert "not a measurement" in text


@LIBTPU
@pytest.mark.parametrize("name", [e for c in CHIPS.values() for e in c.examples])
def test_libtpu_knows_every_example_topology(name: str) -> None:
    shape = name.partition(":")[2].split("x")
    assert len(topologies.describe_topology(name).devices) == math.prod(map(int, shape))


@LIBTPU
def test_a_step_that_does_not_fit_reports_the_missing_memory_and_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = aot.StepCost(False, 20 * 2**30, 16 * 2**30, 5 * 2**30, None, 0.0, ())
    monkeypatch.setattr(plan, "compile_step", lambda *_: large)
    config = replace(tiny(), data=dict(batch_size=64), run=dict(dtype="float32"))
    result = plan.plan(config, ["v5e:2x4"])
    assert result["slices"][0]["missing"] == 4 * 2**30
    text = plan.render_plan(result)
    assert "4.00 GiB more than a chip has" in text
    for flag in ("run.dtype bfloat16", "optim.accumulate 2", "run.remat dots", "mesh.fsdp 2"):
        assert flag in text


@pytest.mark.parametrize(
    ("data", "mesh", "flags"),
    [
        (dict(batch_size=24), Mesh(), ["--optim.accumulate 3: micro-batches of 1 rows, not 3"]),
        (dict(batch_size=72), Mesh(), ["--optim.accumulate 3: micro-batches of 3 rows, not 9"]),
        (dict(batch_size=8), Mesh(), ["--mesh.fsdp 2"]),
        (dict(batch_size=8), Mesh(8), ["--mesh.data 4 --mesh.fsdp 2"]),
        # 4 rows per chip in the longest stage, and 6 before it
        (dict(stages="64x48=.9,128x32=.1"), Mesh(), ["--optim.accumulate 2: micro-batches of 2"]),
        (dict(stages="64x24=.9,128x32=.1"), Mesh(), []),  # no number divides 3 and 4
    ],
)
def test_a_run_accepts_every_flag_of_the_advice(
    data: dict[str, Any], mesh: Mesh, flags: list[str]
) -> None:
    config = replace(tiny(), data=dict(length=None) | data, mesh=mesh)
    large = aot.StepCost(False, 20 * 2**30, 16 * 2**30, 5 * 2**30, None, 0.0, ())
    topology: Any = types.SimpleNamespace(memory_limit=None)
    sizes = {"data": 8, "fsdp": 1, "tensor": 1}
    advice = plan.advice(config, sizes, large, topology)
    of_kind = [f for f in advice if f.startswith(("--optim.accumulate", "--mesh"))]
    assert all(any(f.startswith(flag) for f in of_kind) for flag in flags)
    assert any(f.startswith("--optim") for f in of_kind) == any("--optim" in f for f in flags)
    for flag in of_kind:
        names_and_values = flag.partition(":")[0].split()
        pairs = zip(names_and_values[::2], names_and_values[1::2], strict=True)
        changed = replace(config, **with_flags(pairs))
        shape = tuple(sharding.mesh_shape(changed.mesh, 8).values())
        devices = jax.sharding.AbstractMesh(shape, sharding.MESH_AXES)
        assert devices.size == 8
        for stage in changed.stages:
            sharding.check_batch(stage.batch_size, changed.optim.accumulate, devices)  # type: ignore[arg-type]


def with_flags(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """The changes of a config that `--section.field value` makes."""
    changes: dict[str, dict[str, int]] = {}
    for name, value in pairs:
        section, field = name.removeprefix("--").split(".")
        changes.setdefault(section, {})[field] = int(value)
    return changes


@LIBTPU
def test_stages_without_a_common_divisor_have_no_accumulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 rows per chip, then 4, of which 2 fit."""

    def compile_step(config: Experiment, topology: topologies.Topology) -> aot.StepCost:
        rows = batch_shape(config)[0] // len(topology.devices) // config.optim.accumulate
        return aot.StepCost(rows <= 2, 100 + 50 * rows, 200, 90, None, 0.0, ())

    monkeypatch.setattr(plan, "compile_step", compile_step)
    config = replace(tiny(), data=dict(length=None, stages="64x24=.9,128x32=.1"))
    result = plan.plan(config, ["v5e:2x4"], fit=True)
    assert result["slices"][0]["fit"] == {"rows_per_chip": 2, "batch_size": 16, "accumulate": None}
    assert "2 rows per chip at once, so 16 rows per step" in plan.render_plan(result)


@pytest.mark.parametrize(
    ("stages", "shape"),
    [
        ("64x24=.9,128x32=.1", (32, 128)),
        ("128x24=.2,128x48=.7,128x32=.1", (48, 128)),  # batches that grow, as ModernBERT's
        ("64x512=.9,128x32=.1", (512, 64)),
        ("64x64=.9,128x32=.1", (32, 128)),
        (None, (16, 128)),
    ],
)
def test_the_stage_with_the_most_tokens_is_planned(
    stages: str | None, shape: tuple[int, int]
) -> None:
    config = replace(tiny(), data=dict(batch_size=16, length=None, stages=stages))
    assert batch_shape(replace(config, encoder=dict(max_length=128))) == shape


@LIBTPU
@pytest.mark.parametrize(
    ("batch_size", "max_rows", "accumulate"), [(128, 4, 4), (40, 2, 5), (56, 3, 7)]
)
def test_the_largest_micro_batch_is_found(
    batch_size: int, max_rows: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config's batch is then accumulated in equal micro-batches that are no larger. Memory is
    almost linear in the rows, so few steps are compiled."""
    compiled = []

    def compile_step(config: Experiment, topology: topologies.Topology) -> aot.StepCost:
        rows = config.data.batch_size // len(topology.devices) // config.optim.accumulate
        compiled.append(rows)
        used = 100 + 50 * rows + rows % 3
        return aot.StepCost(rows <= max_rows, used, 149 + 50 * max_rows, 90, None, 0.0, ())

    monkeypatch.setattr(plan, "compile_step", compile_step)
    config = replace(tiny(), data=dict(batch_size=batch_size))
    assert plan.plan(config, ["v5e:2x4"], fit=True)["slices"][0]["fit"] == {
        "rows_per_chip": max_rows,
        "batch_size": 8 * max_rows,
        "accumulate": accumulate,
    }
    assert len(set(compiled)) == len(compiled) <= 4


def test_the_summed_gradient_of_the_accumulation_counts_in_the_largest_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes 60 bytes here, so 7 rows per chip fit alone, and 6 with the accumulation that they
    need."""

    def compile_step(config: Experiment, topology: topologies.Topology) -> aot.StepCost:
        accumulate = config.optim.accumulate
        rows = config.data.batch_size // len(topology.devices) // accumulate
        used = 100 + 50 * rows + (60 if accumulate > 1 else 0)
        return aot.StepCost(used <= 460, used, 460, 90, None, 0.0, ())

    monkeypatch.setattr(plan, "compile_step", compile_step)
    fits = {}
    for batch_size in (8 * 24, 8 * 7):
        config = replace(tiny(), data=dict(batch_size=batch_size))
        fits[batch_size] = plan.plan(config, ["v5e:2x4"], fit=True)["slices"][0]["fit"]
    assert fits[8 * 24] == {"rows_per_chip": 6, "batch_size": 48, "accumulate": 4}
    assert fits[8 * 7] == {"rows_per_chip": 7, "batch_size": 56, "accumulate": 1}


@pytest.mark.parametrize(
    ("message", "bytes_"),
    [
        ("memory required for HLO temporaries (36.00G) exceeds available HBM (15.75G).", 36.0),
        ("Ran out of memory in memory space hbm. Used 25.50G of 15.75G hbm. Exceeded by", 25.5),
    ],
)
def test_out_of_memory_messages_of_the_compiler_are_parsed(message: str, bytes_: float) -> None:
    assert aot._out_of_memory(message) == (bytes_ * 2**30, 15.75 * 2**30)
    assert aot._out_of_memory("something else") is None


@LIBTPU
@pytest.mark.parametrize(
    ("topology", "error"),
    [
        ("v5e", "expected a TPU slice or GPUs, such as v4:2x2x1"),
        ("v9:2x2", "expected a TPU slice"),
        ("v5e:3x5", "libtpu does not know this slice"),
        ("v5e:32x32", "the largest v5e slice has 256"),
    ],
)
def test_an_unknown_topology_is_refused(topology: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        plan.plan(tiny(), [topology])


@LIBTPU
def test_configs_that_cannot_be_planned_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, task in (("finetune", "classification"), ("simcse", "simcse")):
        message = f"does not support objective.task {task}: give a config for .* with masked words"
        with pytest.raises(ValueError, match=message):
            plan.plan(from_python_file(str(CONFIGS / f"{name}.py")), ["v5e:2x2"])
    with pytest.raises(ValueError, match="does not support an imported network: give"):
        plan.plan(replace(tiny(), objective=Imported()), ["v5e:2x2"])
    with pytest.raises(ValueError, match="needs 3 devices, found 4"):
        plan.plan(replace(tiny(), mesh=Mesh(3)), ["v5e:2x2"])
    with pytest.raises(ValueError, match="is not divisible by 8 devices"):
        plan.plan(replace(tiny(), data=dict(batch_size=12)), ["v5e:2x4"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"needs libtpu .* which is not installed: run pip install 'jax"
    ):
        plan.plan(tiny(), ["v5e:2x2"])


def test_the_roofline_bound_is_the_longest_of_compute_memory_and_interconnect() -> None:
    chip = CHIPS["v5e"]
    bound = plan.roofline_bound(chip, 2 * chip.flops, chip.bandwidth, 3 * chip.link_bandwidth)
    assert bound == {
        "compute": 2.0,
        "memory": 1.0,
        "interconnect": 3.0,
        "binds": "interconnect",
        "seconds": 3.0,
    }
    assert H100.flops > CHIPS["v6e"].flops


@LIBTPU
@pytest.mark.parametrize(
    ("chip", "dtype", "peak"),
    [
        (H100, "bfloat16", "NVIDIA H100"),
        (H100, "float32", "NVIDIA H100"),
        (GPUS["a100"], "float32", "NVIDIA A100"),
        (CHIPS["v5e"], "float32", "TPU v5e"),
    ],
)
def test_a_plan_in_float32_counts_with_the_rate_at_which_the_chip_multiplies_it(
    chip: Chip, dtype: str, peak: str
) -> None:
    at = 1 if dtype == "float32" else 0
    products = 1e12
    config = replace(tiny(), run=dict(dtype=dtype))
    step = aot.StepCost(
        *(True, 2**30, None, 2**20), costs.ProgramCosts(products, 1.0, 1, 0), 0.0, ()
    )
    slice_plan = plan.plan_topology(config, topologies.Topology("one", chip, [None]), step)
    assert slice_plan["bound"]["compute"] == products / PEAKS[peak][at]
    assert slice_plan["utilisation"] == pytest.approx(
        flops.per_step(config, *batch_shape(config)) / products
    )


def test_a_mesh_axis_may_split_an_axis_of_the_torus() -> None:
    devices = topologies.describe_topology("v6e:16x16").devices
    mesh = sharding.make_mesh(Mesh(-1, 1, 8), devices)
    assert dict(mesh.shape) == {"data": 32, "fsdp": 1, "tensor": 8}
    assert len(set(mesh.devices.flat)) == 256
