"""Split paragraphs into sentences by the rules of a language."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence

from sentencex import segment  # type: ignore[attr-defined]

logger = logging.getLogger(__name__)

# Languages that sentencex has rules for, and those that it treats as a relative of one of them.
# It takes any other code too, and splits by its general rules: the stops of all scripts, with
# English abbreviations.
_RULED = (
    "am ar bg bn ca da de el en es fi fr gu hi hy it ja kk kn ml mr my nl pa pl pt ru sk ta te uk "
    "aa ab acm aeb als an anp apc arn arq ary arz ast atj av awa ay ba bar blk bm bpy "
    "bxr cbk-zam ce co cs csb cv de-at de-ch dsb dua egl eml ext fit fon frc frp frr fur gcf gcr "
    "gl gld gn gsw guc hke hrx hsb ht hyw inh jut kab kea kjh kjp kl koi krc krl ksh ksw kum kv "
    "lad lb lbe lez li lij lld lmo ln lua mag mai mdf mg mhr mnw mrj mwl myv nah nap nds nds-nl "
    "nrm oc olo os pcd pdc pdt pfl pms pnt pt-br qu rm rgn rue rut sa sah scn sdc ses sg shi sjd "
    "sli smn srn sro stq sty szl tcy tet tt ty tyv udm vec vls vmf vmw vot wa wls wo xal zea"
)
# The two-letter codes of ISO 639-1.
_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da "
    "de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy "
    "hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg "
    "li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or "
    "os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta "
    "te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
RULED, ISO_639_1 = frozenset(_RULED.split()), frozenset(_ISO_639_1.split())

# Thai and Lao end a sentence with a space, Khmer and Tibetan with stops that sentencex does not
# know, and with a space. A space between two letters of the script is one; beside digits, Latin
# letters, or after the marks of repetition and abbreviation it is not. A zero-width space ends a
# word, not a sentence.
_SPACE_AFTER_LETTER = r"(?<=[{0}])(?<![{1}])\u200b*[ \u00a0\u3000][ \u00a0\u3000\u200b]*(?=[{0}])"
_ENDS = {
    "th": (
        _SPACE_AFTER_LETTER.format("\u0e01-\u0e3a\u0e40-\u0e4e", "\u0e2f\u0e46"),
        "\u0e5a\u0e5b",
    ),
    "lo": (_SPACE_AFTER_LETTER.format("\u0e81-\u0ecd", "\u0eaf\u0ec6"), ""),
    "km": (_SPACE_AFTER_LETTER.format("\u1780-\u17d3", "\u17d7"), "\u17d4\u17d5\u17da"),
    "bo": (_SPACE_AFTER_LETTER.format("\u0f40-\u0fbc", "\u0f00"), "\u0f0d-\u0f12\u0f14"),
}
_ENDS["dz"] = _ENDS["bo"]
# sentencex takes an item of a list for one sentence, and the last one goes on to the end of the
# line. Markers such as `1.` are not among these: what follows them would lose its context.
_ITEM = re.compile(r"(?:\s*(?:\(\w{1,7}\)|\w{1,7}\.?\)|[•◦▪▫■□●○\u2043⁌⁍◆◇★☆➤➢➣▶▸►])[ \t]+)+")
# No stop in a quotation ends a sentence. Without opening marks there is no quotation; those at the
# beginning of a word become spaces, so that an abbreviation after one is known.
LONG_QUOTATION = 500  # characters
_OPENING = "\"'\u201c\u201e\u2018\u201a\u00ab\u2039\u300c\u300e"
_CLOSED = str.maketrans(_OPENING, "\u201d\u2019\u201d\u201d\u2019\u2019\u00bb\u203a\u300d\u300f")
_QUOTATION_MARK, _OPENING_MARK = re.compile(f"[{_OPENING}]"), re.compile(f"(?<!\\S)[{_OPENING}]")
# Of a Hebrew acronym: before the last letter of a word.
_GERSHAYIM = re.compile('(?<=[\u05d0-\u05ea])"(?=[\u05d0-\u05ea](?![\u05d0-\u05ea]))')
# A Japanese sentence goes on with these after a quotation: 「行く。」と言った。
_QUOTE_ENDS, _AFTER_QUOTE = ("」", "』"), ("と", "って", "、")


def check_language(language: str) -> None:
    """ValueError: it is no code of a language."""
    if language not in RULED | ISO_639_1:
        raise ValueError(
            f"language is {language!r}: expected a two-letter code of ISO 639-1, such as ko, de or "
            "th, or a longer one that sentencex has rules for; `en` splits by the stops of all "
            "scripts"
        )


def note_general_rules(language: str) -> None:
    """Say so if sentencex has only general rules for a language."""
    if language not in RULED and language not in _ENDS:
        logger.info(
            "there are no rules for sentences of %s in particular: the stops of all scripts end a "
            "sentence, except after English abbreviations",
            language,
        )


def split_sentences(paragraph: str, language: str = "en", segmented: bool = False) -> list[str]:
    """Split a paragraph by the rules of `sentencex` for a language; sentences are stripped, and
    none is empty. For Thai, Lao, Khmer and Tibetan, spaces and the script's own stops end a
    sentence too; only the stops if the text is `segmented` into words by spaces."""
    sentences = _split_items(_segment(language, paragraph), language)
    sentences = _split_long_quotations(sentences, language)
    sentences = _join_at_full_stops(sentences, language)
    if language == "ja":
        sentences = _join_quotations(sentences)
    if language in _ENDS:
        pattern = _end_pattern(language, segmented)
        sentences = [part for s in sentences for part in pattern.split(s)] if pattern else sentences
    return [s for s in map(str.strip, sentences) if s]


def _segment(language: str, paragraph: str) -> list[str]:
    """The sentences of sentencex with the white space after them, which together are the paragraph.
    It takes the quotation mark of Hebrew acronyms for the beginning of a quotation, in which
    nothing ends a sentence."""
    acronyms_marked = _GERSHAYIM.sub("\u05f4", paragraph)
    return _cut(paragraph, segment(language, acronyms_marked))


def _cut(text: str, sentences: Iterable[str]) -> list[str]:
    """The text in parts that are as long as the sentences, which together are as long as it."""
    ends = [0, *itertools.accumulate(map(len, sentences))]
    return [text[begin:end] for begin, end in itertools.pairwise(ends)]


def _split_items(sentences: Iterable[str], language: str) -> Iterator[str]:
    """The sentences, of which each item of a list was one."""
    left = [*sentences][::-1]
    while left:
        sentence = left.pop()
        marker = _ITEM.match(sentence)
        of_item = _segment(language, sentence[marker.end() :]) if marker else []
        if marker and len(of_item) > 1:
            yield marker[0] + of_item[0]
            left += of_item[:0:-1]
        else:
            yield sentence


def _split_long_quotations(sentences: Iterable[str], language: str) -> Iterator[str]:
    """The sentences, of which a quotation is one, or all the text from a mark without a partner to
    the next one; long ones are split at their stops."""
    for sentence in sentences:
        if len(sentence) <= LONG_QUOTATION or not _QUOTATION_MARK.search(sentence):
            yield sentence
            continue
        unquoted = _OPENING_MARK.sub(" ", sentence).translate(_CLOSED)
        parts = _cut(sentence, segment(language, unquoted))
        opening = ""  # a mark after a space, which belongs to what follows
        for part in parts:
            has_opening = part[-2:-1].isspace() and part[-1] in _OPENING
            yield opening + (part[:-1] if has_opening else part)
            opening = part[-1] if has_opening else ""
        if opening:
            yield opening


def _join_at_full_stops(sentences: Iterable[str], language: str) -> list[str]:
    """The sentences, joined where a full stop stands within a number, which sentencex knows in
    Latin digits only, or, in languages that end no sentence with it, within an abbreviation or
    before a number."""
    joined: list[str] = []
    for sentence in sentences:
        before, first = joined[-1] if joined else "", sentence[:1]
        number = before[-2:-1].isdigit() and first.isdigit()
        word = language in _ENDS and first.isalpha()
        in_word = before.endswith(".") and (number or word)
        before_number = language in _ENDS and before.rstrip().endswith(".") and first.isdigit()
        if in_word or before_number:
            joined[-1] += sentence
        else:
            joined.append(sentence)
    return joined


def spaced_sentences(paragraph: str, sentences: Sequence[str]) -> list[str]:
    """The sentences that `split_sentences` gives of a paragraph, with a space before each that
    follows white space there. The first one has none."""
    out: list[str] = []
    end = 0
    for sentence in sentences:
        begin = paragraph.find(sentence, end)
        # a sentence that is not found was changed: a space does less harm than glued words
        spaced = begin < 0 or any(map(str.isspace, paragraph[end:begin]))
        out.append(f" {sentence}" if spaced and out else sentence)
        end = max(begin, end) + len(sentence)
    return out


def _join_quotations(sentences: Iterable[str]) -> list[str]:
    """The sentences, with each quotation joined to what goes on after it."""
    joined: list[str] = []
    for sentence in sentences:
        if joined and joined[-1].endswith(_QUOTE_ENDS) and sentence.startswith(_AFTER_QUOTE):
            joined[-1] += sentence
        else:
            joined.append(sentence)
    return joined


def _end_pattern(language: str, segmented: bool) -> re.Pattern[str] | None:
    """Where a sentence ends: after a run of stops, or at a space."""
    space, stops = _ENDS[language]
    after_stops = rf"(?<=[{stops}])(?!\s*[{stops}])\s*" if stops else ""
    alternatives = [a for a in (after_stops, "" if segmented else space) if a]
    return re.compile("|".join(alternatives)) if alternatives else None
