"""How text becomes tokens: the language of its sentences, lines and sentences of RoBERTa's rows,
and text that is segmented into words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import BERT, replace
from bert_jax.data import corpus_report, mixture
from bert_jax.data.corpus import open_corpus
from bert_jax.data.loader import Loader
from bert_jax.data.mixture import StageData
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization import backends, pipelines
from bert_jax.data.tokenization.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.helpers.corpora import rows

GERMAN = "Am 3. Oktober war frei. Es kostet ca. 5 Mio. Euro."
CHINESE = "天空 下雪 河水 结冰 了 。 Java 下雪"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of the letters of the texts, and the texts, 20 documents of 3 lines each."""
    folder = tmp_path_factory.mktemp("text")
    letters = sorted({*GERMAN, *CHINESE} - {" "})
    pieces = [*SPECIAL_TOKENS["wordpiece"], *letters, *(f"##{c}" for c in letters)]
    core = pipelines.wordpiece_pipeline({p: i for i, p in enumerate(pieces)}, lower=False)
    Tokenizer("wordpiece", backends.TokenizersBackend(core), cased=True).save(folder / "tok")
    for name, text in (("de", GERMAN), ("zh", CHINESE)):
        lines = "\n".join([text] * 3)
        (folder / f"{name}.txt").write_text("\n\n".join([lines] * 20), encoding="utf-8")
    return folder


def prepared(folder, out, text, segments, length=64, **options):
    options = {"duplicates": 1, "progress": False} | options
    path = str(folder / f"{text}.txt")
    return prepare_corpus([path], folder / "tok", segments, length, out, **options)


def test_the_language_splits_the_sentences_and_is_recorded(folder, tmp_path):
    english, german = (
        prepared(folder, tmp_path / code, "de", "single", language=code) for code in ("en", "de")
    )
    assert (english.info.train.sentences, german.info.train.sentences) == (12 * 19, 6 * 19)
    assert open_corpus(german.path).info.language == "de"
    assert english.fingerprint != german.fingerprint


def test_prepare_says_how_many_rows_have_one_sentence(folder, tmp_path, caplog):
    """Rows of 6 tokens of text, which each of the sentences of 10 and 6 tokens fills."""
    short = prepared(folder, tmp_path / "short", "zh", "nsp", length=9)
    counts = short.info.train
    assert counts.single_sentences == counts.rows
    assert "100 % of the rows of train have only one sentence" in caplog.text
    described = corpus_report.describe_split(short.info, "train")[1]
    assert described.startswith("  6.0 sentences per document; ")
    assert described.endswith(f"{counts.rows} rows (100.0%) of only one sentence")
    long = prepared(folder, tmp_path / "long", "zh", "nsp", length=64)
    assert long.info.train.single_sentences < long.info.train.rows / 4


@pytest.mark.parametrize("segments", ["nsp", "sop", "electra"])
def test_prepare_says_how_much_text_is_in_no_row_and_warns_of_long_sentences(
    segments, folder, tmp_path, caplog
):
    """Sentences of 15 and 27 tokens, of which the rows of 9 tokens have the beginning."""
    short = prepared(folder, tmp_path / "short", "de", segments, length=9, language="de")
    share = short.info.train.dropped_share
    assert share > 0.5
    described = corpus_report.describe_split(short.info, "train")[2]
    assert described == f"  {share:.1%} of the text is in no row, because sentences are truncated"
    lost = 100 * short.info.train.overlong_share
    assert f"{lost:.0f} % of the text of train is in no row, because its sentences" in caplog.text
    caplog.clear()
    prepared(folder, tmp_path / "long", "de", segments, length=64, language="de")
    assert "is in no row" not in caplog.text
    whole = prepared(folder, tmp_path / "whole", "de", "single", length=9, language="de")
    assert len(corpus_report.describe_split(whole.info, "train")) == 2


def test_a_separator_stands_after_each_line_or_after_each_sentence(folder, tmp_path):
    """fairseq's way is the default: a line is encoded whole, whatever its sentences are."""
    texts = {}
    for unit in ("line", "sentence"):
        options = {"separators": unit, "language": "de"} if unit == "sentence" else {}
        made = prepared(folder, tmp_path / unit, "de", "doc", length=256, **options)
        assert made.info.separators == unit
        ids, size, *_ = rows(made)[0]
        texts[unit] = [made.tokenizer.token(i) for i in ids[:size]].count("[SEP]")
    assert texts == {"line": 3, "sentence": 6}
    with pytest.raises(ValueError, match="only full and doc have separators between lines"):
        prepared(folder, tmp_path / "no", "de", "nsp", separators="line")


# ---- segmented text


@pytest.fixture(scope="module", params=[0, 4], ids=["padded", "packed"])
def segmented(request, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("segmented") / "corpus"
    return prepared(folder, out, "zh", "single", length=48, segmented=True, pack=request.param)


def test_rows_of_segmented_text_say_where_words_begin(segmented):
    """Nine words of 1 to 4 characters a line; the ids would say that each Chinese one is a word."""
    assert segmented.info.segmented
    row = segmented.source("train")[0]
    first = int(np.ravel(row["size"])[0])
    tokens = [segmented.tokenizer.token(i) for i in row["tokens"][:first]]
    begins = "".join("x" if b else "-" for b in row["words"][:first])
    line, words = CHINESE.replace(" ", ""), "x-x-x-x-xxx---x-"
    size = first - 2
    assert "".join(tokens[1:-1]).replace("##", "") == (line * 4)[:size]
    assert begins == "x" + (words * 4)[:size] + "x"
    documents = segmented.info.train.documents
    assert segmented.info.train.words == 3 * words.count("x") * documents


def test_text_that_no_segmenter_has_seen_is_pointed_out(folder, tmp_path, caplog):
    prepared(folder, tmp_path / "yes", "zh", "single", segmented=True)
    assert "--segmented takes these for one word" not in caplog.text
    path = tmp_path / "raw.txt"
    path.write_text((folder / "zh.txt").read_text(encoding="utf-8").replace(" ", ""))
    options = dict(duplicates=1, progress=False, segmented=True)
    prepare_corpus([str(path)], folder / "tok", "single", 64, tmp_path / "no", **options)
    assert "--segmented takes these for one word" in caplog.text


@pytest.mark.slow
def test_masks_hide_words_of_segmented_text_as_a_whole(segmented):
    data = StageData(BERT.stages[0], [segmented], None)
    packed = segmented.info.packed
    source = segmented.source("train")
    batch = Loader([source], 16, 48, 0, packed=packed, words=True)[0]
    masking = dict(granularity="word", rate=0.6, mask_prob=1.0, random_prob=0.0)
    config = replace(BERT, objective=dict(sentence_pair=False, masking=masking))
    tiny = dict(layers=1, hidden_size=8, heads=1, vocab_size=segmented.tokenizer.vocab_size)
    config = replace(config, encoder=tiny)
    objective = objectives.build(config, mixture.corpus_vocabulary(data))
    out = jax.jit(objective.corrupt)(jax.tree.map(jnp.asarray, batch), jax.random.key(0))
    hidden = np.asarray(out["tokens"]) == segmented.tokenizer.mask_id
    text = ~np.isin(batch["tokens"], segmented.tokenizer.special_ids)
    assert 0.3 < hidden.sum() / text.sum() < 0.8
    word = np.cumsum(batch["words"], axis=1)
    for h, w, t in zip(hidden, word, text, strict=True):
        assert all(len({*h[t & (w == n)]}) == 1 for n in {*w[t]})


def test_segmented_corpora_are_not_mixed_with_others(segmented, folder, tmp_path):
    pack = 4 if segmented.info.packed else 0
    prepared(folder, tmp_path / "plain", "zh", "single", length=48, pack=pack)
    config = BERT.data.__class__(mix=f"{segmented.path}=1,{tmp_path / 'plain'}=1")
    corpora, _ = mixture.open_corpora(config)
    with pytest.raises(ValueError, match=r"plain was not, so their words differ"):
        mixture._check_compatible(corpora)
