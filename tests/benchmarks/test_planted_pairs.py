"""The grammar with pairs: they are where they are said to be, and neighbors know nothing."""

import numpy as np
import pytest
from scipy.stats import chi2

from benchmarks import planted_pairs
from benchmarks.planted_pairs import LETTERS, NOISE, Sequences, generate, partners_of
from bert_jax.inference.evaluation.masked_places import MaskedRows
from bert_jax.inference.evaluation.token_rows import TokenRows

COUNT = 3000


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return generate(COUNT, np.random.default_rng(0))


def test_the_letters_of_a_pair_are_partners_but_for_the_noise(sequences: Sequences) -> None:
    row, place = np.nonzero(sequences.is_paired)
    other = sequences.partner[row, place]
    assert (sequences.partner[row, other] == place).all()
    agree = partners_of(sequences.letters[row, other]) == sequences.letters[row, place]
    assert agree.mean() == pytest.approx(1 - NOISE, abs=0.005)
    exact = generate(50, np.random.default_rng(0), noise=0.0)
    row, place = np.nonzero(exact.is_paired)
    other = exact.letters[row, exact.partner[row, place]]
    assert (partners_of(other) == exact.letters[row, place]).all()


@pytest.mark.parametrize(("nested", "distances"), [(False, {16}), (True, {5, 7, 9, 11})])
def test_pairs_cross_or_nest_at_their_distances(
    nested: bool, distances: set[int], sequences: Sequences
) -> None:
    chosen = sequences.is_paired & (sequences.is_nested == nested)
    row, place = np.nonzero(chosen)
    partner = sequences.partner[row, place].astype(int)
    assert set(np.abs(partner - place).tolist()) == distances
    next_to = (row[1:] == row[:-1]) & (place[1:] == place[:-1] + 1)
    same_strand = next_to & (np.abs(np.diff(partner)) == 1)
    assert (np.diff(partner)[same_strand] == (-1 if nested else 1)).all()
    assert same_strand.mean() > 0.7


def test_the_law_of_a_paired_letter_does_not_depend_on_its_neighbors(sequences: Sequences) -> None:
    """Each letter is a function of one uniform draw, that of the first place of its pair. The draws
    of three letters in a row are three, so that they are independent."""
    at = np.arange(planted_pairs.LENGTH)
    source = np.where(sequences.is_paired, np.minimum(sequences.partner, at), at)
    left, middle, right = source[:, :-2], source[:, 1:-1], source[:, 2:]
    assert ((left != middle) & (middle != right) & (left != right)).all()


@pytest.mark.parametrize("step", [-1, 1, None])
def test_only_the_partner_informs_about_a_letter(step: int | None, sequences: Sequences) -> None:
    """Mutual information of independent letters is that of chance: 2 n I is chi-squared. The second
    letters of pairs would count the same draws again."""
    is_first = sequences.partner > np.arange(planted_pairs.LENGTH)
    row, place = np.nonzero(is_first[:, 1:])
    place += 1
    other = sequences.partner[row, place] if step is None else place + step
    counts = np.zeros((20, 20))
    np.add.at(counts, (sequences.letters[row, place], sequences.letters[row, other]), 1)
    n, expected = counts.sum(), counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    seen = counts > 0
    information = (counts[seen] * np.log(counts[seen] / expected[seen])).sum() / n
    freedom = ((counts.sum(1) > 0).sum() - 1) * ((counts.sum(0) > 0).sum() - 1)
    if step is None:
        assert information == pytest.approx(np.log(len(LETTERS)) - pair_entropy(), abs=0.02)
    else:
        assert 2 * n * information < chi2.ppf(0.9999, freedom)


def pair_entropy() -> float:
    """Of a letter whose partner is shown."""
    p = np.full(len(LETTERS), NOISE / (len(LETTERS) - 1))
    p[0] = 1 - NOISE
    return float(-(p * np.log(p)).sum())


def test_the_floor_is_the_entropy_given_the_partner_if_it_is_shown(sequences: Sequences) -> None:
    row = int(np.argmax(sequences.is_paired.sum(1)))
    place = int(np.flatnonzero(sequences.is_paired[row])[0])
    other = int(sequences.partner[row, place])
    one = Sequences(*(x[[row]] for x in vars(sequences).values()))
    tokens = np.zeros((2, planted_pairs.LENGTH + 2), np.int32)
    numbers = np.zeros(2, np.int32)
    masked = np.array([[place + 1, 0], [place + 1, other + 1]])  # two copies of the row
    used = np.array([[True, False], [True, True]])
    rows = MaskedRows(TokenRows(tokens, *[numbers] * 3), tokens, masked, used, 2)
    floor = planted_pairs.floor_loss(one, rows)
    assert floor == pytest.approx([pair_entropy(), *[np.log(len(LETTERS))] * 2])


def test_sequences_are_letters_of_the_alphabet(sequences: Sequences) -> None:
    """Turns begin with letters that stand nowhere else."""
    text = sequences.texts()[0]
    assert len(text) == planted_pairs.LENGTH
    assert [planted_pairs.ALPHABET.index(c) for c in text] == sequences.letters[0].tolist()
    row, place = np.nonzero(sequences.letters >= len(LETTERS))
    assert len(row) > COUNT
    assert not sequences.is_paired[row, place].any()
    assert sequences.is_paired[row, place - 1].all()
