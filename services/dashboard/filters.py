"""What a reader asks for: the filter of the page's URL, the days it covers, and where a list goes on. Pure.

What is guaranteed: whatever passes is bounded and fit for the database. What is not: that there is an app,
a document or a group of that name; where there is none, nothing is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "MOST_DAYS",
    "STANDARD",
    "BadRange",
    "Cursor",
    "Filter",
    "Listing",
    "Span",
    "What",
    "gathered",
    "span",
]

STANDARD = 28
"""Days where none are asked for."""
MOST_DAYS = 1100
"""Days of a range, at most: three years."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_CURSOR = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _day(given: object) -> object:
    # Pydantic alone would also take a number of seconds.
    if isinstance(given, str) and not _DATE.fullmatch(given):
        raise ValueError("must be a date such as 2026-11-01")
    return given


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not have NUL characters or lone surrogates")
    return text


Name = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
Day = Annotated[date, BeforeValidator(_day), Field(ge=date(1971, 1, 1), le=date(9000, 1, 1))]
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_storable)]
Cause = Literal["retrieval_miss", "stale_document", "coverage_gap", "answer_fault", "unknown"]
"""As the view `complaint_of_vote` names them."""


class Query(BaseModel):
    """What is read of a query string: parameters of other names are others' business."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Filter(Query):
    """Which votes; None (or nothing): all of them.

    Attributes:
        first, last: calendar days, both included.
        document: a source that the answer cited, or that search showed for it.
        group: the id of a complaint group.
    """

    app: Name | None = None
    first: Day | None = Field(None, alias="from")
    last: Day | None = Field(None, alias="to")
    rated: Literal["down", "up"] | None = None
    reasons: tuple[Name, ...] = Field((), alias="reason", max_length=20)
    comment: Literal["0", "1"] = "0"
    document: Text | None = None
    generation: int | None = Field(None, ge=1, lt=2**63)
    cause: Cause | None = None
    group: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _reasons_are_a_list(cls, given: Any) -> Any:
        reason = given.get("reason") if isinstance(given, dict) else None
        return {**given, "reason": [reason]} if isinstance(reason, str) else given

    def without(self, name: Literal["rated", "reasons", "document", "cause", "group"]) -> Filter:
        """The filter less one condition: what else that one could be."""
        return self.model_copy(update={name: () if name == "reasons" else None})


class Cursor(NamedTuple):
    """Where a list of votes, newest first, goes on: after this one."""

    at: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1)}-{self.id}"

    @classmethod
    def parse(cls, given: object) -> Cursor:
        """Raises ValueError where it is none of ours."""
        found = _CURSOR.fullmatch(given) if isinstance(given, str) else None
        try:
            if found:
                return cls(_EPOCH + timedelta(microseconds=int(found[1])), int(found[2]))
        except OverflowError:
            pass
        raise ValueError("must be the `next` of an earlier answer")


class Listing(Query):
    """How much of a list, and where it goes on."""

    limit: int = Field(50, ge=1, le=200)
    before: Annotated[Cursor, BeforeValidator(Cursor.parse)] | None = None


class What(Query):
    """What a backtest is asked: `threshold` is a ratio."""

    app: Name | None = None
    threshold: float | None = Field(None, gt=0, lt=1, allow_inf_nan=False)
    days: int = Field(90, ge=1, le=366)


class BadRange(ValueError):
    """The days asked for are no range; `field` is the parameter to mend."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


@dataclass(frozen=True, slots=True)
class Span:
    """Calendar days of a time zone.

    Attributes:
        bounds: when each of them begins, and when the last one ends; in UTC.
    """

    days: tuple[date, ...]
    bounds: tuple[datetime, ...]

    @classmethod
    def of(cls, first: date, last: date, zone: tzinfo) -> Span:
        """The days from `first` to `last`; one may have 23 or 25 hours."""
        days = [first + timedelta(days=n) for n in range((last - first).days + 2)]
        bounds = (datetime.combine(day, time(), zone).astimezone(UTC) for day in days)
        return cls(tuple(days[:-1]), tuple(bounds))

    @property
    def start(self) -> datetime:
        return self.bounds[0]

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.bounds[-1]


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """A query string's parameters: a repeated one as a list, an empty one left out."""
    found: dict[str, str | list[str]] = {}
    for name, value in pairs:
        if not value:
            continue
        earlier = found.get(name)
        if earlier is None:
            found[name] = value
        else:
            found[name] = [*([earlier] if isinstance(earlier, str) else earlier), value]
    return found


def span(asked: Filter, now: datetime, zone: tzinfo) -> Span:
    """The days asked for; by default the last `STANDARD` up to today.

    Raises:
        BadRange: it ends before it begins, or is longer than `MOST_DAYS`.
    """
    last = asked.last or now.astimezone(zone).date()
    first = asked.first or last - timedelta(days=STANDARD - 1)
    if first > last:
        raise BadRange("from" if asked.first else "to", "the range ends before it begins")
    if (last - first).days >= MOST_DAYS:
        raise BadRange("from", f"a range has at most {MOST_DAYS} days")
    return Span.of(first, last, zone)
