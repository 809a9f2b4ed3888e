"""The modules of a sentence-transformers folder that follow the encoder, and their settings.

    modules.json                        the modules in order, with their folders
    sentence_bert_config.json           max_seq_length, do_lower_case; beside the encoder
    config_sentence_transformers.json   prompts, default_prompt_name, similarity_fn_name
    1_Pooling/config.json               pooling modes, include_prompt
    2_Dense/config.json                 sizes and activation, with model.safetensors
    3_Normalize/                        nothing, and often not even a folder

Read are Transformer, Pooling, Dense and Normalize, with the keys of sentence-transformers 2 to 6;
the number of tokens is that of the tokenizer where max_seq_length is absent.
Other modules are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import Contrastive, Experiment
from bert_jax.convert.hf_weights import (
    optional_json,
    read_json,
    read_json_value,
    read_tensors,
)
from bert_jax.model.pooling import POOLING_MODES, PoolingMode, normalize_l2, pool_tokens
from bert_jax.utils.model_files import (
    CROSS_ENCODER,
    ENCODER_SETTINGS_FILES,
    MODULES,
    SENTENCE_SETTINGS,
)
from bert_jax.utils.types import Json

SENTENCE_DIR = "sentence"  # of an imported folder: the same files without the encoder
NO_LIMIT = 10**6  # tokens; transformers writes a larger number where there is no limit
ENCODER_SETTINGS = "sentence_bert_config.json"

# Prompts that every model has, and their names in folders.
ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid"]
ACTIVATIONS: dict[str, Activation] = {  # of a Dense module, by the names of PyTorch's classes
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
POOLING_KEYS: dict[str, PoolingMode] = {  # before version 6, in the order of the vector's parts
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


DENSE_FUNCTIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "sigmoid": jax.nn.sigmoid,
}


class Dense(NamedTuple):
    """A dense layer on sentence vectors, float32."""

    kernel: np.ndarray  # [i o]
    bias: np.ndarray | None  # [o]
    activation: Activation


@dataclass(frozen=True)
class SentenceHead:
    """What makes a sentence vector of the encoder's last layer, and how vectors are compared.

    modules          what follows the pooling, in order: `Dense`, or "normalize"
    include_prompt   whether the prompt's tokens are pooled
    prompts          texts that are put before a text, by name
    default_prompt   the name of the prompt that is used if none is given
    max_length       maximum tokens per text; None means the encoder's
    lowercase        whether texts are lowercased before they are tokenized
    """

    pooling: tuple[PoolingMode, ...] = ("mean",)
    modules: tuple[Dense | Literal["normalize"], ...] = ()
    include_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lowercase: bool = False
    similarity: Similarity = "cosine"

    def prompt(self, name: str | None) -> str:
        """The text of a prompt: that of a name which the folder has, or else the string itself.
        None is the default prompt, and so are `query` and `document` where the folder has none (as
        in sentence-transformers' encode_query and encode_document)."""
        if name is not None:
            for known in ROLES.get(name, (name,)):
                if known in self.prompts:
                    return self.prompts[known]
        if name is None or name in ROLES:
            return "" if self.default_prompt is None else self.prompts[self.default_prompt]
        return name

    @property
    def normalized(self) -> bool:
        """Whether the vectors have length 1."""
        return bool(self.modules) and self.modules[-1] == "normalize"


def apply_sentence_head(
    head: SentenceHead, hidden: jax.Array, size: jax.Array, skip: jax.Array | None = None
) -> jax.Array:
    """[b l d] to [b m]: the vectors of a sentence head, float32. `skip` counts the tokens of each
    row's prompt, for heads that do not pool it."""
    x = pool_tokens(hidden, size, head.pooling, skip)
    for module in head.modules:
        if module == "normalize":
            x = normalize_l2(x)
            continue
        x = x @ module.kernel if module.bias is None else x @ module.kernel + module.bias
        x = DENSE_FUNCTIONS[module.activation](x)
    return x


def encoder_folder(folder: Path) -> Path:
    """Where the encoder of a model folder is: the folder itself, or the one that the modules.json
    of an old sentence-transformers folder names, such as 0_Transformer: before version 2 a
    config.json beside it held nothing but a version."""
    if not (folder / MODULES).is_file():
        return folder
    inner = _module_folder(folder, _modules(folder)[0])
    return folder if _is_model(folder) and not _is_model(inner) else inner


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def sentence_head(folder: Path, experiment: Experiment) -> SentenceHead | None:
    """The sentence head of a model folder of any kind; None if it makes no sentence vectors.
    ValueError: as `read_sentence_head`."""
    own, objective = folder / SENTENCE_DIR, experiment.objective
    if not isinstance(objective, Contrastive):
        return read_sentence_head(own if own.is_dir() else folder)
    return SentenceHead(
        (objective.pooling,),
        ("normalize",) if objective.normalize else (),
        prompts={"query": objective.query_prompt, "document": objective.document_prompt},
        max_length=experiment.data.length,
        similarity="cosine" if objective.normalize else "dot",
    )


def read_sentence_head(folder: Path, allow_pickle: bool = False) -> SentenceHead | None:
    """The sentence head of a folder; None if it has no modules.json, or if that is of a
    CrossEncoder, which makes no vectors. Without a Pooling module the pooling is the mean.
    `allow_pickle` as in `read_hf_folder`, for a Dense layer's weights.

    ValueError: a module that is not supported, or files that are missing, damaged or inconsistent.
    """
    if not (folder / MODULES).is_file():
        return None
    settings = optional_json(folder / SENTENCE_SETTINGS)
    if settings.get("model_type") == CROSS_ENCODER:
        return None
    first, *rest = _modules(folder)
    encoder = _encoder_settings(_module_folder(folder, first))
    fields: dict[str, Any] = {"modules": ()}
    for module in rest:
        name, path = module["type"].rsplit(".", 1)[-1], _module_folder(folder, module)
        if name == "Pooling" and "pooling" not in fields and not fields["modules"]:
            values = read_json(path / "config.json")
            fields["pooling"] = _pooling_modes(path, values)
            fields["include_prompt"] = bool(values.get("include_prompt", True))
        elif name == "Dense":
            fields["modules"] += (_read_dense(path, allow_pickle),)
        elif name == "Normalize":
            fields["modules"] += ("normalize",)
        else:
            raise ValueError(
                f"{folder / MODULES} has the module {module['type']} in a place where it is not "
                "supported: expected Transformer, Pooling, then Dense and Normalize; to use the "
                f"encoder alone, remove {MODULES}"
            )
    prompts, default = _prompts(folder, settings)
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity not in get_args(Similarity):
        raise ValueError(
            f"{folder / SENTENCE_SETTINGS} has similarity_fn_name {similarity!r}: expected one of "
            f"{', '.join(get_args(Similarity))}"
        )
    return SentenceHead(
        **fields,
        prompts=prompts,
        default_prompt=default,
        max_length=_max_length(folder, encoder),
        lowercase=encoder.get("do_lower_case") is True,
        similarity=similarity,
    )


def _encoder_settings(inner: Path) -> Json:
    """The settings of the encoder in the folder `inner`."""
    files = [inner / name for name in ENCODER_SETTINGS_FILES]
    settings = optional_json(next((f for f in files if f.is_file()), files[0]))
    # Since version 5.4 the tokenizer alone says how long texts may be.
    limit = optional_json(inner / "tokenizer_config.json").get("model_max_length")
    if settings.get("max_seq_length") is None and isinstance(limit, int) and 2 < limit < NO_LIMIT:
        return settings | {"max_seq_length": limit}
    return settings


def _prompts(folder: Path, settings: Json) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one. ValueError: other values."""
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not _is_text_dict(prompts) or not (default is None or default in prompts):
        raise ValueError(
            f"{folder / SENTENCE_SETTINGS} has prompts {prompts!r:.60} and default_prompt_name "
            f"{default!r}: expected texts by name, and one of the names or null"
        )
    return prompts, default


def _modules(folder: Path) -> list[Json]:
    """The modules in order, of which the first is the encoder. ValueError: another first module."""
    file = folder / MODULES
    modules = read_json_value(file)
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str)
        for m in modules
    ):
        raise ValueError(f"{file}: expected a list of objects, each with a type and a path")
    first = modules[0]["type"] if modules else "nothing"
    if first.rsplit(".", 1)[-1] != "Transformer":
        raise ValueError(
            f"{file} begins with {first}: expected a Transformer module; to use an encoder in this "
            f"folder alone, remove {MODULES}"
        )
    return modules


def _module_folder(folder: Path, module: Json) -> Path:
    """The folder of a module. ValueError: a path out of the model's folder."""
    path = module["path"]
    if path in (".", "..") or "/" in path or "\\" in path or "\0" in path:
        raise ValueError(f"{folder / MODULES} has the path {path!r}: expected a folder beside it")
    return folder / path


def _pooling_modes(path: Path, values: Json) -> tuple[PoolingMode, ...]:
    modes: Any = values.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in POOLING_KEYS.items() if values.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(m in POOLING_MODES for m in modes):
        raise ValueError(
            f"{path / 'config.json'} has pooling_mode {modes!r:.60}: expected some of "
            f"{', '.join(POOLING_MODES)}"
        )
    return tuple(modes)


def _read_dense(path: Path, allow_pickle: bool) -> Dense:
    values = read_json(path / "config.json")
    try:
        tensors = read_tensors(path, allow_pickle)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
    unusual = [
        f"{key} {values[key]!r}"
        for key, plain in (("use_residual", False), ("module_input_name", "sentence_embedding"))
        if values.get(key, plain) != plain
    ]
    name = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    if name not in ACTIVATIONS or unusual:
        raise ValueError(
            f"{path / 'config.json'} has {', '.join(unusual) or f'activation_function {name!r}'}: "
            f"expected a plain layer with one of {', '.join(ACTIVATIONS)}"
        )
    shape = values.get("out_features"), values.get("in_features")
    kernel, bias = tensors.pop("linear.weight", None), tensors.pop("linear.bias", None)
    if kernel is None or kernel.shape != shape or tensors:
        found = "no linear.weight" if kernel is None else f"linear.weight {list(kernel.shape)}"
        extra = f" and {', '.join(sorted(tensors))}" if tensors else ""
        raise ValueError(f"{path} has {found}{extra}: expected linear.weight {list(shape)}")
    bias = None if bias is None else bias.astype(np.float32)
    return Dense(kernel.T.astype(np.float32), bias, ACTIVATIONS[name])


def _max_length(folder: Path, encoder: Json) -> int | None:
    length = encoder.get("max_seq_length")
    if length is None or (isinstance(length, int) and length > 2):
        return length
    raise ValueError(
        f"{folder} has max_seq_length {length!r} in {ENCODER_SETTINGS}: expected a number above 2"
    )


def _is_text_dict(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) for v in values.values())
