"""Self-attention relations: whose queries they are, and the loss of a rendering in PyTorch."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives
from bert_jax.config import Encoder, Experiment, replace
from bert_jax.model import block
from bert_jax.objectives import relations
from bert_jax.objectives.base import apply_network
from tests.helpers import tiny_configs
from tests.helpers.tiny_configs import FAMILIES

SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]], np.int32)


def vectors(width: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0, 1.5, (2, 6, width)).astype(np.float32) for _ in range(3))


def torch_relations(student: Any, teacher: Any, heads: int, packed: bool) -> Any:
    """MiniLMv2's loss with PyTorch's own functions, token by token."""
    import torch
    from torch.nn import functional as F

    total, tokens = torch.zeros(()), 0
    for b, row in enumerate(SEGMENTS):
        for t, segment in enumerate(row):
            if not segment:
                continue
            keys = np.flatnonzero(row == segment if packed else row > 0)
            tokens += 1
            for x, y in zip(student, teacher, strict=True):
                for h in range(heads):
                    log_q, log_p = (
                        F.log_softmax(part[b, keys] @ part[b, t] / math.sqrt(part.shape[-1]), -1)
                        for part in (z.chunk(heads, dim=-1)[h] for z in (x, y))
                    )
                    total = total + F.kl_div(log_q, log_p, reduction="sum", log_target=True) / heads
    return total / tokens


@pytest.mark.peer
@pytest.mark.parametrize("packed", [False, True])
def test_relations_and_their_gradients_are_those_of_torch(packed: bool) -> None:
    """Of a student of width 8 and a teacher of width 12, in four relation heads."""
    import torch

    student, teacher = vectors(8, 0), vectors(12, 1)

    @jax.jit
    @jax.value_and_grad
    def loss(student: Any) -> Any:
        segments = jnp.asarray(SEGMENTS)
        return relations.relation_loss(student, teacher, segments, packed, 4).value

    value, gradient = loss(jax.tree.map(jnp.asarray, student))
    tensors = [torch.tensor(x, requires_grad=True) for x in student]
    expected = torch_relations(tensors, [torch.tensor(x) for x in teacher], 4, packed)
    expected.backward()
    assert np.allclose(value, expected.item(), rtol=1e-5)
    for mine, tensor in zip(gradient, tensors, strict=True):
        assert np.allclose(mine, tensor.grad.numpy(), rtol=1e-5, atol=1e-6)


NORMLESS = dict(layers=3, pre_norm=True, first_norm=False)


@pytest.mark.parametrize(
    ("family", "encoder"),
    [
        ("bert", NORMLESS),
        pytest.param("bert", dict(layers=3), marks=pytest.mark.slow),
        pytest.param("albert", dict(share_params="mlp", groups=1), marks=pytest.mark.slow),
    ],
)
def test_vectors_are_those_that_the_layer_attends_with(
    family: str, encoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_configs.without_dropout(replace(FAMILIES[family], encoder=encoder))
    objective = objectives.build(config)
    network, params = objective.encoder(tiny_configs.initial_params(config))
    network = network.clone(heads={}, return_layers=True)
    seen: list[Any] = []
    attend = block.attention

    def watched(q: Any, k: Any, v: Any, *rest: Any) -> Any:
        jax.debug.callback(lambda *qkv: seen.append(qkv), q, k, v)
        return attend(q, k, v, *rest)

    @jax.jit
    def vectors(params: Any, batch: Any) -> Any:
        layers = apply_network(network, params, batch, None)["layers"]
        numbers = range(1, config.encoder.layers + 1)
        return [
            relations.queries_keys_values(params, network.config, layers[n - 1], n) for n in numbers
        ]

    monkeypatch.setattr(block, "attention", watched)
    found = vectors(params, tiny_configs.batch(2))
    jax.effects_barrier()
    assert len(seen) == len(found)
    for own in found:
        merged = [[np.swapaxes(x, 1, 2).reshape(2, 32, -1) for x in qkv] for qkv in seen]
        assert any(all(map(partial(np.allclose, atol=1e-5), own, other)) for other in merged)


def test_layers_are_counted_from_both_ends() -> None:
    encoder = Encoder(layers=6)
    assert [relations.resolve_layer(n, encoder) for n in (None, 1, 6, -1, -6)] == [6, 1, 6, 6, 1]
    for layer in (7, -7):
        with pytest.raises(ValueError, match="the teacher has 6 layers: expected 1 to 6"):
            relations.resolve_layer(layer, encoder)


def test_relation_heads_divide_both_widths() -> None:
    with pytest.raises(ValueError, match="relation_heads is 5, but the student's width is 24"):
        relations.check_heads(5, teacher=Encoder(hidden_size=30, heads=2), student=narrow().encoder)


def narrow() -> Experiment:
    return FAMILIES["bert"]
