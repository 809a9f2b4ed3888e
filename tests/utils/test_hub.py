"""A MODEL is a local folder or a name on the Hub, and one place decides which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_jax.utils import hub as bert_hub
from bert_jax.utils import model_files
from bert_jax.utils.hub import HubName, model_folder, parse_name
from tests.helpers.fake_hub import TOKEN, Hub
from tests.helpers.hub_fixtures import configure_client

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"tensors" * 50,
    "vocab.txt": b"[PAD]",
    "README.md": b"# card",
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"onnx",
}
READ = ["config.json", "model.safetensors", "vocab.txt"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "runs").mkdir(parents=True)
    (folder / "bert").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("google-bert/bert-base-uncased", HubName("google-bert/bert-base-uncased")),
        ("bert-base-uncased", HubName("bert-base-uncased")),
        ("owner/name@refs/pr/1", HubName("owner/name", "refs/pr/1")),
        ("hf:runs/dmeo", HubName("runs/dmeo")),
        ("hf:bert@v1", HubName("bert", "v1")),
        ("runs/dmeo", None),  # `runs` is a folder
        ("bert", None),  # a folder
        ("bert-base/", None),
        ("./bert-base", None),
        ("/bert-base", None),
        ("~/bert-base", None),
        ("a/b/c", None),
        (Path("owner/name"), None),
    ],
)
def test_what_is_a_name(here: Path, model: str, name: HubName | None) -> None:
    assert parse_name(model) == name


def test_a_misspelled_path_opens_no_connection_and_both_readings_are_named(
    here: Path,
    hub: Hub,
) -> None:
    with pytest.raises(ValueError, match=r"runs/dmeo does not exist.* or give hf:runs/dmeo"):
        model_folder("runs/dmeo")
    with pytest.raises(ValueError, match="hf:a b is no name on the Hub"):
        model_folder("hf:a b")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["owner/a--b", "owner/a..b", "a" * 97, "a" * 5000, "owner/a.git"])
def test_a_name_that_the_hub_cannot_have_is_refused_in_one_line(
    here: Path, hub: Hub, name: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{,400}$") as e:
        model_folder(name)
    assert " is no name on the Hub: " in str(e.value)
    assert hub.requests == []


def test_a_very_long_text_is_no_path_and_no_name(here: Path) -> None:
    assert parse_name("a text of words " * 400) is None


def test_a_folder_wins_and_the_log_says_so(
    here: Path,
    hub: Hub,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (here / "bert/config.json").write_text("{}")
    caplog.set_level("INFO", "bert_jax")
    assert model_folder("bert") == (Path("bert"), None, None)
    assert "bert: the local folder; hf:bert is the model on the Hub" in caplog.text
    assert hub.requests == []


def test_only_files_that_are_read_are_downloaded_from_one_commit(
    hub: Hub,
    caplog: pytest.LogCaptureFixture,
) -> None:
    repo = hub.add("owner/bert", FILES)
    first = repo.refs["main"]
    caplog.set_level("INFO", "bert_jax")
    folder = model_folder("owner/bert")
    assert folder == (folder.path, "owner/bert", first)
    assert f"owner/bert: commit {first}" in caplog.text
    assert sorted(p.name for p in folder.path.iterdir()) == hub.downloads() == READ

    second = repo.commit({"vocab.txt": b"[PAD]\n[UNK]"})
    assert model_folder("owner/bert").commit == second
    assert hub.downloads() == sorted([*READ, "vocab.txt"])  # what did not change is not sent again
    old = model_folder(f"hf:owner/bert@{first}")
    assert old.commit == first
    assert (old.path / "vocab.txt").read_bytes() == b"[PAD]"
    assert bert_hub.at_commit("hf:owner/bert@v1", first) == f"hf:owner/bert@{first}"
    assert bert_hub.with_commit("owner/bert", first) == f"hf:owner/bert@{first}"
    assert bert_hub.with_commit("./owner/bert", first) == "./owner/bert"


def test_shards_of_an_index_and_modules_of_sentence_transformers(
    hub: Hub,
) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    modules = json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]).encode()
    hub.add(
        "owner/sharded",
        {
            "config.json": b"{}",
            "model.safetensors.index.json": index,
            "one.safetensors": b"1",
            "two.safetensors": b"2",
            "other.safetensors": b"3",
            "modules.json": modules,
            "1_Pooling/config.json": b"{1}",
            "2_Dense/model.safetensors": b"4",
            "2_Dense/pytorch_model.bin": b"5",
            "3_Else/config.json": b"{3}",
        },
    )
    model_folder("owner/sharded")
    assert hub.downloads() == [
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "model.safetensors.index.json",
        "modules.json",
        "one.safetensors",
        "two.safetensors",
    ]


def test_of_a_single_file_and_an_index_the_first_is_downloaded(hub: Hub) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "one.safetensors": b"1"}
    hub.add("owner/both", {"config.json": b"{}", "model.safetensors": b"2", **files})
    model_folder("owner/both")
    assert "model.safetensors" in hub.downloads()
    assert "one.safetensors" not in hub.downloads()


def test_the_encoder_of_an_old_sentence_transformers_folder(hub: Hub) -> None:
    modules = json.dumps([{"path": "0_Transformer"}, {"path": "2_Dense"}]).encode()
    files = {
        "modules.json": modules,
        "0_Transformer/config.json": b"{}",
        "0_Transformer/vocab.txt": b"[PAD]",
        "0_Transformer/model.safetensors": b"1",
        "2_Dense/pytorch_model.bin": b"2",
    }
    hub.add("owner/old", files)
    folder = model_folder("owner/old").path
    assert (folder / "0_Transformer/model.safetensors").is_file()
    assert not (folder / "2_Dense").exists()
    model_folder("owner/old", allow_pickle=True)
    assert (folder / "2_Dense/pytorch_model.bin").is_file()


def test_pickles_only_when_allowed(hub: Hub) -> None:
    pickled = {k: v for k, v in FILES.items() if not k.endswith(".safetensors")}
    hub.add("owner/pickled", pickled)
    hub.add("owner/keras", {"config.json": b"{}", "tf_model.h5": b""})
    with pytest.raises(ValueError, match=r"only as a pickle .* --allow-pickle"):
        model_folder("owner/pickled")
    assert "pytorch_model.bin" not in hub.downloads()
    folder = model_folder("owner/pickled", allow_pickle=True).path
    assert (folder / "pytorch_model.bin").read_bytes() == b"pickle"
    with pytest.raises(ValueError, match=r"no weights that can be read \(it has tf_model.h5\)"):
        model_folder("owner/keras", allow_pickle=True)


def test_a_renamed_repository_a_gated_one_a_private_one(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.add("owner/bert", FILES)
    hub.renamed["bert-base"] = "owner/bert"
    hub.repos["models", "bert-base"] = hub.repos["models", "owner/bert"]  # its files
    assert model_folder("hf:bert-base").commit == hub.repos["models", "owner/bert"].refs["main"]
    hub.add("owner/gated", FILES).gated = True
    hub.add("owner/private", FILES).private = True
    with pytest.raises(ValueError, match="owner/gated is gated: accept its conditions at http"):
        model_folder("owner/gated")
    with pytest.raises(ValueError, match="owner/private is neither a folder here nor a model"):
        model_folder("owner/private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert model_folder("owner/gated").path.is_dir()
    assert model_folder("owner/private").path.is_dir()


def test_unknown_names_and_revisions(hub: Hub) -> None:
    hub.add("owner/bert", FILES)
    with pytest.raises(ValueError, match="owner/brt is neither a folder here nor a model on the"):
        model_folder("owner/brt")
    with pytest.raises(ValueError, match="owner/bert has no revision v9: expected a branch, a tag"):
        model_folder("hf:owner/bert@v9")


def test_a_download_that_breaks_off_is_resumed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)  # bytes that are written at once
    hub.add("owner/bert", FILES)
    hub.cuts = 1
    folder = model_folder("owner/bert").path
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges == ["bytes=150-"]  # the first half was 175 bytes


def test_offline_a_warm_cache_suffices_and_a_cold_one_is_named(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from huggingface_hub import constants

    hub.add("owner/bert", FILES)
    online = model_folder("owner/bert")
    requests = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_folder("owner/bert") == online
    assert model_folder(f"hf:owner/bert@{online.commit}").path == online.path
    with pytest.raises(ValueError, match=r"owner/other is not complete in .* HF_HUB_OFFLINE"):
        model_folder("owner/other")
    assert len(hub.requests) == requests
    configure_client("http://127.0.0.1:9", tmp_path / "hub-cache", monkeypatch)
    assert model_folder("owner/bert") == online  # without a network the cache suffices, too
    with pytest.raises(ValueError, match=r"the Hub \(http://127.0.0.1:9\) cannot be reached"):
        model_folder("owner/other")


def test_without_weights_only_config_and_tokenizer(hub: Hub) -> None:
    hub.add("owner/bert", FILES)
    model_folder("owner/bert", weights=False)
    assert hub.downloads() == ["config.json", "vocab.txt"]


def test_every_tokenizer_file_is_downloaded() -> None:
    assert set(model_files.TOKENIZER_FILES) <= set(bert_hub.SMALL_FILES)


def test_the_message_of_a_file(here: Path) -> None:
    (here / "text.txt").write_text("a")
    with pytest.raises(ValueError, match=r"text.txt is a file: expected a model's folder"):
        model_folder("text.txt")
