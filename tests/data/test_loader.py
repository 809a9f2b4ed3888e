"""Batches are a pure look-up of the step."""

import numpy as np
import pytest

from bert_jax.data.loader import ConcatLoader, Loader
from tests.helpers import tiny_configs


def batches(**kwargs: object) -> Loader:
    return Loader(
        **(
            {"sources": [tiny_configs.Rows(20)], "batch_size": 8, "length": 32, "pad_id": 0}
            | kwargs
        )
    )  # type: ignore[arg-type]


class Packed:
    """Rows of up to three sequences; row i holds 1 + i % 3."""

    def __len__(self) -> int:
        return 20

    def __getitems__(self, numbers: list[int]) -> list[dict]:
        sizes = [np.array([9, 7, 5]) * (np.arange(3) <= i % 3) for i in numbers]
        pair = np.array([1, 0, 1])
        return [
            {"tokens": np.full(24, 5), "size": s, "first": s // 2, "pair": np.where(s, pair, -1)}
            for s in sizes
        ]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_the_stream_from_a_step_is_the_look_up() -> None:
    stream = batches().iterate(3)
    assert all(equal(next(stream), batches()[step]) for step in range(3, 9))


@pytest.mark.parametrize("sources", [[20], [20, 7]], ids=["one", "mixed"])
def test_batches_of_one_row_are_those_of_larger_batches_one_by_one(sources: list[int]) -> None:
    mixed = dict(sources=[tiny_configs.Rows(n) for n in sources])
    rows = [int(r) for i in range(5) for r in batches(**mixed)[i]["row"]]
    stream = batches(**mixed, batch_size=1).iterate()
    assert [int(next(stream)["row"][0]) for _ in range(40)] == rows


def test_an_epoch_shows_every_row_once_in_a_new_order() -> None:
    """20 rows in batches of 8: five batches are two epochs."""
    pairs = [
        (int(r), int(e))
        for i in range(5)
        for b in [batches()[i]]
        for r, e in zip(b["row"], b["epoch"], strict=True)
    ]
    assert sorted(pairs) == sorted((r, e) for r in range(20) for e in range(2))
    assert [r for r, e in pairs if e == 0] != [r for r, e in pairs if e == 1]


def test_another_seed_is_another_order() -> None:
    assert not equal(batches()[0], batches(seed=1)[0])


@pytest.mark.parametrize("kind", [{}, dict(sources=[Packed()], packed=3)], ids=["rows", "packed"])
@pytest.mark.parametrize("n", [2, 4])
def test_processes_read_disjoint_parts_of_the_same_batch(n: int, kind: dict) -> None:
    """However they read it, and also where one process reads several parts."""
    parts = [batches(process=(i, n), **kind) for i in range(n)]
    for step in (0, 7):
        whole = batches(**kind)[step]
        assert equal(concatenated([part[step] for part in parts]), whole)
        assert equal(concatenated([next(part.iterate(step)) for part in parts]), whole)
        assert equal(ConcatLoader(parts)[step], whole)
        assert equal(next(ConcatLoader(parts).iterate(step)), whole)
    passes = [[*part.one_pass(99)] for part in (*parts, ConcatLoader(parts), batches(**kind))]
    for *split, joined, whole in zip(*passes, strict=True):
        assert equal(concatenated(split), whole)
        assert equal(joined, whole)


def concatenated(parts: list[dict]) -> dict:
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def test_rows_are_padded_to_the_length_asked_for() -> None:
    batch = batches(length=50, pad_id=9)[0]
    assert batch["tokens"].shape == (8, 50)
    padding = np.arange(50) >= batch["size"][:, None]
    assert (batch["tokens"][padding] == 9).all()


def test_packed_rows_have_one_number_for_each_sequence() -> None:
    batch = batches(sources=[Packed()], packed=4, pad_id=9)[0]
    assert batch["size"].shape == batch["first"].shape == batch["pair"].shape == (8, 4)
    for tokens, size, pair, row in zip(
        *(batch[k] for k in ("tokens", "size", "pair", "row")), strict=True
    ):
        assert np.count_nonzero(size) == 1 + row % 3
        assert (tokens == np.where(np.arange(32) < size.sum(), 5, 9)).all()
        assert ((pair == -1) == (size == 0)).all()


def test_packed_rows_that_are_missing_in_evaluation_hold_nothing() -> None:
    *_, last = batches(sources=[Packed()], packed=3).one_pass(99)
    assert (last["size"][4:] == 0).all()
    assert (last["pair"][4:] == -1).all()


def test_evaluation_sees_every_row_once_whatever_the_batch() -> None:
    for size in (8, 6):
        rows = np.concatenate(
            [b["row"][b["size"] > 0] for b in batches(batch_size=size).one_pass(99)]
        )
        assert sorted(rows) == list(range(20))
    assert len(list(batches().one_pass(2))) == 2


def test_a_mix_keeps_its_weights_and_tells_rows_apart() -> None:
    mixed = batches(sources=[tiny_configs.Rows(20), tiny_configs.Rows(30)], weights=[3.0, 1.0])
    rows = np.concatenate([mixed[i]["row"] for i in range(50)])
    assert abs((rows < 20).mean() - 0.75) < 0.01
    assert rows.max() < 50


class Index:
    """Any number of rows, and a list of those that were looked at."""

    def __init__(self, n: int) -> None:
        self.n, self.read = n, []

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, numbers: list[int]) -> list[dict]:
        self.read += numbers
        return [
            {"tokens": np.full(32, i % 97), "size": 32, "first": 32, "pair": -1} for i in numbers
        ]


def test_a_billion_rows_cost_no_more_than_ten() -> None:
    """The batch of a late step, and the first after a restart there, read its rows alone."""
    index = Index(10**9)
    batch = batches(sources=[index])[10**6]
    assert len(set(batch["row"])) == len(index.read) == 8
    again = next(batches(sources=[Index(10**9)]).iterate(10**6))
    assert equal(batch, again)
    assert len(next(batches(sources=[index]).one_pass(10**6))["row"]) == 8


def test_numbers_of_rows_beyond_32_bits_go_around() -> None:
    mixed = batches(sources=[Index(10**9)] * 5, weights=[1.0] * 5)
    rows = np.concatenate([mixed[i]["row"] for i in range(20)])
    assert rows.dtype == np.int32
    assert (rows < 0).any()
    assert len(set(rows)) == 160


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(process=(0, 3)), "is not divisible by 3 processes"),
        (dict(sources=[tiny_configs.Rows(0)]), "has no rows"),
    ],
)
def test_what_cannot_be_read_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(**change)


def test_evaluation_sees_all_of_a_mix() -> None:
    mixed = batches(sources=[tiny_configs.Rows(20), tiny_configs.Rows(30)], weights=[3.0, 1.0])
    rows = np.concatenate([b["row"][b["size"] > 0] for b in mixed.one_pass(99)])
    assert sorted(rows) == list(range(50))
