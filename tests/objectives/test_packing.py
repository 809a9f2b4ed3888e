"""A packed row is its sequences, each as if it stood alone."""

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.cli import main as cli
from bert_jax.config import Experiment, Masking, replace
from bert_jax.data.corpus import open_corpus
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.model import Network
from bert_jax.objectives import packing
from bert_jax.objectives.base import corrupt_batch
from bert_jax.objectives.masking import mask_tokens, max_packed_predictions, with_scheduled_rate
from bert_jax.training.pretrain import pretrain
from bert_jax.training.replay import replay
from bert_jax.utils import pytree
from tests.helpers import tiny_configs
from tests.helpers.paths import SAMPLE

KEY = jax.random.key(0)
SIZES = [[17, 15], [32], [10, 9, 8, 5], [20, 7]]
N = 4  # sequences of a row


def sequence(number: int, size: int) -> dict[str, Any]:
    """Two segments with their special tokens, and a label; without both where it is odd."""
    rng = np.random.default_rng(number)
    tokens = rng.integers(4, tiny_configs.V, size)
    first = size // 2 if number % 2 == 0 else size
    tokens[[0, first - 1, size - 1]] = 1, 2, 2
    return {"tokens": tokens, "size": size, "first": first, "pair": number // 2 % 2 - number % 2}


def batches() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same sequences packed, and each in a row of its own with the same number."""
    made = {
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
        "tokens": np.zeros((len(made), tiny_configs.LENGTH), np.int32),
        **{name: np.array([s[name] for s in made.values()]) for name in EMPTY},
        "row": np.array(list(made)),
        "epoch": np.full(len(made), 3),
    }
    for i, (number, s) in enumerate(made.items()):
        row, j = divmod(number, N)
        begin = packed["size"][row].sum()
        packed["tokens"][row, begin : begin + s["size"]] = s["tokens"]
        alone["tokens"][i, : s["size"]] = s["tokens"]
        for name in EMPTY:
            packed[name][row, j] = s[name]
    return tuple({k: jnp.asarray(v, jnp.int32) for k, v in b.items()} for b in (packed, alone))  # type: ignore[return-value]


EMPTY = {"size": 0, "first": 0, "pair": -1}


def there(packed: dict[str, Any]) -> np.ndarray:
    return np.flatnonzero(np.asarray(packed["size"]).ravel())


def still(family: str) -> Experiment:
    """Without dropout; ELECTRA's generator samples what it holds most likely, since draws are of
    whole rows."""
    config = tiny_configs.without_dropout(tiny_configs.FAMILIES[family])
    return replace(config, objective=dict(temperature=1e-9)) if family == "electra" else config


LAWS = {
    "tokens": Masking(),
    "a few": Masking(max_predictions=2),
    "static": Masking(num_static_masks=2),
    "fewer and fewer": Masking(rate=0.3, final_rate=0.15),
    "fairseq's": Masking(budget="floor", mask_special_tokens=True, random_from="words"),
    "words": Masking(granularity="word"),
    "n-grams": Masking(granularity="ngram", max_ngram=3),
    "spans": Masking(
        granularity="span", max_ngram=10, budget="ceil", replace_per="span", random_from="corpus"
    ),
}


def test_unpacked_rows_are_the_sequences() -> None:
    packed, alone = batches()
    rows = packing.unpack(packed)
    for name, x in rows.items():
        assert np.array_equal(np.asarray(x)[there(packed)], alone[name]), name


@pytest.mark.parametrize("law", LAWS)
def test_a_packed_sequence_has_the_masks_that_it_has_alone(law: str) -> None:
    """Every field, place by place; nothing at padding, and `segments` and `positions` restart."""
    packed, alone = batches()
    packed, alone = (with_scheduled_rate(b, LAWS[law], 0.5) for b in (packed, alone))
    ours = jax.jit(lambda b: corrupt_batch(b, LAWS[law], tiny_configs.VOCABULARY, KEY))(packed)
    theirs = jax.jit(lambda b: mask_tokens(b, LAWS[law], tiny_configs.VOCABULARY, KEY))(alone)
    ours, theirs = jax.device_get((ours, theirs))
    i = 0
    for row, sizes in enumerate(SIZES):
        begin, slot = 0, 0
        for j, size in enumerate(sizes):
            here = slice(begin, begin + size)
            for name in ("tokens", "labels"):
                assert np.array_equal(ours[name][row, here], theirs[name][i, :size])
            assert (ours["segments"][row, here] == j + 1).all()
            assert np.array_equal(ours["positions"][row, here], np.arange(size))
            assert ours["types"][row, here].sum() == size - theirs["first"][i]
            assert ours["starts"][row, j] == begin
            used = theirs["weights"][i] > 0
            slots = slice(slot, slot + used.sum())
            for name in ("targets", "weights", "offset", "sbo_weights"):
                assert np.array_equal(ours[name][row, slots], theirs[name][i, used])
            inside = theirs["sbo_weights"][i, used] > 0
            for name in ("masked", "left", "right"):
                which = slice(None) if name == "masked" else inside
                moved = ours[name][row, slots][which] - begin
                assert np.array_equal(moved, theirs[name][i, used][which])
            begin, slot, i = begin + size, slot + used.sum(), i + 1
        for name in ("segments", "positions", "types"):
            assert not ours[name][row, begin:].any()
        assert not ours["weights"][row, slot:].any()
        assert (ours["masked"] < tiny_configs.LENGTH).all()


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("law", LAWS)
def test_the_slots_of_a_row_are_enough_for_any_sizes_and_no_more(law: str, rate: float) -> None:
    """Against every way to fill short rows: none needs more, and one needs as many."""
    masking = replace(LAWS[law], rate=rate)
    for length, n in ((9, 2), (12, 3)):
        budgets = [max_packed_predictions(masking, size, 1) for size in range(length + 1)]
        most = max_packed_predictions(masking, length, 1)
        fills = itertools.product(range(length + 1), repeat=n)
        needed = max(
            sum(min(budgets[s], most) for s in sizes) for sizes in fills if sum(sizes) <= length
        )
        assert max_packed_predictions(masking, length, n) == needed


@pytest.mark.parametrize("law", LAWS)
def test_no_draw_of_budgets_overflows_a_row(law: str) -> None:
    """Sixty rows of random cuts, at a rate where rounding matters: all that is hidden has a
    slot."""
    rng = np.random.default_rng(0)
    masking = replace(LAWS[law], rate=0.3)
    sizes = np.diff(np.sort(rng.integers(0, tiny_configs.LENGTH + 1, (60, 6)), axis=1), prepend=0)
    batch = {
        "tokens": rng.integers(4, tiny_configs.V, (60, tiny_configs.LENGTH)),
        "size": sizes,
        "first": sizes,
        "row": np.arange(60),
        "epoch": np.zeros(60),
    }
    batch = {k: jnp.asarray(v, jnp.int32) for k, v in batch.items()}

    def hidden(batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        rows = mask_tokens(packing.unpack(batch), masking, tiny_configs.VOCABULARY, KEY)
        packed = corrupt_batch(batch, masking, tiny_configs.VOCABULARY, KEY)
        return packed["weights"].sum(), rows["weights"].sum()

    ours, needed = jax.jit(hidden)(batch)
    assert ours == needed


@functools.cache
def measured(family: str, packed: bool) -> tuple[Any, Any, Any]:
    """Terms, counts and gradients of the same sequences."""
    objective = tiny_configs.build(still(family))
    params = jax.jit(objective.init)(KEY)

    def loss(params: Any, batch: Any) -> Any:
        batch = objective.corrupt(batch, KEY)
        terms, counts = objective.terms(params, batch, None), objective.counts(batch)
        return objectives.total_loss(objective.weights, terms, counts), (terms, counts)

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    grads, (terms, counts) = gradient(params, batches()[0 if packed else 1])
    return jax.device_get((terms, counts, grads))


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_packed_terms_are_those_of_the_sequences(family: str) -> None:
    (ours, counts, _), (theirs, expected, _) = (measured(family, p) for p in (True, False))
    assert counts == expected
    assert sorted(ours) == sorted(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_packed_gradients_are_those_of_the_sequences(family: str) -> None:
    ours, theirs = (pytree.flatten_with_names(measured(family, p)[2]) for p in (True, False))
    for name, g in theirs.items():
        assert np.abs(ours[name] - g).max() <= 1e-5 * max(1.0, np.abs(g).max()), name


def network(family: str = "bert", dropout: bool = False) -> tuple[Network, Any, Any]:
    """An encoder, its parameters, and a packed batch for it."""
    config = tiny_configs.FAMILIES[family]
    objective = tiny_configs.build(config if dropout else tiny_configs.without_dropout(config))
    packed = objective.corrupt(batches()[0], KEY)
    net, params = objective.encoder(jax.jit(objective.init)(KEY))
    return net, params, packed


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_packed_outputs_are_those_of_the_sequences(family: str) -> None:
    net, params, packed = network(family)
    alone = tiny_configs.build(still(family)).corrupt(batches()[1], KEY)
    run = jax.jit(lambda batch: net.apply({"params": params}, batch))
    ours, theirs = run(packed), run(alone)
    i = 0
    for row, sizes in enumerate(SIZES):
        begin = 0
        for j, size in enumerate(sizes):
            here = ours["hidden"][row, begin : begin + size]
            assert np.abs(here - theirs["hidden"][i, :size]).max() < 1e-5
            if "pair" in theirs:
                assert np.abs(ours["pair"][row, j] - theirs["pair"][i]).max() < 1e-5
            begin, i = begin + size, i + 1


@pytest.mark.parametrize("dropout", [False, True])
def test_nothing_leaks_from_one_sequence_to_another(dropout: bool) -> None:
    """The gradient of what one sequence comes to reaches its own tokens' embeddings alone: every
    word of the batch is another row of the table."""
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


# ---- a corpus, and runs on it


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpora/32, corpora/64: packed rows of sequence pairs; plain/32: without."""
    folder = tmp_path_factory.mktemp("packed")
    text = [d[:600] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:60]]
    (folder / "text.txt").write_text("\n\n".join(text), encoding="utf-8")
    train_tokenizer(text, "wordpiece", 400).save(folder / "tokenizer")
    for name, length, pack in (("corpora", 16, 4), ("corpora", 32, 3), ("plain", 32, 0)):
        made = [str(folder / "text.txt")], folder / "tokenizer", "sop", length
        prepare_corpus(*made, folder / name / str(length), progress=False, pack=pack)
    return folder


def config(prepared: Path, run: Path, family: str = "bert", **changes: Any) -> Experiment:
    base = replace(
        tiny_configs.FAMILIES[family],
        data=dict(path=f"{prepared}/corpora/32", length=None),
        run=dict(dir=str(run), eval_batches=1),
        mesh=dict(data=4),
    )
    return replace(base, **changes)


def lines(run: Path) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in read]


def test_a_packed_run_accumulates_on_a_mesh_and_can_be_replayed(
    prepared: Path, tmp_path: Path
) -> None:
    """Step 5 again, from the checkpoint of step 3: the same metrics bit for bit."""
    asked = config(prepared, tmp_path / "run", family="electra", mesh=dict(data=2, fsdp=2))
    assert pretrain(replace(asked, optim=dict(accumulate=2))) is None
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path / "run"))
    done = replay(tmp_path / "run", 5)
    assert done.start == 3
    assert done.logged is not None
    assert not done.differences


def test_packed_rows_of_several_lengths_follow_each_other(prepared: Path, tmp_path: Path) -> None:
    staged = dict(path=f"{prepared}/corpora/{{length}}", stages="16x8=2,32x4=1")
    pretrain(config(prepared, tmp_path / "run", data=staged))
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_the_command_packs_and_says_what_it_brought(prepared: Path, capsys: Any) -> None:
    """Without a number 3 sequences more than full ones would fit."""
    asked = ["prepare", str(prepared / "text.txt"), "--tokenizer", str(prepared / "tokenizer")]
    asked += ["--segments", "sop", "--length", "16", "--row-length", "48"]
    asked += ["--out", str(prepared / "asked"), "--pack"]
    with pytest.raises(SystemExit) as done:
        cli.main(asked)
    assert done.value.code == 0
    assert open_corpus(prepared / "asked").info.packed == 6
    said = r"train: 57 documents, \d+ rows of \d+ sequences, \d+ tokens, \d+\.\d% padding"
    assert re.search(said, capsys.readouterr().out)


def test_packed_and_other_corpora_do_not_mix(prepared: Path, tmp_path: Path) -> None:
    mix = dict(path=None, mix=f"{prepared}/corpora/32=1,{prepared}/plain/32=1")
    with pytest.raises(ValueError, match=r"corpora/32 has packed rows, and .*plain/32 has not"):
        pretrain(config(prepared, tmp_path / "run", data=mix))
