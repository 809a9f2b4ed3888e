"""The weights of classes, from the field and from the rows."""

from typing import Any

import numpy as np
import pytest

from bert_jax import tasks
from bert_jax.tasks import TaggingExample, TextExample

LABELS = ("a", "b=c", "d, e")


def texts(*labels: Any) -> list[TextExample]:
    return [TextExample("t", None, label) for label in labels]


def test_balanced_classes_have_the_same_weight_in_all() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    gold = ["a", "a", "a", "b", None]
    weights = tasks.class_weights("balanced", ("a", "b"), texts(*gold), False)
    classes = np.array(["a", "b"])
    assert weights == tuple(compute_class_weight("balanced", classes=classes, y=gold[:4]))
    tagged = [TaggingExample(("x",) * 3, ("a", "a", "b")), TaggingExample(("x",), ("a",))]
    assert tasks.class_weights("balanced", ("a", "b"), tagged, False) == weights


def test_a_balanced_label_of_several_weighs_as_much_as_its_absence() -> None:
    rows = texts(("a",), (), ("a", "b"), ("a",), None)
    assert tasks.class_weights("balanced", ("a", "b"), rows, True) == (1 / 3, 3.0)


def test_a_label_that_no_row_has_changes_no_other_weight() -> None:
    balanced = tasks.class_weights("balanced", ("a", "b", "c"), texts("a", "a", "a", "b"), False)
    assert balanced == (*tasks.class_weights("balanced", ("a", "b"), texts(*"aaab"), False), 1.0)
    assert tasks.class_weights("balanced", ("a", "b"), texts(("a",), ()), True) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("a=2", (2, 1, 1)),
        ("b=c=0.5,a=3", (3, 0.5, 1)),
        ('{"d, e": 4, "a": 1e-3}', (1e-3, 1, 4)),
    ],
)
def test_given_weights_stand_by_name(field: str, expected: Any) -> None:
    assert tasks.class_weights(field, LABELS, [], False) == expected


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("x=2", "names 'x', which is no label: expected labels: a, b=c, d, e"),
        ("balance", "expected balanced, or NAME=WEIGHT"),
        ("a=much", "expected balanced, or NAME=WEIGHT"),
        ('{"a": 1' + "0" * 400 + "}", "expected balanced, or NAME=WEIGHT"),
        ('{"a": [1]}', "expected balanced, or NAME=WEIGHT"),
        ("a=0", "gives 'a' the weight 0.0: expected a number above 0"),
        ("a=nan", "gives 'a' the weight nan"),
        ("a=1e39", "gives 'a' the weight 1e.39: expected a number above 0, from 1e-06 to 1e.06"),
        ("a=1e-50", "gives 'a' the weight 1e-50"),
        ("a=1, a=2", "names 'a' twice: expected one weight per label"),
        ('{"a": 1, "a": 2}', "names 'a' twice"),
    ],
)
def test_unreadable_weights_are_refused(field: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.class_weights(field, LABELS, [], False)
