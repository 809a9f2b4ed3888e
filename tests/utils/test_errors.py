"""Errors of libraries are shown in one line."""

from bert_jax.utils.errors import first_line, with_type


def test_an_error_is_shown_by_its_type_and_its_first_line() -> None:
    assert with_type(OSError(" no route\nTraceback")) == "OSError: no route"
    assert with_type(KeyError()) == first_line(KeyError()) == "KeyError"
    assert len(with_type(ValueError("x" * 300))) == len("ValueError: ") + 200
