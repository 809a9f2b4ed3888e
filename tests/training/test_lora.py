"""Runs with adapters: what they leave alone, what they save, and what they resume from."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bert_jax import load
from bert_jax.config import Experiment, Lora, Mesh, replace
from bert_jax.convert.export import export_model
from bert_jax.training import adapter_base
from bert_jax.training.finetune import finetune
from bert_jax.training.step import TrainState
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import shared_steps, tiny_configs, toy_tasks
from tests.helpers.compare import same_bits
from tests.training.test_step import equal_steps

LORA: dict[str, Any] = dict(rank=2, alpha=8.0, dropout=0.1)
CONFIG = replace(tiny_configs.FAMILIES["albert"], lora=LORA)


class Trained(NamedTuple):
    start: dict[str, Any]  # the parameters before the first step
    state: TrainState
    base: Any
    loss: float  # of the last step


def trained(config: Experiment, mesh: Mesh = shared_steps.ONE) -> Trained:
    """Two steps."""
    steps = shared_steps.tiny(config, mesh)
    steps = steps.with_fixed(base=steps.init_base())
    state, metrics = steps.init(), {}
    start = jax.tree.map(np.asarray, state.params)
    for i in range(2):  # the first update of a warm-up has rate 0
        state, metrics = steps.train(state, steps.to_devices(tiny_configs.batch(8, 8 * i)))
    return Trained(start, state, steps.fixed["base"], float(metrics["loss"]))


@pytest.mark.slow
def test_the_encoder_keeps_every_bit_and_has_no_optimizer_state() -> None:
    _, state, base, _ = trained(CONFIG)
    for name, leaf in flatten_with_names(shared_steps.tiny(CONFIG).init_base()).items():
        assert (np.asarray(leaf) == np.asarray(flatten_with_names(base)[name])).all(), name
    names = set(flatten_with_names(state.params))
    assert all("lora_" in name or not name.startswith(("encoder/", "emb")) for name in names)
    assert "mlm/dense/kernel" in names  # heads are trained in full
    moments = {n.partition("/m/")[2] for n in flatten_with_names(state.opt) if "/m/" in n}
    assert moments == names
    assert all(
        np.abs(x).max() > 0 for n, x in flatten_with_names(state.params).items() if "lora" in n
    )


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("mesh", [Mesh(4), Mesh(1, 2, 2)], ids=str)
def test_four_devices_are_one(mesh: Mesh) -> None:
    """Shared layers, and dropout also of the adapters' input."""
    one, four = trained(CONFIG), trained(CONFIG, mesh)
    assert abs(one.loss - four.loss) < 1e-5 * one.loss
    equal_steps(one.start, *(jax.tree.map(np.asarray, x.state.params) for x in (one, four)))


@pytest.mark.slow
def test_micro_batches_add_up_to_the_batch() -> None:
    config = replace(tiny_configs.without_dropout(CONFIG), lora=dict(dropout=0.0))
    one, parts = (trained(replace(config, optim=dict(accumulate=n))) for n in (1, 4))
    assert abs(one.loss - parts.loss) < 1e-6 * one.loss
    equal_steps(one.start, *(jax.tree.map(np.asarray, x.state.params) for x in (one, parts)))


# ---- runs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder `base`, the data of a task, and a finished `run` with adapters."""
    home = tmp_path_factory.mktemp("lora")
    toy_tasks.write_model_dir(home / "model")
    model = load(home / "model")
    assert model.folder is not None
    export_model(model, model.folder, "hf", home / "base")
    toy_tasks.write_task_dir(home / "data", "classification")
    assert finetune(config_of(home, "run")) is None
    return home


def config_of(home: Path, folder: str, **changes: Any) -> Experiment:
    where = home / "base", "classification", home / "data", home / folder
    return toy_tasks.finetune_config_for(*where, **({"lora": LORA} | changes))


def saved(run: Path, step: int = 6) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its name."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        state = checkpointer.restore((run / "checkpoints" / str(step) / "state").absolute())
    return {name: np.asarray(x) for name, x in flatten_with_names(state).items()}


@pytest.mark.slow
def test_a_run_that_was_stopped_resumes_bit_for_bit_without_a_copy_of_its_base(home: Path) -> None:
    """Also where the base has moved: its hash is the same."""
    assert finetune(config_of(home, "resumed", run=dict(steps=3))) is None
    shutil.move(home / "base", home / "elsewhere")
    moved = toy_tasks.finetune_config_for(
        home / "elsewhere", "classification", home / "data", home / "resumed", lora=LORA
    )
    try:
        assert finetune(moved) is None
    finally:
        shutil.move(home / "elsewhere", home / "base")
    whole, resumed = saved(home / "run"), saved(home / "resumed")
    assert whole.keys() == resumed.keys()
    assert not any(n.startswith("params/embeddings") or n.endswith("up/kernel") for n in whole)
    for name, leaf in whole.items():
        assert same_bits(leaf, resumed[name]), name


def test_a_loaded_run_is_a_plain_model_and_its_adapters_are_a_folder_of_peft(home: Path) -> None:
    model = load(home / "run")
    assert model.config.lora == Lora()
    assert model.adapter is not None
    assert model.folder is not None
    export_model(model, model.folder, "peft", home / "peft")
    again = load(home / "peft")
    assert again.config.objective.labels == ("blue", "red")  # type: ignore[union-attr]
    leaves = flatten_with_names(again.params)
    for name, leaf in flatten_with_names(model.params).items():
        np.testing.assert_allclose(leaves[name], leaf, atol=1e-7, err_msg=name)
    results = json.loads((home / "run" / "results.json").read_text())
    rows = [json.loads(line) for line in (home / "data" / "test.jsonl").read_text().splitlines()]
    labels = [row["label"] for row in model.predict(rows)]
    correct = np.mean([a == b["label"] for a, b in zip(labels, rows, strict=True)])
    assert abs(correct - results["test"]["accuracy"]) < 1e-6


@pytest.mark.slow
def test_another_base_is_refused_in_one_line(home: Path, tmp_path: Path) -> None:
    toy_tasks.write_model_dir(tmp_path / "model", initializer_range=0.1)
    other = load(tmp_path / "model")
    assert other.folder is not None
    export_model(other, other.folder, "hf", tmp_path / "other")
    with pytest.raises(ValueError, match="trained beside another model: the hash of"):
        finetune(replace(config_of(home, "run"), run=dict(init=str(tmp_path / "other"))))
    run = shutil.copytree(home / "run", tmp_path / "run")
    saved_config = json.loads((run / "config.json").read_text())
    for init, message in (
        ("other", "is not the base"),
        ("missing", "is needed: .* does not exist"),
    ):
        saved_config["run"]["init"] = str(tmp_path / init)
        (run / "config.json").write_text(json.dumps(saved_config))
        with pytest.raises(ValueError, match=message):
            load(run)
    model = load(home / "run")
    with pytest.raises(ValueError, match="is not the base that the adapters were trained on"):
        export_model(model, home / "run", "peft", tmp_path / "out", base=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="peft opens Hugging Face models, and the base"):
        export_model(model, home / "run", "peft", tmp_path / "out", base=str(home / "model"))
    with pytest.raises(ValueError, match="has no adapters"):
        export_model(other, tmp_path / "model", "peft", tmp_path / "out")


def test_pre_training_needs_a_model_to_adapt() -> None:
    with pytest.raises(ValueError, match="there is no model to adapt: give --init MODEL"):
        adapter_base.pin_base(CONFIG)
