"""Pre-training with a teacher: the same on any mesh, exact to resume, and no part of the state."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal

from bert_jax import objectives
from bert_jax.checkpoint.manager import Checkpoints
from bert_jax.config import Distill, Experiment, Imported, Mesh, Supervised, replace
from bert_jax.data.loader import Loader
from bert_jax.distributed import sharding
from bert_jax.inference.model import Model
from bert_jax.objectives import DistilledObjective
from bert_jax.objectives.distilled import distilled
from bert_jax.training import evaluation, loop
from bert_jax.training.guard import PreemptionHandler
from bert_jax.training.step import CompiledSteps, compute_gradients
from bert_jax.training.teacher import Teacher, content_hash
from bert_jax.utils.pytree import flatten_with_names, is_embedding_table
from tests.helpers import shared_steps, tiny_configs
from tests.helpers.compare import metric_lines, same_bits
from tests.helpers.marks import SLOW
from tests.helpers.tiny_configs import FAMILIES

DISTILL = Distill(teacher="them", weight=0.75, teacher_layer=2, relation_heads=4)
STUDENT = replace(FAMILIES["bert"], encoder=dict(layers=1), distill=DISTILL)
ONE = Mesh(1)
WIDER = dict(layers=3, hidden_size=36, heads=3, mlp_size=40, dropout=0.5)


@cache
def teacher() -> Teacher:
    """A wider and deeper model of another number of heads, whose dropout must not be active."""
    config = replace(FAMILIES["bert"], encoder=WIDER)
    params = jax.device_get(tiny_configs.initial_params(config))
    return Teacher("them", Model(config, params, None))  # type: ignore[arg-type]


def run(config: Experiment = STUDENT, mesh: Mesh = ONE) -> tuple[Any, CompiledSteps]:
    """The objective and the steps of a student."""
    objective = teacher().objective_of(tiny_configs.build(config), config)  # type: ignore[arg-type]
    steps = shared_steps.compile_steps(config, objective, made(mesh))
    return objective, teacher().apply(steps, objective, made(mesh))


def made(mesh: Mesh) -> jax.sharding.Mesh:
    return sharding.make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])


@cache
def gradients(config: Experiment = STUDENT, mesh: Mesh = ONE) -> Any:
    """The loss, its terms, and the gradient of one step."""
    objective, steps = run(config, mesh)  # nothing of the steps is compiled
    params = sharding.pad_vocab(tiny_configs.initial_params(config), made(mesh))
    params = jax.device_put(params, sharding.shardings(params, made(mesh)))

    def f(params: Any, batch: Any, fixed: Any) -> Any:
        return compute_gradients(config, objective, params, jnp.int32(0), batch, 0, fixed)

    batch = steps.to_devices(jax.device_get(tiny_configs.batch(8)))
    found = jax.jit(sharding.with_mesh(made(mesh), f))(params, batch, steps.fixed)
    return jax.device_get(found)


def equal(a: Any, b: Any) -> None:
    """Leaves by norm. A key bias has no gradient but rounding's."""
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    for (name, x), y in zip(flatten_with_names(a[2]).items(), jax.tree.leaves(b[2]), strict=True):
        rows = slice(tiny_configs.V if is_embedding_table(name) else None)
        apart = np.linalg.norm(x[rows] - y[rows])
        assert apart <= 1e-4 * np.linalg.norm(x) or name.endswith("key/bias"), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [pytest.param(Mesh(4), marks=pytest.mark.nightly), Mesh(1, 2, 2)], ids=str
)
def test_four_devices_are_one(mesh: Mesh) -> None:
    """Dropout on: the same masks whatever the mesh."""
    equal(gradients(), gradients(mesh=mesh))


@pytest.mark.slow
def test_the_weight_is_the_share_of_the_teacher_in_the_loss() -> None:
    loss, terms, _ = gradients()
    own, taught = (
        sum(float(terms[name].value) for name in names)
        for names in (("mlm_loss", "pair_loss"), ("relation_loss", "logit_loss"))
    )
    assert float(loss) == pytest.approx(0.25 * own + 0.75 * taught, rel=1e-5)


@SLOW
def test_micro_batches_add_up_to_the_batch() -> None:
    config = tiny_configs.without_dropout(STUDENT)
    parts = replace(config, optim=dict(accumulate=4), run=dict(loss_chunks=2))
    equal(gradients(config), gradients(parts))


def test_the_teacher_is_sharded_and_takes_no_gradient() -> None:
    objective, steps = run(mesh=Mesh(1, 2, 2))
    word = steps.fixed["teacher"]["embeddings"]["word"]
    assert word.sharding == steps.like.params["embeddings"]["word"].sharding
    assert "pooler" not in steps.fixed["teacher"]  # it is not learned from
    names = flatten_with_names(steps.like.params)
    assert names.keys() == flatten_with_names(tiny_configs.initial_params(STUDENT)).keys()
    batch = jax.eval_shape(objective.corrupt, tiny_configs.batch(2), jax.random.key(0))
    params = jax.eval_shape(objective.init, jax.random.key(0))
    taught = jax.eval_shape(objective.teacher.init, jax.random.key(0))

    def loss(taught: Any, params: Any, batch: Any) -> Any:
        terms = objective.with_teacher(taught).terms(params, batch, None)
        return terms["relation_loss"].total + terms["logit_loss"].total

    jaxpr = jax.make_jaxpr(jax.grad(loss))(taught, params, batch)
    assert all(is_zeros(x, jaxpr.jaxpr) for x in jaxpr.jaxpr.outvars)


def is_zeros(x: Any, jaxpr: Any) -> bool:
    """Whether an output of a program is a constant of zeros, which depends on no argument."""
    equations = {v: e for e in jaxpr.eqns for v in e.outvars}
    if x in jaxpr.invars or str(equations[x].primitive) != "broadcast_in_dim":
        return False
    (scalar, *_) = equations[x].invars
    return isinstance(scalar, Literal) and scalar.val == 0


@pytest.mark.slow
def test_six_steps_are_three_and_three(tmp_path: Path) -> None:
    """Every leaf of the state and every metric, bit for bit; the teacher is in no checkpoint."""
    config = replace(STUDENT, optim=dict(decay_steps=6))

    def fit(steps_until: int, folder: Path) -> Any:
        objective, steps = run(config)
        sources = (Loader([tiny_configs.Rows(n)], 8, tiny_configs.LENGTH, 0) for n in (40, 13))
        rows, held_out = sources
        folder.mkdir(exist_ok=True)
        with Checkpoints(folder / "checkpoints") as checkpoints:
            return loop.fit(
                replace(config, run=dict(steps=steps_until)),
                steps,
                rows.iterate,
                lambda p: evaluation.evaluate(steps, objective, p, held_out.one_pass(1)),
                checkpoints,
                folder,
                PreemptionHandler(),
            )

    whole = fit(6, tmp_path / "whole")
    fit(3, tmp_path / "parts")
    assert same_bits(whole, fit(6, tmp_path / "parts"))
    lines = metric_lines(tmp_path / "whole")
    assert lines == metric_lines(tmp_path / "parts")
    assert {"eval_relation_loss", "eval_logit_loss", "eval_mask_loss"} <= set(lines[-1])


# ---- teachers that do not fit


def objective(teacher: Experiment, **fields: Any) -> DistilledObjective:
    student = tiny_configs.build(STUDENT)
    changed = Distill(**{"teacher": "them"} | fields)
    return distilled(student, objectives.build(teacher), changed)  # type: ignore[arg-type]


def test_a_teacher_without_a_masked_word_head_teaches_relations_alone() -> None:
    headless = replace(FAMILIES["bert"], objective=Imported("bert"))
    assert set(objective(headless).weights) == {"mlm_loss", "pair_loss", "relation_loss"}
    assert objective(headless).teacher.relation_heads == 2
    logits_alone = objective(FAMILIES["bert"], relation_weight=0)
    assert set(logits_alone.weights) == {"mlm_loss", "pair_loss", "logit_loss"}
    with pytest.raises(ValueError, match="it has no masked-LM head: nothing is left to learn"):
        objective(headless, relation_weight=0.0)
    discriminator = objective(FAMILIES["electra"])  # its generator is another network
    assert not discriminator.learns_logits


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(teacher_layer=4), r"distill\.teacher_layer is 4, but the teacher has 2 layers"),
        (dict(relation_heads=5), r"distill\.relation_heads is 5, but the teacher's width is 24"),
    ],
)
def test_layers_and_heads_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective(FAMILIES["bert"], **fields)


def test_adapters_learn_logits_and_no_relations() -> None:
    student: Any = tiny_configs.build(replace(STUDENT, lora=dict(rank=2)))
    teacher = objectives.build(FAMILIES["bert"])
    with pytest.raises(ValueError, match=r"lora\.rank is 2, and relations .*relation_weight 0 to"):
        distilled(student, teacher, Distill(teacher="them"))
    assert distilled(student, teacher, Distill(teacher="them", relation_weight=0.0)).learns_logits


def test_vocabularies_must_be_equal() -> None:
    larger = replace(FAMILIES["bert"], encoder=dict(vocab_size=65))
    with pytest.raises(ValueError, match="the word table of them has 65 rows, the student's 64"):
        objective(larger)
    assert not objective(larger, logit_weight=0.0).learns_logits  # relations are of any words
    model = Model(FAMILIES["bert"], {}, SimpleNamespace(fingerprint="a"))  # type: ignore[arg-type]
    corpora: Any = [SimpleNamespace(path="text", info=SimpleNamespace(tokenizer_fingerprint="b"))]
    with pytest.raises(ValueError, match="them has another vocabulary than text"):
        Teacher("them", model).check_corpora(STUDENT, corpora)
    with pytest.raises(ValueError, match="the objective is ReplacedTokens: expected a config of a"):
        Teacher("them", model).check_corpora(FAMILIES["electra"], corpora)
    corpora[0].info.tokenizer_fingerprint = "a"
    longer = replace(STUDENT, encoder=dict(max_length=64), data=dict(length=64))
    with pytest.raises(ValueError, match="reads up to 32 tokens, and rows have up to 64"):
        Teacher("them", model).check_corpora(longer, corpora)


def test_the_hash_is_that_of_the_content() -> None:
    """Of parameters, sizes and labels; where they lie does not matter."""
    tokenizer: Any = SimpleNamespace(fingerprint="a")
    config = replace(FAMILIES["bert"], objective=Supervised(labels=("a", "b")))
    params = {"w": np.arange(6.0).reshape(2, 3)}
    same = content_hash(Model(config, params, tokenizer))
    moved = replace(config, run=dict(dir="elsewhere"))
    assert content_hash(Model(moved, {"w": jnp.arange(6.0).reshape(2, 3)}, tokenizer)) != same
    assert content_hash(Model(moved, dict(params), tokenizer)) == same
    relabeled = replace(config, objective=dict(labels=("b", "a")))
    assert content_hash(Model(relabeled, params, tokenizer)) != same
