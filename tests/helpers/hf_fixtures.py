"""Recorded models of transformers: as arrays, as our networks, and as folders of both formats."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from bert_jax import config, convert, objectives
from bert_jax.checkpoint import manager
from bert_jax.config import Experiment
from bert_jax.data.tokenization import tokenizer as tokenizers
from bert_jax.model import Network
from bert_jax.utils import pytree
from tests.helpers.paths import FIXTURES

GOLDEN = FIXTURES / "golden"


@cache
def load_golden(kind: str) -> dict[str, Any]:
    """The arrays of a golden file, grouped by the first part of their names."""
    out: dict[str, Any] = {}
    for name, array in np.load(GOLDEN / f"{kind}.npz").items():
        folder, _, rest = name.partition("/")
        out.setdefault(folder, {})[rest] = array
    return {k: v.get("", v) if len(v) == 1 else v for k, v in out.items()}


def golden_model(kind: str, **changes: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads(str(load_golden(kind)["config"])) | changes, dict(load_golden(kind)["weight"])


def relative_error(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


def make_network(experiment: Any, params: Any) -> Network:
    heads = {h: convert.HEADS[h] for h in params if h in convert.HEADS}
    order = [h for h in convert.HEADS if h in heads]
    return Network(experiment.encoder, {h: heads[h] for h in order}, return_layers=True)


def random_params(experiment: Experiment) -> Any:
    """Parameters of which none is close to a constant, so that each matters. Drawn by NumPy: the
    law of initialization does not matter here, and its program takes two seconds to compile."""
    rng = np.random.default_rng(0)

    def draw(path: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        center = 1.0 if path[-1].key == "scale" else 0.0
        return jax.device_put(rng.normal(center, 0.1, like.shape).astype(like.dtype))

    shapes = objectives.param_shapes(experiment)
    return jax.tree_util.tree_map_with_path(draw, shapes)


SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class LoadedModel(NamedTuple):
    """What `bert_jax.load` gives, as far as an export goes."""

    config: Any
    params: Any
    tokenizer: Any
    step: int = 0
    sentence: Any = None


def write_hf_folder(folder: Path, kind: str = "bert", pieces: int = 37, **changes: Any) -> Path:
    """A recorded model as it would have been saved, with a tokenizer of single letters."""
    hf, tensors = golden_model(kind, **changes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    letters = [chr(ord("a") + i) for i in range(26)] + [f"##{i}" for i in range(pieces)]
    vocabulary = [*SPECIALS, *letters][:pieces]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in vocabulary))
    return folder


def read_hf_folder(folder: Path) -> LoadedModel:
    experiment, params, tokenizer_dir = convert.read_hf_folder(folder)
    return LoadedModel(experiment, params, tokenizers.load_tokenizer(tokenizer_dir))


def read_imported_folder(folder: Path) -> LoadedModel:
    """An imported folder, read as that of a run is."""
    experiment = config.read_config(folder / "config.json")
    heads = getattr(experiment.objective, "heads", ("mlm", "pooler", "pair"))
    like = convert.param_shapes(experiment.encoder, heads)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = pytree.abstract(like, jax.tree.map(lambda _: here, like))
    checkpoints = manager.Checkpoints(folder / "checkpoints", read_only=True)
    assert checkpoints.newest() == 0
    params = checkpoints.restore_params(0, shapes)
    return LoadedModel(experiment, params, tokenizers.load_tokenizer(folder / "tokenizer"))


def package(name: str) -> Path:
    """The folder of an installed package; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0])
