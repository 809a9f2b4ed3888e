"""Numbers of steps that a ratio may stand for: the one of the two that was given counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bert_jax.config.schema import Experiment
from bert_jax.config.serialization import replace

STEPS_OR_RATIO = (  # section, a number of steps, and the ratio that it replaces
    ("run", "steps", "epochs"),
    ("run", "eval_every", "evals_per_epoch"),
    ("optim", "warmup_steps", "warmup_ratio"),
)
NOT_GIVEN = 1_999_999_973  # nobody's number of steps

StepsOrRatio = tuple[str, str, str]


def mark_step_counts(recipe: Experiment) -> Experiment:
    """The recipe with numbers of steps that show whether an override has given them: its own may
    equal what the user gives."""
    marks: dict[str, dict[str, int]] = {}
    for section, number, _ in STEPS_OR_RATIO:
        marks.setdefault(section, {})[number] = NOT_GIVEN
    return replace(recipe, **marks)


def given_step_counts(overridden: Experiment) -> list[StepsOrRatio]:
    """Those of `STEPS_OR_RATIO` whose number an override of a marked recipe has given."""
    return [
        (section, number, ratio)
        for section, number, ratio in STEPS_OR_RATIO
        if getattr(getattr(overridden, section), number) != NOT_GIVEN
    ]


def override_step_counts(
    recipe: Experiment, given: Sequence[StepsOrRatio], override: Callable[[Experiment], Experiment]
) -> Experiment:
    """The overridden recipe, in which each given number of steps counts and not the recipe's ratio.

    ValueError: a number of steps and its ratio are both given.
    """
    without: dict[str, dict[str, None]] = {}
    for section, _, ratio in given:
        without.setdefault(section, {})[ratio] = None
    config = override(replace(recipe, **without))
    for section, number, ratio in given:
        if getattr(getattr(config, section), ratio) is not None:
            raise ValueError(
                f"{section}.{number} and {section}.{ratio} are both given: expected only one of "
                "them"
            )
    return config
