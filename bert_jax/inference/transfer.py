"""Which parameter of a model stands for which of an objective, by name.

Where only one side has two networks (ELECTRA), a single network stands for the discriminator.
"""

from __future__ import annotations

from typing import Any

from bert_jax.config import Experiment, ReplacedTokens
from bert_jax.model import electra, lora
from bert_jax.utils.pytree import Tree, flatten_with_names
from bert_jax.utils.types import Params

TOWERS = ("generator/", "discriminator/")


def in_tower(name: str) -> str:
    """The name of a leaf in one of two networks."""
    return name if name.startswith(TOWERS) else f"discriminator/{name}"


def sources(flat: dict[str, Any], two_towers: bool) -> dict[str, str]:
    """Name in one of the two networks -> the model's leaf. Shared embeddings are in both."""
    matched = {in_tower(name): name for name in flat}
    if not any(name.startswith("prediction/") for name in flat):  # as ModernBERT's classes share it
        shared_head = [n for n in flat if n.startswith(("mlm/dense/", "mlm/norm/"))]
        matched |= {in_tower(n.replace("mlm/", "prediction/", 1)): n for n in shared_head}
    if two_towers:
        shared = [name for name in flat if not name.startswith(TOWERS)]
        matched |= {f"generator/{name}": name for name in shared}
    return matched


def disentangled_as(like: Params, params: Params) -> Params:
    """The parameters; if they are two towers, their tables are sums of shared tables and
    differences exactly if those of the tree `like` are (model/electra.py)."""
    wanted = "discriminator" in like and electra.is_disentangled(like)
    if "discriminator" not in params or electra.is_disentangled(params) == wanted:
        return params
    generator, discriminator = (electra.merge_tower(params, t.rstrip("/")) for t in TOWERS)
    tied = "gradient_disentangled" if wanted else "none"
    return electra.split_towers(generator, discriminator, tied)


def base_params(params: Tree, model: Experiment, like: Tree, path: str) -> Tree:
    """The frozen base that an objective with parameters `like` takes from a model's `params`.

    ValueError: the model at `path` lacks some of it, or has it in other shapes. A checkpoint of
    adapters does not hold it, so nothing of it can be random.
    """
    flat = flatten_with_names(disentangled_as(like, params))
    matched = sources(flat, isinstance(model.objective, ReplacedTokens))
    wanted = {n: x.shape for n, x in flatten_with_names(lora.split_base(like)[1]).items()}
    missing = [name for name in wanted if in_tower(name) not in matched]
    if missing:
        raise ValueError(
            f"{path} lacks parameters that adapters would be trained beside: {missing[0]} and "
            f"{len(missing) - 1} more; choose another model, or leave out lora.rank"
        )
    base = {name: flat[matched[in_tower(name)]] for name in wanted}
    for name, leaf in base.items():
        if leaf.shape != wanted[name]:
            raise ValueError(
                f"{path} has {name} of shape {list(leaf.shape)}, here it is {list(wanted[name])}: "
                "adapters need the model's own sizes"
            )
    return lora.unflatten(base)
