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


LISTS = (
    "Rules: | (1) Be kind. | It helps. | (2) Be true. | It helps.",
    "• One. | Two. | • Three. | (a) Four. | (b) Five. | Six.",
    "규칙: | (1) 친절하라. | 도움이 된다. | (2) 진실하라. | 그렇다.",
    "A word (or two) of it. | Mr. Smith went.",
)


@pytest.mark.parametrize("text", LISTS)
def test_an_item_of_a_list_has_sentences(text):
    sentences = text.split(" | ")
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(("begin", "end"), ['""', "“”", "„“", "«»", "「」"])
def test_a_long_quotation_has_sentences_and_a_short_one_is_one(begin, end):
    said = [f"Mr. Smith said {i}." for i in range(40)]
    short = f"{begin}I went. I saw.{end}"
    text = f"He wrote: {begin}{' '.join(said)}{end} She slept."
    assert split_sentences(f"{short} He left.") == [short, "He left."]
    expected = [f"He wrote: {begin}{said[0]}", *said[1:-1], f"{said[-1]}{end}", "She slept."]
    assert split_sentences(text) == expected


def test_a_quotation_mark_without_a_partner_hides_few_ends():
    said = [f"It was {i} dollars." for i in range(40)]
    text = f'The dogs" and cats. {" ".join(said)} The "end" came.'
    assert split_sentences(text)[1:-1] == said


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("he", 'צה"ל הודיע. | היום חם. | ארה"ב הודיעה. | בעיתון "הארץ" נכתב. | כן.'),
        ("th", "เกิด | พ.ศ. 2560"),
        ("lo", "ຄ.ສ. 2017"),
        ("hi", "राशि ३.५ करोड़ है। | हवा चलती है।"),
        ("fa", "۳.۵ کیلو. | بعد."),  # noqa: RUF001
    ],
)
def test_marks_within_words_and_numbers_end_no_sentence(language, text):
    sentences = text.split(" | ")
    assert split_sentences(" ".join(sentences), language) == sentences


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
