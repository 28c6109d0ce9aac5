"""The trend's specification: gaps, markers, an empty range, and no text that is code."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shared.charts.vega_lite import Marker, Point, trend
from shared.policy import wilson

FIRST = date(2026, 11, 1)
SEOUL = ZoneInfo("Asia/Seoul")


def points(*votes: tuple[int, int]) -> list[Point]:
    """A point a day, of likes and dislikes."""
    found = []
    for number, (likes, dislikes) in enumerate(votes):
        total = likes + dislikes
        ratio = dislikes / total if total else None
        found.append(Point(FIRST + timedelta(number), likes, dislikes, ratio, *wilson(dislikes, total)))
    return found


def drawn(votes: list[Point], *markers: Marker, **more: Any) -> dict[str, Any]:
    given = {"threshold": 0.3, "language": "ko", "theme": "light", "width": 640, "height": 240, **more}
    return trend(votes, markers, **given)


def labels(spec: dict[str, Any]) -> list[str]:
    """What stands written in the plot."""
    layers = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text"]
    return [value["label"] for layer in layers for value in layer["data"]["values"]]


def test_a_specification_is_json() -> None:
    spec = drawn(points((5, 5), (0, 0)), Marker(datetime(2026, 11, 2, tzinfo=SEOUL), 3, "promotion"))
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec


def test_a_day_without_votes_is_a_gap_and_no_zero() -> None:
    rows = drawn(points((5, 5), (0, 0), (4, 6)))["data"]["values"]
    assert [row["ratio"] for row in rows] == [0.5, None, 0.6]
    assert (rows[1]["low"], rows[1]["high"], rows[1]["shown"]) == (None, None, "투표 없음")


def test_a_day_between_gaps_is_marked_as_one() -> None:
    rows = drawn(points((1, 1), (0, 0), (1, 1), (0, 0), (1, 1), (1, 1)))["data"]["values"]
    assert [row["lone"] for row in rows] == [True, False, True, False, False, False]


def test_days_are_the_same_in_every_time_zone() -> None:
    spec = drawn(points((1, 1)))
    assert spec["data"]["values"][0]["at"] == datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000
    assert spec["encoding"]["x"]["scale"] == {"type": "utc"}


def test_the_threshold_is_named() -> None:
    assert labels(drawn(points((1, 1)))) == ["기준 30%"]


def test_a_marker_stands_at_its_day_in_its_own_zone() -> None:
    late = datetime(2026, 11, 1, 23, 30, tzinfo=SEOUL)  # the first in Seoul and in UTC; the second nowhere
    early = datetime(2026, 11, 2, 0, 30, tzinfo=SEOUL)  # the first in UTC
    spec = drawn(points((1, 1), (1, 1)), Marker(late, 3, "promotion"), Marker(early, 4, "promotion"))
    rules = [layer for layer in spec["layer"] if layer["mark"]["type"] == "rule" and "data" in layer][1:]
    days = [value["at"] // 86_400_000 for layer in rules for value in layer["data"]["values"]]
    assert days == [spec["data"]["values"][n]["at"] // 86_400_000 for n in (0, 1)]


def test_markers_of_one_day_share_a_label() -> None:
    at = datetime(2026, 11, 1, 9, tzinfo=SEOUL)
    spec = drawn(points((1, 1)), Marker(at, 5, "promotion"), Marker(at + timedelta(hours=1), 4, "rollback"))
    assert labels(spec)[1:] == ["세대 5 · 되돌림 4"]


def test_markers_outside_the_range_are_left_out() -> None:
    assert labels(drawn(points((1, 1)), Marker(datetime(2026, 10, 31, tzinfo=SEOUL), 3, "promotion"))) == [
        "기준 30%"
    ]


@pytest.mark.parametrize("votes", [[], points((0, 0), (0, 0))])
def test_nothing_to_show_is_said(votes: list[Point]) -> None:
    assert "투표 없음" in labels(drawn(votes))


def test_the_band_fits_the_plot() -> None:
    top = drawn(points((1, 1)))["encoding"]["y"]["scale"]["domain"][1]
    assert wilson(1, 2)[1] < top <= 1


@pytest.mark.parametrize("language", ["ko", "en"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chart_is_described_for_who_cannot_see_it(language: Any, theme: Any) -> None:
    said = drawn(points((1, 1)), language=language, theme=theme)["description"]
    assert "30%" in said and "50.0%" in said


def test_a_page_s_chart_is_as_wide_as_its_container_on_its_ground() -> None:
    spec = drawn(points((1, 1)), width="container")
    assert (spec["width"], spec["background"]) == ("container", "transparent")
