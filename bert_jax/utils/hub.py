"""Models of the Hugging Face Hub by name: `OWNER/NAME`, `hf:NAME` or `hf:NAME@REVISION`.

`model_folder` is the only place where a MODEL becomes a local folder. A name is downloaded with
`huggingface_hub`, whose cache, token, endpoint and offline mode (`HF_HOME`, `HF_TOKEN`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`) count. Only files that are read are downloaded, all of them of one
commit. Nothing here opens a connection for a local path.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.utils.errors import first_line
from bert_jax.utils.model_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    INDEX,
    MODULES,
    PICKLE,
    PICKLE_INDEX,
    SENTENCE_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
)

logger = logging.getLogger(__name__)

PREFIX = "hf:"
REPO = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
SMALL_FILES = (CONFIG, ADAPTER_CONFIG, INDEX, *TOKENIZER_FILES, *SENTENCE_FILES)


class HubName(NamedTuple):
    """A repository of the Hub, and a branch, tag or commit of it; None is the main branch."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{PREFIX}{self.repo}@{self.revision}"


class ModelFolder(NamedTuple):
    """The local folder of a model; of one from the Hub also its name and its commit."""

    path: Path
    name: str | None = None
    commit: str | None = None


def parse_name(model: str | Path) -> HubName | None:
    """The name on the Hub that `model` is, or None if it is a local path.

    A path is local if it exists, if it begins with `.`, `/` or `~`, if it ends in `/`, or if its
    first part is a folder, so that a misspelled path opens no connection. `hf:` always begins a
    name, and a `Path` is always local. ValueError: `hf:` with something else than a name.
    """
    if isinstance(model, Path):
        return None
    text = model.removeprefix(PREFIX)
    if text == model and _is_local(text):
        return None
    repo, at, revision = text.partition("@")
    if REPO.fullmatch(repo) and (revision or not at):
        return HubName(repo, revision or None)
    if text == model:
        return None
    raise ValueError(f"{model} is no name on the Hub: expected hf:OWNER/NAME or hf:NAME@REVISION")


def _is_local(text: str) -> bool:
    path = Path(text)
    in_folder = len(path.parts) > 1 and os.path.isdir(path.parts[0])
    looks_local = text.startswith((".", "/", "~")) or text.endswith("/")
    # os.path takes what can be no path, such as a very long text, for one that does not exist
    return looks_local or in_folder or os.path.exists(path)


def model_folder(
    model: str | Path, allow_pickle: bool = False, weights: bool = True
) -> ModelFolder:
    """The folder of a MODEL: a local one, or a name on the Hub, which is downloaded unless the
    cache has it. Pickles (`.bin`) are downloaded only with `allow_pickle`; without `weights`, only
    the config and the tokenizer are.

    ValueError: no such folder and no such name; the Hub cannot be reached and the cache has no
    complete copy; a gated model; one whose only weights are pickles.
    """
    name = parse_name(model)
    if name is None:
        return ModelFolder(_local_folder(model))
    with hub_errors(name):
        folder = snapshot(name, SMALL_FILES)
        pinned = HubName(name.repo, folder.name)  # so that files of two commits are never mixed
        modules = [glob.escape(m) for m in _modules(folder) if m]
        patterns = [*SMALL_FILES, *(f"{m}/{f}" for m in modules for f in SMALL_FILES)]
        if weights and (folder / ADAPTER_CONFIG).is_file():  # of peft; its base is read as another
            snapshot(pinned, [*patterns, ADAPTER_WEIGHTS])
        elif weights:
            names = (WEIGHTS, PICKLE) if allow_pickle else (WEIGHTS,)
            patterns += [f"{m}/{f}" for m in modules for f in names]
            snapshot(pinned, [*patterns, WEIGHTS])
            _fetch_shards(pinned, folder, INDEX, WEIGHTS)
            encoder = folder / next(iter(_modules(folder)), "")  # 0_Transformer, in old folders
            if not any((encoder / f).is_file() for f in (INDEX, *names)):
                _fetch_pickle(name, pinned, folder, allow_pickle)
        else:
            snapshot(pinned, patterns)
    _log_commit(name, folder.name)
    return ModelFolder(folder, str(name), folder.name)


def commit_of(model: str | Path) -> str | None:
    """The commit that a name on the Hub stands for now; None for a local path. ValueError: as
    `model_folder`."""
    name = parse_name(model)
    if name is None:
        return None
    with hub_errors(name):
        commit = snapshot(name, SMALL_FILES).name
    _log_commit(name, commit)
    return commit


def _log_commit(name: HubName, commit: str) -> None:
    if name.revision != commit:
        logger.info("%s: commit %s of the Hugging Face Hub", name, commit)


def at_commit(model: str, commit: str | None) -> str | Path:
    """The MODEL of a run that recorded `commit` for it: that commit of a name, or if there is none
    the local path."""
    if commit is None:
        return Path(model)
    return str(HubName(model.removeprefix(PREFIX).partition("@")[0], commit))


def with_commit(model: str, commit: str | None) -> str:
    """A MODEL that was loaded, to be recorded: a name on the Hub gets its commit."""
    return model if parse_name(model) is None else str(at_commit(model, commit))


def _local_folder(model: str | Path) -> Path:
    """ValueError: there is no such folder."""
    text, path = str(model), Path(model).expanduser()
    if path.is_dir():
        from_hub = (path / CONFIG).is_file() and not (path / "checkpoints").is_dir()
        if isinstance(model, str) and from_hub and REPO.fullmatch(text):
            logger.info("%s: the local folder; hf:%s is the model on the Hub", text, text)
        return path
    if path.exists():
        raise ValueError(f"{text} is a file: expected a model's folder, or a name on the Hub")
    first = Path(text).parts[0] if Path(text).parts else text
    if REPO.fullmatch(text) and Path(first).is_dir():
        raise ValueError(
            f"{text} does not exist, and is not taken as a name on the Hub because {first} is a "
            f"folder: check the path, or give hf:{text}"
        )
    raise ValueError(f"{text} does not exist: expected a model's folder, or a name on the Hub")


# ---- files


def snapshot(name: HubName, patterns: Sequence[str], repo_type: str = "model") -> Path:
    """The folder of the files of one commit whose paths match; its name is the commit. Call it in
    `hub_errors`."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name.repo,
            repo_type=repo_type,
            revision=name.revision,
            allow_patterns=list(patterns),
            library_name="bert_jax",
        )
    )


def _fetch_shards(pinned: HubName, folder: Path, index: str, single: str) -> None:
    """Download the weight files that an index names, unless there is a single one, which is read
    instead."""
    weight_map = _read(folder / index, {}).get("weight_map")
    if isinstance(weight_map, dict) and not (folder / single).is_file():
        names = sorted(set(map(str, weight_map.values())))
        snapshot(pinned, [index, *(glob.escape(f) for f in names if "/" not in f)])


def _modules(folder: Path) -> list[str]:
    """The folders that modules.json names, that of the encoder first; "" is the folder itself."""
    modules = _read(folder / MODULES, [])
    paths = [str(m.get("path") or "") for m in modules if isinstance(m, dict)]
    return [p for p in paths if ".." not in p and not p.startswith("/")]


def _read(file: Path, default: Any) -> Any:
    """A JSON file, or `default` if it is missing, damaged, or of another type; who reads the
    folder then reports it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return default
    return values if isinstance(values, type(default)) else default


def _fetch_pickle(name: HubName, pinned: HubName, folder: Path, allow_pickle: bool) -> None:
    """Download the weights of a repository without safetensors. ValueError: it has none, or they
    are pickles and `allow_pickle` is not given."""
    if allow_pickle:
        snapshot(pinned, [PICKLE, PICKLE_INDEX])
        _fetch_shards(pinned, folder, PICKLE_INDEX, PICKLE)
        if any((folder / file).is_file() for file in (PICKLE, PICKLE_INDEX)):
            return
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(pinned.repo, revision=pinned.revision)
    pickles = [file for file in files if file.endswith((".bin", ".pt", ".ckpt", ".h5", ".msgpack"))]
    if PICKLE in files or PICKLE_INDEX in files:
        raise ValueError(
            f"{name} has its weights only as a pickle ({PICKLE}), which could run code: choose a "
            "revision with safetensors, such as refs/pr/N, or import it with --allow-pickle "
            "(PyTorch then reads tensors only)"
        )
    others = f" (it has {', '.join(pickles[:3])})" if pickles else ""
    raise ValueError(f"{name} has no weights that can be read{others}: expected {WEIGHTS}")


# ---- errors


@contextlib.contextmanager
def hub_errors(name: HubName, kind: str = "model", action: str = "read") -> Iterator[None]:
    """Raise ValueError with one line for every error of `huggingface_hub`, when something is read
    or `written`."""
    from huggingface_hub import constants, errors

    where = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name.repo}"
    login = "run `hf auth login`, or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError:
        raise ValueError(
            f"{name} is gated: accept its conditions at {where}, then {login}"
        ) from None
    except errors.RepositoryNotFoundError:
        if action == "written":
            raise ValueError(
                f"{name} cannot be written on the Hub: {login} (of a token that may write)"
            ) from None
        raise ValueError(
            f"{name} is neither a folder here nor a {kind} on the Hub that you may read: check the "
            f"spelling; for a private one {login}"
        ) from None
    except errors.HFValidationError as e:  # such as "--" or more than 96 characters
        raise ValueError(f"{name.repo:.100} is no name on the Hub: {first_line(e):.200}") from None
    except errors.RevisionNotFoundError:
        raise ValueError(
            f"{name.repo} has no revision {name.revision}: expected a branch, a tag or a whole "
            f"commit; see {where}/commits/main"
        ) from None
    except errors.LocalEntryNotFoundError as e:
        raise ValueError(_absent(name, e.__cause__, constants.HF_HUB_CACHE)) from None
    except errors.HfHubHTTPError as e:
        status, message = e.response.status_code, e.server_message or first_line(e)[:200]
        hint = login if status in (401, 403) else "try again later"
        raise ValueError(f"{name}: the Hub answers {status} ({message}): {hint}") from None
    except errors.HTTPError as e:  # type: ignore[attr-defined]  # a connection that was cut
        raise ValueError(
            f"{name}: the connection to the Hub was lost ({first_line(e):.200}): run the "
            "command again; finished files are kept"
        ) from None
    except OSError as e:
        if e.errno is not None:  # of the local disk
            raise
        raise ValueError(f"{name}: the download failed ({first_line(e):.200}): try again") from None


def _absent(name: HubName, cause: BaseException | None, cache: str) -> str:
    from huggingface_hub import constants, errors

    if cause is None or isinstance(cause, errors.OfflineModeIsEnabled):
        return (
            f"{name} is not complete in the cache {cache}, and HF_HUB_OFFLINE forbids to download "
            "it: unset HF_HUB_OFFLINE, or give a local folder"
        )
    return (
        f"{name} is no folder here, and the Hub ({constants.ENDPOINT}) cannot be reached: "
        f"{first_line(cause):.200}; check the network, or give a local folder"
    )
