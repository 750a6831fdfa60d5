"""What a page of HTML links to, loads and holds, read without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {
    "script": "src",
    "img": "src",
    "audio": "src",
    "video": "src",
    "source": "src",
    "iframe": "src",
    "embed": "src",
}
CSS_LOADS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """One parsed page.

    Attributes:
        links: addresses of its ``<a href>``.
        loads: addresses that a browser fetches for it: scripts, styles, icons, images, sound, and what its styles name.
        anchors: every ``id``.
        counts: how often each element occurs.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.counts: dict[str, int] = {}
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self._style = tag == "style"
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and not set(values.get("rel", "").split()) & {"canonical", "next", "prev", "index", "search"}:
            self.loads.append(values["href"])
        if LOADING.get(tag) in values:
            self.loads.append(values[LOADING[tag]])
        self.loads += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        self.loads += css_loads(values.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loads += css_loads(data)


def css_loads(text: str) -> list[str]:
    """Addresses that a style sheet loads."""
    return [first or second for first, second in CSS_LOADS.findall(text)]


def read(folder: Path) -> dict[Path, Page]:
    """Every page of a site, by its path, without the theme's templates in ``_static``."""
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.relative_to(folder).parts]
    return {path: Page(path.read_text(encoding="utf-8")) for path in paths}


def from_elsewhere(address: str) -> bool:
    """Whether a browser would leave the machine for it."""
    return urlsplit(address).scheme in ("http", "https", "ws", "wss", "ftp") or address.startswith("//")


def broken(pages: dict[Path, Page]) -> Iterator[str]:
    """ "page: address" of each link or load inside the site that leads to no file or to no anchor."""
    for path, page in pages.items():
        for address in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//") or address in ("", "#"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{path.name}: {address} (no such file)"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.name}: {address} (no such anchor)"
