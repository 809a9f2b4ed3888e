"""Datasets that name their splits (tasks/named_columns.py)."""

import pytest

from bert_jax.tasks.named_columns import choose_splits


def test_of_two_splits_for_dev_validation_counts_in_any_order() -> None:
    chosen = {"train": "train", "dev": "validation", "test": "test"}
    for names in (["train", "validation", "dev", "test"], ["test", "dev", "validation", "train"]):
        assert choose_splits("hf:datasets/a/b", names) == chosen


def test_a_split_that_is_named_is_the_one_to_train_on() -> None:
    splits = choose_splits("s", ["train", "train_small", "dev"], "train_small")
    assert splits == {"train": "train_small", "dev": "dev"}
    assert choose_splits("s", ["other", "dev"], "other") == {"dev": "dev", "train": "other"}


@pytest.mark.parametrize("names", [[], ["test", "train"], ["validation"]])
def test_a_dataset_without_train_or_dev_is_refused(names: list[str]) -> None:
    listed = ", ".join(names) or "none"
    with pytest.raises(ValueError, match=f"s has the splits {listed}: expected train, and valid"):
        choose_splits("s", names)
