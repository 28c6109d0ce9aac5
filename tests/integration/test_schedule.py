"""`feedback-loop schedule` against a server that behaves like cron-job.org's API."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import click
import pytest

from services.commands.schedule.client import CronJobOrg
from services.commands.schedule.command import Wish, schedule_jobs
from shared.settings import Settings
from tests.support.cron_job_org import KEY, FakeCronJobOrg, Fault

BASE = "https://loop.example.com"
TOKEN = "t0ken-of-the-trigger"
OK, TIMED_OUT, HTTP_ERROR = 1, 5, 4  # JobStatus


@pytest.fixture
async def cron() -> AsyncIterator[FakeCronJobOrg]:
    async with FakeCronJobOrg() as cron:
        yield cron


class Shell:
    """`feedback-loop schedule` at the account, with the address and TRIGGER_TOKEN given."""

    def __init__(self, cron: FakeCronJobOrg, capsys: pytest.CaptureFixture[str]) -> None:
        self._cron, self._capsys = cron, capsys
        self.settings: dict[str, Any] = {**cron.settings, "trigger_token": TOKEN}
        self.printed = ""

    async def __call__(self, **options: Any) -> str:
        """What it prints, on standard output."""
        options = {"url": BASE, "token_from_env": True, **options}
        settings = Settings(_env_file=None, **self.settings)
        self._capsys.readouterr()
        try:
            await schedule_jobs(settings, Wish(**options), sleep=self._cron.sleep)
        finally:
            out, err = self._capsys.readouterr()
            self.printed += out + err
        return " ".join(out.split())

    async def refused(self, **options: Any) -> str:
        """What it says when it fails."""
        with pytest.raises(click.ClickException) as error:
            await self(**options)
        self.printed += error.value.message
        return error.value.message


@pytest.fixture
def schedule(
    cron: FakeCronJobOrg, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    shell = Shell(cron, capsys)
    yield shell
    assert TOKEN not in shell.printed
    assert KEY not in shell.printed


def titles(cron: FakeCronJobOrg) -> list[str]:
    return sorted(job["title"] for job in cron.jobs.values())


def trigger(cron: FakeCronJobOrg) -> dict[str, Any]:
    [job] = [job for job in cron.jobs.values() if job["url"].endswith("/run-feedback-loop")]
    return job


# --- making and keeping them ----------------------------------------------------------------


async def test_it_makes_the_warm_up_and_the_trigger(cron: FakeCronJobOrg, schedule: Shell) -> None:
    printed = await schedule(daily="09:00")
    assert titles(cron) == ["AI Feedback Loop: trigger", "AI Feedback Loop: warm-up"]
    job = trigger(cron)
    assert (job["enabled"], job["saveResponses"], job["requestMethod"]) == (True, True, 0)
    assert job["schedule"] == {
        "timezone": "Asia/Seoul",
        "expiresAt": 0,
        "hours": [9],
        "minutes": [0, 5, 15],
        "mdays": [-1],
        "months": [-1],
        "wdays": [-1],
    }
    assert job["extendedData"]["headers"] == {"Authorization": f"Bearer {TOKEN}"}
    assert job["notification"]["onFailure"] is True
    assert "trigger daily 09:00 09:05 09:15 none yet 2026-11-24 09:00" in printed
    assert "Times of Asia/Seoul." in printed


async def test_a_second_run_changes_nothing_and_says_so(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    before, made = str(cron.jobs), len(cron.changes)
    printed = await schedule()
    assert "Nothing to change." in printed
    assert (str(cron.jobs), len(cron.changes)) == (before, made)


async def test_another_rhythm_changes_the_jobs_that_are_there(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    ids = set(cron.jobs)
    printed = await schedule(weekly="mon@18:00")
    assert "update AI Feedback Loop: trigger, mon 18:00 18:05 18:15 (schedule)" in printed
    assert set(cron.jobs) == ids
    assert (trigger(cron)["schedule"]["wdays"], trigger(cron)["schedule"]["hours"]) == ([1], [18])


async def test_a_new_token_reaches_the_trigger(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    schedule.settings["trigger_token"] = "an0ther"
    assert "(header)" in await schedule()
    assert trigger(cron)["extendedData"]["headers"] == {"Authorization": "Bearer an0ther"}


async def test_a_job_that_was_switched_off_is_switched_on(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    trigger(cron)["enabled"] = False  # as cron-job.org does after many failures
    assert "(enabled)" in await schedule()
    assert trigger(cron)["enabled"] is True


async def test_a_trigger_job_made_by_hand_is_taken_over(cron: FakeCronJobOrg, schedule: Shell) -> None:
    id = cron.add(title="AI Feedback Loop", url=f"{BASE}/run-feedback-loop", enabled=True)
    await schedule()
    assert trigger(cron)["jobId"] == id


async def test_jobs_of_others_are_left_alone(cron: FakeCronJobOrg, schedule: Shell) -> None:
    others = [
        cron.add(title="backup", url="https://loop.example.com/healthz"),
        cron.add(title="AI Feedback Loop: trigger", url="https://staging.example.com/run-feedback-loop"),
    ]
    before = [str(cron.jobs[id]) for id in others]
    await schedule()
    await schedule(remove=True)
    assert [str(cron.jobs[id]) for id in others] == before
    assert len(cron.jobs) == 2


async def test_jobs_too_many_are_deleted(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule(daily="09:50")
    assert len(cron.jobs) == 3
    assert "delete AI Feedback Loop: trigger" in await schedule(daily="09:00")
    assert len(cron.jobs) == 2


async def test_remove_deletes_them_and_a_second_time_finds_none(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    await schedule()
    await schedule(remove=True)
    assert cron.jobs == {}
    assert "Nothing to remove." in await schedule(remove=True)


# --- the token ------------------------------------------------------------------------------


async def test_without_a_word_about_the_token_the_jobs_keep_theirs(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    await schedule()
    await schedule(daily="09:50", token_from_env=False)
    sent = [job["extendedData"]["headers"] for job in cron.jobs.values() if "run-" in job["url"]]
    assert sent == [{"Authorization": f"Bearer {TOKEN}"}] * 2


async def test_where_nobody_can_be_asked_for_the_token_it_says_what_to_do(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    assert "--token-from-env" in await schedule.refused(token_from_env=False)
    assert cron.jobs == {}


async def test_token_from_env_without_a_token_is_an_error(cron: FakeCronJobOrg, schedule: Shell) -> None:
    del schedule.settings["trigger_token"]
    assert "TRIGGER_TOKEN is not set" in await schedule.refused()
    assert cron.changes == []


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "토큰", "%cjo:uuid4%"])
async def test_a_token_that_no_header_carries_is_refused(
    cron: FakeCronJobOrg, schedule: Shell, token: str
) -> None:
    schedule.settings["trigger_token"] = token
    assert "characters that a header cannot carry" in await schedule.refused()
    assert cron.changes == []


# --- looking --------------------------------------------------------------------------------


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    printed = await schedule(dry_run=True, token_from_env=False)
    assert "create AI Feedback Loop: warm-up, daily 08:57" in printed
    assert "create AI Feedback Loop: trigger, daily 09:00 09:05 09:15" in printed
    assert "A dry run: nothing was changed." in printed
    assert (cron.jobs, cron.changes) == ({}, [])


async def test_a_dry_run_of_a_removal_removes_nothing(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    assert "delete AI Feedback Loop: trigger" in await schedule(remove=True, dry_run=True)
    assert len(cron.jobs) == 2


async def test_a_dry_run_needs_no_account(cron: FakeCronJobOrg, schedule: Shell) -> None:
    del schedule.settings["cron_job_org_api_key"]
    printed = await schedule(dry_run=True, hourly=True, token_from_env=False)
    assert "what an empty account would get" in printed
    assert "create AI Feedback Loop: trigger, hourly :00 :05 :15" in printed
    assert cron.requests == []


async def test_show_tells_the_last_results_and_the_next_times(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    id = trigger(cron)["jobId"]
    cron.ran(id, HTTP_ERROR, 503, "HTTP error")
    cron.ran(id, TIMED_OUT, 0, "Timeout")
    await cron.sleep(300)
    cron.ran(id, OK, 200, "OK")
    printed = await schedule(show=True, token_from_env=False)
    assert "✔ 11-23 12:05 200" in printed
    assert "✘ 11-23 12:00 Timeout" in printed
    assert "✘ 11-23 12:00 503" in printed
    assert "2026-11-24 09:00" in printed


async def test_show_without_an_address_shows_those_of_every_address(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    await schedule()
    await schedule(url="https://staging.example.com", daily="07:00")
    printed = await schedule(show=True, url=None)
    assert "daily 07:00 07:05 07:15" in printed
    assert f"{BASE}/run-feedback-loop" in printed
    assert "https://staging.example.com/run-feedback-loop" in printed


async def test_show_says_where_a_job_is_switched_off_and_where_there_is_none(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    assert "There are no jobs of ours" in await schedule(show=True)
    await schedule()
    trigger(cron)["enabled"] = False
    assert "switched off" in await schedule(show=True)
    assert trigger(cron)["enabled"] is False


async def test_no_line_is_wider_than_80_columns(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule(url="https://" + "long." * 30 + "example.com", daily="09:50")
    cron.ran(101, HTTP_ERROR, 0, "x" * 500 + "\x1b[31m\u202e")
    await schedule(show=True, url=None)
    assert max(map(len, schedule.printed.splitlines())) <= 80
    assert all(c.isprintable() or c == "\n" for c in schedule.printed)


# --- options that do not fit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": None}, "--url is missing"),
        ({"url": "http://loop.example.com"}, "https://"),
        ({"daily": "9 o'clock"}, "no time"),
        ({"daily": "09:00", "hourly": True}, "exclude each other"),
        ({"show": True, "remove": True}, "exclude each other"),
    ],
)
async def test_options_that_do_not_fit_are_refused_before_anything_is_asked(
    cron: FakeCronJobOrg, schedule: Shell, options: dict[str, Any], said: str
) -> None:
    assert said in await schedule.refused(**options)
    assert cron.requests == []


async def test_without_a_key_it_says_where_to_make_one(schedule: Shell) -> None:
    del schedule.settings["cron_job_org_api_key"]
    assert "CRON_JOB_ORG_API_KEY is not set" in await schedule.refused()


# --- what the API refuses -------------------------------------------------------------------


async def test_a_wrong_key_is_said(schedule: Shell) -> None:
    schedule.settings["cron_job_org_api_key"] = "wr0ng"
    said = await schedule.refused()
    assert "401, the API key is not valid" in said
    assert "wr0ng" not in said


async def test_a_key_that_may_not_be_used_from_here_is_said(cron: FakeCronJobOrg, schedule: Shell) -> None:
    cron.forbidden = True
    assert "403, the API key may not be used from this machine" in await schedule.refused()


async def test_rates_are_waited_out(cron: FakeCronJobOrg, schedule: Shell) -> None:
    for name in "abc":
        await schedule(url=f"https://{name}.example.com")  # six jobs, of which the API makes five a minute
    assert len(cron.jobs) == 6
    assert 1.1 in cron.slept
    assert max(cron.slept) > 1.1
    assert "cron-job.org asks to wait" in schedule.printed


async def test_a_used_up_quota_is_said_after_a_minute_and_the_next_day_it_goes_on(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    cron.quota = 2  # the list and one creation
    assert "429" in (said := await schedule.refused())
    assert "quota" in said
    assert sum(cron.slept) > 60
    assert len(cron.jobs) == 1
    cron.quota = 100
    await cron.sleep(86400)
    await schedule()
    assert len(cron.jobs) == 2


async def test_a_conflict_is_said_and_not_repeated(cron: FakeCronJobOrg, schedule: Shell) -> None:
    cron.next(None, Fault(409))
    assert "409" in await schedule.refused()
    assert len(cron.changes) == 1


async def test_a_list_that_is_not_whole_makes_no_jobs(cron: FakeCronJobOrg, schedule: Shell) -> None:
    cron.some_failed = True
    assert "cannot list all jobs" in await schedule.refused()
    assert cron.changes == []


async def test_a_time_zone_that_cron_job_org_does_not_know_is_said(
    cron: FakeCronJobOrg, schedule: Shell
) -> None:
    schedule.settings["timezone"] = "ROK"  # an old name of Asia/Seoul, which it takes for UTC
    assert "does not know the time zone ROK, so the jobs run by UTC" in await schedule.refused()


# --- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault(500), Fault(502), Fault(0)], ids=["500", "502", "dropped"])
async def test_reading_is_repeated(cron: FakeCronJobOrg, schedule: Shell, fault: Fault) -> None:
    cron.next(fault, fault)
    await schedule()
    assert len(cron.jobs) == 2


async def test_a_server_that_stays_in_trouble_is_given_up(cron: FakeCronJobOrg, schedule: Shell) -> None:
    cron.next(*[Fault(503)] * 3)
    assert "503, it has trouble of its own; try again later" in await schedule.refused()
    assert len(cron.requests) == 3


@pytest.mark.parametrize("fault", [Fault(0, does=True), Fault(500, does=True)], ids=["dropped", "500"])
async def test_a_creation_without_an_answer_makes_no_second_job(
    cron: FakeCronJobOrg, schedule: Shell, fault: Fault
) -> None:
    cron.next(None, fault)
    assert "run the command again" in await schedule.refused()
    assert (len(cron.jobs), len(cron.changes)) == (1, 1)
    await schedule()
    assert len(cron.jobs) == 2


async def test_a_deletion_without_an_answer_is_repeated(cron: FakeCronJobOrg, schedule: Shell) -> None:
    await schedule()
    cron.next(None, None, None, Fault(0, does=True))  # the list and two details come first
    await schedule(remove=True)
    assert cron.jobs == {}


async def test_a_server_that_is_not_there_is_said(schedule: Shell, unused_tcp_port: int) -> None:
    schedule.settings["cron_job_org_api_url"] = f"http://127.0.0.1:{unused_tcp_port}"
    assert "cannot reach http://127.0.0.1" in await schedule.refused()


@pytest.mark.parametrize(
    "text",
    [
        *("<html>a portal</html>", "[1]", '{"welcome": true}', '{"jobs": 5}', '{"jobs": [1]}', "[" * 100_000),
        '{"jobs": [{"jobId": "x", "title": "feedback-loop: trigger"}]}',
        '{"jobs": [{"jobId": 1, "title": "feedback-loop: trigger", "url": "u", "schedule": {"hours": {}}}]}',
    ],
)
async def test_a_server_that_is_another_is_said(cron: FakeCronJobOrg, schedule: Shell, text: str) -> None:
    cron.next(Fault(200, text=text))
    assert "is CRON_JOB_ORG_API_URL right?" in await schedule.refused()


async def test_the_key_follows_no_redirect(cron: FakeCronJobOrg, schedule: Shell) -> None:
    cron.next(Fault(302))
    assert "302" in await schedule.refused()
    assert cron.requests == ["GET /jobs"]


async def test_an_answer_that_does_not_come_is_given_up(cron: FakeCronJobOrg) -> None:
    said: list[str] = []
    say: Callable[[str], None] = said.append
    async with aiohttp.ClientSession() as session:
        api = CronJobOrg(session, cron.url, KEY, say, cron.sleep)
        cron.next(Fault(500), Fault(500))
        await api.jobs()
    assert said == ["cron-job.org does not answer: again in 5 s"]
