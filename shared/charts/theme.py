"""How charts look: fonts and colours, on the page and in pictures.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FONT", "PALETTES", "Palette", "Theme", "config"]

Theme = Literal["light", "dark"]

FONT = (
    "'Pretendard','Noto Sans KR','Noto Sans CJK KR','Apple SD Gothic Neo','Malgun Gothic','NanumGothic',"
    "'NanumBarunGothic','NanumSquareRound',system-ui,'DejaVu Sans',sans-serif"
)
"""Fonts with Korean letters first: a family that lacks them would mix two designs in one word."""


@dataclass(frozen=True, slots=True)
class Palette:
    """`paper` is what a picture stands on. Contrast of `text` and `soft` on it is at least 4.5."""

    paper: str
    text: str
    soft: str
    grid: str
    line: str
    limit: str
    mark: str


PALETTES: Mapping[Theme, Palette] = {
    "light": Palette("#ffffff", "#1f2933", "#52606d", "#e4e7eb", "#1d5fbf", "#b42318", "#5b3fa8"),
    "dark": Palette("#15191e", "#e6eaf0", "#a6b1bf", "#2b333d", "#7db3ff", "#ff8a7a", "#c4a8ff"),
}


def config(colours: Palette) -> dict[str, Any]:
    """The `config` of a specification."""
    return {
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": colours.soft,
            "gridColor": colours.grid,
            "domainColor": colours.grid,
            "tickColor": colours.grid,
            "labelFontSize": 11,
        },
        "text": {"fontSize": 11},
        "title": {"color": colours.text, "fontSize": 15, "anchor": "start", "offset": 12},
    }
