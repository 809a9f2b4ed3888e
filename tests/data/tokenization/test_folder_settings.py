"""What the settings of a foreign folder say counts as in transformers, or is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from bert_jax.data.tokenization import folder_settings, pipelines
from bert_jax.data.tokenization.tokenizer import load_tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "A", "ca", "ça", "Ca", "Ça"]
PIECES += ["中", "##文", "文", "中文", "[", "]", "e", "##1"]
TEXT = "Ça A 中文 a covid Covid [E1] a"
SETTINGS = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}


def write_folder(folder: Path, settings: dict[str, Any], pipeline: bool = True) -> Path:
    """A BERT folder, with a tokenizer.json that lowercases or without any."""
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    values = {k: v for k, v in (SETTINGS | settings).items() if v is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    if pipeline:
        core = pipelines.wordpiece_pipeline({p: i for i, p in enumerate(PIECES)}, lower=True)
        core.add_special_tokens(PIECES[:5])
        core.post_processor = pipelines.pair_template(("[CLS]", 2), ("[SEP]", 3))
        core.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.peer
@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"},
        {"do_lower_case": False, "tokenizer_class": "DistilBertTokenizer"},
        {"do_lower_case": False, "tokenizer_class": None},  # that of the family counts
    ],
)
def test_settings_count_as_in_transformers(
    settings: dict[str, Any], pipeline: bool, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    if not pipeline and settings.get("tokenizer_class") == "PreTrainedTokenizerFast":
        pytest.skip("that class has nothing but a tokenizer.json")
    write_folder(tmp_path, settings, pipeline)
    ours = load_tokenizer(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert list(ours.encode(TEXT)) == hf(TEXT, add_special_tokens=False)["input_ids"]


def test_settings_that_overrule_a_pipeline_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(write_folder(tmp_path, {"do_lower_case": False}))
    assert tokenizer.cased
    assert "has lowercase True, but the folder's settings have do_lower_case False" in caplog.text


def test_a_setting_that_only_the_class_has_is_said_and_the_pipeline_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, {"do_lower_case": None})
    assert not load_tokenizer(tmp_path).cased
    assert not caplog.text
    core = pipelines.wordpiece_pipeline({p: i for i, p in enumerate(PIECES)}, lower=False)
    core.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).cased
    assert "have no do_lower_case, so that transformers 5 takes True" in caplog.text


@pytest.mark.peer
def test_of_two_names_for_a_role_that_counts_which_counts_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_folder(tmp_path, {"mask_token": "a"})
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "A"}')
    for decoder in ({}, {"added_tokens_decoder": {}}):
        settings = SETTINGS | {"mask_token": "a"} | decoder
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert load_tokenizer(tmp_path).mask_id == hf.mask_token_id == (5 if decoder else 6)


@pytest.mark.parametrize("lower", [True, False])
def test_the_flag_for_case_does_not_contradict_the_settings(lower: bool, tmp_path: Path) -> None:
    write_folder(tmp_path, {"do_lower_case": lower}, pipeline=False)
    if not lower:
        assert load_tokenizer(tmp_path, cased=True).cased
        return
    with pytest.raises(ValueError, match="do_lower_case true, which --cased would contradict"):
        load_tokenizer(tmp_path, cased=True)


@pytest.mark.peer
@pytest.mark.parametrize("how", ["added_tokens.json", "added_tokens_decoder"])
def test_tokens_beside_a_bare_vocabulary_are_read(how: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    flags = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=False)
    decoder = {str(len(PIECES)): {"content": "covid", **flags}}
    write_folder(tmp_path, {} if how.endswith("json") else {how: decoder}, pipeline=False)
    if how.endswith("json"):
        (tmp_path / how).write_text(json.dumps({"covid": len(PIECES)}))
    ours = load_tokenizer(tmp_path)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.vocab_size == len(PIECES) + 1
    assert list(ours.encode(TEXT)) == hf(TEXT, add_special_tokens=False)["input_ids"]
    (tmp_path / "added_tokens.json").write_text(json.dumps({"x": 99}))
    with pytest.raises(ValueError, match=r"added token 'x' has the id 99: expected \d+, which"):
        load_tokenizer(tmp_path)


@pytest.mark.peer
@pytest.mark.parametrize("name", ["additional_special_tokens", "extra_special_tokens"])
def test_markers_that_the_settings_list_are_tokens_and_the_five_are_text(
    name: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, {})
    hf = transformers.AutoTokenizer.from_pretrained(folder)
    hf.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    hf.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "config.json", tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for old in ("additional_special_tokens", "extra_special_tokens"):
        settings.pop(old, None)
    file.write_text(json.dumps(settings | {name: ["[E1]"]}))
    ours = load_tokenizer(tmp_path / "saved")
    assert list(ours.encode(TEXT)) == hf(TEXT, add_special_tokens=False)["input_ids"]
    assert ours.encode("[SEP]") != [3]


@pytest.mark.peer
def test_a_marker_is_every_special_token_but_the_roles_listed_or_not(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, {})
    hf = transformers.AutoTokenizer.from_pretrained(folder)
    hf.add_tokens(["[E1]"], special_tokens=True)
    hf.save_pretrained(tmp_path / "saved")
    ours = load_tokenizer(tmp_path / "saved")
    assert list(ours.encode(TEXT)) == hf(TEXT, add_special_tokens=False)["input_ids"]
    assert len(PIECES) in ours.encode(TEXT)
    assert ours.encode("[SEP]") != [3]
    ours.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(TEXT) == ours.encode(TEXT)


@pytest.mark.peer
@pytest.mark.parametrize("pipeline", [True, False])
def test_a_listed_marker_that_the_vocabulary_lacks_is_appended(
    pipeline: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    write_folder(tmp_path, {"additional_special_tokens": ["[E1]", "[E2]"]}, pipeline)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours, text = load_tokenizer(tmp_path), f"{TEXT} [E2]"
    assert list(ours.encode(text)) == hf(text, add_special_tokens=False)["input_ids"]
    assert ours.vocab_size == len(hf) == len(PIECES) + 2
    assert f"[E1], [E2], which the vocabulary lacks: appended with the ids from {len(PIECES)}" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("settings", "names", "expected"),
    [
        ({}, None, True),
        ({"tokenizer_class": "XLMRobertaTokenizer"}, None, False),
        ({}, ["input_ids"], False),
        ({"tokenizer_class": "RobertaTokenizer"}, ["input_ids", "token_type_ids"], True),
    ],
)
def test_token_types_are_those_of_the_class_or_its_inputs(
    settings: dict[str, Any], names: list[str] | None, expected: bool, tmp_path: Path
) -> None:
    write_folder(tmp_path, settings)
    config = SETTINGS | settings | ({} if names is None else {"model_input_names": names})
    assert folder_settings.gives_types(tmp_path, config) == expected


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, {}, "is a BertJapaneseTokenizer, which no"),
        ({"word_tokenizer_type": "mecab"}, {}, "BertTokenizer with word_tokenizer_type mecab"),
        (
            {"tokenizer_class": None},
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "expected one of BertTokenizer, DistilBertTokenizer, ElectraTokenizer",
        ),
    ],
)
def test_other_rules_for_the_same_files_are_refused(
    settings: dict[str, Any], model: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Else a Japanese text would be split by character, or become unknown, without a word."""
    write_folder(tmp_path, settings, pipeline=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"} | model))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("says", [None, True, False])
def test_a_cased_vocabulary_whose_settings_do_not_say_so_is_warned_of(
    says: bool | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as SpanBERT's, which has nothing but a vocab.txt."""
    write_folder(tmp_path, {"do_lower_case": says}, pipeline=False)
    capitals = [f"##{a}{b}" for a in "ABCDEFGHIJ" for b in "abcdefghij"]
    with (tmp_path / "vocab.txt").open("a") as f:
        f.write("".join(f"{piece}\n" for piece in capitals))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.cased == (says is False)
    assert ("import it with --cased" in caplog.text) == (says is None)
    caplog.clear()
    if says is None:
        assert load_tokenizer(tmp_path, cased=True).cased
        assert not caplog.records


def test_a_unigram_with_a_piece_twice_is_read_as_in_transformers(tmp_path: Path) -> None:
    """CamemBERT's has <unk> at 3 and 4: the first one counts, and all other ids stay."""
    pieces = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>", "<s>", "</s>", "▁a", "b", "▁"]
    core = pipelines.unigram_pipeline([(p, -float(i)) for i, p in enumerate(pieces)], 3, [], None)
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    spec = json.loads(core.to_str())
    flags = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    ids = {"<s>": 5, "<pad>": 1, "</s>": 6, "<unk>": 4, "<mask>": len(pieces)}
    spec["added_tokens"] = [{"id": i, "content": t, **flags} for t, i in ids.items()]
    spec["added_tokens"].sort(key=lambda t: t["id"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    roles = dict(zip(("bos", "pad", "eos", "unk", "mask"), ids, strict=True))
    roles |= {"cls": "<s>", "sep": "</s>"}
    settings = {f"{role}_token": token for role, token in roles.items()}
    settings["tokenizer_class"] = "CamembertTokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "camembert"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == len(pieces) + 1
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.mask_id) == (3, 1, len(pieces))
    assert list(tokenizer.encode("ab a?")) == [7, 8, 7, 3]
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint
