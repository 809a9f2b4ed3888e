"""The options of ModernBERT that no other encoder has: no first norm, two rotary bases, biases and
dropout rates of their own. That they equal transformers' is in tests/convert/test_modernbert.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import MODERNBERT, Encoder, from_python_file, replace, supervised_objective
from bert_jax.model import Network
from bert_jax.model.encoder import Embeddings, encoder_inputs
from bert_jax.optim import Depth, layerwise_lr_decay
from bert_jax.training import warm_start
from bert_jax.utils import pytree
from tests.helpers.paths import ROOT
from tests.model.test_modern_options import PLACES, hidden, init, packed, padded

SIZES: dict[str, Any] = dict(
    layers=4, hidden_size=24, heads=3, vocab_size=50, max_length=32, mlp_size=20, window=3, pad_id=0
)
TINY: Encoder = replace(
    MODERNBERT.encoder,
    **SIZES,
    rotary_theta=500.0,
    local_rotary_theta=50.0,
    initializer_range=0.5,
    layer_norm_eps=1e-12,
)


@pytest.mark.parametrize(
    ("name", "encoder", "total"),
    [
        ("modern_base", 149_014_272, 149_655_232),
        ("modern_large", 394_781_696, 395_881_664),
    ],
)
def test_configs_have_the_published_parameter_counts(name: str, encoder: int, total: int) -> None:
    """The first layer's missing norm is no parameter."""
    path = ROOT / "configs" / f"{name}.py"
    config = from_python_file(path)
    shapes = objectives.param_shapes(config)
    assert pytree.count(shapes) == total
    assert pytree.count(shapes) - pytree.count(shapes["mlm"]) == encoder
    assert f"{total:,}" in path.read_text(encoding="utf-8")


def test_without_a_first_norm_the_first_layer_reads_the_embeddings() -> None:
    """It equals a stack with all norms, where the first one has nothing to do: the embeddings are
    normalized already. Any other scale of that norm gives something else."""
    network, params = init(TINY)
    scale = params["encoder"]["layers"]["attention"]["norm"]["scale"]
    assert scale.shape == (3, 24)
    full = Network(replace(TINY, first_norm=True))

    def with_first(value: float) -> Any:
        rows = jnp.concatenate([jnp.full((1, 24), value), scale])
        attention = params["encoder"]["layers"]["attention"] | {"norm": {"scale": rows}}
        layers = params["encoder"]["layers"] | {"attention": attention}
        return params | {"encoder": params["encoder"] | {"layers": layers}}

    expected = hidden(network, params, padded())
    np.testing.assert_allclose(hidden(full, with_first(1.0), padded()), expected, atol=1e-3)
    assert np.abs(hidden(full, with_first(2.0), padded()) - expected).max() > 1e-2


def test_packed_rows_equal_padded_ones_with_two_rotary_bases() -> None:
    network, params = init(TINY)
    alone, together = (hidden(network, params, rows) for rows in (padded(), packed()))
    for i, (row, begin, n) in enumerate(PLACES):
        np.testing.assert_allclose(together[row, begin : begin + n], alone[i, :n], atol=1e-5)
    one_base = Network(replace(TINY, local_rotary_theta=None))
    assert np.abs(hidden(one_base, params, padded()) - alone)[0].max() > 1e-3


def test_layer_rates_and_tensors_belong_to_the_same_layers() -> None:
    """The norms before attention are those of layers 1 to 3."""
    rate = layerwise_lr_decay(0.5, Depth(4, first_norm=False))
    kernel = np.ravel(rate("encoder/layers/attention/query/kernel", (4, 24, 24)))
    norm = np.ravel(rate("encoder/layers/attention/norm/scale", (3, 24)))
    assert norm.tolist() == kernel[1:].tolist()


def test_fine_tuning_starts_with_the_masked_word_heads_dense_layer_and_norm() -> None:
    """As in transformers, where both classes call them `head`."""
    task = supervised_objective("modernbert", "classification", ("a", "b"))
    model = replace(MODERNBERT, encoder=TINY)
    params, like = (objectives.param_shapes(c) for c in (model, replace(model, objective=task)))
    source: Any = type("Source", (), dict(config=model, params=params))
    result = warm_start.transfer_params(source, like)
    assert result.initialized == ["label/dense/bias", "label/dense/kernel"]
    assert result.unused == ["mlm/bias"]


@pytest.mark.parametrize(("how", "factor"), [("same", 1.0), ("scaled", 8**-0.5)])
def test_layers_that_are_added_to_the_hidden_states_begin_smaller(how: Any, factor: float) -> None:
    """By sqrt(2 layers), here of 4 layers."""
    params = init(replace(TINY, residual_init=how, initializer_range=0.02))[1]["encoder"]["layers"]
    scale = {"attention/out/kernel": factor, "mlp/down/kernel": factor}
    for name, x in pytree.flatten_with_names(params).items():
        if name.endswith("kernel"):  # a normal distribution, cut at two deviations
            deviation = 0.02 * 0.8796 * scale.get(name, 1.0)
            assert float(x.std()) == pytest.approx(deviation, rel=0.1), name


@pytest.mark.parametrize(("rate", "kept"), [(None, 0.5), (0.25, 0.75), (0.0, 1.0)])
def test_embeddings_have_a_dropout_rate_of_their_own(rate: float | None, kept: float) -> None:
    part = Embeddings(replace(TINY, dropout=0.5, embedding_dropout=rate))
    x = encoder_inputs(padded())
    params = part.init(jax.random.key(0), x)
    whole, dropped = (
        np.asarray(part.apply(params, x, rngs=rngs))
        for rngs in ({}, {"dropout": jax.random.key(1)})
    )
    stays = dropped != 0
    assert stays.mean() == pytest.approx(kept, abs=0.1)
    np.testing.assert_allclose(dropped[stays], whole[stays] / kept, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(pre_norm=False), "first_norm is False: expected encoder.pre_norm True"),
        (dict(groups=2), "first_norm is False, but layers share parameters"),
        (dict(layers=1), "layers is 1 and encoder.first_norm is False .*expected at least 2"),
        (dict(mlp_dropout=1.0), "mlp_dropout is 1.0: expected 0 <= x < 1"),
        (dict(local_rotary_theta=1.0), "local_rotary_theta is 1.0: expected above 1"),
        (dict(window=0), "window is 0: expected 1 to"),
    ],
)
def test_impossible_options_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_a_phase_of_longer_rows_takes_positions_from_its_config() -> None:
    """`run.init_positions config`: length and rotary bases; all else stays the model's."""
    model = replace(MODERNBERT, encoder=TINY)
    longer = replace(MODERNBERT, run=dict(init="model", init_positions="config"))
    start = warm_start.WarmStart("model", longer)
    tokenizer = SimpleNamespace(fingerprint="same")
    start.__dict__.update(
        model=SimpleNamespace(config=model, tokenizer=tokenizer), previous_config=None
    )
    corpora: Any = [SimpleNamespace(info=SimpleNamespace(tokenizer_fingerprint="same"))]
    changes = dict(max_length=8192, rotary_theta=160_000.0, local_rotary_theta=10_000.0)
    assert start.encoder(corpora) == replace(TINY, **changes)

    kept = warm_start.WarmStart("model", replace(longer, run=dict(init_positions="model")))
    kept.__dict__.update(start.__dict__ | dict(config=kept.config))
    assert kept.encoder(corpora) == TINY

    learned = replace(model, encoder=Encoder())
    start.__dict__.update(model=SimpleNamespace(config=learned, tokenizer=tokenizer))
    with pytest.raises(ValueError, match=r"init_positions is config, but encoder.positions"):
        start.encoder(corpora)
