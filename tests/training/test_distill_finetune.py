"""Fine-tuning with a teacher: what it says of each row, runs, and teachers that do not fit."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax import config as configs
from bert_jax import load, objectives
from bert_jax.checkpoint import run_dir
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Contrastive, Distill, Experiment, Supervised, replace
from bert_jax.inference.model import Model
from bert_jax.tasks import read_dataset
from bert_jax.training import soft_labels
from bert_jax.training.finetune import finetune
from bert_jax.training.finetune_config import FinetuneTask
from bert_jax.training.pairs import PairsTask
from bert_jax.training.step import compute_gradients
from bert_jax.training.teacher import Teacher, load_teacher
from tests.helpers import toy_tasks
from tests.helpers.compare import metric_lines, same_bits
from tests.helpers.marks import NIGHTLY, SLOW

KINDS = (*toy_tasks.TASK_TYPES, "multilabel")
FAST_KINDS = ("classification", "tagging")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the data of each task."""
    folder = tmp_path_factory.mktemp("distill")
    toy_tasks.write_model_dir(folder / "model")
    for kind in KINDS:
        toy_tasks.write_task_dir(folder / kind, kind, train=20, dev=5, test=5)
    return folder


def teacher_dir(home: Path, kind: str, name: str = "teacher", seed: int = 1) -> Path:
    """A model with a head for the task, whose labels are in another order."""
    folder = home / f"{name}_{kind}"
    if folder.exists():
        return folder
    where = home / "model", kind, home / kind, folder
    config = FinetuneTask.of(toy_tasks.finetune_config_for(*where)).config
    assert isinstance(config.objective, Supervised)
    config = replace(config, objective=dict(labels=config.objective.labels[::-1]))
    params = jax.jit(objectives.build(config).init)(jax.random.key(seed))
    shutil.copytree(home / "model/tokenizer", folder / "tokenizer")
    configs.save_config(config, folder / "config.json")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": params}, config)
    return folder


def student(home: Path, folder: Path, kind: str = "classification", **changes: Any) -> Experiment:
    """A student of one layer that learns from the teacher of its task."""
    parts: dict[str, Any] = dict(
        run=dict(init_layers=1),
        distill=dict(teacher=str(teacher_dir(home, kind)), weight=0.75),
    )
    merged = {k: parts.get(k, {}) | changes.get(k, {}) for k in (*parts, *changes)}
    return toy_tasks.finetune_config_for(home / "model", kind, home / kind, folder, **merged)


# ---- what a teacher says


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [k if k in FAST_KINDS else pytest.param(k, marks=NIGHTLY) for k in KINDS]
)
def test_every_training_row_has_the_outputs_of_the_teacher(kind: str, home: Path) -> None:
    task = FinetuneTask.of(student(home, home / "unused", kind))
    batches = task.batches(task.config, "train")
    model = load(teacher_dir(home, kind))
    examples = read_dataset(kind, home / kind).splits["train"]
    expected = model.outputs(model.encode_examples(examples).rows)
    order = [model.task.labels.index(label) for label in task.config.objective.labels]  # type: ignore
    assert len(batches.rows) == len(expected)
    for row, output in zip(batches.rows, expected, strict=True):
        if kind == "qa":
            assert all(np.allclose(row[f"teacher_{k}"], x, atol=1e-5) for k, x in output.items())
            continue
        soft = row["teacher_tag" if kind == "tagging" else "teacher_label"]
        output = np.asarray(output)
        assert np.allclose(soft, output[..., order] if order else output, atol=1e-5)
    batch = batches[0]
    if kind == "qa":
        at = np.arange(batch["tokens"].shape[1])
        assert (batch["teacher_start"][at >= batch["size"][:, None]] == -1e30).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tagging", pytest.param("choice", marks=NIGHTLY)])
def test_micro_batches_add_up_to_the_batch(kind: str, home: Path) -> None:
    """Loss and gradient, although micro-batches have unequal numbers of words."""
    config = FinetuneTask.of(student(home, home / "unused", kind)).config
    config = replace(config, encoder=dict(dropout=0.0), objective=dict(dropout=0.0))
    task = FinetuneTask.of(config)
    batch = task.batches(config, "train")[0]
    objective = objectives.build(config)
    params = jax.jit(objective.init)(jax.random.key(0))

    def gradients(accumulate: int) -> Any:
        micro = replace(config, optim=dict(accumulate=accumulate))
        f = partial(compute_gradients, micro, objective)
        return jax.jit(f)(params, np.int32(0), batch, 0)

    whole, parts = gradients(1), gradients(4)
    terms = whole[1]
    assert np.allclose(
        whole[0], 0.25 * terms["task_loss"].value + 0.75 * terms["distill_loss"].value, rtol=1e-5
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


# ---- runs


@SLOW
def test_six_steps_are_three_and_three(home: Path, tmp_path: Path) -> None:
    """Also where the teacher's folder has moved."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune(student(home, whole))
    finetune(student(home, parts, run=dict(steps=3)))
    moved = shutil.copytree(teacher_dir(home, "classification"), tmp_path / "moved")
    finetune(student(home, parts, distill=dict(teacher=str(moved))))
    assert metric_lines(whole) == metric_lines(parts)
    assert same_bits(*(load(run).params for run in (whole, parts)))


def test_a_run_goes_on_with_its_own_teacher_alone(home: Path, tmp_path: Path) -> None:
    folder, kind = tmp_path / "run", "classification"
    task = FinetuneTask.of(student(home, folder))
    assert task.config.encoder.layers == 1
    run_dir.write_run_dir(folder, task.config, task.tokenizer)
    moved = shutil.copytree(teacher_dir(home, kind), tmp_path / "moved")
    again = FinetuneTask.of(student(home, folder, distill=dict(teacher=str(moved))))
    run_dir.check_run_dir(folder, again.config, task.tokenizer)

    other = teacher_dir(home, kind, "other", seed=2)
    changed = FinetuneTask.of(student(home, folder, distill=dict(teacher=str(other))))
    with pytest.raises(ValueError, match=r"distill\.teacher was .*distill\.teacher_hash was") as e:
        run_dir.check_run_dir(folder, changed.config, task.tokenizer)
    assert "\n" not in str(e.value)


# ---- teachers that do not fit


def stub(**changes: Any) -> Teacher:
    """A teacher without parameters."""
    config = Experiment(objective=Supervised(**{"labels": ("a", "b")} | changes))
    return Teacher("them", Model(config, {}, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("teacher", "own", "message"),
    [
        (dict(labels=("a", "c")), {}, r"only it has c; it lacks b"),
        (dict(task="regression"), {}, "was fine-tuned for regression, and this run is for class"),
        (dict(), dict(task="rerank"), "rerankers have no soft labels here"),
        (
            dict(task="qa", span="joint"),
            dict(task="qa"),
            "has joint spans of bert, and this run li",
        ),
    ],
)
def test_a_teacher_of_another_task_is_refused(teacher: dict, own: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_labels.label_order(stub(**teacher), Supervised(**{"labels": ("a", "b")} | own))


def test_labels_are_matched_by_name() -> None:
    task = Supervised(labels=("b", "c", "a"))
    assert soft_labels.label_order(stub(labels=("a", "b", "c")), task) == (1, 2, 0)


def test_a_model_without_a_head_is_no_teacher_of_a_task(home: Path, tmp_path: Path) -> None:
    config = student(home, tmp_path / "run", distill=dict(teacher=str(home / "model")))
    with pytest.raises(ValueError, match="has no head for a task: fine-tune it on this task first"):
        finetune(config)
    with pytest.raises(ValueError, match=r"distill\.teacher: .*does not exist|no_such"):
        finetune(replace(config, distill=dict(teacher=str(tmp_path / "no_such"))))
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_for_whole_texts_only(home: Path, tmp_path: Path) -> None:
    for kind in ("classification", "tagging"):
        folder = shutil.copytree(teacher_dir(home, kind), tmp_path / kind)
        vocabulary = folder / "tokenizer/vocab.txt"
        pieces = vocabulary.read_text().split()
        vocabulary.write_text("\n".join([*pieces[:5], *reversed(pieces[5:])]) + "\n")
        config = student(home, tmp_path / "run", kind, distill=dict(teacher=str(folder)))
        if kind == "tagging":
            with pytest.raises(ValueError, match="has another tokenizer than"):
                FinetuneTask.of(config)
        else:
            FinetuneTask.of(config)


def test_rows_beyond_the_positions_of_the_teacher_are_refused(home: Path) -> None:
    task = FinetuneTask.of(student(home, home / "unused", "tagging"))
    model = load(teacher_dir(home, "tagging"))
    short = replace(model.config, encoder=dict(max_length=16), data=dict(length=16))
    teacher = Teacher("them", dataclasses.replace(model, config=short))
    with pytest.raises(ValueError, match="reads up to 16 tokens, and rows have up to 48"):
        soft_labels.SoftLabels(teacher, task.config, task.tokenizer, task.encoded["train"])


def test_pairs_have_no_soft_labels() -> None:
    with pytest.raises(ValueError, match="pairs have no labels to soften"):
        PairsTask.of(Experiment(objective=Contrastive(), distill=Distill(teacher="them")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(temperature=0.0), r"distill\.temperature is 0\.0: expected above 0"),
        (dict(weight=1.5), r"distill\.weight is 1\.5: expected 0 <= x <= 1"),
        (dict(weight=-0.1), r"distill\.weight is -0\.1"),
        (dict(relation_heads=0), r"distill\.relation_heads is 0: expected at least 1"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distill(**{"teacher": "them"} | fields)


def test_fields_without_a_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match=r"distill\.weight is 0\.7, but there is no teacher"):
        load_teacher(Experiment(distill=Distill(weight=0.7)))
