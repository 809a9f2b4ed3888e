"""A packed row behaves like its sequences in rows of their own."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import Experiment, Masking, ReplacedTokens, replace
from bert_jax.model import Network
from bert_jax.objectives import packing
from bert_jax.objectives.base import corrupt_batch
from bert_jax.objectives.masking import mask_tokens
from bert_jax.objectives.masking_budget import max_packed_predictions, with_scheduled_rate
from bert_jax.utils import pytree
from tests.helpers import tiny_configs
from tests.helpers.marks import NIGHTLY, SLOW

KEY = jax.random.key(0)
SIZES = [[17, 15], [32], [10, 9, 8, 5], [20, 7]]
N = 4  # sequences of a row
# An ELECTRA of ModernBERTs is both others at once.
LATER = [
    pytest.param(f, marks=SLOW if f == "modern_electra" else NIGHTLY) for f in tiny_configs.LATER
]
FAMILIES = [*tiny_configs.FAMILIES, *LATER]


def sequence(number: int, size: int) -> dict[str, Any]:
    """Two segments with special tokens and a label; neither if `number` is odd."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(4, tiny_configs.V, size)
    first = size // 2 if number % 2 == 0 else size
    tokens[[0, first - 1, size - 1]] = 1, 2, 2
    return {"tokens": tokens, "size": size, "first": first, "pair": number // 2 % 2 - number % 2}


def batches() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same sequences, packed and unpacked, with the same numbers."""
    sequences = {
        row * N + j: sequence(row * N + j, size)
        for row, sizes in enumerate(SIZES)
        for j, size in enumerate(sizes)
    }
    packed = {
        "tokens": np.zeros((len(SIZES), tiny_configs.LENGTH), np.int32),
        **{name: np.full((len(SIZES), N), empty) for name, empty in EMPTY.items()},
        "row": np.arange(len(SIZES)),
        "epoch": np.full(len(SIZES), 3),
    }
    alone = {
        "tokens": np.zeros((len(sequences), tiny_configs.LENGTH), np.int32),
        **{name: np.array([s[name] for s in sequences.values()]) for name in EMPTY},
        "row": np.array(list(sequences)),
        "epoch": np.full(len(sequences), 3),
    }
    for i, (number, s) in enumerate(sequences.items()):
        row, j = divmod(number, N)
        begin = packed["size"][row].sum()
        packed["tokens"][row, begin : begin + s["size"]] = s["tokens"]
        alone["tokens"][i, : s["size"]] = s["tokens"]
        for name in EMPTY:
            packed[name][row, j] = s[name]
    return tuple({k: jnp.asarray(v, jnp.int32) for k, v in b.items()} for b in (packed, alone))  # type: ignore[return-value]


EMPTY = {"size": 0, "first": 0, "pair": -1}


def present(packed: dict[str, Any]) -> np.ndarray:
    """Indices of the sequences that are not empty."""
    return np.flatnonzero(np.asarray(packed["size"]).ravel())


def deterministic(family: str) -> Experiment:
    """Without dropout; ELECTRA's generator takes the most likely token, since samples depend on
    the row."""
    config = tiny_configs.without_dropout(tiny_configs.ALL[family])
    is_electra = isinstance(config.objective, ReplacedTokens)
    return replace(config, objective=dict(temperature=1e-9)) if is_electra else config


MASKINGS = {
    "tokens": Masking(),
    "capped": Masking(max_predictions=2),
    "static": Masking(num_static_masks=2),
    "scheduled rate": Masking(rate=0.3, final_rate=0.15),
    "fairseq": Masking(budget="floor", mask_special_tokens=True, random_from="words"),
    "words": Masking(granularity="word"),
    "n-grams": Masking(granularity="ngram", max_ngram=3),
    "spans": Masking(
        granularity="span", max_ngram=10, budget="ceil", replace_per="span", random_from="corpus"
    ),
}


def test_unpack_returns_the_sequences() -> None:
    packed, alone = batches()
    sequences = packing.unpack(packed)
    for name, x in sequences.items():
        assert np.array_equal(np.asarray(x)[present(packed)], alone[name]), name


@pytest.mark.parametrize("masking_name", MASKINGS)
def test_a_packed_sequence_has_the_masks_of_an_unpacked_one(masking_name: str) -> None:
    """All fields at all positions; zeros at padding; `segments` and `positions` restart."""
    packed, alone = batches()
    packed, alone = (with_scheduled_rate(b, MASKINGS[masking_name], 0.5) for b in (packed, alone))
    actual = jax.jit(
        lambda b: corrupt_batch(b, MASKINGS[masking_name], tiny_configs.VOCABULARY, KEY)
    )(packed)
    reference = jax.jit(
        lambda b: mask_tokens(b, MASKINGS[masking_name], tiny_configs.VOCABULARY, KEY)
    )(alone)
    actual, reference = jax.device_get((actual, reference))
    i = 0
    for row, sizes in enumerate(SIZES):
        begin, slot = 0, 0
        for j, size in enumerate(sizes):
            at = slice(begin, begin + size)
            for name in ("tokens", "labels"):
                assert np.array_equal(actual[name][row, at], reference[name][i, :size])
            assert (actual["segments"][row, at] == j + 1).all()
            assert np.array_equal(actual["positions"][row, at], np.arange(size))
            assert actual["types"][row, at].sum() == size - reference["first"][i]
            assert actual["starts"][row, j] == begin
            used = reference["weights"][i] > 0
            slots = slice(slot, slot + used.sum())
            for name in ("targets", "weights", "offset", "sbo_weights"):
                assert np.array_equal(actual[name][row, slots], reference[name][i, used])
            in_text = reference["sbo_weights"][i, used] > 0
            for name in ("masked", "left", "right"):
                which = slice(None) if name == "masked" else in_text
                shifted = actual[name][row, slots][which] - begin
                assert np.array_equal(shifted, reference[name][i, used][which])
            begin, slot, i = begin + size, slot + used.sum(), i + 1
        for name in ("segments", "positions", "types"):
            assert not actual[name][row, begin:].any()
        assert not actual["weights"][row, slot:].any()
        assert (actual["masked"] < tiny_configs.LENGTH).all()


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("name", MASKINGS)
def test_packed_prediction_slots_are_the_fewest_that_fit_any_sizes(name: str, rate: float) -> None:
    """Against all ways to fill short rows: none needs more, and one needs as many."""
    masking = replace(MASKINGS[name], rate=rate)
    for length, n in ((9, 2), (12, 3)):
        budgets = [max_packed_predictions(masking, size, 1) for size in range(length + 1)]
        limit = max_packed_predictions(masking, length, 1)
        fills = itertools.product(range(length + 1), repeat=n)
        needed = max(
            sum(min(budgets[s], limit) for s in sizes) for sizes in fills if sum(sizes) <= length
        )
        assert max_packed_predictions(masking, length, n) == needed


@pytest.mark.parametrize("name", MASKINGS)
def test_random_budgets_never_overflow_the_slots_of_a_row(name: str) -> None:
    """Sixty rows of random sizes, at a rate where rounding matters."""
    rng = np.random.default_rng(0)
    masking = replace(MASKINGS[name], rate=0.3)
    sizes = np.diff(np.sort(rng.integers(0, tiny_configs.LENGTH + 1, (60, 6)), axis=1), prepend=0)
    batch = {
        "tokens": rng.integers(4, tiny_configs.V, (60, tiny_configs.LENGTH)),
        "size": sizes,
        "first": sizes,
        "row": np.arange(60),
        "epoch": np.zeros(60),
    }
    batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}

    def num_masked(batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        alone = mask_tokens(packing.unpack(batch), masking, tiny_configs.VOCABULARY, KEY)
        packed = corrupt_batch(batch, masking, tiny_configs.VOCABULARY, KEY)
        return packed["weights"].sum(), alone["weights"].sum()

    used, needed = jax.jit(num_masked)(batch)
    assert used == needed


@functools.cache
def terms_and_gradients(family: str, packed: bool) -> tuple[Any, Any, Any]:
    """Terms, counts and gradients of the same sequences."""
    objective = tiny_configs.build(deterministic(family))
    params = tiny_configs.initial_params(deterministic(family))

    def loss(params: Any, batch: Any) -> Any:
        batch = objective.corrupt(batch, KEY)
        terms, counts = objective.terms(params, batch, None), objective.counts(batch)
        return objectives.total_loss(objective.weights, terms, counts), (terms, counts)

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grads, (terms, counts) = gradient(params, batches()[0 if packed else 1])
    return jax.device_get((terms, counts, grads))


# ALBERT has BERT's objective with other pairs, RoBERTa's has no pairs.
SIMPLER = {"albert": NIGHTLY, "roberta": NIGHTLY}
TERMS = [pytest.param(f, marks=SIMPLER.get(f, ())) for f in tiny_configs.FAMILIES]


@pytest.mark.slow_unless("bert", "spanbert")
@pytest.mark.parametrize("family", [*TERMS, *LATER])
def test_packed_terms_equal_those_of_the_sequences(family: str) -> None:
    (actual, counts, _), (reference, expected, _) = (
        terms_and_gradients(family, p) for p in (True, False)
    )
    assert counts == expected
    assert sorted(actual) == sorted(reference)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(reference), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow_unless("spanbert", nightly=("bert", "roberta", "albert"))
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_equal_those_of_the_sequences(family: str) -> None:
    actual, reference = (
        pytree.flatten_with_names(terms_and_gradients(family, p)[2]) for p in (True, False)
    )
    for name, g in reference.items():
        assert np.abs(actual[name] - g).max() <= 1e-5 * max(1.0, np.abs(g).max()), name


def network(family: str = "bert", dropout: bool = False) -> tuple[Network, Any, Any]:
    """An encoder, its parameters, and a packed batch for it."""
    config = tiny_configs.FAMILIES[family]
    config = config if dropout else tiny_configs.without_dropout(config)
    objective = tiny_configs.build(config)
    packed = jax.jit(objective.corrupt)(batches()[0], KEY)
    net, params = objective.encoder(tiny_configs.initial_params(config))
    return net, params, packed


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_packed_outputs_equal_those_of_the_sequences(family: str) -> None:
    net, params, packed = network(family)
    alone = jax.jit(tiny_configs.build(deterministic(family)).corrupt)(batches()[1], KEY)
    run = jax.jit(lambda batch: net.apply({"params": params}, batch))
    actual, reference = run(packed), run(alone)
    i = 0
    for row, sizes in enumerate(SIZES):
        begin = 0
        for j, size in enumerate(sizes):
            hidden = actual["hidden"][row, begin : begin + size]
            assert np.abs(hidden - reference["hidden"][i, :size]).max() < 1e-5
            if "pair" in reference:
                assert np.abs(actual["pair"][row, j] - reference["pair"][i]).max() < 1e-5
            begin, i = begin + size, i + 1


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [False, True])
def test_nothing_leaks_from_one_sequence_to_another(dropout: bool) -> None:
    """The gradient of one sequence's outputs reaches only the embeddings of its own tokens; every
    token of the batch is another row of the table."""
    net, params, packed = network(dropout=dropout)
    packed |= {"tokens": jnp.arange(4 * tiny_configs.LENGTH).reshape(4, -1) % tiny_configs.V}
    rngs = {"dropout": KEY} if dropout else {}
    row = 2  # of four sequences

    def of_segment(word: jax.Array, segment: jax.Array) -> jax.Array:
        p = {**params, "embeddings": {**params["embeddings"], "word": word}}
        out = net.apply({"params": p}, packed, rngs=rngs)
        own = (packed["segments"][row] == segment)[:, None]
        pair = (out["pair"][row] * (jnp.arange(N) + 1 == segment)[:, None]).sum()
        return jnp.where(own, out["hidden"][row] ** 2, 0.0).sum() + pair

    gradient = jax.jit(jax.grad(of_segment))
    for segment in range(1, N + 1):
        reached = gradient(params["embeddings"]["word"], segment).any(axis=1)
        own = np.zeros(tiny_configs.V, bool)
        own[np.asarray(packed["tokens"][row][packed["segments"][row] == segment])] = True
        assert np.array_equal(reached, own)
