"""The live page and the policy that lets a browser run nothing but what stands in it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and its Content-Security-Policy."""

    body: bytes
    policy: str


@cache
def page() -> Page:
    """The page as it was installed."""
    return with_policy(files("bridge.status").joinpath("page.html").read_bytes())


def with_policy(body: bytes) -> Page:
    """The page with a policy that names its own inline scripts and styles by their hashes: it may
    ask this server, and nobody else anything.
    """
    inline = _Inline()
    inline.feed(body.decode())
    inline.close()
    scripts, styles = (_hashes(inline.found[tag]) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(body, policy)


class _Inline(HTMLParser):
    """Gathers what stands inside the script and style elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.found:
            self.found[tag].append("")
            self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = None


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
