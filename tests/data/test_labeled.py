"""Labelled rows in batches: looked up by step, padded to what they need."""

import numpy as np
import pytest

from bert_jax.data.labeled import PADDED_LENGTHS, LabeledBatches


def equal(a: dict, b: dict) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in a)


def labelled(n: int = 20, kind: str = "text", **kwargs: object) -> LabeledBatches:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        size = int(rng.integers(3, 40))
        row = {"tokens": np.full(size, 7), "size": size, "first": size, "row": i, "label": i % 2}
        if kind == "tags":
            row["tags"] = np.arange(size)
        if kind == "choice":
            row |= {"tokens": [np.full(size, 7), np.full(2, 7)], "size": np.array([size, 2])}
            row |= {"first": np.array([size, 2])}
        rows.append(row)
    return LabeledBatches(rows, **({"batch_size": 8, "pad_id": 0} | kwargs))  # type: ignore[arg-type]


def test_labelled_rows_are_looked_up_by_step_and_shown_once_an_epoch() -> None:
    rows = labelled()
    stream = rows.iterate(2)
    assert all(equal(next(stream), rows[step]) for step in range(2, 7))
    pairs = [tuple(p) for i in range(5) for p in zip(rows[i]["row"], rows[i]["epoch"], strict=True)]
    assert sorted(pairs) == sorted((r, e) for r in range(20) for e in range(2))
    assert not equal(rows[0], labelled(seed=1)[0])


@pytest.mark.parametrize("steps", [1, 9, 40])
def test_rows_grouped_by_length_are_those_of_the_run_and_need_less_padding(steps: int) -> None:
    """Also where the run ends within a group of batches, and on any number of processes."""
    plain, grouped = labelled(400), labelled(400, grouped_steps=steps)

    def shown(rows: LabeledBatches) -> list[tuple[int, int]]:
        batches = [rows[i] for i in range(steps)]
        return [x for b in batches for x in zip(b["row"], b["epoch"], strict=True)]

    assert sorted(shown(grouped)) == sorted(shown(plain))
    assert len(set(shown(grouped))) == 8 * steps
    if steps > 1:
        assert shown(grouped) != shown(plain)
        lengths = [[b.shape[1] for b in (rows[i]["tokens"] for i in range(steps))]
                   for rows in (plain, grouped)]  # fmt: skip
        assert sum(lengths[1]) < 0.8 * sum(lengths[0])
        assert lengths[1] != sorted(lengths[1]), "batches come in random order"
    parts = [labelled(400, grouped_steps=steps, parts=[(i, 2)])[steps - 1] for i in range(2)]
    whole = grouped[steps - 1]
    assert equal({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)


@pytest.mark.parametrize("kind", ["text", "tags", "choice"])
def test_labelled_rows_are_padded_to_their_batch(kind: str) -> None:
    rows = labelled(kind=kind)
    for batch in [rows[0], rows[1], *rows.one_pass()]:
        tokens, size = batch["tokens"], batch["size"]
        length = tokens.shape[-1]
        assert length in PADDED_LENGTHS
        assert length == 16 or length // 2 < size.max() <= length
        real = np.arange(length) < size[..., None]
        there = (size > 0).reshape(len(size), -1).any(axis=1)
        assert ((tokens == 7) == real)[there].all()
        if kind == "tags":
            assert (batch["tags"][there] == np.where(real, np.arange(length), -1)[there]).all()


@pytest.mark.parametrize("n", [2, 4])
def test_processes_hold_parts_of_one_labelled_batch(n: int) -> None:
    def batches(i: int, n: int) -> list[dict]:
        rows = labelled(parts=[(i, n)])
        return [rows[3], *rows.one_pass()]

    for whole, *parts in zip(batches(0, 1), *(batches(i, n) for i in range(n)), strict=True):
        assert equal({k: np.concatenate([p[k] for p in parts]) for k in whole}, whole)


def test_the_shape_of_an_evaluated_row_does_not_depend_on_its_neighbors() -> None:
    """Batches of one padded length and number of options, so one program for a row, always."""
    options = [[30, 4], [4, 30, 9], [30, 2], [5, 5]]
    rows = [
        {"tokens": [np.full(n, 7) for n in sizes] + [np.zeros(0, int)] * (3 - len(sizes)),
         "size": np.array(sizes + [0] * (3 - len(sizes))), "label": 0}
        for sizes in options
    ]  # fmt: skip
    batches = list(LabeledBatches(rows, batch_size=4, pad_id=0).one_pass())
    shapes = {tuple(sorted(b["row"][b["row"] >= 0])): b["tokens"].shape for b in batches}
    assert shapes == {(3,): (4, 2, 16), (0, 2): (4, 2, 32), (1,): (4, 3, 32)}
    assert all(b["size"].shape == b["tokens"].shape[:2] for b in batches)


def test_evaluation_sees_every_labelled_row_once_and_gives_them_back_in_order() -> None:
    rows = labelled()
    numbers = np.concatenate([b["row"] for b in rows.one_pass()])
    assert sorted(numbers[numbers >= 0]) == list(range(20))
    assert len(numbers) % 8 == 0
    assert all((b["size"] == 0).tolist() == (b["row"] < 0).tolist() for b in rows.one_pass())
    outputs = rows.predict_all(lambda b: (b["row"], {"x": b["tokens"] * 1.0}), per_token=True)
    assert [len(g["x"]) for g in outputs] == [r["size"] for r in rows.rows]
    outputs = rows.predict_all(lambda b: (b["row"], b["row"] * 2), per_token=False)
    assert [int(g) for g in outputs] == [2 * i for i in range(20)]


def test_a_batch_is_fetched_while_the_next_one_is_computed() -> None:
    done: list[str] = []

    class OnDevice:
        def __init__(self, number: int, values: np.ndarray) -> None:
            self.number, self.values = number, values

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            done.append(f"fetch {self.number}")
            return self.values

    def apply(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, OnDevice]:
        number = sum(what.startswith("compute") for what in done)
        done.append(f"compute {number}")
        return batch["row"], OnDevice(number, batch["row"] * 2)

    rows = labelled()
    outputs = rows.predict_all(apply, per_token=False)
    assert [int(x) for x in outputs] == [2 * i for i in range(20)]
    count = sum(what.startswith("compute") for what in done)
    assert done[:4] == ["compute 0", "compute 1", "fetch 0", "compute 2"]
    assert done[-1] == f"fetch {count - 1}"
