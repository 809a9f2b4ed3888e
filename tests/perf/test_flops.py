"""FLOP counts equal those of ELECTRA's script and those of XLA's compiled steps."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from bert_jax import config, objectives
from bert_jax.config import (
    BERT,
    ELECTRA,
    MODERNBERT,
    SPANBERT,
    Contrastive,
    Experiment,
    Mesh,
    replace,
)
from bert_jax.data.tokenization.words import WordEdges
from bert_jax.data.vocabulary import Vocabulary
from bert_jax.distributed import sharding
from bert_jax.objectives.unlabeled_pairs import make_pairs
from bert_jax.perf import flops
from bert_jax.training.step import compile_steps
from tests.helpers import tiny_configs

ROWS, LENGTH = 32, 64  # of the batch that XLA compiles; nothing runs

# name -> (config, length, rows, steps, what electra/flops_computation.py prints)
PRINTED: dict[str, tuple[Experiment, int, int, float, float]] = {
    "bert_small": (
        replace(BERT, encoder=dict(hidden_size=256, heads=4, embedding_size=128)),
        *(128, 128, 1.45e6, 1.42e18),
    ),
    "bert_base": (BERT, 512, 256, 1e6, 6.43e19),
    "bert_large": (
        replace(BERT, encoder=dict(layers=24, hidden_size=1024, heads=16)),
        *(512, 256, 1e6, 1.92e20),
    ),
    "electra_small": (
        replace(
            ELECTRA,
            encoder=dict(hidden_size=256, heads=4, embedding_size=128),
            objective=dict(generator_size=0.25),
        ),
        *(128, 128, 1e6, 1.29e18),
    ),
    "electra_base": (ELECTRA, 512, 256, 766_000, 6.42e19),
    "electra_400k": (
        replace(
            ELECTRA,
            encoder=dict(layers=24, hidden_size=1024, heads=16),
            objective=dict(generator_size=0.25),
        ),
        *(512, 2048, 400_000, 7.12e20),
    ),
    "roberta": (
        replace(BERT, encoder=dict(layers=24, hidden_size=1024, heads=16, vocab_size=50265)),
        *(512, 8000, 500_000, 3.19e21),
    ),
    "albert": (
        replace(config.ALBERT, encoder=dict(hidden_size=4096, heads=64)),
        *(512, 4096, 1.5e6, 3.11e22),
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_published_flops_equal_the_output_of_electras_script(name: str) -> None:
    experiment, length, rows, steps, printed = PRINTED[name]
    total = flops.published_per_token(experiment, length) * length * rows * steps
    assert f"{total:.2e}" == f"{printed:.2e}"


def test_a_sparse_look_up_saves_the_product_with_the_word_table() -> None:
    saved = flops.published_per_token(BERT, 128) - flops.published_per_token(
        BERT, 128, lookup="sparse"
    )
    assert saved == 2 * 2 * 768 * 30522
    both = flops.published_per_token(ELECTRA, 128) - flops.published_per_token(
        ELECTRA, 128, lookup="sparse"
    )
    assert both == 2 * saved  # in generator and discriminator


def test_shared_layers_count_at_every_application() -> None:
    shared, own = (replace(BERT, encoder=dict(groups=g)) for g in (1, None))
    assert flops.model_per_token(shared, 128) == flops.model_per_token(own, 128)


def test_training_is_three_times_the_forward_products() -> None:
    """By hand: 12 layers of 24 d^2 + 4 d l, MLM at 77 of 512 tokens, the pooler at one."""
    d, v, length = 768, 30522, 512
    layers = 12 * (24 * d * d + 4 * d * length)
    mlm = 77 / length * (2 * d * d + 2 * d * v)
    pair = (2 * d * d + 4 * d) / length
    assert flops.model_per_token(BERT, length) == pytest.approx(
        3 * (layers + mlm + pair), rel=1e-12
    )
    assert flops.per_step(BERT, 8, length) == 8 * length * flops.model_per_token(BERT, length)


def test_the_span_boundary_head_is_in_both_sums() -> None:
    """By hand, at 20 of 128 tokens: 2 d + 200 to d, d to d, d to v; published also counts biases,
    GELUs, norms and the softmax."""
    d, v = 768, SPANBERT.encoder.vocab_size
    plain = replace(SPANBERT, objective=dict(sbo_weight=0.0))
    products = 2 * (2 * d + 200) * d + 2 * d * d + 2 * d * v
    more = flops.published_per_token(SPANBERT, 128) - flops.published_per_token(plain, 128)
    assert more == pytest.approx(2 * 20 / 128 * (products + 14 * 2 * d + 7 * v), rel=1e-9)
    share = SPANBERT.objective.masking.num_slots(128) / 128  # type: ignore[union-attr]
    more = flops.model_per_token(SPANBERT, 128) - flops.model_per_token(plain, 128)
    assert more == pytest.approx(3 * share * products, rel=1e-9)


OTHERS = {
    "rtd_masked": replace(tiny_configs.FAMILIES["electra"], objective=dict(target="rtd_masked")),
    # not simcse: without dropout, XLA computes its two equal forward passes once
    "neighbors": replace(tiny_configs.FAMILIES["bert"], objective=Contrastive("neighbors")),
    "frozen_embeddings": replace(tiny_configs.FAMILIES["bert"], optim=dict(freeze="embeddings")),
    "frozen_layer": replace(tiny_configs.FAMILIES["bert"], optim=dict(freeze="0")),
    "adapters": replace(tiny_configs.FAMILIES["bert"], lora=dict(rank=4)),
    "frozen_encoder": replace(tiny_configs.FAMILIES["bert"], optim=dict(freeze="encoder")),
}


@pytest.mark.slow_unless("roberta", nightly=("spanbert", "rtd_masked"))
@pytest.mark.parametrize("family", [*tiny_configs.FAMILIES, *OTHERS])
def test_model_flops_equal_those_that_xla_counts(family: str) -> None:
    """In the whole train step of one layer, since XLA counts a scanned body once. XLA also counts
    elementwise operations and the optimizer: up to 2 % at this width."""
    c = replace(
        tiny_configs.without_dropout((tiny_configs.FAMILIES | OTHERS)[family]),
        encoder=dict(layers=1, hidden_size=576, heads=8, max_length=LENGTH, vocab_size=2000),
        data=dict(batch_size=ROWS, length=LENGTH),
        guard=dict(spike="off"),
    )
    assert xla_flops(c) == pytest.approx(flops.per_step(c, ROWS, LENGTH), rel=0.02)


def xla_flops(c: Experiment) -> float:
    v = c.encoder.vocab_size
    special = np.arange(v) < 4
    vocabulary = Vocabulary(3, special, WordEdges.marked(~special), np.ones(v))
    objective = objectives.build(c, vocabulary)
    steps = compile_steps(c, objective, sharding.make_mesh(Mesh(), jax.devices()[:1]))
    ids = jax.ShapeDtypeStruct((ROWS,), np.int32)
    batch = dict.fromkeys(("size", "first", "pair", "row", "epoch"), ids)
    batch["tokens"] = jax.ShapeDtypeStruct((ROWS, LENGTH), np.int32)
    return steps.train.lower(steps.like, batch).compile().cost_analysis()["flops"]  # type: ignore


def test_a_frozen_layer_saves_gradients_and_below_the_lowest_trained_one_all_are_saved() -> None:
    """By hand: of a layer's 24 d^2 + 4 d l products, attention's scores and weighted sum have no
    parameters, and 6 d^2 make queries, keys and values of its input. The word table is that of the
    MLM head, too, at 77 tokens."""
    d, length = 768, 512
    kernels, scores, table = 24 * d * d, 4 * d * length, 77 / length * 2 * d * 30522
    saved = {
        "11": kernels,
        "0": kernels,  # the embeddings below it are trained
        "embeddings": table + 6 * d * d,
        "embeddings,0-2": table + 3 * 2 * (kernels + scores) + 6 * d * d,
        "embeddings,0,2": table + 2 * (kernels + scores) + 6 * d * d + kernels,
        "encoder": table + 12 * 2 * (kernels + scores),
    }
    for text, products in saved.items():
        assert saved_products(BERT, text, length) == pytest.approx(products, rel=1e-9), text
    pre_norm = replace(BERT, encoder=dict(pre_norm=True))  # the first layer's norm is trained
    assert saved_products(pre_norm, "embeddings", length) == pytest.approx(table)
    first = replace(pre_norm, encoder=dict(first_norm=False))
    assert saved_products(first, "embeddings", length) == pytest.approx(table + 6 * d * d)


def test_freezing_numbered_layers_leaves_the_generator_trained() -> None:
    d, g, length = 768, 768 // 4, 128
    electra = replace(ELECTRA, objective=dict(generator_size=0.25))
    assert saved_products(electra, "5", length) == pytest.approx(24 * d * d, rel=1e-9)
    towers = sum(12 * (24 * w * w + 4 * w * length) for w in (d, g)) + 2 * d * g  # the projection
    table = electra.objective.masking.num_slots(length) / length * 2 * d * 30522  # type: ignore[union-attr]
    assert saved_products(electra, "encoder", length) == pytest.approx(2 * towers + table, rel=1e-9)


def test_adapters_leave_the_kernels_without_gradients_but_not_the_attention_scores() -> None:
    """By hand: a layer's kernels have 24 d^2 products, whose gradients are saved. The 4 d l of the
    scores and the weighted sum keep both gradients: their factors are activations. The gradient of
    the first layer's input (6 d^2) and of the MLM head's word table is saved, too."""
    d, length, r = 768, 512, 8
    adapted = replace(BERT, lora=dict(rank=r, targets="query"))
    table = 77 / length * 2 * d * 30522
    saved = 12 * 24 * d * d + 6 * d * d + table - 3 * 12 * 2 * 2 * d * r
    difference = flops.model_per_token(BERT, length) - flops.model_per_token(adapted, length)
    assert difference == pytest.approx(saved, rel=1e-9)


def saved_products(c: Experiment, freeze: str, length: int) -> float:
    """FLOPs of a token that `optim.freeze` saves."""
    frozen = replace(c, optim=dict(freeze=freeze))
    return flops.model_per_token(c, length) - flops.model_per_token(frozen, length)


@pytest.mark.parametrize("task", ["simcse", "neighbors", "crops"])
@pytest.mark.parametrize("length", [5, 8, 33, 128])
def test_contrastive_pre_training_encodes_two_texts_of_each_row(task: Any, length: int) -> None:
    """Of the width that the step cuts out of rows; by hand, without heads."""
    ids = jax.ShapeDtypeStruct((3,), np.int32)
    batch = dict.fromkeys(("size", "row", "epoch"), ids)
    batch["tokens"] = jax.ShapeDtypeStruct((3, length), np.int32)
    pairs = jax.eval_shape(partial(make_pairs, task), batch, jax.random.key(0))
    c = replace(BERT, objective=Contrastive(task))
    d, width = 768, pairs["query"].shape[1]
    assert pairs["documents"].shape == (3, 1, width)
    products = 2 * width * 12 * (24 * d * d + 4 * d * width)
    assert flops.per_step(c, 3, length) == pytest.approx(3 * 3 * products, rel=1e-9)


def test_a_window_saves_scores_and_a_gated_mlp_has_a_third_matrix() -> None:
    """Of 12 layers every third, from the first, sees all 512 tokens; the others 129."""
    windowed = replace(BERT, encoder=dict(window=64, global_every=3))
    saved = flops.model_per_token(BERT, 512) - flops.model_per_token(windowed, 512)
    assert saved == pytest.approx(3 * 8 * 4 * 768 * (512 - 129), rel=1e-9)
    gated = replace(BERT, encoder=dict(gated_mlp=True))
    more = flops.model_per_token(gated, 512) - flops.model_per_token(BERT, 512)
    assert more == pytest.approx(3 * 12 * 2 * 768 * 3072, rel=1e-9)


def test_the_split_of_attention_counts_keys() -> None:
    """ModernBERT-base at 8,192 tokens: 8 of 22 layers are global, and have nearly all products."""
    split = flops.attention_split(MODERNBERT.encoder, 8192)
    assert split == {
        "global_layers": 8,
        "local_layers": 14,
        "local_keys": 129,
        "global_share": pytest.approx(8 * 8192 / (8 * 8192 + 14 * 129)),
    }
    assert "14 see 129 tokens; 97% of its" in flops.describe_attention(split)
    assert flops.attention_split(MODERNBERT.encoder, 100) is None  # the window is the row
    assert flops.attention_split(BERT.encoder, 512) is None
