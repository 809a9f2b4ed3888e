"""Runs that start from some layers of a model: which ones, and what is refused."""

from typing import Any

import jax
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import Distill, Encoder, Experiment, Run, replace
from bert_jax.convert.export.model_card import origins
from bert_jax.inference.model import Model
from bert_jax.training import layer_selection
from bert_jax.training.warm_start import WarmStart
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers import shared_steps
from tests.helpers.tiny_configs import FAMILIES


def numbered(experiment: Experiment) -> dict[str, Any]:
    """Parameters whose values are the number of their layer, from 1."""
    shapes = objectives.param_shapes(experiment)

    def leaf(x: Any) -> np.ndarray:
        first = experiment.encoder.layers - x.shape[0] + 1  # a norm that layer 1 does not have
        return np.broadcast_to(
            np.arange(first, first + x.shape[0]).reshape(-1, *[1] * (x.ndim - 1)), x.shape
        )

    return jax.tree.map(leaf, shapes)


def layers_of(params: Any, prefix: str = "") -> dict[str, list[int]]:
    flat = flatten_with_names(params)
    return {
        n: x.reshape(len(x), -1)[:, 0].tolist()
        for n, x in flat.items()
        if n.startswith(f"{prefix}encoder/layers/")
    }


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [
        (6, 3, [2, 4, 6]),
        (12, 5, [3, 5, 8, 10, 12]),
        (6, 4, [2, 3, 5, 6]),
        (2, 1, [2]),
        (3, 3, [1, 2, 3]),
    ],
)
def test_layers_are_evenly_spaced_and_end_with_the_last(n: int, m: int, expected: list) -> None:
    assert layer_selection.spaced_layers(n, m) == expected


def test_the_layers_of_bert_are_chosen_on_the_first_axis() -> None:
    model = replace(FAMILIES["bert"], encoder=dict(layers=6))
    chosen = layer_selection.select_layers(numbered(model), model.encoder, 3)
    assert set(map(tuple, layers_of(chosen).values())) == {(2, 4, 6)}
    shapes = jax.eval_shape(
        objectives.build(replace(model, encoder=dict(layers=3))).init, jax.random.key(0)
    )
    assert jax.tree.map(np.shape, chosen) == jax.tree.map(lambda x: x.shape, shapes)


def test_a_first_layer_without_a_norm_stays_without_one() -> None:
    model = replace(FAMILIES["bert"], encoder=dict(layers=6, pre_norm=True, first_norm=False))
    chosen = layers_of(layer_selection.select_layers(numbered(model), model.encoder, 3))
    assert chosen["encoder/layers/attention/norm/scale"] == [4, 6]
    assert chosen["encoder/layers/mlp/norm/scale"] == [2, 4, 6]


def test_shared_layers_change_their_depth_alone() -> None:
    encoder = replace(FAMILIES["albert"].encoder, layers=6)
    fewer = layer_selection.with_layers(encoder, 3, "model")
    assert (fewer.layers, fewer.groups) == (3, 1)
    params = {"encoder": {"layers": {"mlp": np.ones((1, 4)), "own": np.arange(6)[None]}}}
    chosen = layer_selection.select_layers(params, replace(encoder, share_params="mlp"), 3)
    assert chosen["encoder"]["layers"]["mlp"].shape == (1, 4)


def test_both_networks_of_electra_lose_layers() -> None:
    model = replace(FAMILIES["electra"], encoder=dict(layers=4))
    chosen = layer_selection.select_model_layers(
        numbered(model), model, replace(model, run=dict(init="them", init_layers=2))
    )
    for tower in ("generator/", "discriminator/"):
        assert set(map(tuple, layers_of(chosen, tower).values())) == {(2, 4)}


def test_more_layers_than_there_are_or_groups_of_layers_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"8 layers are asked for .* model has 6: expected at most 6"
    ):
        layer_selection.with_layers(Encoder(layers=6), 8, "model")
    with pytest.raises(ValueError, match="the 6 layers of model share 2 sets of parameters"):
        layer_selection.with_layers(Encoder(layers=6, groups=2), 3, "model")
    with pytest.raises(ValueError, match=r"run\.init_layers is 3, but there is no run\.init"):
        replace(FAMILIES["bert"], run=dict(init_layers=3))


def test_the_depth_that_is_asked_for_counts_and_not_that_of_the_config() -> None:
    """The sizes of a config do not count in a run that starts from a model."""
    model = replace(FAMILIES["bert"], encoder=dict(layers=4))
    config = replace(FAMILIES["bert"], encoder=dict(layers=3), run=dict(init="them", init_layers=2))
    start = WarmStart("them", config)
    start.__dict__["model"] = Model(model, numbered(model), None)  # type: ignore[arg-type]
    start.__dict__["previous_config"] = model
    assert start.encoder([]).layers == 2
    steps = shared_steps.tiny(replace(model, encoder=dict(layers=2)))
    result = start._transfer(steps)
    assert result.initialized == result.unused == []
    assert result.params["encoder/layers/mlp/up/bias"][:, 0].tolist() == [2, 4]
    said = layer_selection.describe_layers(model.encoder, 2, "them")
    assert said == "layers 1 to 2 start as layers 2, 4 of the 4 of them"


def test_a_model_card_names_the_model_and_the_teacher_that_a_run_began_with() -> None:
    distill = Distill(teacher="owner/big", teacher_commit="abc")
    config = Experiment(run=Run(init="runs/start"), distill=distill)
    assert origins(config) == [
        ("initialized from", "start"),
        ("learned from the teacher", "owner/big, commit abc"),
    ]
