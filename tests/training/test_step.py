"""The step and the loop: exact resume, exact accumulation, the same on any mesh."""

import contextlib
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Experiment, Mesh, replace
from bert_jax.data.loader import Loader
from bert_jax.distributed import sharding
from bert_jax.model.electra import IS_SHARED
from bert_jax.training import evaluation, loop
from bert_jax.training.early_stopping import EarlyStopping
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.step import BoundSeed, TrainState, compile_steps
from bert_jax.utils import pytree
from tests.helpers import shared_steps, tiny_configs
from tests.helpers.compare import metric_lines, same_bits
from tests.helpers.marks import NIGHTLY, SLOW


def fit(config: Experiment, folder: Path, stop: PreemptionHandler | None = None) -> TrainState:
    steps, objective = shared_steps.tiny(config), tiny_configs.build(config)
    rows, held_out = (Loader([tiny_configs.Rows(n)], 8, tiny_configs.LENGTH, 0) for n in (40, 13))
    folder.mkdir(exist_ok=True)
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        return loop.fit(
            config,
            steps,
            rows.iterate,
            lambda params: evaluation.evaluate(steps, objective, params, held_out.one_pass(2)),
            checkpoints,
            folder,
            stop or PreemptionHandler(),
        )
    finally:
        checkpoints.close()


MARKS = dict.fromkeys(("albert", "roberta", "spanbert"), NIGHTLY)
FAMILIES = [pytest.param(f, marks=MARKS.get(f, ())) for f in tiny_configs.FAMILIES]


# `tests/chaos` kills ELECTRA's runs, in .ci/run too.
RESUMED = [
    pytest.param(f, marks=(MARKS | {"electra": NIGHTLY}).get(f, ())) for f in tiny_configs.FAMILIES
]


@pytest.mark.parametrize("family", RESUMED)
def test_six_steps_are_three_and_three(family: str, tmp_path: Path) -> None:
    """Stop, restore, go on: every leaf of the state and every metric, bit for bit."""
    config = replace(tiny_configs.FAMILIES[family], optim=dict(decay_steps=6))
    whole = fit(config, tmp_path / "whole")
    fit(replace(config, run=dict(steps=3)), tmp_path / "parts")
    parts = fit(config, tmp_path / "parts")
    assert same_bits(whole, parts)
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "parts")
    assert [line["step"] for line in metric_lines(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("preempted", [True, False])
def test_a_signal_during_an_evaluation_ends_the_run_after_it(preempted: bool) -> None:
    saved: list[int] = []
    checkpoints: Any = SimpleNamespace(save=lambda step, *_, **__: saved.append(step))
    writer: Any = SimpleNamespace(write=lambda _: None, flush=lambda: None, fsync=None)
    follow_up = loop._FollowUp(
        tiny_configs.FAMILIES["bert"],
        lambda _: {"eval_loss": 1.0},
        lambda: preempted,
        checkpoints,
        EarlyStopping("", None),
        writer,
        lambda _: contextlib.nullcontext(),
    )
    state: Any = SimpleNamespace(params=None)
    assert follow_up(7, state, {}, loop._Due(evaluation=True, save=False, last=False)) == preempted
    assert saved == ([7] if preempted else [])


def test_lines_past_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    """A run killed after step 5 goes on from step 3: steps 4 and 5 stand there once."""
    config = replace(tiny_configs.FAMILIES["bert"], optim=dict(decay_steps=6))
    fit(replace(config, run=dict(steps=3)), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 4, "loss": 1.0}\n{"step": 5, "loss": 1.0}\n{"step"')
    fit(config, tmp_path)
    assert [line["step"] for line in metric_lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] > 1 for line in metric_lines(tmp_path))


def test_a_signal_saves_the_step_it_arrives_in(tmp_path: Path) -> None:
    with PreemptionHandler() as stop:
        signal.raise_signal(signal.SIGTERM)
        state = fit(tiny_configs.FAMILIES["bert"], tmp_path, stop)
    assert stop.signal == signal.SIGTERM
    assert state.step == 1
    assert Checkpoints(tmp_path / "checkpoints").steps() == [1]


def step_of(config: Experiment, mesh: Mesh) -> tuple[dict, float, dict]:
    """Initial and final parameters and the loss of the last of two steps."""
    steps = shared_steps.tiny(config, mesh)
    state = steps.init()
    before = jax.tree.map(np.asarray, state.params)
    for i in range(2):  # the first update of a warm-up has rate 0
        state, metrics = steps.train(state, steps.to_devices(tiny_configs.batch(8, 8 * i)))
    return before, float(metrics["loss"]), jax.tree.map(np.asarray, state.params)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_add_up_to_the_batch(family: str) -> None:
    """1 x 8 = 4 x 2, although the micro-batches hide unequal numbers of tokens."""
    config = tiny_configs.without_dropout(tiny_configs.FAMILIES[family])
    parts = replace(config, optim=dict(accumulate=4))
    start, one, a = step_of(config, Mesh(1))
    _, four, b = step_of(parts, Mesh(1))
    assert abs(one - four) < 1e-6 * abs(one)
    equal_steps(start, a, b)


def equal_steps(start: dict, a: dict, b: dict) -> None:
    """Leaves by norm, against how far they moved. A key bias has no gradient but rounding's."""
    named = zip(
        pytree.flatten_with_names(start).items(),
        jax.tree.leaves(a),
        jax.tree.leaves(b),
        strict=True,
    )
    for (name, x), y, z in named:
        moved, apart = np.linalg.norm(y - x), np.linalg.norm(y - z)
        if not name.endswith("key/bias"):
            assert apart <= 1e-3 * moved, name


# With all meshes of eight devices: distributed/test_mesh.py; BERT on more meshes of four:
# distributed/test_sharding.py.
MESHES = [("bert", Mesh(4)), ("electra", Mesh(1, 2, 2))]
MESHES += [
    pytest.param(family, mesh, marks=SLOW if family == "albert" else NIGHTLY)
    for family, mesh in [
        ("bert", Mesh(1, 4)),
        ("bert", Mesh(1, 1, 4)),
        *((f, Mesh(1, 2, 2)) for f in tiny_configs.FAMILIES if f != "electra"),
    ]
]


@pytest.mark.slow_unless("bert-Mesh(data=4, fsdp=1, tensor=1)")
@pytest.mark.parametrize(("family", "mesh"), MESHES, ids=str)
def test_four_devices_are_one(family: str, mesh: Mesh) -> None:
    """Dropout on: the same masks whatever the mesh."""
    config = tiny_configs.FAMILIES[family]
    start, one, a = step_of(config, Mesh(1))
    _, four, b = step_of(config, mesh)
    assert abs(one - four) < 1e-5 * one
    if family != "electra":  # a sampled token may flip at a near tie
        equal_steps(start, a, b)


@pytest.mark.parametrize(
    ("name", "share"), [("bert_adam", "all"), *(("lamb", s) for s in ("all", "attention", "mlp"))]
)
@pytest.mark.parametrize(
    ("family", "objective"),
    [("spanbert", {}), ("albert", {})] + [("electra", dict(tied=tied)) for tied in IS_SHARED],
)
def test_the_sharding_table_covers_every_leaf(
    family: str, objective: dict[str, str], name: str, share: str
) -> None:
    config = replace(
        tiny_configs.FAMILIES[family],
        encoder=dict(groups=1, share_params=share),
        objective=objective,
        optim=dict(name=name),
    )
    compile_steps(config, tiny_configs.build(config), sharding.make_mesh(Mesh(1, 2, 2)))


@pytest.mark.parametrize(
    ("mesh", "batch", "message"),
    [
        (Mesh(3), 8, r"needs 3 devices, found 4"),
        (Mesh(-1, -1), 8, "one may be -1"),
        (Mesh(4), 6, "data.batch_size 6 is not divisible by 4 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(mesh: Mesh, batch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sharding.check_batch(batch, 1, sharding.make_mesh(mesh))


@pytest.mark.slow
def test_seed_folder_and_length_of_a_run_are_not_part_of_its_programs() -> None:
    """So that the second of `finetune --seeds 3` compiles nothing, nor does a run that resumes;
    and so that tests may share compiled steps."""

    def programs(config: Experiment) -> list[str]:
        steps = compile_steps(config, tiny_configs.build(config), sharding.make_mesh(Mesh(4)))
        like, batch = steps.like, tiny_configs.batch()
        lowered = (
            cast(BoundSeed, steps.init).lower(),
            steps.train.lower(like, batch),
            steps.evaluate.lower(like.params, batch),
            steps.gradient_report.lower(like.params, like.step, batch),
        )
        return [one.as_text() for one in lowered]

    often = dict(log_every=9, save_every=9, eval_every=9, eval_batches=9, max_to_keep=9)
    other = replace(  # ELECTRA has a second random stream, that of the generator's samples
        tiny_configs.FAMILIES["electra"],
        data=dict(path="corpus", corpus="hash"),
        optim=dict(decay_steps=6),
        run=often | dict(seed=2**32 - 1, steps=3, dir="run", init="model", epochs=3.0),
    )
    assert programs(other) == programs(shared_steps.program(other))


@pytest.mark.slow
def test_depth_costs_no_compile_time() -> None:
    """The step is traced and lowered once per block, not once per layer."""
    texts = []
    for layers in (3, 12):
        config = replace(tiny_configs.FAMILIES["bert"], encoder=dict(layers=layers))
        steps = compile_steps(config, tiny_configs.build(config), sharding.make_mesh(Mesh(4)))
        texts.append(steps.train.lower(steps.like, tiny_configs.batch()).as_text())
    assert texts[0].count("\n") == texts[1].count("\n")
