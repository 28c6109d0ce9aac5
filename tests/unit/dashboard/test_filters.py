"""What a query string asks for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from services.analyzer import causes
from services.dashboard.filters import BadRange, Cause, Cursor, Filter, Listing, Span, gathered, span

SEOUL = ZoneInfo("Asia/Seoul")
NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)  # half past midnight of the 24th in Seoul


def filtered(*pairs: tuple[str, str]) -> Filter:
    return Filter.model_validate(gathered(pairs))


def test_nothing_asked_is_everything() -> None:
    assert filtered() == Filter()


def test_everything_asked_is_read() -> None:
    found = filtered(
        ("app", "shop"), ("from", "2026-11-01"), ("to", "2026-11-02"), ("rated", "down"), ("reason", "wrong"),
        ("reason", "slow"), ("comment", "1"), ("document", "a b.md"), ("generation", "3"),
        ("cause", "stale_document"), ("group", "g1"), ("lang", "ko"),
    )  # fmt: skip
    assert found == Filter(
        app="shop",
        first=date(2026, 11, 1),
        last=date(2026, 11, 2),
        rated="down",
        reasons=("wrong", "slow"),
        comment="1",
        document="a b.md",
        generation=3,
        cause="stale_document",
        group="g1",
    )


def test_one_reason_is_a_list_of_one() -> None:
    assert filtered(("reason", "wrong")).reasons == ("wrong",)


def test_empty_parameter_asks_for_nothing() -> None:
    assert filtered(("app", ""), ("reason", ""), ("from", "")) == Filter()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("app", "two words"),
        ("app", "x" * 65),
        ("from", "yesterday"),
        ("from", "1700000000"),
        ("from", "2026-02-30"),
        ("from", "٢٠٢٦-١١-٠١"),
        ("from", "0001-01-01"),
        ("to", "9999-12-31"),
        ("rated", "maybe"),
        ("comment", "yes"),
        ("document", "x" * 501),
        ("document", "a\0b"),
        ("document", "a\ud800b"),
        ("generation", "0"),
        ("generation", "x"),
        ("generation", "9" * 30),
        ("cause", "weather"),
        ("group", "a\0b"),
    ],
)
def test_value_that_does_not_fit_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        filtered((name, value))
    assert refused.value.errors()[0]["loc"] == (name,)


@pytest.mark.parametrize("reasons", [["a b"], ["wrong"] * 21], ids=["no code", "too many"])
def test_reasons_that_do_not_fit_are_refused(reasons: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        filtered(*(("reason", reason) for reason in reasons))
    assert refused.value.errors()[0]["loc"][0] == "reason"


def test_parameter_given_twice_is_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        filtered(("app", "a"), ("app", "b"))
    assert refused.value.errors()[0]["loc"] == ("app",)


def test_causes_are_those_of_the_analyzer() -> None:
    assert get_args(Cause) == get_args(causes.Cause)


# --- days -----------------------------------------------------------------------------------


def test_default_is_the_last_28_days_of_the_time_zone() -> None:
    found = span(Filter(), NOW, SEOUL)
    assert (found.days[0], found.days[-1], len(found.days)) == (date(2026, 10, 28), date(2026, 11, 24), 28)


def test_end_alone_gives_the_28_days_before_it() -> None:
    assert span(Filter(last=date(2026, 3, 28)), NOW, SEOUL).days[0] == date(2026, 3, 1)


def test_days_begin_at_midnight_of_the_time_zone() -> None:
    found = Span.of(date(2026, 11, 1), date(2026, 11, 1), SEOUL)
    assert (found.start, found.end) == (
        datetime(2026, 10, 31, 15, tzinfo=UTC),
        datetime(2026, 11, 1, 15, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Africa/Cairo", date(2026, 4, 24), 23),  # midnight itself does not exist
        ("Asia/Seoul", date(2026, 3, 29), 24),
    ],
)
def test_day_of_a_clock_change_is_as_long_as_it_is(zone: str, day: date, hours: int) -> None:
    found = Span.of(day, day, ZoneInfo(zone))
    assert found.end - found.start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Filter(first=date(2026, 11, 2), last=date(2026, 11, 1)), "from"),
        (Filter(first=date(2026, 11, 25)), "from"),
        (Filter(first=date(2020, 1, 1)), "from"),
    ],
    ids=["ends before it begins", "begins tomorrow", "too long"],
)
def test_days_that_are_no_range_are_refused(asked: Filter, field: str) -> None:
    with pytest.raises(BadRange) as refused:
        span(asked, NOW, SEOUL)
    assert refused.value.field == field


# --- going on -------------------------------------------------------------------------------


def test_cursor_is_read_as_it_was_written() -> None:
    cursor = Cursor(datetime(2026, 11, 1, 2, 3, 4, 567891, tzinfo=UTC), 42)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("given", ["", "1", "1-", "a-b", "1-2-3", "9" * 18 + "-1", "1-" + "9" * 30, "١-٢"])
def test_cursor_that_is_none_of_ours_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        Listing.model_validate({"before": given})
