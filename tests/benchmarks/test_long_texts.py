"""The task of benchmarks/long_texts.py: what its label can be told from."""

from benchmarks import long_texts


def test_no_address_is_in_two_splits_and_no_digit_tells_the_year() -> None:
    splits = long_texts.passages(140)
    texts = {split: {row["text"] for row in rows} for split, rows in splits.items()}
    assert texts["train"].isdisjoint(texts["dev"] | texts["test"])
    assert texts["dev"].isdisjoint(texts["test"])
    assert {c for part in texts.values() for text in part for c in text if c.isdigit()} == {"0"}
    assert all(len(text.split()) == 140 for part in texts.values() for text in part)
    for rows in splits.values():
        assert {row["label"] for row in rows} == {f"quarter {i}" for i in (1, 2, 3, 4)}
