"""The page's files: package data, read once, served with a tag of their content.

They are few and small, so a browser asks each time and hears "not modified"; nothing stale is ever
shown after an update.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from shared.settings import Settings

__all__ = ["Asset", "Language", "language_of", "load_assets", "load_pages"]

Language = Literal["ko", "en"]
LANGUAGES: Mapping[str, Language] = {"ko": "ko", "en": "en"}

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FOLDER = resources.files("services.dashboard").joinpath("static")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served. `etag` is the hash of its content, without quotes; `gzipped` the same
    content, a third as long."""

    body: bytes
    content_type: str
    etag: str
    gzipped: bytes

    @classmethod
    def of(cls, name: str, body: bytes) -> Asset:
        etag = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, _TYPES[name[name.rindex(".") :]], etag, gzip.compress(body, mtime=0))


def load_assets() -> dict[str, Asset]:
    """What lies under `/static/`, by name; whatever is not in it does not exist."""
    return {
        entry.name: Asset.of(entry.name, entry.read_bytes())
        for entry in _FOLDER.iterdir()
        if entry.name.endswith((".css", ".js"))
    }


def load_pages(settings: Settings) -> Mapping[Language, Asset]:
    """The page in each language, with the settings that the browser needs as data attributes."""
    text = _FOLDER.joinpath("index.html").read_text(encoding="utf-8")
    values = {
        "timezone": settings.timezone,
        "threshold": f"{settings.threshold:g}",
        "token": "required" if settings.trigger_token else "none",
    }
    return {
        language: Asset.of("index.html", _filled(text, {**values, "language": language}).encode())
        for language in LANGUAGES.values()
    }


def language_of(asked: str | None, accepted: str, default: Language) -> Language:
    """`?lang=`, else what the browser likes best of the two (`Accept-Language`), else the default."""
    for tag in (asked or "", *_by_preference(accepted)):
        if tag in LANGUAGES:
            return LANGUAGES[tag]
    return default


def _by_preference(accepted: str) -> list[str]:
    """The primary language tags of the header, best first; those with quality 0 are left out."""
    found = []
    for part in accepted[:500].lower().split(","):
        tag, _, quality = part.partition(";")
        value = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", quality)
        weight = float(value[1]) if value else 1.0
        if weight > 0:
            found.append((-weight, tag.strip().partition("-")[0]))
    return [tag for _, tag in sorted(found, key=lambda each: each[0])]


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", html.escape(value))
    return text
