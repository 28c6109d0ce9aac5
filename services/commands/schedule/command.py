"""The command `feedback-loop schedule`: makes the jobs at cron-job.org what they should be.

What is guaranteed: neither the API key nor the trigger's token is ever printed; a second run changes
nothing and says so; a dry run only reads.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import click
from rich.table import Table
from rich.text import Text

from services.commands.schedule import plan
from services.commands.schedule.client import CronJobOrg, CronJobOrgError
from services.commands.tables import console, plain
from shared.settings import Settings

__all__ = ["Wish", "schedule_jobs"]

KEY_PAGE = "https://console.cron-job.org/settings"
LATEST = 3
"""Executions shown of each job."""
HIDDEN = "(TRIGGER_TOKEN)"
NAMES = {"extendedData": "header", "notification": "mails"}
"""What people call a field."""
NO_TOKEN = (
    "the trigger jobs need TRIGGER_TOKEN: set it as it is where the service runs and say --token-from-env,"
    " or run this in a terminal, where it asks"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of the command, under their names."""

    url: str | None = None
    daily: str | None = None
    weekly: str | None = None
    hourly: bool = False
    weekends: str | None = None
    token_from_env: bool = False
    dry_run: bool = False
    remove: bool = False
    show: bool = False


async def schedule_jobs(
    settings: Settings, wish: Wish, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Create, update, show or remove the jobs.

    Args:
        sleep: how to wait where cron-job.org asks for it (seconds).

    Raises:
        click.ClickException: the options do not fit, or cron-job.org does not do it.
    """
    try:
        when = plan.rhythm(wish.daily, wish.weekly, wish.hourly, wish.weekends)
        base = plan.base_url(wish.url) if wish.url else ""
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if wish.show and wish.remove:
        raise click.UsageError("--show and --remove exclude each other")
    if not base and not wish.show:
        raise click.UsageError("--url is missing: the public https:// address of the service")
    key = settings.cron_job_org_api_key
    if key is None and (wish.show or not wish.dry_run):
        raise click.ClickException(f"CRON_JOB_ORG_API_KEY is not set: make a key at {KEY_PAGE}")
    async with aiohttp.ClientSession() as session:
        api = None
        if key is not None:
            url = settings.cron_job_org_api_url.rstrip("/")
            api = CronJobOrg(session, url, key.get_secret_value().strip(), say=_aside, sleep=sleep)
        try:
            await Scheduler(api, settings, base).fulfil(wish, when)
        except CronJobOrgError as error:
            raise click.ClickException(str(error)) from None


class Scheduler:
    """What the command does, at one address. Without an `api`, only a dry run: of an empty account."""

    def __init__(self, api: CronJobOrg | None, settings: Settings, base: str) -> None:
        self._api, self._settings, self._base = api, settings, base

    async def fulfil(self, wish: Wish, when: plan.Rhythm) -> None:
        """Show the jobs; else bring them to what is wished first (a dry run only says how)."""
        if wish.show and self._api:
            await self._show(self._api, await self._api.jobs())
            return
        existing = await self._own()
        wanted: list[plan.Job] = []
        if not wish.remove:
            header = self._authorization(wish, existing)
            wanted = plan.jobs(self._base, when, self._settings.timezone, header)
        steps = plan.plan(wanted, existing)
        _print_plan(steps, wish, looked=self._api is not None)
        if self._api is None or wish.dry_run:
            return
        await self._apply(self._api, steps)
        if wanted:
            jobs = await self._api.jobs()
            await self._show(self._api, jobs)
            self._check_zone(plan.own(jobs, self._base))

    async def _own(self) -> list[plan.Job]:
        if self._api is None:
            return []
        return [
            await self._api.job(int(job["jobId"])) for job in plan.own(await self._api.jobs(), self._base)
        ]

    def _authorization(self, wish: Wish, existing: Sequence[plan.Job]) -> str | None:
        """The header that the trigger jobs shall send; None: none, the trigger is open."""
        if wish.token_from_env:
            token = self._settings.trigger_token
            if token is None:
                raise click.ClickException("TRIGGER_TOKEN is not set, so --token-from-env finds none")
            return _bearer(token.get_secret_value())
        if any(str(job["url"]).endswith(plan.TRIGGER) for job in existing):
            return plan.authorization(existing)
        if wish.dry_run:
            return HIDDEN
        if not sys.stdin.isatty():
            raise click.ClickException(NO_TOKEN)
        asked = "TRIGGER_TOKEN of the service (it is not shown; empty: the trigger is open to anyone)"
        given = click.prompt(asked, default="", hide_input=True, show_default=False)
        return _bearer(given) if given.strip() else None

    async def _apply(self, api: CronJobOrg, steps: Sequence[plan.Step]) -> None:
        for step in steps:
            if step.id is None:
                await api.create(step.fields)
            elif step.action == "update":
                await api.update(step.id, step.fields)
            elif step.action == "delete":
                await api.delete(step.id)

    async def _show(self, api: CronJobOrg, jobs: Sequence[plan.Job]) -> None:
        """Our jobs (of this address, where one is given), their last results and next times."""
        ours = plan.own(jobs, self._base) if self._base else plan.ours(jobs)
        if not ours:
            click.echo("There are no jobs of ours at cron-job.org.")
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        for name, width in (("job", 8), ("when", 22), ("last results", 25), ("next", 16)):
            table.add_column(name, width=width, overflow="fold")
        for job in ours:
            history = await api.history(int(job["jobId"]))
            zone = _zone(job["schedule"]["timezone"]) or self._settings.zone
            title = str(job["title"]).removeprefix(plan.TITLE).lstrip(": ") or "trigger"
            results = [_result(entry, zone) for entry in history["history"][:LATEST]]
            table.add_row(
                plain(title, 64),
                plain(plan.describe(job["schedule"]), 120),
                Text("\n").join(results) if results else Text("none yet", "dim"),
                _next(job, history, zone),
            )
        screen = console()
        screen.print(table)
        zones = sorted({str(job["schedule"]["timezone"]) for job in ours})
        screen.print(Text("Times of ").append_text(plain(", ".join(zones))).append("."))
        for address in sorted({str(job["url"]) for job in ours} if not self._base else ()):
            screen.print(plain(address, 300))

    def _check_zone(self, jobs: Sequence[plan.Job]) -> None:
        """The API takes a zone that it does not know without a word, and leaves the job's as it was."""
        wanted = self._settings.timezone
        found = {str(job["schedule"]["timezone"]) for job in jobs} - {wanted}
        if found:
            raise CronJobOrgError(
                f"cron-job.org does not know the time zone {wanted}, so the jobs run by {', '.join(found)}."
                " Set TIMEZONE to a name of https://www.php.net/manual/timezones.php and run it again"
            )


def _bearer(token: str) -> str:
    token = token.strip()
    # cron-job.org would cut it or fill in its variables: every call would be a 401.
    if not (token.isascii() and token.isprintable()) or " " in token or "%cjo:" in token:
        raise click.ClickException("TRIGGER_TOKEN has characters that a header cannot carry")
    return f"Bearer {token}"


def _print_plan(steps: Sequence[plan.Step], wish: Wish, looked: bool) -> None:
    screen = console()
    if not looked:
        screen.print("CRON_JOB_ORG_API_KEY is not set: this is what an empty account would get.")
    for step in steps:
        said = Text(f"{step.action:7}", "bold").append(" ").append_text(plain(str(step.job["title"]), 64))
        if step.action != "delete":
            said.append(f", {plan.describe(step.job['schedule'])}")
        if step.changes:
            said.append(f" ({', '.join(NAMES.get(name, name) for name in step.changes)})")
        screen.print(said)
        screen.print(Text("        ").append_text(plain(str(step.job["url"]), 300)))
    if all(step.action == "leave" for step in steps):
        screen.print("Nothing to remove." if wish.remove else "Nothing to change.")
    elif wish.dry_run:
        screen.print("A dry run: nothing was changed.")


def _result(entry: Mapping[str, Any], zone: ZoneInfo) -> Text:
    good = entry.get("status") == 1  # JobStatus: 1 is OK, from 2 on it failed
    what = str(entry["httpStatus"]) if entry.get("httpStatus") else str(entry.get("statusText") or "failed")
    said = Text(f"{'✔' if good else '✘'} ", "green" if good else "red")
    return said.append(f"{_time(entry['date'], zone)[5:]} ").append_text(plain(what, 60))


def _next(job: plan.Job, history: Mapping[str, Any], zone: ZoneInfo) -> Text:
    if not job.get("enabled"):
        return Text("switched off", "bold red")
    coming = history.get("predictions") or [job.get("nextExecution")]
    return Text(_time(coming[0], zone)) if coming[0] else Text("never", "bold red")


def _time(at: float, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M}"


def _zone(name: object) -> ZoneInfo | None:
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        return None


def _aside(said: str) -> None:
    click.echo(said, err=True)
