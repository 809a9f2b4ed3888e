"""A page as blocks, written as Markdown and as HTML that needs nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str  # with **bold**, *italics* and `code`


@dataclass(frozen=True)
class Points:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Plot:
    name: str  # of the file that Markdown shows
    svg: str


Block = Heading | Paragraph | Points | Table | Plot


def markdown(blocks: Sequence[Block], plots: str) -> str:
    """`plots`: the folder of the plots' files, beside the page."""
    return "\n\n".join(_markdown(b, plots) for b in blocks) + "\n"


def _markdown(block: Block, plots: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Points):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Plot):
        return f"![{block.name}]({plots}/{block.name}.svg)"
    rows = [block.head, ("---", *["---:"] * (len(block.head) - 1)), *block.rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)


STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem;
  max-width: 50rem }
h2 { margin-top: 2.5rem }
svg { width: 100%; height: auto; max-width: 44rem; display: block; margin: 1rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid #8886; padding: .25rem .6rem; text-align: right;
  vertical-align: top }
td:first-child, th:first-child { text-align: left; min-width: 9rem }
td code { overflow-wrap: normal }
code { font-size: .85em; overflow-wrap: anywhere }
"""


def page(title: str, blocks: Sequence[Block]) -> str:
    body = "\n".join(_html(b) for b in blocks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style></head><body>
{body}
</body></html>
"""


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{_inline(i)}</li>" for i in block.items) + "</ul>"
    if isinstance(block, Plot):
        return f"<figure>{block.svg}</figure>".replace("<figure>", '<figure style="margin:0">')
    head = "".join(f"<th>{_inline(c)}</th>" for c in block.head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_inline(c)}</td>" for c in row) + "</tr>\n" for row in block.rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r"\*(.+?)\*", r"<i>\1</i>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
