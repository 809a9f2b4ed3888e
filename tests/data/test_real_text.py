"""Masks over the sample text, with tokenizers trained on it: measured, and compared with the
original algorithms run step by step."""

import random
from collections import Counter
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bert_jax.config import ALBERT, BERT, ROBERTA, SPANBERT, Masking, replace
from bert_jax.data import corpus, documents, mixture
from bert_jax.data.loader import Loader
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.objectives.masking import mask_tokens, sample_ngrams, sample_spans
from bert_jax.objectives.word_boundaries import WordBoundaries
from tests.helpers import reference_masking
from tests.helpers.paths import SAMPLE

ROWS = 3000
CORPORA = {  # tokenizer kind, segments, the family's law
    "bert": ("wordpiece", "nsp", BERT.objective.masking),
    "whole words": ("wordpiece", "nsp", replace(BERT.objective.masking, granularity="word")),
    "albert": ("unigram", "sop", ALBERT.objective.masking),
    "roberta": ("bpe", "full", ROBERTA.objective.masking),
    "spanbert": ("wordpiece", "single", SPANBERT.objective.masking),
}


class Masked(NamedTuple):
    masking: Masking
    vocabulary: Vocabulary
    rows: dict[str, np.ndarray]  # before and after
    hidden: np.ndarray  # bool [b l]

    def words(self, i: int) -> tuple[list[int], set[int]]:
        """A row's text as word numbers, and which of its pieces are hidden."""
        row = self.rows["labels"][i]
        at = np.arange(len(row)) < self.rows["size"][i]
        text = at & ~self.vocabulary.special[row]
        starts = self.vocabulary.words.begins_word(row[text])
        words = np.cumsum(starts | (np.arange(len(starts)) == 0)) - 1
        return words.tolist(), set(np.flatnonzero(self.hidden[i][text]).tolist())


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, by_family = tmp_path_factory.mktemp("real"), {}

    def get(name: str) -> Masked:
        if name in by_family:
            return by_family[name]
        kind, segments, masking = CORPORA[name]
        folder, out = root / kind, root / f"{kind}-{segments}"
        if not (text := root / "text.txt").exists():
            parts = [d.paragraphs for d in documents.read_documents([SAMPLE])]
            thirds = ["\n".join(p[: -(-len(p) // 3)]) for p in parts]  # enough for so many rows
            text.write_text("\n\n".join(thirds) + "\n", encoding="utf-8")
        if not folder.exists():
            lines = [p for d in documents.read_documents([text]) for p in d.paragraphs]
            train_tokenizer(lines, kind, 4000).save(folder)
        if not out.exists():
            prepare_corpus([str(text)], folder, segments, 64, out, duplicates=1, progress=False)
        opened = corpus.open_corpus(out)
        vocabulary = mixture.corpus_vocabulary(mixture.StageData(BERT.stages[0], [opened], None))
        batch = Loader([opened.source("train")], ROWS, 64, opened.info.pad_id)[0]
        key = jax.random.key(0)
        out_rows = jax.jit(lambda b: mask_tokens(b, masking, vocabulary, key))(batch)
        rows = {k: np.asarray(v) for k, v in out_rows.items()}
        hidden = np.zeros(rows["tokens"].shape, bool)
        r, p = np.nonzero(rows["weights"])
        hidden[r, rows["masked"][r, p]] = True
        by_family[name] = Masked(masking, vocabulary, rows, hidden)
        return by_family[name]

    return get


@pytest.mark.slow_unless("whole words", nightly=("albert", "spanbert"))
@pytest.mark.parametrize("name", sorted(set(CORPORA) - {"roberta"}))
def test_no_special_token_is_ever_hidden(name: str, masks: Any) -> None:
    m = masks(name)
    assert not (m.hidden & m.vocabulary.special[m.rows["labels"]]).any()


@pytest.mark.slow_unless("bert", "whole words", "albert", "spanbert")
@pytest.mark.parametrize("name", CORPORA)
def test_the_share_of_hidden_tokens(name: str, masks: Any) -> None:
    """15 % of the tokens, but for ALBERT's cap of 20, which does not bind at length 64."""
    m = masks(name)
    assert abs(m.hidden.sum() / m.rows["size"].sum() - 0.15) < 0.008


@pytest.mark.parametrize("name", ["bert", "whole words", "albert"])
def test_fates_are_80_10_10(name: str, masks: Any) -> None:
    m = masks(name)
    n, v = m.hidden.sum(), len(m.vocabulary.special)
    masked = (m.rows["tokens"] == m.vocabulary.mask_id)[m.hidden].sum()
    same = (m.rows["tokens"] == m.rows["labels"])[m.hidden].sum()
    for count, share in ((masked, 0.8 + 0.1 / v), (same, 0.1 + 0.1 / v)):
        assert abs(count - n * share) < 4 * np.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("name", ["whole words", "albert"])
def test_words_are_kept_whole(name: str, masks: Any) -> None:
    """But for words of more pieces than a row hides, which are hidden in part."""
    m = masks(name)
    for i in range(500):
        words, hidden = m.words(i)
        budget = max(1, round(0.15 * int(m.rows["size"][i])))
        short = [word for word in set(words) if words.count(word) <= budget]
        parts = [{j in hidden for j, w in enumerate(words) if w == word} for word in short]
        assert all(len(p) == 1 for p in parts)


@pytest.mark.parametrize("name", ["whole words", "albert", "spanbert"])
def test_lengths_agree_with_the_original_algorithms(name: str, masks: Any) -> None:
    """Runs of hidden pieces (spans after merging) and of hidden words: total variation."""
    m, rng = masks(name), random.Random(0)
    native, reference = [Counter(), Counter()], [Counter(), Counter()]
    for i in range(ROWS):
        words, hidden = m.words(i)
        share = max(1, round(0.15 * int(m.rows["size"][i])))
        budget = min(m.masking.num_slots(64), share)
        if name == "spanbert":
            walk = reference_masking.spans(words, rng)
        else:
            max_ngram = m.masking.max_ngram
            walk = reference_masking.ngrams(words, budget, rng, max_ngram)
            if name == "whole words":
                walk = reference_masking.whole_words(words, budget, rng)
        for counters, some in ((native, hidden), (reference, walk)):
            counters[0].update(reference_masking.run_lengths(some))
            counters[1].update(reference_masking.run_lengths({words[j] for j in some}))
    for a, b in zip(native, reference, strict=True):
        assert sum(abs(a[k] / a.total() - b[k] / b.total()) for k in a | b) / 2 < 0.03


@pytest.mark.parametrize("name", ["albert", "spanbert"])
def test_draws_agree_before_they_are_merged(name: str, masks: Any) -> None:
    """Pieces that each single n-gram or span hides: total variation."""
    m, rng = masks(name), random.Random(0)
    walk = sample_spans if name == "spanbert" else sample_ngrams
    slots = m.masking.num_slots(64)

    def draws(tokens: jax.Array, text: jax.Array, budget: jax.Array, key: jax.Array) -> jax.Array:
        starts = m.vocabulary.words.begins_word(tokens)
        words = WordBoundaries.from_starts(text, starts, budget)
        return walk(words, m.masking, budget, slots, key)

    rows, at = m.rows["labels"], np.arange(64)
    text = (at < m.rows["size"][:, None]) & ~m.vocabulary.special[rows]
    budgets = m.hidden.sum(1)
    keys = jax.random.split(jax.random.key(1), ROWS)
    native, reference = Counter(), Counter()
    for row in np.asarray(jax.jit(jax.vmap(draws))(rows, text, budgets, keys)):
        native.update(Counter(row[row > 0].tolist()).values())
    for i in range(ROWS):
        sizes: list[int] = []
        words, _ = m.words(i)
        if name == "spanbert":
            reference_masking.spans(words, rng, draws=sizes)
        else:
            reference_masking.ngrams(words, int(budgets[i]), rng, draws=sizes)
        reference.update(sizes)
    keys_of = native | reference
    assert (
        sum(abs(native[k] / native.total() - reference[k] / reference.total()) for k in keys_of) / 2
        < 0.03
    )
