"""A sentence encoder is trained, resumed, loaded and exported like any other model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax.config import FINETUNE, Contrastive, Experiment, replace
from bert_jax.convert.export import export_model
from bert_jax.training.finetune import finetune
from bert_jax.training.finetune_config import for_model
from bert_jax.training.pairs import PairsTask
from tests.helpers.compare import metric_lines, same_bits
from tests.helpers.sentence_folders import write_sentence_folder

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder, and pairs of a text and the text in reverse. The hard negatives are the
    queries themselves, so that they are masked."""
    path = tmp_path_factory.mktemp("pairs")
    settings = {"prompts": {"query": "q ", "document": ""}}
    write_sentence_folder(path / "model", {"pooling_mode": "cls"}, settings=settings)
    rng = np.random.default_rng(0)
    for folder, split, count in (
        ("data", "train", 24),
        ("data", "dev", 8),
        ("scored", "train", 24),
        ("scored", "dev", 8),
    ):
        texts = ["".join(rng.choice(list(LETTERS), 3)) for _ in range(count)]
        rows: list[dict[str, Any]] = [
            {
                "text": " ".join(t),
                "positive": " ".join(t[::-1]),
                "negatives": [" ".join(t)] * (i % 2),
            }
            for i, t in enumerate(texts)
        ]
        if folder == "scored":
            rows = [
                {"text": r["text"], "text_pair": r["positive"], "score": i / count}
                for i, r in enumerate(rows)
            ]
            rows[0]["text"] = " ".join(LETTERS) if split == "dev" else rows[0]["text"]
        (path / folder).mkdir(exist_ok=True)
        (path / folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for folder, score in (("low", -1), ("high", 5)):
        shutil.copytree(path / "scored", path / folder)
        row = {"text": "a b", "text_pair": "c", "score": score}
        with (path / folder / "train.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")
    return path


def pairs_config(workspace: Path, folder: str, data: str = "data", **changes: Any) -> Experiment:
    recipe = replace(FINETUNE, objective=Contrastive())

    def override(config: Experiment) -> Experiment:
        sizes = dict(path=str(workspace / data), batch_size=8, length=8)
        where = dict(init=str(workspace / "model"), dir=str(workspace / folder), epochs=None)
        numbers = dict(steps=4, eval_every=2, evals_per_epoch=None, log_every=1)
        parts: dict[str, Any] = dict(data=sizes, optim=dict(accumulate=2), run=where | numbers)
        return replace(
            config, **{k: parts.get(k, {}) | changes.get(k, {}) for k in (*parts, *changes)}
        )

    return for_model(recipe, override)


@pytest.mark.slow
def test_a_run_gives_a_sentence_encoder_with_the_head_of_its_model(workspace: Path) -> None:
    config = pairs_config(workspace, "run")
    objective = config.objective
    assert isinstance(objective, Contrastive)
    assert (objective.pooling, objective.query_prompt, objective.normalize) == ("cls", "q ", True)
    assert finetune(config) is None
    results = json.loads((workspace / "run/results.json").read_text())
    assert results["metric"] == "ndcg@10"
    assert set(results["dev"]) == {"mrr@10", "ndcg@10", "recall@10", "recall@100", "map"}
    rows = (workspace / "run/predictions_dev.jsonl").read_text().splitlines()
    assert len(rows) == 8
    assert all(len(json.loads(row)["documents"]) == 10 for row in rows)
    assert any("random order have ndcg@10 0." in note for note in results["notes"])
    assert metric_lines(workspace / "run")[0]["false_negatives"] > 0

    model = bert_jax.load(workspace / "run")
    assert model.step == results["best_step"]
    vectors = model.encode(["a b", "c"], prompt="query")[0]
    hidden = model.encode(["q a b", "q c"], pool="cls")[0]
    assert np.allclose(vectors, hidden / np.linalg.norm(hidden, axis=1)[:, None], atol=1e-6)
    left_out = export_model(model, workspace / "run", "sentence-transformers", workspace / "out")
    assert left_out == []
    exported = bert_jax.load(workspace / "out")
    assert np.allclose(exported.encode(["a b", "c"], prompt="query")[0], vectors, atol=1e-6)


@pytest.mark.slow
def test_six_steps_are_three_and_three(workspace: Path) -> None:
    from bert_jax.checkpoint.manager import Checkpoints
    from bert_jax.training.assemble import assemble

    six = dict(steps=6, eval_every=3)
    finetune(pairs_config(workspace, "whole", run=six))
    finetune(pairs_config(workspace, "parts", run=six | dict(steps=3), optim=dict(decay_steps=6)))
    like = assemble(pairs_config(workspace, "whole", run=six)).steps.like
    (workspace / "parts/results.json").unlink()
    finetune(pairs_config(workspace, "parts", run=six, optim=dict(decay_steps=6)))
    states = [
        Checkpoints(workspace / run / "checkpoints").restore(6, like) for run in ("whole", "parts")
    ]
    assert same_bits(*states)


@pytest.mark.slow
def test_pairs_with_a_score_are_compared_by_rank_correlation(workspace: Path) -> None:
    assert (
        finetune(pairs_config(workspace, "scored_run", "scored", optim=dict(accumulate=1))) is None
    )
    results = json.loads((workspace / "scored_run/results.json").read_text())
    assert results["metric"] == "spearman"
    assert all(-1 <= value <= 1 for value in results["dev"].values())
    assert results["notes"] == ["dev: first texts longer than 8 tokens, truncated: 1 of 8"]


@pytest.mark.parametrize("train", ["scored", "data"])
def test_a_retrieval_set_compares_checkpoints_by_ndcg(
    train: str, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "dev").mkdir()
    shutil.copy(workspace / train / "train.jsonl", tmp_path)
    for name in ("corpus", "queries"):
        (tmp_path / f"dev/{name}.jsonl").write_text('{"_id": "1", "text": "a b c"}\n')
    (tmp_path / "dev/qrels.tsv").write_text("1\t1\t1\n")
    config = pairs_config(workspace, "run", str(tmp_path))
    assert PairsTask.of(config).main_metric == "ndcg@10"


@pytest.mark.parametrize(
    ("data", "objective", "message"),
    [
        ("data", dict(loss="cosent"), "objective.loss is cosent, and the rows have a positive"),
        ("scored", dict(loss="ranking"), "objective.loss is ranking, and the rows have a score"),
        ("data", dict(dimensions=(15,)), "expected sizes below the encoder's width 15"),
        ("scored", dict(normalize=False), "loss cosent compares vectors by their cosine: add"),
        ("scored", dict(learn_temperature=True), "learn_temperature is True, and the loss"),
        (
            "low",
            dict(loss="margin"),
            "scores from -1 to 0.95.*, and the loss margin expects 0 to 1",
        ),
        ("data", dict(normalize=False), "temperature 0.05, which is for cosines: dot products"),
        ("high", dict(loss="cosine"), "scores from 0 to 5, and the loss cosine expects -1 to 1"),
        ("scored", dict(symmetric=True), "objective.symmetric is True, and the loss is cosent"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    data: str, objective: dict, message: str, workspace: Path
) -> None:
    config = pairs_config(workspace, "refused", data)
    with pytest.raises(ValueError, match=message):
        finetune(replace(config, objective=objective))
    assert not (workspace / "refused").exists()


def test_rows_with_far_more_negatives_than_others_are_noted(
    workspace: Path, tmp_path: Path
) -> None:
    """All rows are padded to them."""
    shutil.copytree(workspace / "data", tmp_path / "data")
    with (tmp_path / "data/train.jsonl").open("a") as f:
        f.write(json.dumps({"text": "a", "positive": "b", "negatives": list(LETTERS)}) + "\n")
    notes = PairsTask.of(pairs_config(workspace, "run", str(tmp_path / "data"))).notes
    assert any("a row has up to 26 negatives (median 1), and all rows" in note for note in notes)
    assert not PairsTask.of(pairs_config(workspace, "run")).notes


def test_fewer_pairs_than_a_batch_are_refused_before_the_folder_is_made(workspace: Path) -> None:
    config = pairs_config(workspace, "few")
    config = replace(config, data=dict(batch_size=32))
    with pytest.raises(ValueError, match=r"are 24 pairs and data\.batch_size is 32"):
        finetune(config)
    assert not (workspace / "few").exists()


def test_a_run_that_freezes_everything_is_refused(workspace: Path) -> None:
    config = pairs_config(workspace, "frozen", optim=dict(freeze="encoder", accumulate=1))
    with pytest.raises(ValueError, match="freeze is encoder, which leaves no parameter to train"):
        finetune(config)
    assert not (workspace / "frozen").exists()


def test_dot_products_begin_with_the_temperature_1(workspace: Path, tmp_path: Path) -> None:
    settings = {"similarity_fn_name": "dot"}
    write_sentence_folder(tmp_path / "dot", {"pooling_mode": "cls"}, None, settings, ())
    config = pairs_config(workspace, "dot", run=dict(init=str(tmp_path / "dot")))
    assert isinstance(config.objective, Contrastive)
    assert (config.objective.normalize, config.objective.temperature) == (False, 1.0)


@pytest.mark.parametrize("distance", ["euclidean", "manhattan"])
def test_distances_that_no_loss_uses_are_refused(
    distance: str, workspace: Path, tmp_path: Path
) -> None:
    settings = {"similarity_fn_name": distance}
    write_sentence_folder(tmp_path / "far", {"pooling_mode": "cls"}, None, settings, ())
    with pytest.raises(ValueError, match=f"compares vectors by their {distance} distance"):
        pairs_config(workspace, "far", run=dict(init=str(tmp_path / "far")))


def test_a_head_that_cannot_be_trained_is_refused(workspace: Path, tmp_path: Path) -> None:
    write_sentence_folder(tmp_path / "max", {"pooling_mode": "max"})
    with pytest.raises(ValueError, match="a sentence head with pooling max"):
        pairs_config(workspace, "max", run=dict(init=str(tmp_path / "max")))
