"""Tables as plain text."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def format_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], left: Collection[int] = (0,)
) -> str:
    """Rows under a header, in aligned columns: those in `left` to the left, all others to the
    right. No line is wrapped or cut, whatever the width of the terminal. Without a header, pass
    empty strings."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(header))
    for i, name in enumerate(header):
        table.add_column(Text(name), justify="left" if i in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: no cell is read as markup
    out = io.StringIO()
    Console(file=out, width=1 << 20, color_system=None).print(table, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
