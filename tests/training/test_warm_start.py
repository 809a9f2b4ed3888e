"""Runs that begin with another model: what they take over, what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from bert_jax import config, convert, load, objectives
from bert_jax.cli import main as cli
from bert_jax.config import ELECTRA, Experiment, Imported, replace
from bert_jax.convert.export import export_model
from bert_jax.data.prepare import prepare_corpus
from bert_jax.data.tokenization import tokenizer
from bert_jax.data.tokenization.training import train_tokenizer
from bert_jax.distributed import sharding
from bert_jax.inference import import_model
from bert_jax.inference import model as inference_model
from bert_jax.model import electra
from bert_jax.training import warm_start
from bert_jax.training.pretrain import pretrain
from bert_jax.training.step import compile_steps
from bert_jax.utils.pytree import flatten_with_names
from tests.helpers.hf_fixtures import random_params, write_hf_folder
from tests.helpers.paths import ROOT
from tests.helpers.tiny_configs import FAMILIES

# ---- which parameter goes where


def shapes(experiment: Experiment) -> Any:
    return objectives.param_shapes(experiment)


def inherit(source: Experiment, target: Experiment) -> warm_start.TransferResult:
    """`target` from a model of `source`, by shapes alone."""
    model = inference_model.Model(source, shapes(source), None)  # type: ignore[arg-type]
    return warm_start.transfer_params(model, shapes(target))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_the_same_objective_gives_all_it_has(family: str) -> None:
    result = inherit(FAMILIES[family], FAMILIES[family])
    assert (result.initialized, result.unused) == ([], [])
    assert result.params.keys() == flatten_with_names(shapes(FAMILIES[family])).keys()


def test_what_one_side_lacks_is_named() -> None:
    bert, spanbert = FAMILIES["bert"], FAMILIES["spanbert"]
    result = inherit(bert, spanbert)
    assert {n.split("/")[0] for n in result.initialized} == {"sbo"}
    assert {n.split("/")[0] for n in result.unused} == {"pooler", "pair"}
    assert result.params["mlm/bias"].shape == (64,)


def test_a_discriminator_alone_leaves_the_generator_to_chance() -> None:
    electra = FAMILIES["electra"]
    result = inherit(replace(electra, objective=Imported("electra", rtd=True)), electra)
    assert all(n.startswith("generator/") for n in result.initialized)
    assert not any("embeddings" in n for n in result.initialized)  # which both towers share
    assert result.unused == []


@pytest.mark.parametrize("target_tied", ["all", "none", "gradient_disentangled"])
def test_what_differs_stays_a_sum(target_tied: str) -> None:
    """Between towers with and without tables of differences, the tables of each tower that the
    target has stay what they were."""
    source_tied = "none" if target_tied == "gradient_disentangled" else "gradient_disentangled"
    source, target = (
        replace(FAMILIES["electra"], objective=dict(tied=t)) for t in (source_tied, target_tied)
    )
    params = jax.tree.map(
        lambda x: np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32),
        shapes(source),
    )
    model = inference_model.Model(source, params, None)  # type: ignore[arg-type]
    result = warm_start.transfer_params(model, shapes(target))
    assert result.initialized == []
    taken = traverse_util.unflatten_dict(result.params, sep="/")
    for tower in ("discriminator", *(["generator"] if target_tied != "all" else [])):
        before, after = (electra.merge_tower(p, tower)["embeddings"] for p in (params, taken))
        np.testing.assert_allclose(after["word"], before["word"], atol=1e-6)


@pytest.mark.parametrize("source_tied", ["all", "words", "none"])
@pytest.mark.parametrize("target_tied", ["all", "words", "none"])
def test_towers_keep_their_parameters_however_they_are_tied(
    source_tied: str, target_tied: str
) -> None:
    tied = (source_tied, target_tied)
    source, target = (replace(FAMILIES["electra"], objective=dict(tied=t)) for t in tied)
    result = inherit(source, target)
    assert result.initialized == []
    order = ["all", "words", "none"]
    # The generator gives up its own embeddings.
    shared = order.index(target_tied) < order.index(source_tied)
    assert all(n.startswith("generator/embeddings/") for n in result.unused)
    assert bool(result.unused) == shared


def test_a_generator_of_another_size_is_refused() -> None:
    target = replace(FAMILIES["electra"], objective=dict(generator_layers=0.5))
    with pytest.raises(ValueError, match=r"objective\.generator_size") as e:
        inherit(FAMILIES["electra"], target)
    assert "generator/encoder/layers/mlp/up/kernel [2, 8, 32], here [1, 8, 32]" in str(e.value)


def test_processes_with_other_models_are_told_what_to_do_with_the_run_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is made before the models are compared."""

    def refuse(name: str, _: object) -> None:
        raise ValueError(f"{name} differs: give all of them the same files")

    start = warm_start.WarmStart("m", replace(FAMILIES["bert"], run=dict(dir="runs/x")))
    nothing = warm_start.TransferResult({}, [], [])
    steps: Any = SimpleNamespace(_replace=lambda init: init)
    monkeypatch.setattr(warm_start.WarmStart, "_transfer", lambda *_: nothing)
    monkeypatch.setattr("bert_jax.distributed.initialize.check_same_content", refuse)
    init: Any = start.apply(steps)
    with pytest.raises(ValueError, match=r"run\.init m .* remove runs/x or choose another --run"):
        init()


# ---- runs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, and a run of two steps on it."""
    root = tmp_path_factory.mktemp("init")
    words = (ROOT / "data/sample.txt").read_text()[:40_000].split()
    lines = [" ".join(words[i : i + 200]) for i in range(0, len(words), 200)]
    (root / "text.txt").write_text("\n\n".join(lines) + "\n")
    train_tokenizer(lines, "wordpiece", 300).save(root / "tok")
    texts = [str(root / "text.txt")]
    once = dict(duplicates=1, progress=False)
    prepare_corpus(texts, root / "tok", "nsp", 32, root / "nsp", **once)
    assert pretrain(experiment_of(root, "bert", "first")) is None
    return root


def experiment_of(root: Path, family: str, run: str, **more: Any) -> Experiment:
    return replace(
        FAMILIES[family],
        data=dict(path=str(root / "nsp")),
        optim=dict(decay_steps=6),
        run=dict(dir=str(root / run), steps=2) | more,
    )


def without_updates(experiment: Experiment) -> Experiment:
    """The run that learns nothing, so that it ends with what it began with."""
    return replace(experiment, optim=dict(peak_lr=0.0))


@pytest.mark.slow
def test_a_run_begins_with_the_model(workspace: Path, caplog: Any) -> None:
    """And goes on by itself: the same command again needs the model no more."""
    shutil.copytree(workspace / "first", workspace / "gone")
    experiment = experiment_of(workspace, "spanbert", "second", init=str(workspace / "gone"))
    run = without_updates(experiment)
    run = replace(run, encoder=dict(hidden_size=48, dropout=0.3))  # the model's is 24
    caplog.set_level("INFO", "bert_jax")
    pretrain(run)
    log = caplog.text
    assert f"not in {workspace / 'gone'}, initialized at random: sbo/" in log
    assert "not used by the objective: pair/dense/bias" in log
    before, after = (load(workspace / name) for name in ("first", "second"))
    assert after.config.encoder == replace(before.config.encoder, dropout=0.3)
    old, new = flatten_with_names(before.params), flatten_with_names(after.params)
    shared = old.keys() & new.keys()
    assert {n.split("/")[0] for n in shared} == {"embeddings", "encoder", "mlm"}
    assert all(np.array_equal(old[n], new[n]) for n in shared)

    shutil.rmtree(workspace / "gone")
    pretrain(replace(run, run=dict(steps=3)))
    rows = [json.loads(line) for line in (workspace / "second/metrics.jsonl").open()]
    assert [r["step"] for r in rows] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"run\.init was '.*gone', now '.*first'"):
        pretrain(replace(run, run=dict(init=str(workspace / "first"))))
    with pytest.raises(ValueError, match=r"encoder\.dropout was 0\.3, now 0\.1"):
        pretrain(replace(run, encoder=dict(dropout=0.1)))


@pytest.mark.slow
def test_an_imported_electra_goes_on(workspace: Path, tmp_path: Path) -> None:
    """Exported tower by tower, imported as one, and the same state again."""
    experiment = experiment_of(workspace, "electra", str(tmp_path / "run"))
    words = tokenizer.load_tokenizer(workspace / "tok")
    experiment = replace(
        experiment, encoder=dict(vocab_size=300, pad_id=words.pad_id), objective=dict(tied="words")
    )
    params = random_params(experiment)
    first = inference_model.Model(experiment, params, words)
    for part in ("discriminator", "generator"):
        export_model(first, workspace / "tok", "hf", tmp_path / part, part)
    import_model.import_folder(
        tmp_path / "discriminator", tmp_path / "joint", generator=tmp_path / "generator"
    )
    mesh = sharding.make_mesh(experiment.mesh)
    steps = compile_steps(experiment, objectives.build(experiment), mesh)
    state = warm_start.WarmStart(str(tmp_path / "joint"), experiment).apply(steps).init()
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, state.params)))
    assert (int(state.step), any(x.any() for x in jax.tree.leaves(state.opt))) == (0, False)


@pytest.mark.slow
def test_a_hugging_face_folder_of_another_tokenizer_is_refused(
    workspace: Path, tmp_path: Path
) -> None:
    hf = write_hf_folder(tmp_path / "hf")
    run = experiment_of(workspace, "bert", str(tmp_path / "run"), init=str(hf))
    with pytest.raises(ValueError, match=rf"another tokenizer .* prepare it with --tokenizer {hf}"):
        pretrain(run)
    assert not (tmp_path / "run").exists()


def test_the_encoder_cannot_be_asked_for_twice(tmp_path: Path, capsys: Any) -> None:
    arguments = ["pretrain", ROOT / "configs/tiny_bert.py", "--init", tmp_path / "model"]
    arguments += ["--data.path", tmp_path / "corpus", "--run.dir", tmp_path / "run"]
    with pytest.raises(SystemExit) as e:
        cli.main([str(a) for a in [*arguments, "--encoder.mlp-size", 8]])
    assert e.value.code == 2
    assert "--encoder.mlp-size cannot be used with --init" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.peer
def test_a_run_fills_masks_there_as_here(workspace: Path, tmp_path: Path) -> None:
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    model = load(workspace / "first")
    export_model(model, workspace / "first", "hf", tmp_path / "hf")
    hf = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "The [MASK] of the war and the [MASK]."
    ids = words(text, return_tensors="pt")
    with torch.no_grad():
        probabilities = hf(**ids).logits.softmax(-1)[ids["input_ids"] == words.mask_token_id]
    for row, guesses in zip(probabilities.numpy(), model.fill(text), strict=True):
        for token, p in guesses:
            assert abs(row[words.convert_tokens_to_ids(token)] - p) <= 1e-5 * row.max()


# ---- larger models


@pytest.mark.slow
def test_more_words_and_positions(workspace: Path, tmp_path: Path, caplog: Any) -> None:
    """The old rows stay, new words are words, and a run goes on from there."""
    caplog.set_level("INFO", "bert_jax")
    words = ["zyzzyva", "covfefe", "the"]
    out = tmp_path / "grown"
    drawn = import_model.import_folder(workspace / "first", out, words=words, positions=70)
    assert drawn == []
    assert "words that are in the vocabulary already: 1 (the)" in caplog.text
    old, new = load(workspace / "first"), load(out)
    assert (new.config.encoder.vocab_size, new.config.encoder.max_length) == (302, 70)
    assert new.tokenizer.encode("Zyzzyva, covfefe")[::2] == [300, 301]
    a, b = flatten_with_names(old.params), flatten_with_names(new.params)
    assert np.array_equal(a["embeddings/word"], b["embeddings/word"][:300])
    for i, word in enumerate(words[:2], 300):  # the mean of the pieces that it replaces
        pieces = old.tokenizer.encode(word)
        for name in ("embeddings/word", "mlm/bias"):
            assert np.allclose(b[name][i], np.asarray(a[name])[pieces].mean(0), atol=1e-7)
    position = a["embeddings/position"]
    assert np.array_equal(b["embeddings/position"], np.tile(position, (3, 1))[:70])
    assert np.array_equal(old.encode(["of the war"]), new.encode(["of the war"]))

    texts, once = [str(workspace / "text.txt")], dict(duplicates=1, progress=False)
    prepare_corpus(texts, out / "tokenizer", "nsp", 64, tmp_path / "long", **once)
    run = experiment_of(workspace, "bert", str(tmp_path / "run"), init=str(out), steps=1)
    run = replace(run, encoder=dict(max_length=64), data=dict(length=None))
    pretrain(replace(run, data=dict(path=str(tmp_path / "long"))))
    assert load(tmp_path / "run").config.encoder.vocab_size == 302


def test_rows_of_padding_are_taken_first() -> None:
    experiment = replace(ELECTRA, encoder=dict(vocab_size=10, hidden_size=8, heads=1, layers=1))
    params = {
        "embeddings": {"word": np.ones((10, 8), np.float32)},
        "generator": {"mlm": {"bias": np.ones(10, np.float32)}},
    }
    grown, params = convert.resize_token_embeddings(experiment, params, 6, 8)
    assert grown.encoder.vocab_size == 10
    assert params["generator"]["mlm"]["bias"].tolist() == [1] * 6 + [0] * 2 + [1] * 2
    assert (params["embeddings"]["word"] == 1).all(axis=1).tolist() == [True] * 6 + [
        False,
        False,
        True,
        True,
    ]


def test_positions_repeat_behind_the_offset() -> None:
    """RoBERTa's rows 0 and 1 are never looked up."""
    experiment = replace(config.ROBERTA, encoder=dict(max_length=3))
    tree = {"embeddings": {"position": np.arange(5.0)[:, None]}}
    grown, tree = convert.resize_position_embeddings(experiment, tree, 7)
    assert tree["embeddings"]["position"][:, 0].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 2]
    assert grown.encoder.position_rows == 9
    with pytest.raises(
        ValueError, match="--positions is 3, but the model already has 3: expected more"
    ):
        convert.resize_position_embeddings(experiment, tree, 3)
