"""`plan` for GPUs: what is read from a compiled program, and, where the compiler's wheels are
installed (`make gpu-plan`), real steps compiled without a GPU."""

import importlib.metadata

import pytest

from bert_jax.config import Mesh, from_python_file, replace
from bert_jax.perf import collectives, hlo, plan
from bert_jax.perf.hardware import GPUS
from bert_jax.perf.plan import costs, gpu_topologies, render_plan, topologies
from tests.helpers.paths import ROOT

FAMILIES = ("albert", "bert", "electra", "roberta", "spanbert")


def program(*lines: str, devices: int = 1) -> hlo.Program:
    """A program whose entry has these instructions, after parameters a (f32[8]) and q."""
    head = f"HloModule jit_f, num_partitions={devices}\n\n"
    inputs = (
        "  %a = f32[8]{0} parameter(0)\n  %b = f32[4]{0} parameter(1)\n"
        "  %q = bf16[2,128,3,64]{3,2,1,0} parameter(2)\n"
    )
    body = "\n".join(f"  {line}" for line in lines)
    return hlo.parse_hlo(f"{head}ENTRY %main (a: f32[8]) -> f32[8] {{\n{inputs}{body}\n}}\n")


# ---- collectives


@pytest.mark.parametrize(
    "results", ["(f32[8]{0}, f32[4]{0})", "((f32[8]{0}, f32[4]{0}), (f32[8]{0}, f32[4]{0}))"]
)
def test_an_all_reduce_counts_its_results_once_in_either_notation(results: str) -> None:
    """jax 0.10 lists results alone, jax 0.12 operands too."""
    line = f"ROOT %sum = {results} all-reduce-start(%a, %b), replica_groups={{{{0,1}}}}"
    (found,) = collectives.read_collectives(program(line, devices=2))
    assert (found.bytes, found.devices) == (4 * 12, 2)


@pytest.mark.parametrize(
    ("groups", "devices", "hosts"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4, 1),
        ("{{0,4},{1,5},{2,6},{3,7}}", 2, 2),
        ("[2,4]<=[8]", 4, 1),
        ("[4,2]<=[2,4]T(1,0)", 2, 2),
        ("[1,8]<=[8]", 8, 2),
        ("mesh['x'=2,'y'=4] {'y'}", 4, 1),
        ("mesh['x'=2,'y'=4] {'x'}", 2, 2),
        ("{}", 8, 2),
    ],
)
def test_a_group_is_known_with_the_hosts_that_it_spans(
    groups: str, devices: int, hosts: int
) -> None:
    """Eight devices on two hosts, numbered host by host."""
    line = f"ROOT %sum = f32[8]{{0}} all-reduce(%a), replica_groups={groups}, to_apply=%add"
    (found,) = collectives.read_collectives(program(line, devices=8), hosts=2)
    assert (found.devices, found.hosts) == (devices, hosts)


def test_between_hosts_each_device_sends_its_share_of_what_leaves_the_host() -> None:
    """Of 800 bytes over two hosts of four: 600 twice within the host, then 100 twice of the
    quarter that is this device's."""
    both = collectives.Collective("all-reduce", 800, 8, hosts=2)
    assert (both.sent_bytes, both.network_bytes) == (2 * 600, 2 * 100)
    near = collectives.Collective("all-gather", 800, 4)
    assert (near.sent_bytes, near.network_bytes) == (600, 0)


# ---- kernels


@pytest.mark.parametrize(
    ("attributes", "products"),
    [
        ('custom_call_target="__cudnn$fmhaSoftmax"', 2),
        ('custom_call_target="__cudnn$fmhaScaleBiasSoftmax"', 2),
        ('custom_call_target="__cudnn$fmhaSoftmaxBackward"', 5),
        ('custom_call_target="__gpu$xla.gpu.triton", op_name="f/attention_attend/pallas_call"', 2),
        ('custom_call_target="__gpu$xla.gpu.triton", op_name="f/attention_key_gradients/"', 4),
        ('custom_call_target="__gpu$xla.gpu.triton", op_name="f/attention_query_gradients/"', 3),
        ('custom_call_target="something else"', 0),
    ],
)  # fmt: skip
def test_attention_counts_by_its_shape(attributes: str, products: int) -> None:
    line = f"ROOT %o = bf16[2,128,3,64]{{3,2,1,0}} custom-call(%a, %q), {attributes}"
    assert costs.read_costs(program(line)).flops == products * 2 * 2 * 3 * 128**2 * 64


def test_a_fusion_that_is_started_moves_what_a_fusion_moves() -> None:
    text = (
        "%slice (p: f32[24,64]) -> f32[1,64] {{\n"
        "  %p = f32[24,64]{{1,0}} parameter(0)\n"
        "  %at = s32[] parameter(1)\n"
        "  ROOT %s = f32[1,64]{{1,0}} dynamic-slice(%p, %at), dynamic_slice_sizes={{1,64}}\n}}\n"
        "ENTRY %main (a: f32[24,64]) -> f32[1,64] {{\n"
        "  %a = f32[24,64]{{1,0}} parameter(0)\n"
        "  %i = s32[] parameter(1)\n{}}}\n"
    )
    plain = "  ROOT %f = f32[1,64]{1,0} fusion(%a, %i), kind=kLoop, calls=%slice\n"
    started = (
        "  %f = ((f32[24,64]{1,0}, s32[]), f32[1,64]{1,0}, s32[]) fusion-start(%a, %i), "
        "kind=kLoop, calls=%slice\n"
        "  ROOT %d = f32[1,64]{1,0} fusion-done(%f), calls=%slice\n"
    )
    moved = {costs.read_costs(hlo.parse_hlo(text.format(x))).bytes for x in (plain, started)}
    assert moved == {2 * 4 * 64 + 4}  # a layer read and written, and its index


# ---- topologies


@pytest.mark.parametrize("name", ["h100", "h100:", "h100:9", "h100:2x9", "h100:0", "h100:2x2x2"])
def test_gpus_that_no_node_has_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected up to 8 GPUs, or hosts x GPUs of each, such as"):
        topologies.describe_topology(name)


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_topologies, "_is_installed", lambda name: "nvcc" not in name)
    with pytest.raises(ValueError, match=r"needs nvidia-cuda-nvcc .*: run pip install 'jax-cuda13"):
        topologies.describe_topology("h100:1")


def test_a_step_fits_in_the_share_of_the_memory_that_jax_reserves() -> None:
    """XLA refuses no program for a GPU."""
    for gpu in GPUS.values():
        assert topologies.Topology("", gpu, []).memory_limit == 0.75 * gpu.memory
    assert topologies.Topology("", topologies.CHIPS["v5e"], []).memory_limit is None


# ---- compiled


def has_compiler() -> bool:
    try:
        for package in gpu_topologies.PACKAGES:
            importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


compiled = pytest.mark.skipif(not has_compiler(), reason="pip install 'bert-jax[plan-gpu]'")


@compiled
@pytest.mark.parametrize(
    ("family", "topology"),
    [*((family, f"h100:{n}") for n in (1, 8) for family in FAMILIES), ("bert", "a100:2x4")],
)
def test_every_family_compiles(family: str, topology: str) -> None:
    """As published, with dropout in attention: no kernel is unknown, and pure data parallelism
    sends the gradient once."""
    config = from_python_file(str(ROOT / f"configs/tiny_{family}.py"))
    config = replace(
        config,
        data=dict(batch_size=16, length=192),
        run=dict(dtype="bfloat16"),
        encoder=dict(hidden_size=128, heads=2, attention_dropout=0.1),
        mesh=Mesh(-1),
    )
    result = plan.plan(config, [topology])
    (step,) = result["slices"]
    assert step["fits"]
    assert step["kernels"] >= 3 * config.encoder.layers
    assert step["kernels_not_counted"] == 0
    if step["chips"] == 1:
        assert step["collectives"] == {}
    else:
        gradient = step["state_bytes"] / 3
        assert step["collectives"]["all-reduce"] == pytest.approx(gradient, rel=0.05)
    if topology == "a100:2x4":
        assert step["network"] == pytest.approx(2 * gradient / 2 / 4, rel=0.05)
    assert topology in render_plan(result)
