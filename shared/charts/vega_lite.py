"""Charts, as Vega-Lite specifications: one for the dashboard's page and for the picture in Slack.

What is guaranteed: the same points give the same chart; a day without votes is a gap, never a zero; the
data lie in the specification and nothing is loaded; every text that is data is shown as text. What is
not: that everything in it is needed by either renderer.

Pure: figures in, a dict out (JSON). Vega-Lite 5 and 6: https://vega.github.io/vega-lite/docs/.
Nothing of it needs `eval`: the page runs it with Vega's expression interpreter (`shared.charts.picture`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Literal

from shared.charts.theme import PALETTES, Palette, Theme, config

__all__ = ["Language", "Marker", "Point", "Theme", "trend"]

Language = Literal["ko", "en"]
Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


@dataclass(frozen=True, slots=True)
class Point:
    """The votes of a day. `ratio` is the negative ratio (0 to 1), None where nobody voted; `low` and
    `high` its interval."""

    at: date
    likes: int
    dislikes: int
    ratio: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Marker:
    """A generation that became active. `at` carries the time zone in which the days of the points are
    meant: the marker stands at its day there. `kind` is `promotion` or `rollback`."""

    at: datetime
    generation: int
    kind: str


_WORDS: Mapping[Language, Mapping[str, str]] = {
    "ko": {
        "trend": "부정 비율",
        "describe": "날짜별 부정 비율과 95% 신뢰 구간, 기준 {}. 투표가 있는 날 {}일, 최근 값 {}.",
        "threshold": "기준 {}",
        "promotion": "세대 {}",
        "rollback": "되돌림 {}",
        "none": "투표 없음",
        "day": "날짜",
        "ratio": "부정 비율",
        "interval": "95% 구간",
        "likes": "👍 좋아요",
        "dislikes": "👎 싫어요",
        "date": "%-m/%-d",
    },
    "en": {
        "trend": "Negative ratio",
        "describe": "Negative ratio by day, 95% interval, threshold {}; {} days with votes, latest {}.",
        "threshold": "threshold {}",
        "promotion": "gen {}",
        "rollback": "back to {}",
        "none": "No votes",
        "day": "Day",
        "ratio": "Negative ratio",
        "interval": "95% interval",
        "likes": "👍 Likes",
        "dislikes": "👎 Dislikes",
        "date": "%b %-d",
    },
}


def trend(
    points: Sequence[Point],
    markers: Sequence[Marker],
    threshold: float,
    language: Language,
    theme: Theme,
    width: int | Literal["container"],
    height: int,
    title: str | None = None,
) -> Spec:
    """The negative ratio over time: line and interval band, threshold, and which generation came when.

    Args:
        points: one for each day of the range, oldest first; days without votes among them.
        markers: in any order; those outside the range are left out.
        threshold: a ratio, 0 to 1.
        width: pixels; `container`: as wide as the page lets it be, on the page's own background.
        height: pixels of the plot.
        title: None: no title.
    """
    words, colours = _WORDS[language], PALETTES[theme]
    rows = _rows(points, words)
    voted = any(point.ratio is not None for point in points)
    spec: Spec = {
        "$schema": SCHEMA,
        "description": _description(points, threshold, words),
        "width": width,
        "height": height,
        "background": "transparent" if width == "container" else colours.paper,
        "padding": 5 if width == "container" else 16,
        "autosize": {"type": "fit-x" if width == "container" else "pad", "contains": "padding"},
        # An empty range still needs an axis.
        "data": {"values": rows or [{"at": 0, "ratio": None}]},
        "encoding": {"x": _x(words, bool(rows)), "y": _y(points, threshold)},
        "layer": [
            *_limit(threshold, words, colours),
            *_markers(points, markers, words, colours),
            *_line(rows, words, colours),
            *([] if voted else [_nothing(words, colours)]),
        ],
        "config": config(colours),
    }
    return {**spec, "title": title} if title else spec


def _rows(points: Sequence[Point], words: Mapping[str, str]) -> list[Spec]:
    """The points as data. `lone` marks a day whose neighbours have no votes: no line reaches it."""
    known = [point.ratio is not None for point in points]
    rows = []
    for index, point in enumerate(points):
        alone = not any(known[max(index - 1, 0) : index] + known[index + 1 : index + 2])
        voted = point.ratio is not None
        rows.append(
            {
                "at": _day(point.at),
                "day": point.at.isoformat(),
                "ratio": point.ratio,
                "low": point.low if voted else None,
                "high": point.high if voted else None,
                "lone": voted and alone,
                "likes": point.likes,
                "dislikes": point.dislikes,
                "shown": _percent(point.ratio) if point.ratio is not None else words["none"],
                "interval": f"{point.low * 100:.0f}–{point.high * 100:.0f}%" if voted else "–",
            }
        )
    return rows


def _x(words: Mapping[str, str], shown: bool) -> Spec:
    axis = {
        "format": words["date"],
        "grid": False,
        "labelOverlap": True,
        "labelSeparation": 10,
        "labelFlush": False,
        "tickCount": {"interval": "day", "step": 1},
        "title": None,
    }
    # The days are of no zone; as UTC they are the same in every browser.
    return {
        "field": "at",
        "type": "temporal",
        "scale": {"type": "utc"},
        "axis": axis if shown else {**axis, "labels": False, "ticks": False},
    }


def _y(points: Sequence[Point], threshold: float) -> Spec:
    highest = max((point.high for point in points if point.ratio is not None), default=0.0)
    top = min(1.0, max(highest, threshold * 1.4) + 0.02)
    return {
        "type": "quantitative",
        "scale": {"domain": [0, round(top, 3)], "nice": False, "clamp": True},
        "axis": {"format": ".0%", "tickCount": 5, "title": None, "domain": False, "ticks": False},
    }


def _line(rows: Sequence[Spec], words: Mapping[str, str], colours: Palette) -> list[Spec]:
    """Band, line and points; a day alone has a bar in the band's stead."""
    # What is missing breaks the line: never a bridge over days without votes.
    band = {"type": "area", "color": colours.line, "opacity": 0.18, "invalid": "break-paths-show-domains"}
    line = {"type": "line", "color": colours.line, "strokeWidth": 2, "invalid": "break-paths-show-domains"}
    hidden = {"type": "point", "size": 240, "opacity": 0, "filled": True}
    small = len(rows) > 45
    dot = {"type": "point", "color": colours.line, "filled": True, "opacity": 1, "size": 12 if small else 34}
    votes = {"filter": "datum.ratio !== null"}
    between = {"y": {"field": "low"}, "y2": {"field": "high"}}
    layers: list[Spec] = [
        {"mark": band, "encoding": between},
        {
            "transform": [{"filter": "datum.lone"}],
            "mark": {"type": "rule", "color": colours.line, "opacity": 0.3, "strokeWidth": 6},
            "encoding": between,
        },
        {"mark": line, "encoding": {"y": {"field": "ratio"}}},
        {"transform": [votes], "mark": dot, "encoding": {"y": {"field": "ratio"}}},
        {
            # A larger, unseen mark: what is 6 pixels wide is hard to point at.
            "transform": [votes],
            "mark": hidden,
            "encoding": {"y": {"field": "ratio"}, "tooltip": _tooltip(words)},
        },
    ]
    return layers


def _tooltip(words: Mapping[str, str]) -> list[Spec]:
    return [
        {"field": "day", "type": "nominal", "title": words["day"]},
        {"field": "shown", "type": "nominal", "title": words["ratio"]},
        {"field": "interval", "type": "nominal", "title": words["interval"]},
        {"field": "likes", "type": "quantitative", "title": words["likes"]},
        {"field": "dislikes", "type": "quantitative", "title": words["dislikes"]},
    ]


def _limit(threshold: float, words: Mapping[str, str], colours: Palette) -> list[Spec]:
    """The threshold, with its name beside the plot: within it, the line would run through."""
    value = {"value": threshold, "label": words["threshold"].format(_percent(threshold, whole=True))}
    data, y = {"values": [value]}, {"field": "value", "type": "quantitative"}
    text = {"type": "text", "align": "left", "baseline": "middle", "dx": 6, "color": colours.limit}
    return [
        {
            "data": data,
            "mark": {"type": "rule", "color": colours.limit, "strokeDash": [5, 4], "strokeWidth": 1.5},
            "encoding": {"x": None, "y": y},
        },
        {
            "data": data,
            "mark": text,
            "encoding": {"x": {"value": "width"}, "y": y, "text": {"field": "label", "type": "nominal"}},
        },
    ]


def _markers(
    points: Sequence[Point], markers: Iterable[Marker], words: Mapping[str, str], colours: Palette
) -> list[Spec]:
    """A rule for each day on which a generation became active, with the names of those that did."""
    days = [point.at for point in points]
    shown = sorted((m for m in markers if m.at.date() in days), key=lambda marker: marker.at)
    values: list[Spec] = []
    for day, found in groupby(shown, key=lambda marker: marker.at.date()):
        names = dict.fromkeys(_name(marker, words) for marker in found)  # in order, each once
        side = "right" if days.index(day) > len(days) / 2 else "left"
        # Names of neighbours would lie on each other: every other one stands a line lower.
        values.append({"at": _day(day), "label": " · ".join(names), "place": (side, len(values) % 2)})
    text = {"type": "text", "baseline": "top", "fontWeight": "bold", "color": colours.mark}
    rule = {"type": "rule", "color": colours.mark, "strokeDash": [2, 3], "strokeWidth": 1.5}
    layers: list[Spec] = []
    for place in dict.fromkeys(value["place"] for value in values):
        side, row = place
        here = [{"at": v["at"], "label": v["label"]} for v in values if v["place"] == place]
        mark = {**text, "align": side, "dx": 5 if side == "left" else -5, "dy": 2 + 14 * row}
        label = {"y": {"value": 0}, "text": {"field": "label", "type": "nominal"}}
        data = {"values": here}
        layers += [
            {"data": data, "mark": rule, "encoding": {"y": None}},
            {"data": data, "mark": mark, "encoding": label},
        ]
    return layers


def _name(marker: Marker, words: Mapping[str, str]) -> str:
    return words["rollback" if marker.kind == "rollback" else "promotion"].format(marker.generation)


def _day(day: date) -> int:
    """A day as its midnight in UTC, in milliseconds since 1970."""
    return (day - date(1970, 1, 1)).days * 86_400_000


def _nothing(words: Mapping[str, str], colours: Palette) -> Spec:
    middle = {"x": {"value": {"expr": "width / 2"}}, "y": {"value": {"expr": "height * 0.55"}}}
    return {
        "data": {"values": [{"label": words["none"]}]},
        "mark": {"type": "text", "fontSize": 14, "color": colours.soft},
        "encoding": {**middle, "text": {"field": "label", "type": "nominal"}},
    }


def _description(points: Sequence[Point], threshold: float, words: Mapping[str, str]) -> str:
    """What a screen reader says of the chart."""
    voted = [point.ratio for point in points if point.ratio is not None]
    latest = _percent(voted[-1]) if voted else words["none"]
    return words["describe"].format(_percent(threshold, whole=True), len(voted), latest)


def _percent(ratio: float, whole: bool = False) -> str:
    return f"{ratio * 100:g}%" if whole else f"{ratio * 100:.1f}%"
