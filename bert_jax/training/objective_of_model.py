"""The fields of a fine-tuning objective that come from the model: the heads of its family, or the
pooling and the prompts of a sentence encoder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from bert_jax import convert
from bert_jax.config import Contrastive, Experiment, Supervised, replace, supervised_objective
from bert_jax.utils import hub

logger = logging.getLogger(__name__)

TRAINED_POOLINGS = ("mean", "cls", "weightedmean")  # of config.Contrastive


def log_differences(heads: Supervised, family: Any) -> None:
    """Say where a head is not that of the model's family: a config file that sets a field of the
    objective decides all of them."""
    own = supervised_objective(family, heads.task)
    for name in ("head", "pooling", "span", "init", "dropout", "scale"):
        if getattr(heads, name) != getattr(own, name):
            logger.info(
                "objective.%s is %s, that of the config; the family %s has %s",
                *(name, getattr(heads, name), family, getattr(own, name)),
            )


def sentence_objective(
    objective: Contrastive, family: Any, init: str, commit: str | None, model: Experiment
) -> Contrastive:
    """The recipe's objective, which where it is a plain `Contrastive()` has the pooling, the
    normalization and the prompts of a model that makes sentence vectors already.

    ValueError: a sentence head that cannot be trained.
    """
    head = None
    if objective == Contrastive() and (Path(init).is_dir() or commit is not None):
        folder = hub.model_folder(hub.at_commit(init, commit)).path
        head = convert.sentence_head(folder, model)
    if head is None:
        return replace(objective, family=family)
    (pooling, *more), trained = head.pooling, set(head.modules) <= {"normalize"}
    if more or not trained or not head.include_prompt or pooling not in TRAINED_POOLINGS:
        raise ValueError(
            f"{init} has a sentence head with pooling {', '.join(head.pooling)} and "
            f"{len(head.modules)} modules: expected one of {', '.join(TRAINED_POOLINGS)} and no "
            "Dense layer; to train its encoder alone, remove modules.json"
        )
    if head.lowercase:
        raise ValueError(
            f"{init} lowercases texts before its tokenizer (do_lower_case in "
            "sentence_bert_config.json), and training would not: set it to false, and give "
            "lowercased texts"
        )
    if not head.normalized and head.similarity in ("euclidean", "manhattan"):
        raise ValueError(
            f"{init} compares vectors by their {head.similarity} distance, which no loss here "
            "does: expected cosine or dot"
        )
    normalize = head.normalized or head.similarity == "cosine"
    if not normalize:
        # Dot products have no upper limit; divided by the temperature of cosines they would leave
        # the softmax without a gradient. sentence-transformers' users scale them by 1, too.
        logger.info("%s compares vectors by dot product: objective.temperature begins at 1", init)
        objective = replace(objective, temperature=1.0)
    return replace(
        objective,
        family=family,
        pooling=pooling,
        normalize=normalize,
        query_prompt=head.prompt("query"),
        document_prompt=head.prompt("document"),
    )
