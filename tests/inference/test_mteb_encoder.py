"""mteb scores a model as our own evaluation does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bert_jax
from bert_jax import config
from bert_jax.inference.mteb_encoder import MtebEncoder, _revision
from bert_jax.tasks import retrieval
from tests.helpers.sentence_folders import write_sentence_folder

LETTERS = "abcdefghijklmnopqr"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("mteb")
    folder = tmp_path_factory.mktemp("mteb") / "model"
    settings = {"prompts": {"query": "q q ", "document": ""}}
    write_sentence_folder(folder, {"pooling_mode": "mean"}, settings=settings)
    return bert_jax.load(folder)


def local_task(queries: list[str], documents: list[str]) -> Any:
    """A retrieval task of texts that are here: query i has document i."""
    import datasets
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    def rows(kind: str, texts: list[str]) -> Any:
        return datasets.Dataset.from_list(
            [{"id": f"{kind}{i}", "text": text} for i, text in enumerate(texts)]
        )

    class Letters(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Letters",
            type="Retrieval",
            main_score="ndcg_at_10",
            description="Letters",
            reference="https://github.com/embeddings-benchmark/mteb",
            dataset={"path": "NA", "revision": "NA"},
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            date=("2026-01-01", "2026-01-01"),
            domains=[],
            task_subtypes=[],
            license="cc-by-4.0",
            annotations_creators="derived",
            dialect=[],
            modalities=["text"],
            sample_creation="found",
            bibtex_citation="",
        )

        def load_data(self, num_proc: int | None = None, **options: Any) -> None:
            split = RetrievalSplitData(
                queries=rows("q", queries),
                corpus=rows("d", documents),
                relevant_docs={f"q{i}": {f"d{i}": 1} for i in range(len(queries))},
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Letters()


@pytest.mark.peer
def test_a_retrieval_task_has_the_scores_of_our_own_evaluation(model: Any) -> None:
    import mteb
    from mteb.models.models_protocols import EncoderProtocol

    rng = np.random.default_rng(0)
    documents = [" ".join(rng.choice(list(LETTERS), 6)) for _ in range(40)]
    queries = [document[:5] for document in documents]
    encoder = MtebEncoder(model, "test/letters")
    assert isinstance(encoder, EncoderProtocol)
    task = local_task(queries, documents)
    found = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    (scores,) = found.task_results[0].scores["test"]
    q = model.encode(queries, prompt="query", normalize=True)[0]
    d = model.encode(documents, prompt="document", normalize=True)[0]
    ours = retrieval.ranking_metrics(
        retrieval.rank_judged(q, d, [{i: 1.0} for i in range(len(queries))])
    )
    assert 0.2 < ours["ndcg@10"] < 1
    for name, theirs in (("ndcg@10", "ndcg_at_10"), ("mrr@10", "mrr_at_10")):
        assert scores[theirs] == pytest.approx(ours[name], abs=1e-4)


@pytest.mark.peer
def test_the_revision_is_that_of_the_weights_and_other_inputs_are_refused(model: Any) -> None:
    encoder = MtebEncoder(model)
    assert len(encoder.mteb_model_meta.revision) == 16
    vectors = encoder.encode([{"text": ["a b", "c"]}, {"text": ["d"]}])
    assert np.allclose(vectors, model.encode(["a b", "c", "d"])[0], atol=1e-6)
    pairwise = encoder.similarity_pairwise(vectors[:2], vectors[1:])
    assert np.allclose(pairwise, np.diag(encoder.similarity(vectors[:2], vectors[1:])))
    with pytest.raises(ValueError, match="the task has image to encode: expected text"):
        encoder.encode([{"image": []}])


def test_other_prompts_are_another_revision(tmp_path: Path) -> None:
    settings = {"prompts": {"query": "q ", "document": ""}}
    folder = write_sentence_folder(tmp_path / "m", {"pooling_mode": "mean"}, settings=settings)
    model = bert_jax.load(folder)
    assert model.sentence is not None
    others = [
        replace(model, sentence=replace(model.sentence, prompts={"query": "p "})),
        replace(model, sentence=replace(model.sentence, similarity="dot")),
        replace(model, config=config.replace(model.config, encoder=dict(layer_norm_eps=1e-3))),
    ]
    revisions = {_revision(m) for m in (model, *others)}
    assert len(revisions) == 4
    assert _revision(bert_jax.load(folder)) in revisions


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    model: Any = None
    with pytest.raises(ValueError, match=r"needs mteb, which is not installed: .*\[mteb\]"):
        MtebEncoder(model)
