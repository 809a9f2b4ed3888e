"""Datasets of the Hugging Face Hub: `hf:datasets/OWNER/NAME[@REVISION][/CONFIG][/SPLIT]`.

Only Parquet is read: the repository's own shards, or those of the branch `refs/convert/parquet`, to
which the Hub converts other formats. The order of the rows is that of the shards' names, then that
of the rows in each. All shards are of one commit.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.utils import hub
from bert_jax.utils.hub import HubName

logger = logging.getLogger(__name__)

PREFIX = "hf:datasets/"
EXPECTED = f"{PREFIX}OWNER/NAME[@REVISION][/CONFIG]/SPLIT"
CONVERTED = "refs/convert/parquet"
CARD_FILES = ("README.md", ".gitattributes")

Splits = dict[str, list[str]]  # split -> paths of its shards, in order


class HubDataset(NamedTuple):
    """A dataset as it is named; `parts` are CONFIG and SPLIT, as far as they are given."""

    source: str
    repo: HubName
    parts: tuple[str, ...]


class HubShards(NamedTuple):
    """The downloaded shards of one split."""

    name: str  # hf:datasets/OWNER/NAME@COMMIT/CONFIG/SPLIT
    files: tuple[Path, ...]
    rows: int


class HubConfig(NamedTuple):
    """The splits of one config of a dataset, at one commit."""

    repo: HubName
    name: str
    splits: Splits

    def download(self, split: str) -> HubShards:
        """The shards of a split. ValueError: there is no such split, or no connection."""
        import pyarrow.parquet

        if split not in self.splits:
            partial = f"partial-{split}" in self.splits
            why = f": the Hub converted only a part of it, partial-{split}" if partial else ""
            raise ValueError(
                f"{self.repo.repo} has no split {split} in {self.name}{why}; expected one of "
                f"{', '.join(self.splits)}"
            )
        with hub.hub_errors(self.repo, "dataset"):
            patterns = [glob.escape(file) for file in self.splits[split]]
            folder = hub.snapshot(self.repo, patterns, "dataset")
        files = tuple(folder / file for file in self.splits[split])
        try:
            rows = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
        except (pyarrow.ArrowException, OSError) as e:
            raise ValueError(f"a shard of {self.repo} is not Parquet: {e}") from e
        name = f"{PREFIX}{self.repo.repo}@{self.repo.revision}/{self.name}/{split}"
        logger.info("%s: %d rows in %d shards", name, rows, len(files))
        return HubShards(name, files, rows)


def is_hub_dataset(source: str) -> bool:
    """Whether a text or a task's data is a dataset of the Hub."""
    return source.startswith(PREFIX)


def parse_dataset(source: str) -> HubDataset:
    """The dataset that `source` names. ValueError: it is not written as `EXPECTED`."""
    owner, _, rest = source.removeprefix(PREFIX).partition("/")
    name, *parts = rest.rstrip("/").split("/")
    name, at, revision = name.partition("@")
    repo = f"{owner}/{name}"
    if not name or hub.REPO.fullmatch(repo) is None or len(parts) > 2 or (at and not revision):
        raise ValueError(f"{source} is no dataset of the Hub: expected {EXPECTED}")
    return HubDataset(source, HubName(repo, revision or None), tuple(parts))


def download_text(source: str) -> HubShards:
    """The shards of a text source, which names a split. ValueError: it names none, or one that is
    not there."""
    dataset = parse_dataset(source)
    if not dataset.parts:
        raise ValueError(f"{source} names no split: expected {EXPECTED}")
    return open_config(dataset, dataset.parts[:-1]).download(dataset.parts[-1])


def download_texts(sources: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The sources with the files of every dataset of the Hub in its place; and the name of each
    such split, with its commit, -> its number of rows. ValueError: as `download_text`."""
    texts: list[str] = []
    rows: dict[str, int] = {}
    for source in map(str, sources):
        if is_hub_dataset(source):
            shards = download_text(source)
            texts += map(str, shards.files)
            rows[shards.name] = shards.rows
        else:
            texts.append(source)
    return texts, rows


def open_config(dataset: HubDataset, parts: Sequence[str]) -> HubConfig:
    """The config that `parts` names, or the only one.

    ValueError: no such dataset, config, or Parquet file; several configs, and none is named.
    """
    repo, configs = _list_configs(dataset.repo)
    if not configs and dataset.repo.revision is None:
        repo, configs = _list_configs(HubName(dataset.repo.repo, CONVERTED))
    if not configs:
        raise ValueError(
            f"{dataset.source} has no Parquet files, its own or converted ones ({CONVERTED}): "
            "download the dataset, and convert it to .jsonl or .parquet"
        )
    listed = ", ".join(configs)
    if parts:
        if parts[0] not in configs:
            raise ValueError(f"{dataset.source} has no config {parts[0]}: expected one of {listed}")
        return HubConfig(repo, parts[0], configs[parts[0]])
    if len(configs) > 1:
        raise ValueError(f"{dataset.source} has several configs: expected one of {listed}")
    ((name, splits),) = configs.items()
    return HubConfig(repo, name, splits)


def _list_configs(repo: HubName) -> tuple[HubName, dict[str, Splits]]:
    """The commit of a repository, and the Parquet shards of every split of every config."""
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        with hub.hub_errors(repo, "dataset"):
            commit = hub.snapshot(repo, CARD_FILES, "dataset")
            tree = get_cached_repo_tree(repo.repo, repo_type="dataset", revision=commit.name)
    except ValueError as e:
        if repo.revision == CONVERTED and isinstance(e.__context__, errors.RevisionNotFoundError):
            return repo, {}
        raise
    files = sorted(f.path for f in tree if f.path.endswith(".parquet"))
    pinned = HubName(repo.repo, commit.name)
    return pinned, configs_of_card(_read_card(commit), files) or configs_of_names(files)


def _read_card(folder: Path) -> list[Any]:
    """The field `configs` of the YAML at the top of README.md; [] if there is none."""
    import yaml

    file = folder / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        card = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return []
    configs = card.get("configs") if isinstance(card, dict) else None
    return configs if isinstance(configs, list) else []


def configs_of_card(card: Sequence[Any], files: Sequence[str]) -> dict[str, Splits]:
    """Configs and splits as the dataset card declares them: `data_files` by split."""
    configs: dict[str, Splits] = {}
    for entry in card:
        data_files = entry.get("data_files") if isinstance(entry, Mapping) else None
        if isinstance(data_files, str):
            data_files = [{"split": "train", "path": data_files}]
        for item in data_files if isinstance(data_files, list) else []:
            if isinstance(item, str):
                item = {"split": "train", "path": item}
            patterns = item.get("path") or []
            patterns = [patterns] if isinstance(patterns, str) else patterns
            found = [f for f in files if any(fnmatch.fnmatchcase(f, str(p)) for p in patterns)]
            if found:
                splits = configs.setdefault(str(entry.get("config_name", "default")), {})
                splits.setdefault(str(item.get("split", "train")), []).extend(found)
    return configs


def configs_of_names(files: Sequence[str]) -> dict[str, Splits]:
    """Configs and splits by the names of files:

    data/train-00000-of-00002.parquet      config default
    CONFIG/train-00000-of-00002.parquet
    CONFIG/train/0000.parquet              as the Hub converts
    """
    configs: dict[str, Splits] = {}
    for file in files:
        *folders, name = file.removesuffix(".parquet").split("/")
        split = folders.pop() if name.isdigit() and folders else name
        split = re.sub(r"-\d+-of-\d+.*", "", split)
        config = "/".join(folder for folder in folders if folder != "data") or "default"
        configs.setdefault(config, {}).setdefault(split, []).append(file)
    return configs
