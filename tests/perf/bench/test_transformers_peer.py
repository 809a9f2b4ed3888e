"""The peer of transformers computes the same loss."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config, objectives
from bert_jax.config import ELECTRA, Experiment, Masked, Optim, replace
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.perf import bench
from bert_jax.perf.bench import BenchOptions, transformers_peer
from bert_jax.perf.bench.options import masked_lm_config
from bert_jax.perf.bench.transformers_peer import decay_groups
from tests.helpers import tiny_configs
from tests.helpers.paths import SAMPLE

TINY = replace(tiny_configs.FAMILIES["bert"], run=dict(steps=100))


def run_bench(config: Experiment, **options: Any) -> dict[str, Any]:
    result = bench.bench(config, BenchOptions(steps=2, **options), log=lambda _: None)
    return json.loads(json.dumps(result))


@pytest.mark.peer
@pytest.mark.slow_unless("roberta", nightly=("bert",))
@pytest.mark.parametrize("family", tiny_configs.FAMILIES)
def test_the_peer_has_the_same_loss(family: str) -> None:
    """With the same parameters and masked batch, gathered, stock and bert_jax agree."""
    from tests.helpers import hf_reference

    config = tiny_configs.without_dropout(masked_lm_config(tiny_configs.FAMILIES[family]))
    peer_family = transformers_peer.peer_family(tiny_configs.FAMILIES[family])
    objective = objectives.build(config, tiny_configs.VOCABULARY)
    batch = tiny_configs.batch()
    batch["tokens"] = jnp.where(batch["tokens"] == 1, 4, batch["tokens"])  # RoBERTa's padding
    batch = jax.jit(objective.corrupt)(batch, jax.random.key(0))
    gathered, stock = (
        transformers_peer.Transformers(config, peer_family, [jax.device_get(batch)], "cpu", stock)
        for stock in (False, True)
    )
    if family == "roberta":  # in transformers it has a table of types, in bert_jax none
        gathered.model.roberta.embeddings.token_type_embeddings.weight.data.zero_()
    stock.model.load_state_dict(gathered.model.state_dict())
    _, params = hf_reference.to_native(gathered.model)
    mean = jax.jit(lambda p: objective.terms(p, batch, None)["mlm_loss"])(params)
    for peer in (gathered, stock):
        assert peer.loss(**peer._pool[0]).item() == pytest.approx(float(mean.value), rel=1e-5)


def test_norms_and_biases_are_not_decayed_whatever_their_names() -> None:
    names = ("q_lin.weight", "q_lin.bias", "sa_layer_norm.weight", "LayerNorm.weight")
    model = SimpleNamespace(named_parameters=lambda: [(name, name) for name in names])
    groups = {g["weight_decay"]: g["params"] for g in decay_groups(model, Optim())}
    assert groups == {0.01: ["q_lin.weight"], 0.0: list(names[1:])}
    all_decay = [{"params": list(names), "weight_decay": 0.01}]
    assert decay_groups(model, Optim(decay="all")) == all_decay


@pytest.mark.slow
@pytest.mark.peer
def test_the_peer_of_a_modern_encoder_is_modernbert() -> None:
    modern = dict(pre_norm=True, positions="rotary", gated_mlp=True, biases=False, window=4)
    config = masked_lm_config(replace(TINY, encoder=modern | dict(global_every=2)))
    objective = objectives.build(config, tiny_configs.VOCABULARY)
    batch = jax.device_get(objective.corrupt(tiny_configs.batch(), jax.random.key(0)))
    family = transformers_peer.peer_family(config)
    assert family == "modernbert"
    for stock in (False, True):
        peer = transformers_peer.Transformers(config, family, [batch], "cpu", stock)
        peer.step()
        peer.wait()
    assert peer.model.config.layer_types == ["full_attention", "sliding_attention"]
    layers = objective.init(jax.random.key(0))["encoder"]["layers"]
    peer_layers = peer.model.model.layers
    assert sum(x.size for x in jax.tree.leaves(layers)) == pytest.approx(
        sum(p.numel() for p in peer_layers.parameters()), rel=0.01
    )


@pytest.mark.slow
@pytest.mark.peer
def test_against_gives_a_ratio_to_each_variant() -> None:
    result = run_bench(tiny_configs.FAMILIES["electra"], batch_size=2, against=True, compile=False)
    against = result["against"]
    assert result["objective"] == "Masked"
    assert (against["family"], result["devices"]) == ("electra", 1)
    assert set(against["sides"]) == {"gathered", "stock"}
    pairs = zip(against["sides"]["gathered"]["rounds"], result["rounds"], strict=True)
    assert result["ratio"] == pytest.approx(np.median([a / b for a, b in pairs]))
    assert result["ratio_stock"] == against["sides"]["stock"]["ratio"]
    assert "ratio to stock" in bench.render_bench(result)


def test_against_trains_the_masked_language_model_of_the_encoder() -> None:
    masked_lm = masked_lm_config(ELECTRA)
    assert isinstance(masked_lm.objective, Masked)
    assert masked_lm.encoder == ELECTRA.encoder
    assert masked_lm.objective.masking == config.ELECTRA.objective.masking  # type: ignore[union-attr]


def test_without_pytorch_the_peer_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs PyTorch .*pip install 'torch==.*' 'transformers"):
        run_bench(TINY, against=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text as three corpora: plain/, packed/, and other/ by another tokenizer."""
    folder = tmp_path_factory.mktemp("bench")
    text = [d[:400] for d in SAMPLE.read_text(encoding="utf-8").split("\n\n")[:30]]
    (folder / "text").write_text("\n\n".join(text), encoding="utf-8")
    for name, pieces, pack in (("plain", 400, 0), ("packed", 400, 2), ("other", 300, 0)):
        train_tokenizer(text, "wordpiece", pieces).save(folder / str(pieces))
        args = [str(folder / "text")], folder / str(pieces), "full", tiny_configs.LENGTH
        prepare_corpus(*args, folder / name, progress=False, pack=pack)
    return folder


@pytest.mark.peer
@pytest.mark.parametrize(
    ("data", "packed", "message"),
    [
        ("packed", None, "--data has packed rows, which --against transformers cannot take"),
        ("packed", "packed", "--data has packed rows"),
        ("other", "packed", "--packed has a vocabulary of 400, --data of 300"),
    ],
)
def test_a_corpus_that_the_peer_cannot_train_on_is_refused_before_compiling(
    data: str, packed: str | None, message: str, prepared: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bench, "BertJax", None)
    corpora = {"data": str(prepared / data), "packed": packed and str(prepared / packed)}
    with pytest.raises(ValueError, match=message):
        run_bench(TINY, against=True, **corpora)
