"""Upload an exported folder to the Hugging Face Hub: `export --format hf --push OWNER/NAME`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from bert_jax.utils import hub
from bert_jax.utils.model_files import CONFIG, WEIGHTS

logger = logging.getLogger(__name__)

ALWAYS_WRITTEN = (CONFIG, WEIGHTS)
READ_TOGETHER = (".json", ".txt", ".model", ".bin", ".safetensors")
UNTOUCHED = ".gitattributes"  # the Hub makes it with the repository


def push(folder: Path, target: str, force: bool = False, private: bool = False) -> str:
    """Upload all files of a folder in one commit, and return its address. The repository is made
    if there is none; `private` is for a new one.

    ValueError: `target` is no name; the repository has one of the files already and `force` is not
    given; the Hub cannot be reached, or the token may not write.
    """
    from huggingface_hub import HfApi

    name = push_name(target)
    api = HfApi(library_name="bert_jax")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with hub.hub_errors(name, action="written"):
        parent, existing = _current_files(api, name)
        _refuse_replacing(name, [file for file in files if file in existing], len(files), force)
        left = [f for f in sorted(existing - {*files}) if Path(f).suffix in READ_TOGETHER]
        if left:
            logger.warning(
                "%s keeps %s of earlier uploads, which programs read together with these files: "
                "delete what belongs to another model",
                *(name.repo, ", ".join(left)),
            )
        api.create_repo(name.repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name.repo,
            folder_path=folder,
            revision=name.revision,
            commit_message="Export of bert-jax",
            # the commit is refused if somebody else has written in the meantime
            parent_commit=parent,
        )
    return str(commit.commit_url)


def check_push(target: str, force: bool = False) -> None:
    """What can be known before the export: ValueError if `target` is no name, or if without `force`
    the repository has files that every export writes."""
    from huggingface_hub import HfApi

    name = push_name(target)
    if force:
        return
    with hub.hub_errors(name, action="written"):
        _, existing = _current_files(HfApi(library_name="bert_jax"), name)
    _refuse_replacing(name, [file for file in ALWAYS_WRITTEN if file in existing])


def push_name(target: str) -> hub.HubName:
    """The repository that `--push` names. ValueError: it is not OWNER/NAME."""
    from huggingface_hub.utils import validate_repo_id

    text = target.removeprefix(hub.PREFIX)
    if "/" not in text or hub.REPO.fullmatch(text) is None:
        raise ValueError(f"--push is {target!r}: expected OWNER/NAME")
    name = hub.HubName(text)
    with hub.hub_errors(name):
        validate_repo_id(text)
    return name


def _refuse_replacing(
    name: hub.HubName, replaced: Sequence[str], files: int | None = None, force: bool = False
) -> None:
    if replaced and not force:
        count = f"{len(replaced)} of these {files} files" if files else "files of an export"
        raise ValueError(
            f"{name.repo} on the Hub has {count} already "
            f"({', '.join(replaced[:5])}): choose another name, or replace them with --force"
        )


def _current_files(api: object, name: hub.HubName) -> tuple[str | None, set[str]]:
    """The newest commit of a repository and its files; (None, nothing) if there is none."""
    from huggingface_hub import HfApi, errors

    assert isinstance(api, HfApi)
    try:
        info = api.model_info(name.repo)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        return None, set()
    return info.sha, {file.rfilename for file in info.siblings or ()} - {UNTOUCHED}
