"""Batches are a pure look-up of the step."""

import numpy as np
import pytest
import small

from bert_jax.data import Batches


def batches(**kwargs: object) -> Batches:
    return Batches(
        **({"sources": [small.Rows(20)], "batch_size": 8, "length": 32, "pad_id": 0} | kwargs)
    )  # type: ignore[arg-type]


def equal(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in a)


def test_the_stream_from_a_step_is_the_look_up() -> None:
    stream = batches().start(3)
    assert all(equal(next(stream), batches()[step]) for step in range(3, 9))


def test_an_epoch_shows_every_row_once_in_a_new_order() -> None:
    """20 rows in batches of 8: five batches are two epochs."""
    seen = [
        (int(r), int(e))
        for i in range(5)
        for b in [batches()[i]]
        for r, e in zip(b["row"], b["epoch"], strict=True)
    ]
    assert sorted(seen) == sorted((r, e) for r in range(20) for e in range(2))
    assert [r for r, e in seen if e == 0] != [r for r, e in seen if e == 1]


def test_another_seed_is_another_order() -> None:
    assert not equal(batches()[0], batches(seed=1)[0])


@pytest.mark.parametrize("n", [2, 4])
def test_processes_read_disjoint_parts_of_the_same_batch(n: int) -> None:
    for step in (0, 7):
        parts = [batches(process=(i, n))[step] for i in range(n)]
        whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        assert equal(whole, batches()[step])


def test_rows_are_padded_to_the_length_asked_for() -> None:
    batch = batches(length=50, pad_id=9)[0]
    assert batch["tokens"].shape == (8, 50)
    padding = np.arange(50) >= batch["size"][:, None]
    assert (batch["tokens"][padding] == 9).all()


def test_evaluation_sees_every_row_once_whatever_the_batch() -> None:
    for size in (8, 6):
        rows = np.concatenate([b["row"][b["size"] > 0] for b in batches(batch_size=size).once(99)])
        assert sorted(rows) == list(range(20))
    assert len(list(batches().once(2))) == 2


def test_a_mix_keeps_its_weights_and_tells_rows_apart() -> None:
    mixed = batches(sources=[small.Rows(20), small.Rows(30)], weights=[3.0, 1.0])
    rows = np.concatenate([mixed[i]["row"] for i in range(50)])
    assert abs((rows < 20).mean() - 0.75) < 0.01
    assert rows.max() < 50


class Index:
    """Any number of rows, and a list of those that were looked at."""

    def __init__(self, n: int) -> None:
        self.n, self.read = n, []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict:
        self.read.append(i)
        return {"tokens": np.full(32, i % 97), "size": 32, "first": 32, "pair": -1}


def test_a_billion_rows_cost_no_more_than_ten() -> None:
    """The batch of a late step, and the first after a restart there, read its rows alone."""
    index = Index(10**9)
    batch = batches(sources=[index])[10**6]
    assert len(set(batch["row"])) == len(index.read) == 8
    again = next(batches(sources=[Index(10**9)]).start(10**6))
    assert equal(batch, again)
    assert len(next(batches(sources=[index]).once(10**6))["row"]) == 8


def test_numbers_of_rows_beyond_32_bits_go_around() -> None:
    mixed = batches(sources=[Index(10**9)] * 5, weights=[1.0] * 5)
    rows = np.concatenate([mixed[i]["row"] for i in range(20)])
    assert rows.dtype == np.int32
    assert (rows < 0).any()
    assert len(set(rows)) == 160


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(process=(0, 3)), "does not divide over 3 processes"),
        (dict(sources=[small.Rows(0)]), "has no rows"),
    ],
)
def test_what_cannot_be_read_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(**change)


def test_evaluation_sees_all_of_a_mix() -> None:
    mixed = batches(sources=[small.Rows(20), small.Rows(30)], weights=[3.0, 1.0])
    rows = np.concatenate([b["row"][b["size"] > 0] for b in mixed.once(99)])
    assert sorted(rows) == list(range(50))
