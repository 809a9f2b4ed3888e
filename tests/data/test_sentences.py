"""Sentences end where the rules of a language say."""

import pytest

from bert_jax.data.sentences import check_language, note_general_rules, split_sentences

TEXTS = {  # each with one sentence a line
    "de": "Am 3. Oktober war frei.\nDas kostet ca. 5 Mio. Euro.",
    "ru": "Он жил на ул. Ленина, д. 5.\nЭто было в 1990 г. в Москве.",  # noqa: RUF001
    "el": "Πού πας;\nΔεν ξέρω.\nΚαλημέρα.",  # noqa: RUF001
    "hi": "बारिश होती है।\nहवा चलती है।",
    "ko": "비가 온다.\n바람이 분다.",
    "ar": "هذا كتاب.\nهل قرأته؟\nنعم.",  # noqa: RUF001
    "fa": "این کتاب است.\nآیا خواندی؟",  # noqa: RUF001
    "zh": "今天下雨。\n明天呢？\n好！",  # noqa: RUF001
    "ja": "彼は「行く。」と言って、出た。\n「雨だ。」\n外は寒い。",
    "my": "မိုးရွာသည်။\nလေတိုက်သည်။",
    "th": "ฝนตกหนัก\nลมพัดแรง\nต่างๆ นานา\nใช้ Java 3 ครั้ง",
    "lo": "ຝົນຕົກ\nລົມພັດ",
    "km": "ភ្លៀងធ្លាក់។\nខ្យល់បក់។\nតើអ្នក",
    "bo": "ཆར་པ་བབས།\nརླུང་རྒྱུག།",
}


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_has_its_ends(language):
    check_language(language)
    sentences = TEXTS[language].split("\n")
    assert split_sentences(" ".join(sentences), language) == sentences


def test_relatives_follow_their_language_and_others_the_general_rules():
    text = "Am 3. Oktober war frei."
    assert split_sentences(text, "bar") == split_sentences(text, "de") == [text]
    assert split_sentences(text, "sv") == split_sentences(text) == ["Am 3.", "Oktober war frei."]


def test_spaces_between_the_words_of_segmented_text_end_no_sentence():
    assert split_sentences("ฝน ตก หนัก", "th", segmented=True) == ["ฝน ตก หนัก"]
    assert split_sentences("ภ្លៀង ធ្លាក់។ ខ្យល់ បក់", "km", segmented=True)[1:] == ["ខ្យល់ បក់"]


@pytest.mark.parametrize(("language", "a", "b"), [("km", "ភ្លៀង", "ធ្លាក់"), ("th", "ฝน", "ตก")])
def test_a_zero_width_space_ends_a_word_but_no_sentence(language, a, b):
    words = f"{a}\u200b{b}"
    assert split_sentences(words, language) == [words]
    assert split_sentences(f"{words}\u200b \u200b{words} {a}", language) == [words, words, a]


def test_sentences_lose_nothing_but_white_space():
    text = '  Hello Mr. Smith. How are you?  "Fine," he said.\tYes! '
    assert split_sentences(text) == ["Hello Mr. Smith.", "How are you?", '"Fine," he said.', "Yes!"]
    assert split_sentences("") == split_sentences(" ", "th") == []


@pytest.mark.parametrize("code", ["xx", "EN", "english", "ko_KR", ""])
def test_an_unknown_code_is_refused(code):
    with pytest.raises(ValueError, match=f"language is {code!r}: expected a two-letter code"):
        check_language(code)


def test_a_language_without_rules_of_its_own_is_named(caplog):
    caplog.set_level("INFO")
    note_general_rules("de")
    note_general_rules("th")
    assert not caplog.text
    note_general_rules("vi")
    assert "no rules for sentences of vi in particular" in caplog.text
