"""The page's own files, as the browser gets them."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from regionnorm.web.visitors import Gone

__all__ = ["read_static", "static_version"]

_KINDS = {"js": "text/javascript", "css": "text/css", "html": "text/html"}


def read_static(name: str) -> tuple[bytes, str]:
    """Return a file of the page and its media type.

    Raises:
        Gone: There is no such file.
    """
    found = re.fullmatch(r"[a-z]+\.(js|css|html)", name)
    source = files("regionnorm.web.page").joinpath(name)
    if found is None or not source.is_file():
        raise Gone(f"the page has no file {name!r:.40}")
    return source.read_bytes(), _KINDS[found[1]]


@cache
def static_version() -> str:
    """Changes with any of the files, so that browsers may keep them for good."""
    digest = hashlib.sha256()
    folder = files("regionnorm.web.page")
    for source in sorted(folder.iterdir(), key=lambda one: one.name):
        if source.name.rpartition(".")[2] in _KINDS:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
