"""Losses where the mask token is shown: the only positions that tell learning from copying."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.config import Masking, replace
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.model.heads import LMHeadOutput
from bert_jax.objectives.base import hidden_terms, total_loss, vocabulary_loss
from bert_jax.objectives.losses import ClassMeans, Histogram, Mean, share_loss
from bert_jax.objectives.masking import mask_tokens
from bert_jax.training import evaluation, run_summary
from bert_jax.training.metrics_writer import at_trivial_baseline
from bert_jax.training.step import to_floats
from tests.helpers import tiny_configs
from tests.helpers.tiny_configs import SPECIAL, VOCABULARY, V

COUNTS = np.where(SPECIAL, 0, 1 + np.arange(V)[::-1] ** 2)
ZIPF = Vocabulary(VOCABULARY.mask_id, SPECIAL, VOCABULARY.words, COUNTS)
LOG_P = np.log(np.maximum(COUNTS / COUNTS.sum(), 1e-9))


def masked_rows(masking: Masking = Masking(), batch: Any = None) -> Any:  # noqa: B008
    mask = jax.jit(lambda batch: mask_tokens(batch, masking, ZIPF, jax.random.key(0)))
    return mask(tiny_configs.batch(40) if batch is None else batch)


def copying_head(batch: Any) -> LMHeadOutput:
    """A model without context: it repeats a token that is shown, and answers the mask token with
    the unigram distribution."""
    shown = jnp.take_along_axis(batch["tokens"], batch["masked"], axis=-1)
    copies = 9.0 * jax.nn.one_hot(shown, V) * (shown != ZIPF.mask_id)[..., None]
    return LMHeadOutput(copies, jnp.asarray(LOG_P, jnp.float32))


def scores(batch: Any, head: LMHeadOutput) -> dict[str, float]:
    """Evaluation metrics of a head."""
    terms = hidden_terms(head, jnp.eye(V), 1, ZIPF, Masking(), batch)
    loss, _ = vocabulary_loss(head, jnp.eye(V), 1, batch["targets"], batch["weights"])
    return {f"eval_{k}": v for k, v in to_floats({**terms, "mlm_loss": loss}).items()}


def evaluated(terms: Any, objective: Any, **options: Any) -> dict[str, float]:
    """What evaluation makes of the terms of one batch."""
    steps: Any = SimpleNamespace(to_devices=lambda batch: batch, evaluate=lambda *_: terms)
    return evaluation.evaluate(steps, objective, {}, [{}], **options)


def test_copying_alone_scores_the_unigram_loss_where_tokens_are_hidden() -> None:
    batch = masked_rows(Masking(mask_prob=0.8, random_prob=0.0))  # 20 % of the targets are shown
    values = scores(batch, copying_head(batch))
    assert values["eval_mask_loss"] == pytest.approx(values["eval_unigram_loss"], abs=1e-5)
    assert values["eval_mlm_loss"] < values["eval_unigram_loss"] - 0.3  # what copying is worth
    assert at_trivial_baseline(values) != []


def test_a_model_of_context_is_below_the_unigram_loss_and_shuffled_context_is_not() -> None:
    """In these rows each token is the successor of the one before it, and the head knows that."""
    batch = tiny_configs.batch(40)
    at = np.arange(tiny_configs.LENGTH)
    rows = 4 + (np.arange(40)[:, None] + at) % (V - 4)
    batch["tokens"] = jnp.asarray(np.where(at < batch["size"][:, None], rows, 0), jnp.int32)

    def loss(order: np.ndarray) -> tuple[float, float]:
        masked = masked_rows(batch=batch)
        left = masked["tokens"][:, order][jnp.arange(40)[:, None], masked["masked"] - 1]
        following = 4 + (left - 4 + 1) % (V - 4)
        known = (left >= 4)[..., None]  # not hidden itself
        features = jnp.where(known, 3.0 * jax.nn.one_hot(following, V), 0.0)
        values = scores(masked, LMHeadOutput(features, jnp.zeros(V)))
        return values["eval_mask_loss"], values["eval_unigram_loss"]

    in_order, unigram = loss(at)
    shuffled, _ = loss(np.random.default_rng(0).permutation(at))
    assert in_order < unigram - 1.0
    assert shuffled > in_order + 1.0


@pytest.mark.slow
def test_shuffled_context_moves_a_trained_model_towards_the_unigram_loss() -> None:
    """It learns that each token is the successor of the one before it."""
    base = tiny_configs.without_dropout(tiny_configs.FAMILIES["bert"])
    encoder = dict(positions="rotary", hidden_size=32, layers=1)
    config = replace(base, encoder=encoder, objective=dict(sentence_pair=False))
    objective = tiny_configs.build(config)
    rng, at = np.random.default_rng(0), np.arange(tiny_configs.LENGTH)
    batch = tiny_configs.batch(16)
    size = np.asarray(batch["size"])[:, None]

    def draw() -> dict[str, jax.Array]:
        rows = 4 + (rng.integers(0, V, (16, 1)) + at) % (V - 4)
        return batch | {"tokens": jnp.asarray(np.where(at < size, rows, 0), jnp.int32)}

    tx = optax.adam(3e-3)

    @jax.jit
    def step(params: Any, state: Any, rows: Any, key: jax.Array) -> Any:
        def loss(p: Any) -> jax.Array:
            masked = objective.corrupt(rows, key)
            terms = objective.terms(p, masked, None)
            return total_loss(objective.weights, terms, objective.counts(masked))

        updates, state = tx.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params = objective.init(jax.random.key(0))
    state = tx.init(params)
    for i in range(300):
        params, state = step(params, state, draw(), jax.random.key(i))

    masked = mask_tokens(draw(), Masking(mask_prob=1, random_prob=0), VOCABULARY, jax.random.key(0))
    tokens = np.array(masked["tokens"])
    for row, n in zip(tokens, size[:, 0], strict=True):
        shown = np.flatnonzero((at < n) & (row != VOCABULARY.mask_id))
        row[shown] = row[rng.permutation(shown)]
    terms = jax.jit(objective.terms, static_argnums=2)
    in_order, shuffled = (
        to_floats(terms(params, masked | {"tokens": jnp.asarray(t)}, None))
        for t in (masked["tokens"], tokens)
    )
    unigram = in_order["unigram_loss"]
    assert in_order["mask_loss"] < unigram - 1.5
    assert shuffled["mask_loss"] > unigram - 0.3


def test_without_a_hidden_token_there_is_no_figure() -> None:
    batch = masked_rows(Masking(mask_prob=0.0, random_prob=0.0))
    values = scores(batch, copying_head(batch))
    assert set(values) == {"eval_mlm_loss"}


def test_empty_terms_have_no_figure_and_no_perfect_loss() -> None:
    empty = {"mlm_loss": Mean(jnp.zeros(()), jnp.zeros(()))}
    assert np.isnan(to_floats({"loss": jnp.zeros(()), **empty})["loss"])
    assert to_floats(empty) == to_floats(jax.device_get(empty)) == {}
    one_class = ClassMeans.of(jnp.ones(3), jnp.ones(3, jnp.int32), jnp.ones(3))
    no_positive = Histogram.from_logits(jnp.ones(3), jnp.zeros(3), jnp.ones(3))
    assert to_floats({"pair_accuracy": one_class, "rtd_auc": no_positive}) == {}


def test_evaluation_without_a_scored_position_warns(caplog: pytest.LogCaptureFixture) -> None:
    """`eval_loss` is then NaN, which is never the best checkpoint."""

    config = replace(tiny_configs.FAMILIES["bert"], objective=dict(sentence_pair=False))
    terms = {"mlm_loss": Mean(jnp.zeros(()), jnp.zeros(()))}
    values = evaluated(terms, tiny_configs.build(config))
    assert list(values) == ["eval_loss"]
    assert np.isnan(values["eval_loss"])
    assert "no held-out position was scored for mlm_loss" in caplog.text
    assert "look at objective.masking" in caplog.text


def test_a_loss_of_shown_tokens_alone_warns(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(tiny_configs.FAMILIES["bert"], objective=dict(sentence_pair=False))
    terms = {"mlm_loss": Mean(jnp.ones(()), jnp.ones(())), "mask_loss": Mean(*jnp.zeros(2))}
    values = evaluated(terms, tiny_configs.build(config))
    assert values == {"eval_mlm_loss": 1.0, "eval_loss": 1.0}
    assert "no held-out position was scored for mask_loss" in caplog.text


def test_pairs_stand_beside_the_shares_of_training(tmp_path: Path) -> None:
    """Half of the validation pairs have each label; 80 % of the training pairs have one."""
    objective = tiny_configs.build(tiny_configs.FAMILIES["bert"])
    names = ("mlm_loss", "mask_loss", "pair_loss", "pair_share", "pair_accuracy")
    terms = {name: Mean(jnp.float32(0.5), jnp.ones(())) for name in names}
    values = evaluated(terms, objective, pair_share=0.8)
    assert values["eval_pair_baseline_loss"] == pytest.approx(share_loss(0.5, 0.8))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **values}) + "\n")
    assert "balanced accuracy 50.0%" in run_summary.summary(tmp_path)
    assert "chance 50.0%" in run_summary.summary(tmp_path)


def test_a_span_boundary_head_without_context_scores_the_unigram_loss() -> None:
    """Only where the mask token is shown: elsewhere its answer does not count."""
    config = tiny_configs.FAMILIES["spanbert"]
    objective: Any = dataclasses.replace(tiny_configs.build(config), vocabulary=ZIPF)
    batch = dict(objective.corrupt(tiny_configs.batch(40), jax.random.key(0)))
    head = LMHeadOutput(jnp.zeros((*batch["targets"].shape, V)), jnp.asarray(LOG_P, jnp.float32))
    hidden = jnp.take_along_axis(batch["tokens"], batch["masked"], axis=-1) == ZIPF.mask_id
    wrong = head._replace(
        features=jnp.where(hidden[..., None], 0.0, -99.0 * jnp.eye(V)[batch["targets"]])
    )
    for given in (head, wrong):
        values = to_floats(objective._hidden_sbo_terms(given, jnp.eye(V), batch))
        assert values["sbo_mask_loss"] == pytest.approx(values["sbo_unigram_loss"], abs=1e-4)


def test_a_summary_without_a_hidden_token_says_so(tmp_path: Path) -> None:
    """Whether the training batch of that step had one or not."""
    for eval_loss, more in ((2.0, {"eval_mlm_loss": 2.0}), (None, {}), (None, {"mlm_loss": 2.0})):
        line = {"step": 5, "loss": 1.0, "eval_loss": eval_loss, **more}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        assert "no token was masked" in run_summary.summary(tmp_path)


def test_text_of_unknown_tokens_alone_has_no_frequencies() -> None:
    counts = np.eye(V)[V - 1]
    unknown = Vocabulary(VOCABULARY.mask_id, SPECIAL, VOCABULARY.words, counts, unk_id=V - 1)
    assert unknown.frequency() is None
    assert unknown.frequency(include_unknown=True) is not None


@pytest.mark.parametrize("answer", [0, 1])
def test_a_constant_answer_has_a_balanced_accuracy_of_one_half(answer: int) -> None:
    labels = jnp.array([0, 0, 0, 1, 1, 0])
    mean = ClassMeans.of((labels == answer) * 1.0, labels, jnp.array([1.0, 1, 1, 1, 1, 0]))
    assert float(mean.value) == 0.5


def test_the_share_of_each_label_is_the_baseline_of_pairs() -> None:
    assert share_loss(0.5, 0.5) == pytest.approx(np.log(2))
    assert share_loss(0.5, 0.8) == pytest.approx(-np.log([0.8, 0.2]).mean())
