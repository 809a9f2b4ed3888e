"""An index finds what comparing all vectors finds, and refuses what does not belong to it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.cli.search_commands import Embed, Search
from bert_jax.inference import faiss_index
from bert_jax.inference.embed_file import EmbedOptions
from bert_jax.inference.search_index import SearchIndex, write_index
from bert_jax.utils import text_lines
from bert_jax.utils.text_lines import read_lines
from tests.helpers.sentence_folders import write_sentence_folder

LINES = ["a b", "c d e", "", "a b", "f g h i", "z y x"]
PROMPTS = {"prompts": {"query": "q ", "passage": "p "}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder beside texts and their index. One line ends with a carriage return, and the
    last one without a newline."""
    path = tmp_path_factory.mktemp("index")
    write_sentence_folder(path / "model", {"pooling_mode": "mean"}, settings=PROMPTS)
    lines = "\n".join(LINES).replace("e\n", "e\r\n")
    (path / "texts").write_bytes(lines.encode("utf-8-sig"))  # with a byte-order mark
    embed = Embed(str(path / "model"), str(path / "texts"), index=str(path / "index"))
    assert embed.run([]) == 0
    return path


def test_hits_are_the_most_similar_lines(folder: Path) -> None:
    """Queries have the prompt of queries and lines that of documents; equal lines have equal
    scores, and the earlier one is first."""
    model, index = bert_jax.load(folder / "model"), SearchIndex.open(folder / "index")
    lines = model.encode(LINES, prompt="p ")[0]
    assert np.allclose(index.vectors, lines, atol=1e-6)
    (hits,) = index.search(model, ["b a"], top=6)
    scores = lines @ model.encode(["b a"], prompt="q ")[0, 0]
    assert [hit.line - 1 for hit in hits] == sorted(range(6), key=lambda i: (-scores[i], i))
    assert [hit.text for hit in hits] == [LINES[hit.line - 1] for hit in hits]
    assert np.allclose([hit.score for hit in hits], np.sort(scores)[::-1], atol=1e-6)
    numbers = [hit.line for hit in hits if hit.text == "a b"]
    assert numbers == [1, 4]


def test_the_command_finds_its_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Search(str(folder / "index"), "c d e", top=1).run([]) == 0
    rank, score, rest = capsys.readouterr().out.split(maxsplit=2)
    assert (rank, rest) == ("1", "line 2: c d e\n")
    assert 0 < float(score) <= 1
    (folder / "queries").write_text("a b\nz y x\n")
    Search(str(folder / "index"), file=str(folder / "queries"), top=2, json=True).run([])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["query"] for row in rows] == ["a b", "z y x"]
    assert all([hit["rank"] for hit in row["hits"]] == [1, 2] for row in rows)
    with pytest.raises(ValueError, match="the model takes 16"):
        Search(str(folder / "index"), "a b " * 9).run([])
    assert Search(str(folder / "index"), "a b " * 9, truncate=True).run([]) == 0
    with pytest.raises(ValueError, match="either a QUERY or --file"):
        Search(str(folder / "index")).run([])


def test_exact_search_does_not_read_the_graph(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """With or without faiss, this one could not be read."""
    shutil.copytree(folder / "index", tmp_path / "index")
    (tmp_path / "index" / faiss_index.GRAPH).write_bytes(b"no graph")
    found = []
    for index, options in (("index", {}), (tmp_path / "index", dict(exact=True))):
        assert Search(str(folder / index), "c d e", **options).run([]) == 0  # type: ignore[arg-type]
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] != ""
    with pytest.raises(ValueError, match=r"needs faiss|vectors\.faiss cannot be read"):
        Search(str(tmp_path / "index"), "c d e").run([])


def test_what_does_not_belong_to_an_index_is_refused(folder: Path, tmp_path: Path) -> None:
    model = bert_jax.load(folder / "model")
    index = tmp_path / "index"
    shutil.copytree(folder / "index", index)
    other = write_sentence_folder(tmp_path / "other", {"pooling_mode": "cls"}, settings=PROMPTS)
    with pytest.raises(ValueError, match="written with another model"):
        SearchIndex.open(index).check_model(bert_jax.load(other))
    SearchIndex.open(index).check_model(model)
    vectors = np.load(index / "vectors.npy")
    one = (np.arange(6) == 3)[:, None]
    for change, message in (
        (vectors[:, :-1], "says 6 lines of width 15"),
        (vectors[:-1], "says 6 lines of width 15"),
        (np.where(one, 0, vectors), "line 4: the vector is zero"),
        (np.where(one, np.nan, vectors), "line 4: the vector is not finite"),
    ):
        np.save(index / "vectors.npy", change)
        with pytest.raises(ValueError, match=message):
            SearchIndex.open(index)
    (index / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a readable index"):
        SearchIndex.open(index)


def test_a_changed_text_is_refused(folder: Path, tmp_path: Path) -> None:
    model, text = bert_jax.load(folder / "model"), tmp_path / "texts"
    text.write_text("a b\nc d\n")
    assert write_index(model, "model", text, tmp_path / "index") == 2
    SearchIndex.open(tmp_path / "index").check_text()
    text.write_text("a b\nc e\n")
    with pytest.raises(ValueError, match="has changed since the index was written"):
        SearchIndex.open(tmp_path / "index").check_text()
    text.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        SearchIndex.open(tmp_path / "index").check_text()


def test_an_index_and_its_text_can_be_moved_together(folder: Path, tmp_path: Path) -> None:
    model = bert_jax.load(folder / "model")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "texts").write_bytes(b"a b\n\xef\xbb\xbfc\rd\n")
    write_index(model, "model", tmp_path / "old" / "texts", tmp_path / "old" / "lines.index")
    (tmp_path / "old").rename(tmp_path / "new")
    index = SearchIndex.open(tmp_path / "new" / "lines.index")
    index.check_text()
    (hits,) = index.search(model, ["a b"], top=2)
    # one text per line, as in `embed --out`: a mark or carriage return within the file is text
    assert {hit.text for hit in hits} == {"a b", "\ufeffc\rd"}
    assert read_lines(index.text) == ["a b", "\ufeffc\rd"]


def test_an_index_of_a_relative_path_is_searched_from_any_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.chdir(folder)
    index = str(tmp_path / "index")
    assert Embed("model", "texts", index=index, prompt="p: ").run([]) == 0
    monkeypatch.chdir(tmp_path)
    assert Search(index, "a b", prompt="q: ").run([]) == 0
    assert Search(index, "a b").run([]) == 0  # the model defines a prompt for queries
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    info = json.loads((tmp_path / "index" / "index.json").read_text())
    info["model"] = str(tmp_path / "moved")
    (tmp_path / "index" / "index.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="moved: say where with --model"):
        Search(index, "a b").run([])


def test_a_prompt_of_the_lines_alone_is_pointed_out(tmp_path: Path, caplog: Any) -> None:
    model = str(write_sentence_folder(tmp_path / "model", {"pooling_mode": "mean"}))
    (tmp_path / "texts").write_text("a b\nc d\n")
    index = str(tmp_path / "index")
    Embed(model, str(tmp_path / "texts"), index=index, prompt="p: ").run([])
    Search(index, "a b", prompt="q: ").run([])
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    Search(index, "a b").run([])
    assert "begin with the prompt 'p: ', and queries with none" in caplog.text


def test_a_pipe_is_refused_since_texts_are_read_twice(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is read twice, and is no regular file"):
        write_index(bert_jax.load(folder / "model"), "model", tmp_path / "pipe", tmp_path / "index")


def test_a_bad_text_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "TEXTS_PER_CHUNK", 2)
    model, text = bert_jax.load(folder / "model"), tmp_path / "texts"
    for content, options, message in (
        (b"", EmbedOptions(), "is empty: expected one text per line"),
        (b"a\nb\nc\n\xff\n", EmbedOptions(), "line 4: not UTF-8"),
        (b"a\nb\n" + b"c " * 16, EmbedOptions(), "texts, line 3: a text has 19 tokens, but the mo"),
        (b"a", EmbedOptions(pool=None), "one vector per text"),
        (b"a", EmbedOptions(layers=(0, 1), pool="mean"), "one vector per text"),
    ):
        text.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            write_index(model, "model", text, tmp_path / "index", options)
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]
