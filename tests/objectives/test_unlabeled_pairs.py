"""Pairs of plain text: a row and itself under other dropout, or two neighboring spans."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import DROPOUT_RATES, Contrastive, Encoder, replace
from bert_jax.data import mixture
from bert_jax.objectives.unlabeled_pairs import make_pairs, text_numbers
from bert_jax.training.compiled_steps import NOTHING_FIXED
from bert_jax.training.step import compute_gradients, eval_step
from tests.helpers import pairs_worker

LENGTH, WORDS = pairs_worker.LENGTH, pairs_worker.WORDS
CLS, SEP = 2, 3


def rows(n: int = 16, length: int = LENGTH) -> dict[str, Any]:
    """Rows [CLS] ... [SEP] of all sizes; the last has size 0, and four have no text."""
    rng = np.random.default_rng(0)
    size = np.arange(n) % (length - 1) + 2
    size[-1] = 0
    tokens = rng.integers(5, WORDS, (n, length))
    tokens[:, 0], tokens[np.arange(n), np.maximum(size - 1, 0)] = CLS, SEP
    tokens = np.where(np.arange(length) < size[:, None], tokens, 0)
    tokens[1], size[1] = tokens[0], size[0]
    batch = {"tokens": tokens, "size": size, "row": np.arange(n), "epoch": np.zeros(n)}
    return {name: jnp.asarray(x, jnp.int32) for name, x in batch.items()}


def test_neighbors_are_the_two_parts_of_a_row_and_another_epoch_cuts_elsewhere() -> None:
    batch = rows(40, 24)
    cuts = []
    for epoch in range(3):
        seen = {**batch, "epoch": jnp.full(40, epoch, jnp.int32)}
        pairs = jax.jit(lambda b: make_pairs("neighbors", b, jax.random.key(0)))(seen)
        pairs = jax.tree.map(np.asarray, pairs)
        for i in range(2, 39):
            text = np.asarray(batch["tokens"][i, 1 : batch["size"][i] - 1])
            a, b = pairs["query"][i], pairs["documents"][i, 0]
            n, m = pairs["query_size"][i] - 2, pairs["document_size"][i, 0] - 2
            assert a.shape == b.shape == (20,)
            assert (a[0], a[n + 1], b[0], b[m + 1]) == (CLS, SEP, CLS, SEP)
            assert not a[n + 2 :].any()
            assert not b[m + 2 :].any()
            both = np.concatenate([a[1 : n + 1], b[1 : m + 1]])
            if len(text) > 1:
                assert np.array_equal(both, text)
                assert len(text) / 4 - 1 <= n <= len(text) * 3 / 4 + 1
            else:
                assert np.array_equal(np.unique(both), text)
        assert pairs["query_size"][39] == pairs["document_size"][39, 0] == 0
        cuts.append(pairs["query_size"])
    assert (cuts[0] != cuts[1]).any()


@pytest.mark.slow
def test_crops_are_two_spans_of_a_row_whose_lengths_and_places_are_independent() -> None:
    batch = rows(400, 64)
    pairs = jax.jit(lambda b: make_pairs("crops", b, jax.random.key(0)))(batch)
    pairs = jax.tree.map(np.asarray, pairs)
    shares, overlaps, apart = [], 0, 0
    for i in range(2, 399):
        text = np.asarray(batch["tokens"][i, 1 : batch["size"][i] - 1])
        begins = []
        for tokens, size in (
            (pairs["query"][i], pairs["query_size"][i]),
            (pairs["documents"][i, 0], pairs["document_size"][i, 0]),
        ):
            n = size - 2
            assert (tokens[0], tokens[n + 1]) == (CLS, SEP)
            assert not tokens[n + 2 :].any()
            assert min(4, len(text)) <= n <= max(4, len(text) // 2)
            places = [
                j for j in range(len(text) - n + 1) if (text[j : j + n] == tokens[1:-1][:n]).all()
            ]
            assert places
            begins.append((places[0], places[0] + n))
            shares.append((n, len(text)))
        (a, b), (c, d) = begins
        overlaps += a < d and c < b
        apart += b <= c or d <= a
    assert min(overlaps, apart) > 100  # both are common
    long = [n / words for n, words in shares if words > 50]
    assert min(long) < 0.1
    assert max(long) > 0.45
    assert pairs["query_size"][399] == pairs["document_size"][399, 0] == 0


def test_texts_have_one_number_if_and_only_if_they_are_equal() -> None:
    batch = rows(500, 12)
    numbers = np.asarray(text_numbers(batch["tokens"], batch["size"]))
    texts = [tuple(t[:s].tolist()) for t, s in zip(batch["tokens"], batch["size"], strict=True)]
    assert (numbers >= 0).all()
    assert len(set(numbers.tolist())) == len(set(texts))
    wide = jnp.pad(batch["tokens"], ((0, 0), (0, 4)), constant_values=7)
    assert len(set(np.asarray(text_numbers(wide, batch["size"])).tolist())) == len(set(texts))


@pytest.mark.slow
def test_micro_batches_give_the_gradient_of_the_batch_with_dropout_on() -> None:
    """And a row of size 0, as evaluation has it, counts nowhere."""
    found = []
    for accumulate in (1, 4):
        config = pairs_worker.experiment(accumulate, task="neighbors", symmetric=False)
        objective: Any = objectives.build(config)
        params = jax.jit(objective.init)(jax.random.key(0))

        def f(p: Any, b: Any, c: Any = config, o: Any = objective) -> Any:
            return compute_gradients(c, o, p, jnp.int32(0), b, 0)

        found.append(jax.jit(f)(params, rows()))
    (whole, terms, grads), (parts, _, grad_parts) = found
    assert float(whole) == pytest.approx(float(parts), rel=1e-5)
    total = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    apart = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b) / total), grads, grad_parts)
    assert max(jax.tree.leaves(apart)) < 1e-5
    assert float(terms["task_loss"].count) == 15
    assert float(terms["false_negatives"].total) == 4 * 3  # four rows have no text between them


@pytest.mark.slow
def test_simcse_compares_a_row_with_itself_under_other_dropout() -> None:
    objective: Any = objectives.build(pairs_worker.experiment(task="simcse"))
    params, batch = jax.jit(objective.init)(jax.random.key(0)), rows()

    def outputs(p: Any, b: Any, key: Any) -> Any:
        return objective.row_outputs(p, objective.corrupt(b, jax.random.key(1)), key)

    plain = jax.jit(
        lambda p, b: (outputs(p, b, None), eval_step(objective, p, b, NOTHING_FIXED, 0))
    )
    same, held_out = plain(params, batch)
    assert np.allclose(same["query"], same["documents"][:, 0], atol=1e-6)
    assert float(held_out["task_accuracy"].value) == 1
    assert float(held_out["task_loss"].count) == 15
    assert np.isfinite(float(held_out["task_loss"].value))
    one, two = (jax.jit(outputs)(params, batch, jax.random.key(seed)) for seed in (2, 3))
    for a, b in ((one["query"], one["documents"][:, 0]), (one["query"], two["query"])):
        assert not np.allclose(a[:15], b[:15], atol=1e-2)


class FakeCorpus:
    path = "corpus"

    def __init__(self, segments: str, packed: int = 0) -> None:
        self.info = type("Info", (), {"segments": segments, "packed": packed})


@pytest.mark.parametrize(
    ("task", "corpus", "encoder", "message"),
    [
        ("pairs", FakeCorpus("doc"), {}, "objective.task is pairs, which are rows of fine-tuning"),
        ("neighbors", FakeCorpus("full"), {}, "with --segments full: .* rows of one text, single"),
        ("simcse", FakeCorpus("nsp"), {}, "with --segments nsp: objective.task simcse expects"),
        ("simcse", FakeCorpus("doc", 4), {}, "with --segments doc and --pack: "),
        (
            "simcse",
            FakeCorpus("doc"),
            dict(dropout=0.0, attention_dropout=0.0),
            "is simcse, which needs dropout, and the encoder has none: set --encoder.dropout",
        ),
    ],
)
def test_rows_that_give_no_pairs_are_refused(
    task: Any, corpus: Any, encoder: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mixture._check_gives_pairs(Contrastive(task=task), [corpus], replace(Encoder(), **encoder))


def test_shorter_vectors_are_shorter_than_the_encoder_is_wide() -> None:
    objective = Contrastive(task="crops", dimensions=(64, 1024))
    with pytest.raises(ValueError, match="expected sizes below the encoder's width 768"):
        mixture._check_gives_pairs(objective, [FakeCorpus("doc")], Encoder())


def test_a_loss_of_scores_needs_scores() -> None:
    with pytest.raises(ValueError, match="loss is cosent and objective"):
        Contrastive(task="simcse", loss="cosent")


@pytest.mark.parametrize("rate", DROPOUT_RATES)
def test_any_dropout_gives_simcse_two_views(rate: str) -> None:
    encoder = replace(Encoder(), **{**dict.fromkeys(DROPOUT_RATES, 0.0), rate: 0.1})
    corpus: Any = FakeCorpus("doc")
    mixture._check_gives_pairs(Contrastive(task="simcse"), [corpus], encoder)
