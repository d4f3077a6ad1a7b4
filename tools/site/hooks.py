"""MkDocs hooks: pages that are not in docs/, and links as they are right on GitHub turned into the site's."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_log = get_plugin_logger("site")
# what a browser loads by itself; a link that a reader may follow, and the page's own address, are not
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|prev|next|icon))[^>]*href=["']?(?:https?:)?//[^>]*>"""
)
_DOCUMENT_OF = {page: document for document, page in pages.ROOT_PAGES.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the API reference's place in the navigation."""
    assert config.nav is not None
    for entry in config.nav:
        if "API reference" in entry:
            entry["API reference"] = [{Path(page).stem: page} for page in _api_pages()]
    return config


def _api_pages() -> list[str]:
    # score_video before score_ext, as a reader meets them; a package before what is in it
    return list(pages.api_pages())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the root's documents and the API reference."""
    for document, page in pages.ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(pages.ROOT / document).read_text(encoding="utf-8")))
    for page, content in pages.api_pages().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links into the site's; a link to no file is a warning, which a strict build refuses."""
    path = page.file.src_uri
    document = _DOCUMENT_OF.get(path, f"docs/{path}")

    def target(link: str) -> str:
        try:
            place = pages.site_link(document, link, f"{config.repo_url}/blob/main")
        except FileNotFoundError as error:
            _log.warning(str(error))
            return link
        return posixpath.relpath(place, posixpath.dirname(path) or ".") if pages.is_relative(place) else place

    return markdown if path.startswith("api/") else pages.rewrite_links(markdown, target)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns of what a reader's browser would load from elsewhere."""
    for loaded in _LOADED.findall(output):
        _log.warning(f"{page.file.src_uri}: loads from elsewhere: {loaded}")
    return output
