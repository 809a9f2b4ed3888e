"""MkDocs hooks: pages that lie outside docs/, links between the two, and no foreign assets."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
ASSET = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of PAGES."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=rewrite_links(text, name, page)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of the pages in docs/."""
    uri = page.file.src_uri
    return markdown if uri in PAGES.values() else rewrite_links(markdown, f"docs/{uri}", uri)


def rewrite_links(markdown: str, source: str, page: str) -> str:
    """Links of the file `source` as links of `page`. A link to a file that has no page, such as a
    source file or a folder, becomes plain text."""

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = PAGES.get(path) or path.removeprefix("docs/")
        if path not in PAGES and (there == path or not (ROOT / path).is_file()):
            return text
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(replace, markdown)


def on_post_build(config: Any) -> None:
    """Refuse pages that load scripts, styles, fonts or pictures from other sites."""
    foreign = [
        f"{os.path.relpath(path, config['site_dir'])}: {tag.group(0)[:120]}"
        for path in Path(config["site_dir"]).rglob("*.html")
        for tag in ASSET.finditer(path.read_text(encoding="utf-8"))
    ]
    if foreign:
        raise PluginError("the site loads assets from other sites:\n" + "\n".join(foreign))
