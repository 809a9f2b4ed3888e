"""Make Markdown of docstrings, and documentation of the comments above config fields.

Docstrings here are plain text: prose, and aligned columns where data changes shape. Errors are
sentences that begin with the exception's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

COLUMNS = re.compile(r"^\s{2,}\S|\S {2,}\S")
ITEM = re.compile(r"^- ")
ERROR = re.compile(r"(?:^|(?<=[.:)`] )|(?<=\n))((?:Value|Type|Run|Key|File\w*)Error):\s+")
CODE = re.compile(r"(`[^`]*`)")
ESCAPES = {ord(c): f"\\{c}" for c in "[]*|_"} | {ord("<"): "&lt;"}


def to_markdown(text: str) -> str:
    """The Markdown of a docstring: columns become code blocks, errors paragraphs of their own."""
    blocks: list[tuple[bool, list[str]]] = []
    in_list = False
    for line in text.splitlines():
        in_list = bool(ITEM.match(line)) or (in_list and line.startswith("  "))
        is_code = bool(COLUMNS.search(line)) and not in_list
        if not line.strip():
            is_code = bool(blocks) and blocks[-1][0]  # a blank line ends no code block
        if not blocks or blocks[-1][0] != is_code:
            blocks.append((is_code, []))
        blocks[-1][1].append(line)
    return "\n\n".join(_code(lines) if is_code else _prose(lines) for is_code, lines in blocks)


def _code(lines: list[str]) -> str:
    while lines and not lines[-1].strip():
        lines.pop()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(["```text", *(line[indent:] for line in lines), "```"])


def _prose(lines: list[str]) -> str:
    parts = CODE.split("\n".join(lines))
    text = "".join(p if i % 2 else p.translate(ESCAPES) for i, p in enumerate(parts))
    return ERROR.sub(r"\n\n**Raises `\1`**: ", text)


def comment_above(lines: list[str], number: int) -> str:
    """The comment that ends on the line before line `number` (from 1), or stands behind it."""
    behind = lines[number - 1].partition("  # ")[2]
    above: list[str] = []
    while number > 1 and lines[number - 2].strip().startswith("# "):
        above.insert(0, lines[number - 2].strip()[2:])
        number -= 1
    return " ".join(above) or behind


class PlainDocstrings(griffe.Extension):
    """Applies `to_markdown` to every docstring of a package once it is loaded. Methods without a
    docstring have that of the protocol that they implement: MaskedObjective.init that of
    Objective.init."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._protocols = {
            c.name: {m.name: m.docstring.value for m in c.members.values() if m.docstring}
            for c in _classes(pkg)
            if "Protocol" in map(str, c.bases)
        }
        self._visit(pkg)

    def _visit(self, obj: Any) -> None:
        if obj.is_alias:
            return
        if obj.is_module:
            obj.exports = None  # an entry stands where the object is defined, and only there
        if obj.is_attribute and obj.docstring is None and obj.parent.is_class and obj.lineno:
            comment = comment_above(obj.lines_collection[obj.filepath], obj.lineno)
            obj.docstring = griffe.Docstring(comment, parent=obj) if comment else None
        if obj.docstring is None and obj.parent is not None and obj.parent.is_class:
            obj.docstring = self._inherited(obj)
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
        for member in getattr(obj, "members", {}).values():
            self._visit(member)

    def _inherited(self, method: Any) -> griffe.Docstring | None:
        for name, docstrings in self._protocols.items():
            if method.parent.name.endswith(name) and method.name in docstrings:
                return griffe.Docstring(docstrings[method.name], parent=method)
        return None


def _classes(obj: Any) -> Iterator[Any]:
    for member in obj.members.values():
        if not member.is_alias and (member.is_class or member.is_module):
            yield from [member] * member.is_class
            yield from _classes(member)
