"""Long texts: head and tail, and windows that cover a text."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax import tasks
from bert_jax.config import Supervised
from bert_jax.data.labeled import LabeledBatches
from bert_jax.tasks import TextExample
from bert_jax.tasks.long_texts import cut_text, padded_count, split_windows
from tests.helpers.labeled_rows import trained_tokenizer

TOKENIZER = trained_tokenizer("wordpiece")


@settings(deadline=None)
@given(st.integers(0, 90), st.integers(4, 20), st.integers(1, 9))
def test_windows_are_even_and_cover_the_text_or_say_so(n: int, room: int, most: int) -> None:
    pieces = list(range(n))
    windows, cut = split_windows(pieces, room, most)
    assert len(windows) <= most
    assert all(w == pieces[w[0] : w[0] + room] for w in windows if w)
    assert cut == (set().union(*windows) != set(pieces))
    if len(windows) > 1:
        assert (windows[0][0], windows[-1][-1]) == (0, n - 1)
        steps = np.diff([w[0] for w in windows])
        assert np.ptp(steps) <= 1
        assert cut or len(windows) == most or (room - steps >= room // 4 - 1).all()


def test_head_and_tail_are_a_quarter_and_three_quarters() -> None:
    (row,), cut = cut_text(list(range(100)), None, 12, "head_tail", 8)
    assert (row, cut) == (([0, 1, 2, *range(91, 100)], None), ("truncated",))
    (row,), cut = cut_text(list(range(20)), [1, 2], 10, "head_tail", 8)
    assert row == ([0, 1, *range(14, 20)], [1, 2])
    short = list(range(9))
    assert cut_text(short, [1], 10, "head_tail", 8) == ([(short, [1])], ())


@pytest.mark.parametrize("swap", [False, True])
def test_the_shorter_text_of_a_pair_is_in_every_window(swap: bool) -> None:
    pair = (list(range(40)), [98, 99])
    rows, cut = cut_text(*(reversed(pair) if swap else pair), 12, "windows", 8)  # type: ignore[arg-type]
    assert not cut
    longer, shorter = zip(*(reversed(row) if swap else row for row in rows), strict=True)
    assert set(shorter and map(tuple, shorter)) == {(98, 99)}
    assert set().union(*longer) == set(range(40))
    _, cut = cut_text(list(range(40)), list(range(30)), 12, "windows", 99)
    assert cut == ("half",)  # of the shorter one only half of the room is kept
    _, cut = cut_text(list(range(40)), list(range(30)), 12, "windows", 2)
    assert cut == ("gaps", "half")


def encode(long: Any, *texts: str, **more: Any) -> tasks.EncodedExamples:
    objective = Supervised(labels=("a", "b"), long=long, **more)
    return tasks.encode_for(objective, [TextExample(t, None, "b") for t in texts], TOKENIZER, 12)


def test_windows_are_rows_of_one_example_and_are_counted() -> None:
    encoded = encode("windows", "the", "the " * 22, "the " * 99, max_windows=6)
    assert [len(row["size"]) for row in encoded.rows] == [1, padded_count(3, 6), 6]
    assert encoded.rows[1]["size"].tolist() == [12, 12, 12, 0]
    assert encoded.num_truncated == 1
    assert any("read in windows: 2" in note for note in encoded.notes)
    assert any("6 windows do not cover, read in part: 1" in note for note in encoded.notes)
    pair = TextExample("the " * 9, "the " * 8, "b")
    objective = Supervised(labels=("a", "b"), long="windows")
    _, note = tasks.encode_for(objective, [pair], TOKENIZER, 12).notes
    assert note.startswith("pairs whose shorter text is longer than half of a window")
    assert note.endswith(": 1; raise data.length")
    assert "head and tail are kept: 1" in encode("head_tail", "cat", "the cat " * 20).notes[0]


def test_a_batch_pads_the_number_of_windows() -> None:
    rows = encode("windows", "the", "the " * 22).rows
    batch = LabeledBatches(rows, 2, 0)._stack([0, 1], [0, 0])
    assert batch["tokens"].shape == (2, 4, 16)
    assert batch["tokens"].dtype == np.int32
    assert batch["size"].tolist() == [[3, 0, 0, 0], [12, 12, 12, 0]]
    assert batch["label"].tolist() == [1, 1]


@pytest.mark.parametrize("task", ["tagging", "choice", "qa"])
def test_tasks_with_windows_of_their_own_refuse_it(task: Any) -> None:
    with pytest.raises(ValueError, match="long is windows, but it is for classification"):
        Supervised(task=task, long="windows")
