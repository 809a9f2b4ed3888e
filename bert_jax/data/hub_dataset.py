"""Datasets of the Hugging Face Hub: `hf:datasets/OWNER/NAME[@REVISION][/CONFIG][/SPLIT]`.

Only Parquet is read: the repository's own shards, or those of the branch `refs/convert/parquet`, to
which the Hub converts other formats. The order of the rows is that of the shards' names, then that
of the rows in each. All shards are of one commit.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import posixpath
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
# OWNER/NAME, a revision, whose name may be refs/pr/N, and the parts of CONFIG/SPLIT
SOURCE = re.compile(r"([^/]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?((?:/[^/]+)*)/*")

Splits = dict[str, list[str]]  # split -> paths of its shards, in order


class HubDataset(NamedTuple):
    """A dataset as it is named; `parts` are CONFIG, which may have slashes, and SPLIT, as far as
    they are given."""

    source: str
    repo: HubName
    parts: tuple[str, ...]


class HubShards(NamedTuple):
    """The downloaded shards of one split, without empty ones."""

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
        shards = [folder / file for file in self.splits[split]]
        try:
            sizes = {file: pyarrow.parquet.read_metadata(file).num_rows for file in shards}
        except (pyarrow.ArrowException, OSError) as e:
            raise ValueError(f"a shard of {self.repo} is not Parquet: {e}") from e
        name = f"{PREFIX}{self.repo.repo}@{self.repo.revision}/{self.name}/{split}"
        files, rows = tuple(file for file in shards if sizes[file]), sum(sizes.values())
        logger.info("%s: %d rows in %d shards", name, rows, len(files))
        return HubShards(name, files, rows)


def is_hub_dataset(source: str) -> bool:
    """Whether a text or a task's data is a dataset of the Hub."""
    return source.startswith(PREFIX)


def parse_dataset(source: str) -> HubDataset:
    """The dataset that `source` names. ValueError: it is not written as `EXPECTED`."""
    match = SOURCE.fullmatch(source.removeprefix(PREFIX))
    if match is None or hub.REPO.fullmatch(match[1]) is None:
        raise ValueError(f"{source} is no dataset of the Hub: expected {EXPECTED}")
    config, _, split = match[3].removeprefix("/").rpartition("/")
    parts = tuple(part for part in (config, split) if part)
    return HubDataset(source, HubName(match[1], match[2]), parts)


def download_text(source: str) -> HubShards:
    """The shards of a text source, which names a split. ValueError: it names none, or one that is
    not there or has no rows."""
    dataset = parse_dataset(source)
    if not dataset.parts:
        raise ValueError(f"{source} names no split: expected {EXPECTED}")
    shards = open_config(dataset, dataset.parts[:-1]).download(dataset.parts[-1])
    if not shards.files:
        raise ValueError(f"{shards.name} is empty: expected rows in it; choose another split")
    return shards


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
    """Configs and splits as the dataset card declares them: `data_files` by split, in `data_dir`.
    Each file is once in its split."""
    configs: dict[str, Splits] = {}
    for entry in card:
        data_files = entry.get("data_files") if isinstance(entry, Mapping) else None
        for item in data_files if isinstance(data_files, list) else [data_files]:
            if isinstance(item, str):
                item = {"split": "train", "path": item}
            if not isinstance(item, Mapping):
                continue
            paths = item.get("path") or []
            paths = paths if isinstance(paths, list) else [paths]
            globs = [_glob_parts(entry.get("data_dir") or "", str(path)) for path in paths]
            found = [f for f in files if any(_matches(f.split("/"), parts) for parts in globs)]
            if found:
                splits = configs.setdefault(str(entry.get("config_name", "default")), {})
                split = str(item.get("split", "train"))
                splits[split] = [*dict.fromkeys([*splits.get(split, []), *found])]
    return configs


def _glob_parts(folder: Any, path: str) -> list[str]:
    return posixpath.normpath(posixpath.join(str(folder), path)).split("/")


def _matches(path: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob: `**` is any number of folders, and `*`
    does not cross a slash."""
    if not path or not parts:
        return not path and all(part == "**" for part in parts)
    if parts[0] == "**":
        return _matches(path, parts[1:]) or _matches(path[1:], parts)
    return fnmatch.fnmatchcase(path[0], parts[0]) and _matches(path[1:], parts[1:])


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
