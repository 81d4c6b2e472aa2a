"""Rewrite the links in the README and in the pages for readers outside the repository: on PyPI, and on the site.

In the repository a link is a relative path. PyPI has only the README, and the site has only pages. Links to other files
lead to the repository, at its address in pyproject.toml. While there is none, only a link's text remains.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PROJECT = os.path.dirname(os.path.abspath(__file__))
# Pages of the site that lie outside docs.
MORE_PAGES = {name: name.lower() for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")}
# Diagrams. GitHub draws them itself; for the site, tests/diagrams.py does.
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURES = os.path.join(PROJECT, "docs", "pictures")
_LINK = re.compile(r"\[([^\[\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def rewritten(text: str, page: str, address: Callable[[str], str]) -> str:
    """*text*, from *page*, with each link to a file replaced by the file's *address*, or removed if that is empty."""

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        leads_to = address(path)
        return f"[{words}]({leads_to}{anchor or ''})" if leads_to else words

    return _LINK.sub(link, text)


def in_repository(path: str) -> str:
    """The address of the file *path* in the repository; empty if the repository has none."""
    found = re.search(r'^Repository = "(.*)"', _read("pyproject.toml"), re.MULTILINE)
    return f"{found[1]}/blob/main/{path}" if found else ""


def _read(name: str) -> str:
    with open(os.path.join(PROJECT, name), encoding="utf-8") as file:
        return file.read()


def picture(source: str) -> str:
    """The file name of a diagram's drawing, from the diagram's *source*."""
    return f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:10]}.svg"


class LongDescription(MetadataHookInterface):
    """The README as PyPI shows it."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = rewritten(_read("README.md"), "README.md", in_repository)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this. Add the pages that lie outside docs."""
    from mkdocs.structure.files import File

    for name, page in MORE_PAGES.items():
        files.append(File.generated(config, page, content=_read(name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """MkDocs calls this. Make links out of docs lead to those pages or to the repository, and show the drawings."""
    source = page.file.src_uri
    where = {shown: name for name, shown in MORE_PAGES.items()}.get(source, f"docs/{source}")

    def address(path: str) -> str:
        if path.startswith("docs/") or path in MORE_PAGES:
            shown = MORE_PAGES.get(path, path.removeprefix("docs/"))
            return posixpath.relpath(shown, posixpath.dirname(source) or ".")
        return in_repository(path)

    def drawn(found: re.Match[str]) -> str:
        return f'<div class="diagram">{_read(os.path.join(PICTURES, picture(found[1]))).strip()}</div>'

    return MERMAID.sub(drawn, rewritten(markdown, where, address))
