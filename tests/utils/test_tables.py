"""Tables are plain text, whatever the terminal is."""

import pytest

from bert_jax.utils.tables import format_table


def test_columns_are_aligned_and_lines_are_neither_wrapped_nor_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [("embeddings", "1,000", "x" * 300), ("a", 2, "two words " * 30)]
    assert format_table(("name", "count", "note"), rows, left=(0, 2)).splitlines() == [
        "name        count  note",
        "embeddings  1,000  " + "x" * 300,
        "a               2  " + ("two words " * 30).rstrip(),
    ]


def test_cells_are_not_read_as_markup_and_wide_characters_count_twice() -> None:
    table = format_table(("", ""), [("[b]bold[/b] :smile:", 1), ("日本", 22)])
    assert table == "[b]bold[/b] :smile:   1\n日本                 22"
