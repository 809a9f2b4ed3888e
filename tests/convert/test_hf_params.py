"""Hugging Face's names and shapes to ours and back, from recorded models; needs no peer."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config, convert
from bert_jax.config import ALBERT, BERT, ROBERTA, Imported, Masked, ReplacedTokens, replace
from bert_jax.convert import hf_config
from bert_jax.objectives import losses
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.hf_fixtures import golden_model, load_golden, make_network, relative_error

KINDS = ["bert", "albert", "roberta", "electra", "electra_generator"]


def loss_of(experiment: Any, params: Any, batch: dict[str, Any], real: Any) -> jax.Array:
    out: Any = make_network(experiment, params).apply({"params": params}, batch)
    terms = []
    if "mlm" in out:
        logits = out["mlm"].logits(params["embeddings"]["word"])
        terms.append(losses.cross_entropy(logits, batch["targets"], batch["weights"])[0])
    if "pair" in out:
        terms.append(losses.cross_entropy(out["pair"], batch["pair"], jnp.ones(3))[0])
    if "rtd" in out:
        labels = (batch["tokens"] != batch["labels"]).astype(jnp.float32)
        terms.append(losses.sigmoid_cross_entropy(out["rtd"], labels, real.astype(jnp.float32)))
    return sum(t.value for t in terms)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_golden_outputs_and_gradients_of_transformers(kind: str) -> None:
    """What transformers computed, without transformers."""
    golden = load_golden(kind)
    experiment, params = convert.from_hf(*golden_model(kind))
    params = jax.tree.map(jnp.asarray, params)
    batch = {k: jnp.asarray(v) for k, v in golden["batch"].items()}
    real = jnp.arange(batch["tokens"].shape[1]) < batch["size"][:, None]
    out: Any = jax.jit(make_network(experiment, params).apply)({"params": params}, batch)
    hidden = out["layers"][-len(golden["hidden"]) :]
    assert relative_error(hidden[:, real], golden["hidden"][:, real]) <= 1e-5
    if "mlm" in out:
        out["mlm"] = out["mlm"].logits(params["embeddings"]["word"])
    for name, logits in golden["logits"].items():
        used = real if name == "rtd" else slice(None)
        assert relative_error(out[name][used], logits[used]) <= 1e-5, name
    loss, grads = jax.jit(jax.value_and_grad(lambda p: loss_of(experiment, p, batch, real)))(params)
    assert relative_error(loss, golden["loss"]) <= 1e-5
    slopes = convert.to_hf(experiment, grads).tensors
    assert slopes.keys() == golden["slope"].keys()
    for name, slope in golden["slope"].items():
        of = name.replace("key.bias", "query.bias")  # the gradient of a key bias is zero
        assert abs(np.linalg.norm(slopes[name]) - slope) <= 1e-4 * golden["slope"][of], name


# ---- there and back


@pytest.mark.parametrize("kind", KINDS)
def test_export_after_import_is_identical(kind: str) -> None:
    hf, tensors = golden_model(kind)
    written, back, left_out = convert.to_hf(*convert.from_hf(hf, tensors))
    assert back.keys() == tensors.keys()
    assert not left_out
    assert all(np.array_equal(back[k], tensors[k]) for k in tensors)
    assert all(hf[k] == v for k, v in written.items() if k != "dtype")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_until_the_parameters_change(dtype: str) -> None:
    hf, tensors = golden_model("roberta")
    half = {k: v.astype(jnp.dtype(dtype)) for k, v in tensors.items()}
    experiment, params = convert.from_hf(hf, half)
    written, back, _ = convert.to_hf(experiment, params)
    assert written["dtype"] == dtype
    assert all(
        back[k].dtype == v.dtype and back[k].tobytes() == v.tobytes() for k, v in half.items()
    )
    params["mlm"]["bias"] = params["mlm"]["bias"] + np.float32(1e-7)
    written, back, _ = convert.to_hf(experiment, params)
    assert {written["dtype"], *(v.dtype.name for v in back.values())} == {"float32"}


def test_heads_determine_the_objective() -> None:
    hf, tensors = golden_model("bert")
    assert convert.from_hf(hf, tensors)[0].objective == BERT.objective
    bare = {k: v for k, v in tensors.items() if not k.startswith("cls.")}
    hf["architectures"] = ["BertModel"]
    assert convert.from_hf(hf, bare)[0].objective == Imported("bert", pooler=True)
    assert convert.from_hf(*golden_model("electra"))[0].objective == Imported("electra", rtd=True)
    assert convert.from_hf(*golden_model("roberta"))[0].objective == ROBERTA.objective


def test_bare_weights_count_and_not_the_class_that_the_config_names() -> None:
    """As in all-distilroberta-v1, whose config.json names the model that it began with."""
    hf, tensors = golden_model("roberta")
    assert hf["architectures"] == ["RobertaForMaskedLM"]
    prefix = "roberta."
    bare = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    experiment, params = convert.from_hf(hf, bare)
    assert experiment.objective == Imported("roberta")
    assert params.keys() == {"embeddings", "encoder"}
    damaged = {k: v for k, v in tensors.items() if not k.startswith("lm_head.dense")}
    with pytest.raises(ValueError, match=r"missing lm_head\.dense\.weight"):
        convert.from_hf(hf, damaged)


def test_the_old_name_of_roberta_s_tied_table_is_accepted() -> None:
    hf, tensors = golden_model("roberta")
    word = tensors["roberta.embeddings.word_embeddings.weight"]
    convert.from_hf(hf, {**tensors, "lm_head.weight": word})
    with pytest.raises(ValueError, match=r"not tied lm_head\.weight"):
        convert.from_hf(hf, {**tensors, "lm_head.weight": word + 1})


def test_old_tensor_names_buffers_and_tied_tensors_are_accepted() -> None:
    """Without a prefix, layer norms called gamma and beta, and what is there twice."""
    hf, tensors = golden_model("bert", architectures=["BertModel"])
    expected = convert.from_hf(hf, {k: v for k, v in tensors.items() if k[:4] != "cls."})[1]
    old = {k.removeprefix("bert."): v for k, v in tensors.items() if k[:4] != "cls."}
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in old.items()
    }
    old["embeddings.position_ids"] = np.arange(19)[None]
    same = jax.tree.map(np.array_equal, convert.from_hf(hf, old)[1], expected)
    assert all(jax.tree.leaves(same))

    word = tensors["bert.embeddings.word_embeddings.weight"]
    tied = {**tensors, "cls.predictions.decoder.weight": word}
    tied["cls.predictions.decoder.bias"] = tied.pop("cls.predictions.bias")
    convert.from_hf(golden_model("bert")[0], tied)
    tied["cls.predictions.decoder.weight"] = word + 1
    with pytest.raises(ValueError, match=r"not tied cls\.predictions\.decoder\.weight"):
        convert.from_hf(golden_model("bert")[0], tied)


def test_roberta_without_token_types_is_exported_with_a_row_of_zeros() -> None:
    hf, tensors = golden_model("roberta")
    name = "roberta.embeddings.token_type_embeddings.weight"
    assert convert.from_hf(hf, tensors)[0].encoder.token_types == 1  # a row that is not zero
    tensors[name] = np.zeros_like(tensors[name])
    experiment, params = convert.from_hf(hf, tensors)
    assert experiment.encoder.token_types == 0
    assert "type" not in params["embeddings"]
    assert np.array_equal(convert.to_hf(experiment, params).tensors[name], tensors[name])


def random_params(experiment: Any, heads: tuple[str, ...]) -> Any:
    rng = np.random.default_rng(0)
    shapes = convert.param_shapes(experiment.encoder, heads)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


SIZES: dict[str, Any] = dict(layers=4, hidden_size=12, heads=3, vocab_size=19, max_length=9)


@pytest.mark.parametrize(
    ("encoder", "kind", "sets"),
    [
        (dict(groups=2), "albert", 2),
        (dict(groups=1, embedding_size=8), "albert", 1),
        (dict(groups=2, share_params="attention"), "albert", 4),
        (dict(groups=1, share_params="mlp", embedding_size=8), "albert", 4),
    ],
)
def test_shared_layers_are_read_back_as_they_were(encoder: Any, kind: str, sets: int) -> None:
    """Where ALBERT shares as we do its groups are ours; else every layer is written out."""
    native = replace(BERT, encoder=SIZES | encoder)
    params = random_params(native, ("mlm", "pooler", "pair"))
    written, tensors, left_out = convert.to_hf(native, params)
    assert (written["model_type"], written["num_hidden_groups"], left_out) == (kind, sets, [])
    back, again = convert.from_hf(written, tensors)
    assert back.encoder.num_groups == sets
    batch = {
        "tokens": jnp.arange(8)[None],
        "size": jnp.array([7]),
        "first": jnp.array([3]),
        "masked": jnp.array([[2]]),
    }
    a, b = (
        jax.jit(make_network(e, p).apply)({"params": p}, batch)["hidden"]
        for e, p in ((native, params), (back, again))
    )
    assert relative_error(a, np.asarray(b)) <= 1e-6


def test_shared_layers_of_electra_are_exported_separately() -> None:
    native = replace(BERT, encoder=SIZES | dict(groups=2), objective=ReplacedTokens(weight=50.0))
    tower = random_params(native, ("rtd",))
    small = replace(native, encoder=native.objective.generator(native.encoder))  # type: ignore[union-attr]
    generator = random_params(small, ("mlm",))
    generator.pop("embeddings")
    params = {"embeddings": tower.pop("embeddings"), "discriminator": tower, "generator": generator}
    written, tensors, _ = convert.to_hf(native, params)
    query = [tensors[f"electra.encoder.layer.{i}.attention.self.query.weight"] for i in range(4)]
    assert written["architectures"] == ["ElectraForPreTraining"]
    assert np.array_equal(query[0], query[1])
    assert not np.array_equal(query[1], query[2])
    other = convert.to_hf(native, params, "generator")
    assert other.config["architectures"] == ["ElectraForMaskedLM"]
    assert other.config["hidden_size"] == 3


def test_joined_electra_shares_equal_embeddings() -> None:
    discriminator = convert.from_hf(*golden_model("electra", num_attention_heads=3))
    hf, tensors = golden_model("electra_generator", num_attention_heads=1, intermediate_size=60)
    tensors |= {k: v for k, v in golden_model("electra")[1].items() if ".embeddings." in k}
    for i in range(2):  # the width of the feed-forward part follows from the generator's size
        at = f"electra.encoder.layer.{i}"
        tensors[f"{at}.intermediate.dense.weight"] = np.ones((60, 15), np.float32)
        tensors[f"{at}.intermediate.dense.bias"] = np.ones(60, np.float32)
        tensors[f"{at}.output.dense.weight"] = np.ones((15, 60), np.float32)
    generator = convert.from_hf(hf, tensors)
    experiment, params = convert.join_electra(discriminator, generator)
    assert experiment.objective == ReplacedTokens(generator_size=1.0, tied="all")
    assert set(params) == {"embeddings", "generator", "discriminator"}
    for part, (_, alone) in (("discriminator", discriminator), ("generator", generator)):
        back = convert.from_hf(*convert.to_hf(experiment, params, part)[:2])[1]
        same = jax.tree.map(np.array_equal, back, alone)
        assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match="expected ELECTRA's discriminator"):
        convert.join_electra(generator, discriminator)
    with pytest.raises(ValueError, match="only an ELECTRA with discriminator and"):
        convert.to_hf(*discriminator, "generator")


def test_parameters_without_a_hugging_face_counterpart_are_named() -> None:
    span = replace(config.SPANBERT, encoder=SIZES)
    params = random_params(span, ("mlm",)) | {"sbo": {"bias": np.zeros(19, np.float32)}}
    written, _, left_out = convert.to_hf(span, params)
    assert written["architectures"] == ["BertForMaskedLM"]
    assert left_out == ["sbo/bias"]


def test_dropout_rates_without_a_key_in_config_json_are_named() -> None:
    rates = dict(mlp_dropout=0.1, embedding_dropout=0.2, attention_output_dropout=0.3)
    native = replace(BERT, encoder=SIZES | rates, objective=Masked(sentence_pair=False))
    left_out = convert.to_hf(native, random_params(native, ("mlm",))).left_out
    assert set(left_out) == {f"encoder.{name}" for name in rates}
    same = replace(
        native, encoder=dict.fromkeys(rates, native.encoder.dropout) | {"mlp_dropout": 0}
    )
    assert convert.to_hf(same, random_params(same, ("mlm",))).left_out == []


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            dict(position_offset=2, embedding_size=8, pad_id=1),
            "Hugging Face.s roberta has no projection",
        ),
        (dict(position_offset=2, pad_id=0), "supports only 1 with the padding id 0"),
        (dict(position_offset=2, pad_id=1, activation="relu"), "supports only gelu in its head"),
    ],
)
def test_encoders_without_a_hugging_face_counterpart_are_refused(
    encoder: Any, message: str
) -> None:
    native = replace(BERT, encoder=SIZES | encoder, objective=Masked(sentence_pair=False))
    with pytest.raises(ValueError, match=message):
        convert.to_hf(native, random_params(native, ("mlm",)))


# ---- what does not fit


def test_all_tensor_problems_are_listed_in_one_error() -> None:
    hf, tensors = golden_model("bert")
    tensors.pop("cls.predictions.bias")
    tensors["classifier.weight"] = np.zeros((3, 15), np.float32)
    tensors["bert.pooler.dense.weight"] = np.zeros((15, 16), np.float32)
    tensors["cls.seq_relationship.bias"] = np.array([np.nan, 0], np.float32)
    tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(15, np.int32)
    with pytest.raises(ValueError, match="do not fit a bert") as raised:
        convert.from_hf(hf, tensors)
    for part in (
        "missing cls.predictions.bias [37]",
        "unexpected classifier.weight [3, 15]",
        "wrong shape bert.pooler.dense.weight [15, 16], expected [15, 15]",
        "not finite cls.seq_relationship.bias",
        "wrong type bert.embeddings.LayerNorm.bias int32",
    ):
        assert part in str(raised.value)


def test_a_pooler_that_a_kept_head_reads_cannot_be_dropped() -> None:
    hf, tensors = golden_model("bert")
    with pytest.raises(ValueError, match=r"missing bert\.pooler\.dense\.weight"):
        convert.from_hf(hf, tensors, drop=("bert.pooler",))
    _, params = convert.from_hf(hf, tensors, drop=("bert.pooler", "cls.seq"))
    assert set(params) == {"embeddings", "encoder", "mlm"}
    convert.from_hf(hf, tensors, drop=("of_the_other_folder",), drop_all=False)


def test_unneeded_tensors_can_be_dropped() -> None:
    hf, tensors = golden_model("bert")
    extra = {**tensors, "taxonomy.weight": np.zeros((3, 15), np.float32)}
    convert.from_hf(hf, extra, drop=("taxonomy.",))
    cut = {k: v for k, v in tensors.items() if not k.startswith("cls.seq")}
    with pytest.raises(ValueError, match=r"missing cls\.seq_relationship\.weight"):
        convert.from_hf(hf, cut)
    experiment, params = convert.from_hf(hf, cut, absent=("pair",))
    assert experiment.objective == Imported("bert", mlm=True, pooler=True)
    assert "pair" not in flatten_with_names(params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model_type="gpt2"), "model_type 'gpt2': expected one of bert"),
        (dict(model_type=None, architectures=None), "model_type None"),
        (dict(position_embedding_type="relative_key"), "position_embedding_type 'relative_key'"),
        (dict(is_decoder=True), "is_decoder True: only False"),
        (dict(hidden_act="mish"), "hidden_act 'mish': expected gelu"),
        (dict(hidden_size="768"), "hidden_size '768': expected a number"),
        (dict(num_attention_heads=4), "not divisible by"),
        (dict(num_hidden_layers=10**9), "these two files do not belong together"),
        (dict(hidden_size=3 * 10**6), "expected [37, 3000000]"),
        (dict(hidden_size=0), "encoder.hidden_size is 0"),
        (dict(layer_norm_eps=True), "eps True"),
        (dict(hidden_size=60), "expected [37, 60]"),
        (dict(vocab_size=38), "expected [38, 15]"),
    ],
)
def test_config_json_that_does_not_fit_the_tensors_is_refused(changes: Any, message: str) -> None:
    hf, tensors = golden_model("bert", **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert.from_hf(hf, tensors)


def test_fixed_activation_of_a_head_is_checked() -> None:
    with pytest.raises(ValueError, match="which always uses gelu"):
        convert.from_hf(*golden_model("roberta", hidden_act="relu"))


@pytest.mark.parametrize("drop", [(), ("albert.encoder.embedding_hidden_mapping_in",)])
def test_a_projection_between_equal_widths_is_refused_also_if_it_is_dropped(drop: Any) -> None:
    name = "albert.encoder.embedding_hidden_mapping_in"
    hf, tensors = golden_model("albert")
    width = hf["hidden_size"]
    table = {k: np.zeros((len(v), width), np.float32) for k, v in tensors.items() if "_emb" in k}
    tensors |= table | {f"{name}.weight": 2 * np.eye(width, dtype=np.float32)}
    with pytest.raises(ValueError, match=f"embedding_size {width}, equal to hidden_size"):
        convert.from_hf(hf | {"embedding_size": width}, tensors, drop)


def test_other_names_of_distilbert_s_keys_count_as_in_transformers() -> None:
    hf = {"model_type": "distilbert", "dim": 768, "hidden_size": 64, "num_attention_heads": 4}
    encoder = hf_config.encoder_from_hf_config(hf | {"num_hidden_layers": 3})
    assert (encoder.hidden_size, encoder.heads, encoder.layers) == (64, 4, 3)


def test_missing_keys_of_albert_take_its_defaults() -> None:
    """A config.json may leave out what its family's defaults say."""
    hf, tensors = golden_model("albert")
    for key in ("hidden_act", "layer_norm_eps", "type_vocab_size", "num_hidden_groups"):
        hf.pop(key)
    encoder = convert.from_hf(hf, tensors)[0].encoder
    assert (encoder.activation, encoder.layer_norm_eps) == ("gelu_tanh", 1e-12)
    assert encoder.num_groups == ALBERT.encoder.num_groups
