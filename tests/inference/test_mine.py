"""Mined negatives are the closest documents that are neither known nor too close."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.cli.search_commands import Mine
from bert_jax.inference.mine import mine_negatives
from bert_jax.inference.model import Model
from bert_jax.inference.rerank_candidates import write_candidates
from tests.helpers.sentence_folders import write_sentence_folder

LETTERS = "abcdefghij"
ROWS = [{"text": f"{c} {c}", "positive": f"{c} z", "negatives": []} for c in LETTERS]
ROWS[0]["negatives"] = ["b z"]
ROWS[1]["id"] = 7  # of no use here, and kept
ROWS.append({"text": "a a", "positive": "c z"})  # a second positive of the first query


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine")
    write_sentence_folder(path / "model", {"pooling_mode": "mean"})
    (path / "rows").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def mined_rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_negatives_are_the_closest_unknown_documents_beyond_the_margin(
    folder: Path, tmp_path: Path
) -> None:
    model = bert_jax.load(folder / "model")
    counts = mine_negatives(model, folder / "rows", tmp_path / "out", negatives=3, margin=0.01)
    documents = [f"{c} z" for c in LETTERS]
    scores = model.similarity([row["text"] for row in ROWS], documents)
    mined = too_close = 0
    for row, score, written in zip(ROWS, scores, mined_rows(tmp_path / "out"), strict=True):
        known = {
            d
            for r in ROWS
            if r["text"] == row["text"]
            for d in (r["positive"], *r.get("negatives", ()))
        }
        limit = score[documents.index(row["positive"])] - 0.01
        others = [i for i in range(10) if documents[i] not in known]
        far = sorted((i for i in others if score[i] <= limit), key=lambda i: (-score[i], i))
        added = [documents[i] for i in far[:3]]
        assert written == {**row, "negatives": [*row.get("negatives", ()), *added]}
        mined, too_close = mined + len(added), too_close + len(others) - len(far)
    assert (counts.rows, counts.mined, counts.too_close) == (11, mined, too_close)
    assert mined > 0
    assert too_close > 0


def test_texts_with_the_same_tokens_are_one_text(folder: Path, tmp_path: Path) -> None:
    """The tokenizer has no case: a variant of the positive is no negative, and is mined once."""
    model = bert_jax.load(folder / "model")
    rows = [
        {"text": "a a", "positive": "a z"},
        {"text": "b b", "positive": "A Z"},
        {"text": "c c", "positive": "c z"},
        {"text": "d d", "positive": "C Z"},
    ]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine_negatives(model, tmp_path / "rows", tmp_path / "out", negatives=4, margin=0)
    for row in mined_rows(tmp_path / "out"):
        assert set(row["negatives"]) <= {"a z", "c z"} - {row["positive"].lower()}


def test_candidates_are_ranked_as_the_model_compares(tmp_path: Path) -> None:
    write_sentence_folder(
        tmp_path / "dot", {"pooling_mode": "mean"}, None, {"similarity_fn_name": "dot"}, ()
    )
    model = bert_jax.load(tmp_path / "dot")
    documents = [f"{c} {d} z" for c in LETTERS for d in LETTERS[:3]]
    rows = [{"text": "e e", "positive": document} for document in documents]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_candidates(model, tmp_path / "rows", tmp_path / "out", candidates=len(documents))
    scores = model.similarity(["e e"], documents)[0]
    order = [documents[i] for i in np.argsort(-scores, kind="stable")]
    assert mined_rows(tmp_path / "out")[0]["documents"] == order
    vectors = model.encode(documents)[0]
    by_cosine = np.argsort(-scores / np.linalg.norm(vectors, axis=1), kind="stable")
    assert [documents[i] for i in by_cosine] != order


def test_the_command_writes_the_same_file_twice(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        command = Mine(str(folder / "model"), str(folder / "rows"), str(tmp_path / name), margin=0)
        assert command.run([]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "negatives for 11 rows" in capsys.readouterr().out


def test_texts_that_are_cut_are_counted_and_without_truncate_named_before_any_vector(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    model, long = bert_jax.load(folder / "model"), "z " * 500
    rows = [ROWS[0], {"text": "a", "positive": long}, {"text": long, "positive": "b"}]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for write, name in ((mine_negatives, "mined"), (write_candidates, "candidates")):
        caplog.clear()
        write(model, tmp_path / "rows", tmp_path / name, truncate=True)
        texts = [r.getMessage() for r in caplog.records]
        assert "1 of 4 texts are longer than the model and are cut (document)" in texts
        assert "1 of 3 texts are longer than the model and are cut (query)" in texts
    monkeypatch.setattr(Model, "encode", None)
    for write in (mine_negatives, write_candidates):
        with pytest.raises(ValueError, match=r"document 3 \('z z .* tokens, but .*--truncate"):
            write(model, tmp_path / "rows", tmp_path / "other")


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    model = bert_jax.load(folder / "model")
    (tmp_path / "scored").write_text('{"text": "a", "text_pair": "b", "score": 1}\n')
    with pytest.raises(ValueError, match="expected rows with a positive"):
        mine_negatives(model, tmp_path / "scored", tmp_path / "out")
    with pytest.raises(ValueError, match="expected at least 1, 1 and 0"):
        mine_negatives(model, folder / "rows", tmp_path / "out", negatives=0)
    with pytest.raises(ValueError, match="margin nan: expected at least 1, 1 and 0"):
        mine_negatives(model, folder / "rows", tmp_path / "out", margin=float("nan"))
    with pytest.raises(ValueError, match="which exists"):
        mine_negatives(model, folder / "rows", folder / "rows")
    with pytest.raises(ValueError, match=r"rows are written as JSONL: name it \.jsonl"):
        mine_negatives(model, folder / "rows", tmp_path / "train.csv")
    with pytest.raises(ValueError, match=r"rows are written as JSONL: name it \.jsonl"):
        write_candidates(model, folder / "rows", tmp_path / "train.jsonl.gz")


def test_candidates_of_a_reranker_are_the_closest_documents_with_their_grades(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is relevant and not among them is `missing`, or for training comes last."""
    model, source = bert_jax.load(folder / "model"), str(folder / "rows")
    documents = [f"{c} z" for c in LETTERS]
    similarity = model.similarity([f"{c} {c}" for c in LETTERS], documents)
    relevant = [{i} for i in range(10)]
    relevant[0] = {0, 2}
    for add in (False, True):
        out = tmp_path / f"add_{add}"
        mine = Mine(str(folder / "model"), source, str(out), candidates=1, rerank=True)
        assert replace(mine, add_positives=add).run([]) == 0
        for i, row in enumerate(mined_rows(out)):
            order = sorted(range(10), key=lambda n: (-similarity[i, n], n))[:1]
            others = [n for n in sorted(relevant[i]) if n not in order]
            chosen = [*order, *others] if add else order
            assert row["text"] == f"{LETTERS[i]} {LETTERS[i]}"
            assert row["documents"] == [documents[n] for n in chosen]
            assert row["labels"] == [float(n in relevant[i]) for n in chosen]
            assert row.get("missing", []) == ([] if add else [1.0] * len(others))
        assert "1 candidates for each of 10 queries" in capsys.readouterr().out
        assert any("missing" in row for row in mined_rows(out)) == (not add)
    with pytest.raises(ValueError, match="--add-positives is for --rerank"):
        replace(mine, rerank=False, add_positives=True).run([])
