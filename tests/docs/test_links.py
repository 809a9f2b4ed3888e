"""The links of the documents: each leads to a file, and each anchor to a heading."""

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)")
ENTRY = re.compile(r"^::: (bert_jax\S*)$", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings: lower case, no punctuation, hyphens for spaces."""
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose)
    }


def has_anchor(markdown: str, anchor: str) -> bool:
    """Whether a page has a heading, or shows the module of an entry, as bert_jax.model.encoder."""
    modules = [m for m in ENTRY.findall(markdown) if f"{anchor}.".startswith(f"{m}.")]
    return bool(modules) or anchor in anchors(markdown)


def dead_links(path: Path) -> list[str]:
    """Links of a document to files or headings that are not there."""
    dead = []
    for target, anchor in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            dead.append(target)
        elif anchor and not has_anchor(file.read_text(encoding="utf-8"), anchor):
            dead.append(f"{target}#{anchor}")
    return dead


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_link_is_dead(path: Path) -> None:
    assert not dead_links(path)


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page: two\n[a](#a-page-two) [b](#c) [d](e.md) `[f](g.md)`\n")
    assert dead_links(page) == ["#c", "e.md"]
