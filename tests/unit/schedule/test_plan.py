"""Which jobs cron-job.org should have, and what must change for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from services.commands.schedule import plan
from services.commands.schedule.plan import Rhythm, rhythm

BASE = "https://loop.example.com"
BEARER = "Bearer t0ken"
NINE = Rhythm(9 * 60)


def wanted(when: Rhythm = NINE, authorization: str | None = BEARER) -> list[Any]:
    return [dict(job) for job in plan.jobs(BASE, when, "Asia/Seoul", authorization)]


def existing(*jobs: Any) -> list[Any]:
    """Jobs as the API gives them back, from id 1 on."""
    return [{"jobId": id, "lastStatus": 1, **copy.deepcopy(job)} for id, job in enumerate(jobs, 1)]


def times(jobs: list[Any]) -> list[tuple[str, str]]:
    return [(job["title"], plan.describe(job["schedule"])) for job in jobs]


def actions(steps: list[plan.Step]) -> list[tuple[str, int | None]]:
    return [(step.action, step.id) for step in steps]


# --- when -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "warm_up", "trigger"),
    [
        ((None, None, False, None), "daily 08:57", "daily 09:00 09:05 09:15"),
        (("18:30", None, False, None), "daily 18:27", "daily 18:30 18:35 18:45"),
        ((None, "mon@9:00", False, None), "mon 08:57", "mon 09:00 09:05 09:15"),
        ((None, "SUN@23:00", False, None), "sun 22:57", "sun 23:00 23:05 23:15"),
        ((None, None, True, None), "hourly :57", "hourly :00 :05 :15"),
        ((None, None, False, "10:00"), "sun sat 09:57", "sun sat 10:00 10:05 10:15"),
    ],
)
def test_each_rhythm_has_a_warm_up_three_minutes_before_and_three_hits(
    options: tuple[Any, ...], warm_up: str, trigger: str
) -> None:
    assert times(wanted(rhythm(*options))) == [
        ("AI Feedback Loop: warm-up", warm_up),
        ("AI Feedback Loop: trigger", trigger),
    ]


def test_hits_that_reach_into_the_next_hour_are_a_job_of_their_own() -> None:
    assert [when for _, when in times(wanted(rhythm("09:50", None, False, None)))] == [
        "daily 09:47",
        "daily 09:50 09:55",
        "daily 10:05",
    ]


def test_what_reaches_over_midnight_falls_on_the_day_before_or_after() -> None:
    assert [when for _, when in times(wanted(rhythm(None, "mon@00:01", False, None)))] == [
        "sun 23:58",
        "mon 00:01 00:06 00:16",
    ]
    assert [when for _, when in times(wanted(rhythm(None, None, False, "23:50")))] == [
        "sun sat 23:47",
        "sun sat 23:50 23:55",
        "sun mon 00:05",
    ]


@pytest.mark.parametrize(
    "options",
    [
        ("9", None, False, None),
        ("24:00", None, False, None),
        ("09:60", None, False, None),
        ("", None, False, None),
        ("٠٩:٠٠", None, False, None),
        (None, "monday@09:00", False, None),
        (None, "mon 09:00", False, None),
        (None, "mon@", False, None),
        ("09:00", None, True, None),
        ("09:00", "mon@09:00", False, None),
    ],
)
def test_what_is_no_time_or_two_rhythms_is_refused(options: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        rhythm(*options)


# --- what is sent ---------------------------------------------------------------------------


def test_jobs_are_switched_on_in_the_time_zone_and_only_the_trigger_gets_the_token() -> None:
    warm_up, trigger = wanted()
    assert (warm_up["url"], trigger["url"]) == (f"{BASE}/healthz", f"{BASE}/run-feedback-loop")
    assert [job["enabled"] for job in (warm_up, trigger)] == [True, True]
    assert {job["schedule"]["timezone"] for job in (warm_up, trigger)} == {"Asia/Seoul"}
    assert warm_up["extendedData"] == {"headers": {}}
    assert trigger["extendedData"] == {"headers": {"Authorization": BEARER}}
    assert trigger["schedule"] == {
        "timezone": "Asia/Seoul",
        "expiresAt": 0,
        "hours": [9],
        "minutes": [0, 5, 15],
        "mdays": [-1],
        "months": [-1],
        "wdays": [-1],
    }


def test_a_mail_comes_when_all_hits_failed_and_none_for_the_warm_up() -> None:
    warm_up, trigger = wanted()
    assert trigger["notification"] == {
        "onFailure": True,
        "onFailureCount": 3,
        "onSuccess": True,
        "onDisable": True,
    }
    assert (warm_up["notification"]["onFailure"], warm_up["notification"]["onDisable"]) == (False, True)


def test_neither_a_job_nor_a_step_shows_the_token() -> None:
    job = wanted()
    assert "t0ken" not in repr([*plan.plan(job, []), *plan.plan(wanted(authorization=None), existing(*job))])


@pytest.mark.parametrize(
    "url",
    [
        "https://loop.example.com",
        "https://loop.example.com/",
        "HTTPS://Loop.Example.COM/healthz",
        " https://loop.example.com/run-feedback-loop/ ",
    ],
)
def test_an_address_may_be_given_in_several_ways(url: str) -> None:
    assert plan.base_url(url) == BASE


def test_an_address_may_have_a_path_and_a_port() -> None:
    assert plan.base_url("https://example.com:8443/loop/") == "https://example.com:8443/loop"


@pytest.mark.parametrize(
    "url",
    [
        "http://loop.example.com",
        "loop.example.com",
        "https://",
        "https://a.b/?x=1",
        "https://u:p@a.b",
        "https://a.b/#x",
    ],
)
def test_an_address_that_cannot_be_called_safely_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="--url must"):
        plan.base_url(url)


# --- what must change -----------------------------------------------------------------------


def test_an_empty_account_gets_every_job() -> None:
    assert actions(plan.plan(wanted(), [])) == [("create", None), ("create", None)]


def test_what_is_as_it_should_be_is_left() -> None:
    assert actions(plan.plan(wanted(), existing(*wanted()))) == [("leave", 1), ("leave", 2)]


def test_the_order_of_a_schedule_and_an_empty_list_of_headers_are_no_difference() -> None:
    warm_up, trigger = existing(*wanted())
    trigger["schedule"]["minutes"] = [15, 0, 5]
    warm_up["extendedData"]["headers"] = []  # as PHP has it
    assert {step.action for step in plan.plan(wanted(), [warm_up, trigger])} == {"leave"}


def test_what_a_person_set_and_nobody_asked_for_is_left() -> None:
    jobs = existing(*wanted())
    for job in jobs:
        job |= {"requestTimeout": 25, "folderId": 7, "auth": {"enable": True}}
        job["notification"]["onSslCertExpiry"] = True
    assert {step.action for step in plan.plan(wanted(), jobs)} == {"leave"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"enabled": False}, "enabled"),
        ({"title": "AI Feedback Loop"}, "title"),
        ({"requestMethod": 1}, "requestMethod"),
        ({"extendedData": {"headers": {"Authorization": "Bearer old"}}}, "extendedData"),
        ({"notification": {"onFailure": False}}, "notification"),
        ({"schedule": {"timezone": "UTC", "hours": [9]}}, "schedule"),
    ],
)
def test_only_what_differs_is_sent(change: dict[str, Any], named: str) -> None:
    warm_up, trigger = existing(*wanted())
    [_, step] = plan.plan(wanted(), [warm_up, trigger | change])
    assert (step.action, step.id, step.changes) == ("update", 2, (named,))
    assert step.fields == {named: wanted()[1][named]}


def test_another_time_changes_the_jobs_that_are_there() -> None:
    steps = plan.plan(wanted(rhythm("18:00", None, False, None)), existing(*wanted()))
    assert [(step.action, step.id, step.changes) for step in steps] == [
        ("update", 1, ("schedule",)),
        ("update", 2, ("schedule",)),
    ]


def test_a_job_too_many_is_deleted_last() -> None:
    late = wanted(rhythm("09:50", None, False, None))
    assert actions(plan.plan(wanted(), existing(*late))) == [("update", 1), ("update", 2), ("delete", 3)]


def test_of_two_jobs_the_one_that_fits_stays() -> None:
    warm_up, trigger = wanted()
    jobs = existing(warm_up, trigger | {"enabled": False}, trigger)
    assert actions(plan.plan(wanted(), jobs)) == [("leave", 1), ("leave", 3), ("delete", 2)]


def test_nothing_wanted_deletes_all() -> None:
    assert actions(plan.plan([], existing(*wanted()))) == [("delete", 1), ("delete", 2)]


# --- whose jobs -----------------------------------------------------------------------------


def test_only_jobs_with_our_title_and_address_are_ours() -> None:
    warm_up, trigger = wanted()
    jobs = existing(
        trigger,
        trigger | {"title": "my own trigger"},
        warm_up | {"url": "https://other.example.com/healthz"},
        trigger | {"url": f"{BASE}/run-feedback-loop?app=shop"},
        trigger | {"url": f"{BASE}/metrics"},
        warm_up | {"title": "AI Feedback Loop", "url": "https://LOOP.example.com/healthz"},
    )
    assert [job["jobId"] for job in plan.own(jobs, BASE)] == [1, 6]
    assert [job["jobId"] for job in plan.ours(jobs)] == [1, 3, 6]


def test_the_token_in_use_is_that_of_the_trigger() -> None:
    assert plan.authorization(existing(*wanted())) == BEARER
    assert plan.authorization(existing(*wanted(authorization=None))) is None
    assert plan.authorization(existing(wanted()[0])) is None
