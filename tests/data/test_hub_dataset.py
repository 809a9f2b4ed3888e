"""Datasets of the Hub as text and as tasks, read from a local server."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_jax import tasks
from bert_jax.data import hub_dataset
from bert_jax.data.documents import read_documents
from bert_jax.data.text_sources import expand_texts
from bert_jax.tasks import hub as hub_tasks
from tests.helpers.fake_hub import Hub

NAME = "hf:datasets/owner/words"


def parquet(features: dict[str, Any] | None = None, **columns: list[Any]) -> bytes:
    """A Parquet file; `features` is what the library datasets writes into its schema."""
    table = pa.table(columns)
    if features is not None:
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def texts(source: str, **options: Any) -> list[str]:
    return [line for d in read_documents([source], **options) for line in d.paragraphs]


SHARDS = {
    "data/train-00000-of-00002.parquet": parquet(text=["a", "b"], title=["A", "B"]),
    "data/train-00001-of-00002.parquet": parquet(text=["c"], title=["C"]),
    "data/test-00000-of-00001.parquet": parquet(text=["d"], title=["D"]),
}


def test_text_comes_in_the_order_of_shards_and_rows(hub: Hub) -> None:
    repo = hub.add("owner/words", SHARDS, kind="datasets")
    assert texts(f"{NAME}/train") == ["a", "b", "c"]
    assert "data/test-00000-of-00001.parquet" not in hub.downloads()  # of another split
    assert texts(f"{NAME}/default/test", field="title") == ["D"]
    commit = repo.refs["main"]
    repo.commit({"data/train-00000-of-00002.parquet": parquet(text=["new"])})
    assert texts(f"{NAME}@{commit}/train") == ["a", "b", "c"]
    assert texts(f"{NAME}/train") == ["new", "c"]


def test_commit_and_row_count_are_recorded(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("owner/words", SHARDS, kind="datasets").refs["main"]
    (tmp_path / "x.txt").write_text("a")
    files, rows = expand_texts([str(tmp_path / "x.txt"), f"{NAME}/train"])
    assert [Path(file).name[:11] for file in files] == ["x.txt", "train-00000", "train-00001"]
    assert rows == {f"{NAME}@{commit}/default/train": 3}


def test_configs_of_the_card_and_of_file_names(hub: Hub) -> None:
    card = (
        "---\nconfigs:\n- config_name: de\n  data_files:\n  - split: train\n    path: de/*\n"
        "- config_name: en\n  data_files: en/one.parquet\n---\n# Words\n"
    )
    files = {
        "README.md": card.encode(),
        "de/one.parquet": parquet(text=["eins"]),
        "en/one.parquet": parquet(text=["one"]),
        "en/two.parquet": parquet(text=["two"]),
    }
    hub.add("owner/words", files, kind="datasets")
    with pytest.raises(ValueError, match="has several configs: expected one of de, en"):
        texts(f"{NAME}/train")
    with pytest.raises(ValueError, match="has no config fr: expected one of de, en"):
        texts(f"{NAME}/fr/train")
    with pytest.raises(ValueError, match="has no split test in en; expected one of train"):
        texts(f"{NAME}/en/test")
    assert texts(f"{NAME}/en/train") == ["one"]
    assert hub_dataset.configs_of_names(
        ["a/train-0-of-1.parquet", "b/test/0000.parquet", "b/test/0001.parquet", "data/x.parquet"]
    ) == {
        "a": {"train": ["a/train-0-of-1.parquet"]},
        "b": {"test": ["b/test/0000.parquet", "b/test/0001.parquet"]},
        "default": {"x": ["data/x.parquet"]},
    }


def test_globs_of_a_card_stop_at_folders() -> None:
    files = [
        *("de/a.parquet", "de/old/b.parquet", "de/old/more/c.parquet"),
        *("en/a1.parquet", "en/a22.parquet", "top.parquet"),
    ]
    patterns = {
        "de/*": ["de/a.parquet"],
        "de/**": ["de/a.parquet", "de/old/b.parquet", "de/old/more/c.parquet"],
        "**/old/*.parquet": ["de/old/b.parquet"],
        "**/*.parquet": files,
        "./en/a?.parquet": ["en/a1.parquet"],
        "en/a[!1]*": ["en/a22.parquet"],
        "*": ["top.parquet"],
    }
    for pattern, expected in patterns.items():
        card = [{"config_name": "x", "data_files": pattern}]
        assert hub_dataset.configs_of_card(card, files) == {"x": {"train": expected}}, pattern


def test_globs_of_a_card_begin_in_its_folder_and_take_each_file_once() -> None:
    files = ["de/a.parquet", "de/b.parquet", "en/a.parquet"]
    items = [{"split": "dev", "path": path} for path in ("a*", ["*.parquet", "b*"], 7)]
    card = [{"data_dir": "de", "data_files": [*items, None]}, "no mapping"]
    assert hub_dataset.configs_of_card(card, files) == {"default": {"dev": files[:2]}}


def test_a_config_in_nested_folders_and_a_revision_with_slashes_are_named_in_full(hub: Hub) -> None:
    files = {"web/de/train.parquet": parquet(text=["eins"]), "web/en/train.parquet": b""}
    repo = hub.add("owner/words", files, kind="datasets")
    assert texts(f"{NAME}/web/de/train") == ["eins"]
    repo.commit({**files, "web/de/train.parquet": parquet(text=["zwei"])}, "refs/pr/3")
    assert texts(f"{NAME}@refs/pr/3/web/de/train") == ["zwei"]


def test_empty_shards_are_skipped_and_equal_ones_read_twice(hub: Hub) -> None:
    """Both kinds are links to one file in the cache."""
    shard, empty = parquet(text=["a"]), parquet(text=pa.array([], pa.string()))
    files = {f"train-{i}-of-5.parquet": data for i, data in enumerate([shard, empty] * 2)}
    hub.add("owner/words", {**files, "test.parquet": empty}, kind="datasets")
    assert texts(f"{NAME}/train") == ["a", "a"]
    with pytest.raises(ValueError, match=r"default/test is empty: expected rows in it"):
        texts(f"{NAME}/test")
    for again in (f"{NAME}/train", f"{NAME}/default/train"):
        with pytest.raises(ValueError, match=r"train-.-of-5\.parquet is given twice"):
            read_documents([f"{NAME}/train", again])


def test_what_is_not_there_is_refused_before_a_download(hub: Hub) -> None:
    hub.add("owner/words", SHARDS, kind="datasets")
    with pytest.raises(ValueError, match=r"none\.txt does not exist"):
        read_documents([f"{NAME}/train", "none.txt"])
    assert not hub.requests


def test_other_formats_are_read_as_the_hub_converts_them(hub: Hub) -> None:
    repo = hub.add("owner/words", {"train.csv": b"text\na\n"}, kind="datasets")
    with pytest.raises(ValueError, match="has no Parquet files, its own or converted ones"):
        texts(f"{NAME}/train")
    repo.commit({".gitattributes": b""}, "refs/convert/parquet")
    converted = {"default/partial-train/0000.parquet": parquet(text=["a"])}
    repo.commit(converted, "refs/convert/parquet")
    with pytest.raises(ValueError, match="converted only a part of it, partial-train"):
        texts(f"{NAME}/train")
    assert texts(f"{NAME}/partial-train") == ["a"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:datasets/other/words/train", "nor a dataset on the Hub that you may read"),
        ("hf:datasets/words", "is no dataset of the Hub: expected hf:datasets/OWNER/NAME"),
        (NAME, "names no split: expected hf:datasets/OWNER/NAME"),
        (f"{NAME}/a/b/c", "has no config a/b: expected one of default"),
        (f"{NAME}//train", "is no dataset of the Hub"),
        (f"{NAME}@/train", "is no dataset of the Hub"),
        (f"{NAME}/train", "has no column `text`: name one of its columns with --field .title"),
    ],
)
def test_messages(hub: Hub, source: str, message: str) -> None:
    files = {"train.parquet": parquet(title=["A"])}
    hub.add("owner/words", files, kind="datasets")
    with pytest.raises(ValueError, match=message):
        texts(source)


def test_a_task_takes_class_names_from_the_schema(hub: Hub) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(
            features, sentence=["a", "b", "c"], label=labels
        )
        for split, labels in {"train": [1, 0, 1], "validation": [0, 1, 1], "test": [-1] * 3}.items()
    }
    commit = hub.add("owner/words", files, kind="datasets").refs["main"]
    dataset = tasks.read_dataset("classification", NAME)
    assert dataset.labels == ("no", "yes")
    labels = {k: [getattr(e, "label", "") for e in v] for k, v in dataset.splits.items()}
    assert labels == {
        "train": ["yes", "no", "yes"],
        "dev": ["no", "yes", "yes"],
        "test": [None, None, None],
    }
    assert f"{NAME}@{commit}/default/train: rows: 3" in dataset.notes
    assert sum("labels '-1', which mean that there is no label: 3" in n for n in dataset.notes) == 1
    swapped = hub_tasks.read_hub("classification", f"{NAME}/validation", Counter())[0]
    assert len(swapped["train"]) == 3  # the split that is named is the one to train on


def test_rows_of_an_unknown_class_are_unlabeled_in_every_split(hub: Hub) -> None:
    """SNLI has -1 where its annotators did not agree."""
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    table = parquet(features, premise=["a", "b", "c"], hypothesis=["d"] * 3, label=[1, -1, 0])
    hub.add(
        "owner/words", {f"{s}.parquet": table for s in ("train", "validation")}, kind="datasets"
    )
    dataset = tasks.read_dataset("classification", NAME)
    labels = {k: [getattr(e, "label", "") for e in v] for k, v in dataset.splits.items()}
    assert labels == {"train": ["yes", "no"], "dev": ["yes", None, "no"]}
    assert sum("labels '-1', which mean that there is no label: 1" in n for n in dataset.notes) == 2


def test_a_class_may_be_named_minus_one(hub: Hub) -> None:
    features = {"label": {"names": ["-1", "0", "1"], "_type": "ClassLabel"}}
    table = parquet(features, sentence=["a", "b", "c"], label=[0, 1, 2])
    hub.add(
        "owner/words", {f"{s}.parquet": table for s in ("train", "validation")}, kind="datasets"
    )
    dataset = tasks.read_dataset("classification", NAME)
    assert [getattr(e, "label", "") for e in dataset.splits["train"]] == ["-1", "0", "1"]


def test_tags_of_a_task_are_named_too(tmp_path: Path) -> None:
    names = {"names": ["O", "B-PER"], "_type": "ClassLabel"}
    for feature in ({"feature": names, "_type": "List"}, [names]):
        file = tmp_path / "tags.parquet"
        file.write_bytes(parquet({"tags": feature}, tokens=[["a", "b"]], tags=[[0, 1]]))
        rows, classes = hub_tasks.read_shard(file, "tags")
        assert rows == [{"tokens": ["a", "b"], "tags": ["O", "B-PER"]}]
        assert classes == ("O", "B-PER")
