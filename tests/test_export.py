"""Folders in and out: what is read, what is refused, and what others make of what we write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file
from test_convert import error, network, recorded

from bert_jax import checkpoint, config, convert, importing
from bert_jax.config import Imported
from bert_jax.export import export, metrics
from bert_jax.text import tokenizer as tokenizers

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Model(NamedTuple):
    """What `bert_jax.load` gives, as far as an export goes."""

    config: Any
    params: Any
    tokenizer: Any
    step: int = 0


def hf_folder(folder: Path, kind: str = "bert", pieces: int = 37, **changes: Any) -> Path:
    """A recorded model as it would have been saved, with a tokenizer of single letters."""
    hf, tensors = recorded(kind, **changes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    letters = [chr(ord("a") + i) for i in range(26)] + [f"##{i}" for i in range(pieces)]
    vocabulary = [*SPECIALS, *letters][:pieces]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in vocabulary))
    return folder


def read(folder: Path) -> Model:
    experiment, params, beside = convert.read_folder(folder)
    return Model(experiment, params, tokenizers.load(beside))


def imported(folder: Path) -> Model:
    """An imported folder, read as that of a run is."""
    experiment = config.read(folder / "config.json")
    heads = getattr(experiment.objective, "heads", ("mlm", "pooler", "pair"))
    like = convert.shapes_of(experiment.encoder, heads)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = checkpoint.abstract(like, jax.tree.map(lambda _: here, like))
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", read_only=True)
    assert checkpoints.newest() == 0
    params = checkpoints.restore_params(0, shapes)
    return Model(experiment, params, tokenizers.load(folder / "tokenizer"))


# ---- in and out


@pytest.mark.parametrize("kind", ["bert", "albert", "electra", "electra_generator"])
def test_import_then_export_gives_back_every_bit(kind: str, tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf", kind)
    assert importing.import_folder(hf, tmp_path / "ours") == []
    assert export(imported(tmp_path / "ours"), tmp_path / "ours", "hf", tmp_path / "back") == []
    a, b = (load_file(f / "model.safetensors") for f in (hf, tmp_path / "back"))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert (hf / "vocab.txt").read_bytes() == (tmp_path / "back/vocab.txt").read_bytes()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["back", "hf", "ours"]  # and no working folders


def test_missing_heads_are_made_when_asked_for_and_named(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    bare = {k: v for k, v in tensors.items() if not k.startswith(("cls.", "bert.pooler"))}
    save_file(bare, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing bert\.pooler\.dense\.weight"):
        importing.import_folder(hf, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    drawn = importing.import_folder(hf, tmp_path / "ours", heads=("mlm", "pair"))
    assert drawn == ["mlm/bias", "mlm/dense/bias", "mlm/dense/kernel", "mlm/norm/bias",
                     "mlm/norm/scale", "pair/dense/bias", "pair/dense/kernel",
                     "pooler/dense/bias", "pooler/dense/kernel"]  # fmt: skip
    assert imported(tmp_path / "ours").config.objective == config.BERT.objective
    with pytest.raises(ValueError, match="bert has no head 'rtd': expected mlm"):
        importing.import_folder(hf, tmp_path / "x", heads=("mlm", "pair", "rtd"))


def test_a_tokenizer_may_lie_elsewhere_and_tensors_be_passed_over(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf", architectures=["Other"])
    tensors = load_file(hf / "model.safetensors")
    save_file({**tensors, "cls.extra.weight": np.ones((2, 2))}, hf / "model.safetensors")
    (tmp_path / "tok").mkdir()
    shutil.move(hf / "vocab.txt", tmp_path / "tok/vocab.txt")
    importing.import_folder(
        hf, tmp_path / "ours", tokenizer=tmp_path / "tok", drop=["cls.extra", "cls.seq"]
    )
    assert imported(tmp_path / "ours").config.objective == Imported("bert", mlm=True, pooler=True)


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    whole = convert.read_folder(hf)[1]
    shard(hf)
    same = jax.tree.map(np.array_equal, convert.read_folder(hf)[1], whole)
    assert all(jax.tree.leaves(same))


def shard(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {k: f"model-{i % 2}.safetensors" for i, k in enumerate(tensors)}
    for file in set(where.values()):
        save_file({k: v for k, v in tensors.items() if where[k] == file}, folder / file)
    index(folder, where)
    return where


def index(folder: Path, where: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


# ---- what is refused, each with one message and nothing written


def refused(hf: Path, message: str, **kwargs: Any) -> None:
    out = hf.parent / "refused"
    with pytest.raises(ValueError, match=message):
        importing.import_folder(hf, out, **kwargs)
    assert not [p for p in hf.parent.iterdir() if "refused" in p.name]


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd", "..", "a\\b", ""])
def test_a_path_out_of_the_folder(outside: str, tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    where = shard(hf)
    index(hf, where | {"bert.pooler.dense.bias": outside})
    refused(hf, "expected the name of a file in the same folder")


def test_an_index_that_does_not_hold(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    where = shard(hf)
    index(hf, where | {"bert.pooler.dense.bias": "model-7.safetensors"})
    refused(hf, r"names model-7\.safetensors, which is not there")
    index(hf, where | {"bert.other": "model-0.safetensors"})
    refused(hf, r"promises tensors that its files do not hold: bert\.other")
    index(hf, ["model-0.safetensors"])
    refused(hf, "has no weight_map")


@pytest.mark.parametrize("how", ["cut", "absurd", "empty", "not json", "overflow"])
def test_damaged_weights(how: str, tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    path = hf / "model.safetensors"
    raw = path.read_bytes()
    wide = json.dumps({"a": {"dtype": "F32", "shape": [2**40] * 2, "data_offsets": [0, 4]}})
    path.write_bytes({
        "cut": raw[:-7], "absurd": (2**62).to_bytes(8, "little") + raw[8:], "empty": b"",
        "not json": raw[:8] + b"{" * (len(raw) - 8),
        "overflow": len(wide).to_bytes(8, "little") + wide.encode() + b"0000",
    }[how])  # fmt: skip
    refused(hf, r"model\.safetensors is not a sound safetensors file")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = np.nan
    save_file(tensors, hf / "model.safetensors")
    refused(hf, r"not finite bert\.encoder\.layer\.1\.output\.dense\.bias")


def test_folders_of_something_else(tmp_path: Path) -> None:
    refused(hf_folder(tmp_path / "a", model_type="t5"), "model_type 't5': expected one of bert")
    hf = hf_folder(tmp_path / "b")
    (hf / "config.json").write_text("[1]")
    refused(hf, "expected a JSON object")
    (hf / "config.json").write_text("{")
    refused(hf, "is not readable JSON")
    (hf / "config.json").unlink()
    refused(hf, r"holds no config\.json: expected a Hugging Face folder")
    hf = hf_folder(tmp_path / "c")
    (hf / "model.safetensors").unlink()
    refused(hf, r"no weights: expected model\.safetensors")
    hf = hf_folder(tmp_path / "d", pieces=38)
    refused(hf, "38 pieces, the word table 37 rows")
    hf = hf_folder(tmp_path / "e", pad_token_id=3)
    refused(hf, "padding is id 0, the config's pad_token_id 3")


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    with pytest.raises(ValueError, match="exists and is not empty"):
        importing.import_folder(hf, hf)
    with pytest.raises(ValueError, match="exists and is not empty"):
        export(read(hf), hf, "hf", hf)
    with pytest.raises(ValueError, match="expected hf, orbax, stablehlo"):
        export(read(hf), hf, "onnx", tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only an ELECTRA with both its towers"):
        export(read(hf), hf, "hf", tmp_path / "x", part="generator")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_pickle_is_not_opened_unasked(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    (hf / "model.safetensors").rename(hf / "pytorch_model.bin")
    refused(hf, "a pickle, which could run code")


@pytest.mark.peer
def test_a_pickle_is_opened_as_tensors_alone(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    hf = hf_folder(tmp_path / "hf")
    whole = convert.read_folder(hf)[1]
    tensors = load_file(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, hf / "pytorch_model.bin")
    same = jax.tree.map(np.array_equal, convert.read_folder(hf, allow_pickle=True)[1], whole)
    assert all(jax.tree.leaves(same))

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"a": Trap()}, hf / "pytorch_model.bin")
    refused(hf, "is not a file of tensors alone", allow_pickle=True)
    torch.save([1], hf / "pytorch_model.bin")
    refused(hf, "something other than named tensors", allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


# ---- what others make of it


def test_the_model_card_says_what_is_known(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "eval_loss": 2.5}]
    (hf / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (hf / "results.json").write_text(json.dumps({"dev": {"accuracy": 0.75}}))
    assert metrics(hf) == {"eval_loss": 2.5, "dev accuracy": 0.75}
    export(read(hf)._replace(step=40), hf, "hf", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    for part in ("| steps | 40 of 1000000", "| dev accuracy | 0.7500 |", "peak_lr 0.0001"):
        assert part in text


def test_orbax_alone_reads_the_tree(tmp_path: Path) -> None:
    hf = hf_folder(tmp_path / "hf")
    model = read(hf)
    export(model, hf, "orbax", tmp_path / "out")
    with ocp.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore((tmp_path / "out/params").absolute())
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back, model.params)))
    assert config.read(tmp_path / "out/config.json") == model.config


ALONE = """
import sys, jax, numpy as np
from safetensors.numpy import load_file
folder = sys.argv[1]
function = jax.export.deserialize(open(folder + "/model.stablehlo", "rb").read())
weights = load_file(folder + "/model.safetensors")
for i in range(2):
    given = np.load(f"{folder}/given{i}.npz")
    out = function.call(weights, given["tokens"], given["mask"], given["types"])
    np.savez(f"{folder}/made{i}.npz", **out)
assert not any(m.startswith(("bert_jax", "flax")) for m in sys.modules)
"""


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_the_compiled_function_needs_nothing_of_ours(kind: str, tmp_path: Path) -> None:
    """Two batch sizes and lengths, in a process that never imports this package."""
    pytest.importorskip("flatbuffers")
    hf, out = hf_folder(tmp_path / "hf", kind), tmp_path / "out"
    model = read(hf)
    assert export(model, hf, "stablehlo", out) == []
    rng, net = np.random.default_rng(0), network(model.config, model.params)
    expected = []
    for i, shape in enumerate([(2, 7), (5, 19)]):
        mask = np.arange(shape[1]) < rng.integers(3, shape[1] + 1, shape[0])[:, None]
        given = {"tokens": rng.integers(0, 37, shape), "mask": mask,
                 "types": rng.integers(0, 2, shape)}  # fmt: skip
        given = {k: v.astype(np.int32) for k, v in given.items()}
        np.savez(out / f"given{i}.npz", **given)
        batch = {**given, "mask": mask[:, None], "masked": np.zeros((shape[0], 1), np.int32)}
        batch = jax.tree.map(jnp.asarray, batch)
        expected.append(net.apply({"params": jax.tree.map(jnp.asarray, model.params)}, batch))
    subprocess.run([sys.executable, "-c", ALONE, str(out)], check=True, cwd=tmp_path)
    signature = json.loads((out / "signature.json").read_text())
    for i, theirs in enumerate(expected):
        made = np.load(out / f"made{i}.npz")
        assert set(made) == set(signature["results"])
        for name in {"hidden", "pair", "pooler", "rtd"} & set(made):
            assert error(made[name], np.asarray(theirs[name])) <= 1e-5
        if "mlm" in made:
            assert made["mlm"].shape == (*made["hidden"].shape[:2], 37)
