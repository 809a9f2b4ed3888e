"""Search finds what sorting all scores finds, and metrics are those of trec_eval."""

import itertools

import numpy as np
import pytest

from bert_jax.tasks import retrieval
from bert_jax.tasks.retrieval import Judged, dot, rank_judged, ranking_metrics, top_k


@pytest.mark.parametrize("numbers_per_block", [1, 7, 1 << 20])
def test_search_in_blocks_is_sorting(
    numbers_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of few values have many equal scores; those are ordered by number."""
    monkeypatch.setattr(retrieval, "NUMBERS_PER_BLOCK", numbers_per_block)
    monkeypatch.setattr(retrieval, "RANKED_SCORES", numbers_per_block)
    blocks: list[int] = []
    monkeypatch.setattr(retrieval, "dot", lambda q, d: blocks.append(d.size) or dot(q, d))
    rng = np.random.default_rng(0)
    documents = rng.integers(-1, 2, (40, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (5, 3)).astype(np.float32)
    hits = top_k(queries, documents, 11)
    for query, numbers, scores in zip(queries, *hits, strict=True):
        expected = sorted(range(40), key=lambda i: (-float(query @ documents[i]), i))[:11]
        assert numbers.tolist() == expected
        assert np.array_equal(scores, documents[expected] @ query)
    assert top_k(queries, documents, 99).numbers.shape == (5, 40)
    judged = rank_judged(queries, documents, [{int(n): 1.0} for n in hits.numbers[:, 4]])
    assert [j.ranks.tolist() for j in judged] == [[5]] * 5
    assert max(blocks) <= max(numbers_per_block, 3)  # one vector at least, whatever the queries


def test_metrics_of_a_worked_example() -> None:
    """Relevant documents at ranks 2 and 12, of grades 1 and 3, and a judged one of grade 0."""
    judged = Judged(np.array([12, 1, 2]), np.array([3.0, 0.0, 1.0]))
    ideal = 3 / np.log2(2) + 1 / np.log2(3)
    assert ranking_metrics([judged]) == pytest.approx(
        {
            "mrr@10": 1 / 2,
            "ndcg@10": (1 / np.log2(3)) / ideal,
            "recall@10": 1 / 2,
            "recall@100": 1.0,
            "map": (1 / 2 + 2 / 12) / 2,
        }
    )
    irrelevant = Judged(np.array([1]), np.array([0.0]))
    assert ranking_metrics([judged, irrelevant]) == ranking_metrics([judged])
    assert ranking_metrics([irrelevant]) == {}


def test_many_queries_find_what_each_finds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "QUERIES_PER_BLOCK", 3)
    rng = np.random.default_rng(0)
    queries, documents = (rng.normal(size=(n, 4)).astype(np.float32) for n in (8, 20))
    together = top_k(queries, documents, 5)
    alone = [top_k(query[None], documents, 5) for query in queries]
    for i, of_alone in enumerate(zip(*alone, strict=True)):
        assert np.array_equal(together[i], np.concatenate(of_alone))


def test_metrics_at_random_are_means_over_all_orders() -> None:
    """Twelve documents, of which the query's own is left out; two are relevant."""
    grades, own = {0: 3.0, 7: 1.0, 4: 0.0, 5: 9.0}, 5
    orders = list(itertools.permutations(range(1, 12), 2))
    metrics = [ranking_metrics([Judged(np.array(ranks), np.array([3.0, 1.0]))]) for ranks in orders]
    expected = retrieval.expected_at_random([grades, {1: 0.0}], 12, [own, None])
    assert expected["recall@100"] == 1.0
    for name, value in expected.items():
        assert value == pytest.approx(np.mean([m[name] for m in metrics]), rel=1e-9)


@pytest.mark.parametrize("broken", ["queries", "documents"])
def test_a_score_that_is_nan_makes_the_metrics_nan_and_is_found_last(broken: str) -> None:
    vectors = {"queries": np.eye(3, dtype=np.float32), "documents": np.eye(3, dtype=np.float32)}
    vectors[broken][1] = np.nan
    judged = rank_judged(vectors["queries"], vectors["documents"], [{i: 1.0} for i in range(3)])
    assert all(np.isnan(value) for value in ranking_metrics(judged).values())
    hits = top_k(vectors["queries"], vectors["documents"], 2)
    second = {"queries": [1, 0], "documents": [2, 0]}[broken]  # of equal scores the first number
    assert hits.numbers[[0, 2]].tolist() == [[0, second[0]], [2, second[1]]]


@pytest.mark.library("pytrec_eval")
def test_metrics_are_those_of_trec_eval() -> None:
    import pytrec_eval

    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(300.0), (20, 1)), axis=1)
    grades = [
        {int(i): float(rng.integers(0, 4)) for i in rng.choice(300, 8, replace=False)}
        for _ in range(20)
    ]
    ours = ranking_metrics(rank_judged(scores.astype(np.float32), np.eye(300), grades))
    qrels = {str(q): {str(d): int(g) for d, g in j.items()} for q, j in enumerate(grades)}
    run = {str(q): {str(d): float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)}
    names = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "recall@100": "recall_100"}
    names["map"] = "map"
    peer = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10,100", "map"})
    results = peer.evaluate(run)
    for name, measure in names.items():
        assert ours[name] == pytest.approx(
            np.mean([r[measure] for r in results.values()]), abs=1e-6
        )
    cut = {q: dict(sorted(docs.items(), key=lambda d: -d[1])[:10]) for q, docs in run.items()}
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(cut)
    mean = np.mean([r["recip_rank"] for r in first.values()])
    assert ours["mrr@10"] == pytest.approx(mean, abs=1e-6)
