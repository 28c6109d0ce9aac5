"""Which jobs cron-job.org should have, and what must change so that it has them.

What is guaranteed: a job is ours only where its title begins with `TITLE` and its address is one of
the two that we call, so nobody else's job is changed or deleted; where all is as it should be, every
step is `leave`; what is to be deleted comes last, so the trigger is never without a job. What is not:
that jobs for another address are looked after. They may be another deployment's.

Pure. Fields are those of https://docs.cron-job.org/rest-api.html (DetailedJob); there, weekdays count
from Sunday = 0 and `[-1]` means every one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

__all__ = [
    "TITLE",
    "TRIGGER",
    "Job",
    "Rhythm",
    "Step",
    "authorization",
    "base_url",
    "describe",
    "jobs",
    "ours",
    "own",
    "plan",
    "rhythm",
]

Job = Mapping[str, Any]
"""A job as the API has it."""

TITLE = "AI Feedback Loop"
WARM_UP, TRIGGER = "/healthz", "/run-feedback-loop"

HITS = (0, 5, 15)
"""Minutes from the time wanted to each hit. cron-job.org repeats no failed call, and hits within
TRIGGER_WINDOW of a run's start join it."""
BEFORE = -3
"""Minutes from there to the warm-up: a process that sleeps may take a minute to wake."""

DAY = 24 * 60
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
EVERY = [-1]
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When to trigger.

    Attributes:
        minute: of the day (0 to 1439); None: at every full hour.
        weekdays: 0 = Sunday; empty: every day.
    """

    minute: int | None
    weekdays: tuple[int, ...] = ()

    def schedules(self, offsets: Sequence[int], timezone: str) -> list[dict[str, Any]]:
        """One schedule for each hour that the hits fall into (`offsets`: minutes from the time)."""
        if self.minute is None:
            return [_schedule(timezone, EVERY, [offset % 60 for offset in offsets], EVERY)]
        hits: dict[tuple[int, int], list[int]] = {}
        for offset in offsets:
            shift, minute = divmod(self.minute + offset, DAY)
            hits.setdefault((shift, minute // 60), []).append(minute % 60)
        return [
            _schedule(timezone, [hour], minutes, [(day + shift) % 7 for day in self.weekdays] or EVERY)
            for (shift, hour), minutes in hits.items()
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one job.

    Attributes:
        job: as it should be; for `delete` as it is.
        id: None where it is to be created.
        fields: what to send. It may hold the token, so it is never shown.
        changes: names of the fields that differ.
    """

    action: Literal["create", "update", "leave", "delete"]
    job: Job = field(repr=False)
    id: int | None = None
    fields: dict[str, Any] = field(default_factory=dict, repr=False)
    changes: tuple[str, ...] = ()


def rhythm(daily: str | None, weekly: str | None, hourly: bool, weekends: str | None) -> Rhythm:
    """The rhythm that the options ask for; daily at 09:00 where none is given.

    Raises:
        ValueError: more than one is given, or one is no time such as 09:00 or mon@09:00.
    """
    if sum((daily is not None, weekly is not None, hourly, weekends is not None)) > 1:
        raise ValueError("--daily, --weekly, --hourly and --weekends exclude each other")
    if hourly:
        return Rhythm(None)
    if weekends is not None:
        return Rhythm(_clock(weekends), (0, 6))
    if weekly is not None:
        day, at, clock = weekly.lower().partition("@")
        if not at or day not in DAYS:
            raise ValueError(f"--weekly must be a day and a time such as mon@09:00, not {weekly!r}")
        return Rhythm(_clock(clock), (DAYS.index(day),))
    return Rhythm(_clock("09:00" if daily is None else daily))


def base_url(url: str) -> str:
    """The address that the routes are appended to.

    Raises:
        ValueError: cron-job.org could not call it, or the token would travel in the clear.
    """
    parts = urlsplit(url.strip())
    if parts.scheme.lower() != "https" or not parts.hostname:
        raise ValueError("--url must be the public https:// address of the service")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("--url must have no query, no fragment and no password")
    path = parts.path.rstrip("/")
    for route in (WARM_UP, TRIGGER):
        path = path.removesuffix(route)
    return f"https://{parts.netloc.lower()}{path}"


def jobs(base: str, when: Rhythm, timezone: str, authorization: str | None) -> list[Job]:
    """The jobs that there should be: the warm-up first.

    Mails come when every hit of a job has failed, when it works again, and when cron-job.org switches
    it off. A warm-up may fail as it likes: it only has to wake.

    Args:
        authorization: the header's value; None: the trigger is open.
    """
    headers = {"Authorization": authorization} if authorization else {}
    warm_ups = [
        _job("warm-up", base + WARM_UP, schedule, {}, mails=False)
        for schedule in when.schedules((BEFORE,), timezone)
    ]
    triggers = [
        _job("trigger", base + TRIGGER, schedule, headers, mails=True)
        for schedule in when.schedules(HITS, timezone)
    ]
    return [*warm_ups, *triggers]


def ours(existing: Iterable[Job]) -> list[Job]:
    """Our jobs among all of an account, for whatever address, oldest first."""
    found = [
        job
        for job in existing
        if str(job.get("title", "")).startswith(TITLE) and _address(job).endswith((WARM_UP, TRIGGER))
    ]
    return sorted(found, key=lambda job: int(job["jobId"]))


def own(existing: Iterable[Job], base: str) -> list[Job]:
    """Our jobs for this address."""
    return [job for job in ours(existing) if _address(job) in (base + WARM_UP, base + TRIGGER)]


def authorization(existing: Iterable[Job]) -> str | None:
    """What our trigger jobs send as `Authorization`; None where they send nothing."""
    for job in existing:
        if _address(job).endswith(TRIGGER):
            for name, value in _headers(job).items():
                if name.lower() == "authorization":
                    return str(value)
    return None


def plan(wanted: Sequence[Job], existing: Sequence[Job]) -> list[Step]:
    """From our jobs as they are (with their details) to those wanted: one step for each job."""
    left = list(existing)
    paired: dict[int, Job] = {}
    # First those that are right as they are, so that a second run leaves everything alone.
    for exactly in (True, False):
        for number, job in enumerate(wanted):
            fitting = [
                its for its in left if _address(its) == job["url"] and not (exactly and _difference(job, its))
            ]
            if number not in paired and fitting:
                paired[number] = fitting[0]
                left.remove(fitting[0])
    steps = [_step(job, paired.get(number)) for number, job in enumerate(wanted)]
    return steps + [Step("delete", job, int(job["jobId"])) for job in left]


def describe(schedule: Mapping[str, Any]) -> str:
    """A schedule of ours in words, such as `daily 09:00 09:05 09:15`."""
    hours, minutes = schedule["hours"], sorted(schedule["minutes"])
    weekdays = [] if -1 in schedule["wdays"] else sorted(schedule["wdays"])
    if -1 in hours:
        days, times = "hourly", [f":{minute:02}" for minute in minutes]
    else:
        days, times = "daily", [f"{hour:02}:{minute:02}" for hour in sorted(hours) for minute in minutes]
    if weekdays:
        days = " ".join(DAYS[day] for day in weekdays)
    return " ".join([days, *times])


# --- the parts ------------------------------------------------------------------------------


def _clock(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no time such as 09:00")
    return int(found[1]) * 60 + int(found[2])


def _schedule(timezone: str, hours: list[int], minutes: list[int], weekdays: list[int]) -> dict[str, Any]:
    return {
        "timezone": timezone,
        "expiresAt": 0,
        "hours": hours,
        "minutes": sorted(minutes),
        "mdays": EVERY,
        "months": EVERY,
        "wdays": sorted(weekdays),
    }


def _job(
    name: str, url: str, schedule: dict[str, Any], headers: dict[str, str], *, mails: bool
) -> dict[str, Any]:
    return {
        "title": f"{TITLE}: {name}",
        "url": url,
        "enabled": True,  # the API's own default is false
        "saveResponses": mails,  # a 503 says why
        "requestMethod": 0,  # GET
        "schedule": schedule,
        "extendedData": {"headers": headers},
        "notification": {
            "onFailure": mails,
            "onFailureCount": len(schedule["minutes"]),
            "onSuccess": mails,
            "onDisable": True,
        },
    }


def _step(job: Job, existing: Job | None) -> Step:
    if existing is None:
        return Step("create", job, fields=dict(job))
    difference = _difference(job, existing)
    id = int(existing["jobId"])
    if not difference:
        return Step("leave", job, id)
    return Step("update", job, id, difference, tuple(difference))


def _difference(wanted: Job, existing: Job) -> dict[str, Any]:
    """What to send so that the job becomes as wanted. What is not wanted in particular stays."""
    difference = {}
    for name, value in wanted.items():
        its = existing.get(name)
        if name == "extendedData":
            same = value["headers"] == _headers(existing)
        elif isinstance(value, dict):
            its = its if isinstance(its, dict) else {}
            same = all(_plain(its.get(key)) == _plain(part) for key, part in value.items())
        else:
            same = _address(existing) == value if name == "url" else its == value
        if not same:
            difference[name] = value
    return difference


def _plain(value: object) -> object:
    """Lists are sets to the API: it gives them back in another order."""
    return sorted(value) if isinstance(value, list) else value


def _headers(job: Job) -> dict[str, Any]:
    headers = (job.get("extendedData") or {}).get("headers")
    return headers if isinstance(headers, dict) else {}  # PHP gives an empty one as []


def _address(job: Job) -> str:
    """The URL, with the parts that do not tell one from another as `base_url` has them."""
    parts = urlsplit(str(job.get("url", "")))
    return parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower()).geturl()
