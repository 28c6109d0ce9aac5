"""The commands `status`, `runs` and `votes`: what they find, and how it looks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import unicodedata
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from services.commands import overview, tables
from services.commands.glance import look
from shared.postgres.database import Connection, Database

COOLDOWN = timedelta(days=7)
HOSTILE = "\x1b[31mred\x1b]0;owned\x07\x9b2J\u202egnp.exe [bold]no markup[/] :smile:\nsecond\tline\u2028third"
Read = Callable[[Connection], Awaitable[Any]]


class Shell:
    """What the commands print about the test's database."""

    def __init__(self, database: Database, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self._database, self._settings, self._capsys = database, settings, capsys

    async def sql(self, query: str, *arguments: object) -> list[Any]:
        async with self._database.connection() as connection:
            return list(await connection.fetch(query, *arguments))

    async def vote(
        self,
        value: int,
        *,
        app: str = "default",
        question: str = "",
        reason: str | None = None,
        comment: str | None = None,
        age: timedelta = timedelta(hours=1),
    ) -> None:
        chat = uuid.uuid4().hex
        if question:
            await self.sql(
                "insert into feedback_loop.conversation (app, conversation_id, user_id, question, answer)"
                " values ($1, $2, 'kim', $3, 'Within 7 days.')",
                app,
                chat,
                question,
            )
        await self.sql(
            "insert into feedback_loop.vote (app, conversation_id, value, reason_code, comment, created_at)"
            " values ($1, $2, $3, $4, $5, now() - $6::interval)",
            app,
            chat,
            value,
            reason,
            comment,
            age,
        )

    async def run(self, by: str = "cron-job.org", app: str = "default", **decision: Any) -> uuid.UUID:
        """A run; with `verdict` a decided one."""
        id = uuid.uuid4()
        await self.sql(
            "insert into feedback_loop.run (id, app, as_of, requested_by) values ($1, $2, now(), $3)",
            id,
            app,
            by,
        )
        if decision:
            await self.sql(
                "insert into feedback_loop.decision (run, app, as_of, scheduled, verdict, reason,"
                " explanation, window_start, likes, dislikes)"
                " values ($1, $2, now(), true, $3, 'uncertain', $4, now() - interval '1 day', $5, $6)",
                id,
                app,
                decision["verdict"],
                decision.get("why", "over the threshold"),
                decision.get("likes", 0),
                decision.get("dislikes", 0),
            )
        return id

    async def _print(self, read: Read, show: Any, as_json: bool) -> str:
        self._capsys.readouterr()
        await look(self._settings, read, show, as_json)
        return self._capsys.readouterr().out

    async def status(self, app: str | None = None) -> str:
        return await self._print(lambda db: overview.status(db, COOLDOWN, app), tables.show_status, False)

    async def status_json(self, app: str | None = None) -> Any:
        return json.loads(
            await self._print(lambda db: overview.status(db, COOLDOWN, app), tables.show_status, True)
        )

    async def runs(self, **chosen: Any) -> str:
        return await self._print(lambda db: overview.runs(db, **chosen), tables.show_runs, False)

    async def runs_json(self, **chosen: Any) -> Any:
        return json.loads(await self._print(lambda db: overview.runs(db, **chosen), tables.show_runs, True))

    async def votes(self, limit: int = 20, **chosen: Any) -> str:
        read = partial(overview.votes, chosen=overview.VoteFilter(**chosen), limit=limit)
        return await self._print(read, tables.show_votes, False)

    async def votes_json(self, limit: int = 20, **chosen: Any) -> Any:
        read = partial(overview.votes, chosen=overview.VoteFilter(**chosen), limit=limit)
        return json.loads(await self._print(read, tables.show_votes, True))


@pytest.fixture
def shell(database: Database, make_settings: Any, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(database, make_settings(), capsys)


def columns(text: str) -> int:
    """How wide a terminal draws it: East Asian letters and emoji two columns, marks upon others none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in ("W", "F")) for c in text
    )


def one_line(text: str) -> str:
    return " ".join(text.split())


# --- status ---------------------------------------------------------------------------------


async def test_status_of_an_empty_database_says_so(shell: Shell) -> None:
    printed = await shell.status()
    assert "There are no votes and no runs yet." in printed
    assert "0 open, 0 given up" in printed


async def test_status_counts_the_votes_of_seven_days_with_their_interval(shell: Shell) -> None:
    for value in (1, 1, 1, 0):
        await shell.vote(value)
    await shell.vote(0, age=timedelta(days=8))
    assert "👍 3  👎 1  negative 25.0% (95 % interval 4.6% to 69.9%)" in await shell.status()
    [app] = (await shell.status_json())["apps"]
    assert app["votes"] == {
        "days": 7,
        "likes": 3,
        "dislikes": 1,
        "ratio": 0.25,
        "low": pytest.approx(0.0456, abs=1e-4),  # scipy: binomtest(1, 4).proportion_ci(method="wilson")
        "high": pytest.approx(0.6994, abs=1e-4),
    }


async def test_an_app_without_votes_has_no_ratio(shell: Shell) -> None:
    await shell.run()
    [app] = (await shell.status_json())["apps"]
    assert (app["votes"]["ratio"], app["votes"]["low"], app["votes"]["high"]) == (None, 0.0, 1.0)


async def test_status_tells_the_last_verdict_and_why(shell: Shell) -> None:
    await shell.run(verdict="ok")
    await shell.run("kim", verdict="watch", why="12 of 30 votes in 7d are negative")
    printed = one_line(await shell.status())
    assert "decided, by kim" in printed
    assert re.search(r"verdict watch \(2\S+ \S+\) 12 of 30 votes in 7d are negative", printed)


async def test_status_keeps_the_verdict_while_a_new_run_has_none(shell: Shell) -> None:
    await shell.run("kim", verdict="watch", why="12 of 30 votes in 7d are negative")
    await shell.run("lee")
    printed = one_line(await shell.status())
    assert "waiting, by lee" in printed
    assert "12 of 30 votes in 7d are negative" in printed


async def test_status_of_one_app_shows_only_that(shell: Shell) -> None:
    await shell.vote(1, app="shop")
    await shell.vote(1, app="desk")
    assert [app["app"] for app in (await shell.status_json())["apps"]] == ["desk", "shop"]
    assert [app["app"] for app in (await shell.status_json("shop"))["apps"]] == ["shop"]


async def test_status_shows_the_generation_that_answers_and_the_build_under_way(shell: Shell) -> None:
    await shell.sql("insert into feedback_loop.model (name, dimensions, table_name) values ('m', 3, 'v')")
    [active, building] = [
        row["id"]
        for state, batches, remaining in (("promoted", 1, 0), ("building", 40, 28))
        for row in await shell.sql(
            "insert into feedback_loop.generation (app, model, chunker, reason, state, chunks, batches,"
            " remaining, counts, starts_anew) select 'default', id, 'c', 'feedback', $1, 9, $2, $3, '{}',"
            " true from feedback_loop.model returning id",
            state,
            batches,
            remaining,
        )
    ]
    await shell.sql("insert into feedback_loop.active_generation values ('default', $1)", active)
    printed = one_line(await shell.status())
    assert f"generation {active}, active since" in printed
    assert f"building generation {building} (feedback), 12 of 40 batches since" in printed


async def test_status_shows_a_pause_with_its_reason_and_the_cool_down(shell: Shell) -> None:
    await shell.sql(
        "insert into feedback_loop.rest (app, cooling_from, paused_at, paused_why)"
        " values ('default', now() - interval '1 day', now(), 'import week')"
    )
    printed = one_line(await shell.status())
    assert "paused by a person: import week" in printed
    assert re.search(r"resting no retrain before \d{4}-\d\d-\d\d \d\d:\d\d \(cool-down\)", printed)


async def test_a_cool_down_and_a_pause_that_are_over_are_not_shown(shell: Shell) -> None:
    await shell.sql(
        "insert into feedback_loop.rest (app, cooling_from, paused_at, paused_why, paused_until)"
        " values ('default', now() - interval '8 days', now(), 'import week', now() - interval '1 hour')"
    )
    [app] = (await shell.status_json())["apps"]
    assert (app["cooling_until"], app["paused"]) == (None, None)


async def test_status_counts_open_events_and_dead_letters(shell: Shell) -> None:
    await shell.sql(
        "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope)"
        " values (gen_random_uuid(), 'report.ready', 'analyzer', gen_random_uuid(), '{}')"
    )
    await shell.sql(
        "insert into feedback_loop.inbox (consumer, event_id, type, correlation, state)"
        " values ('notifier', gen_random_uuid(), 'report.ready', gen_random_uuid(), 'dead')"
    )
    events = (await shell.status_json())["events"]
    assert (events["open"], events["dead"]) == (1, 1)
    assert datetime.fromisoformat(events["oldest"]) <= datetime.now(UTC) + timedelta(hours=1)
    assert re.search(r"1 open \(the oldest since .*\), 1 given up", one_line(await shell.status()))


async def test_status_shows_the_alert_state(shell: Shell) -> None:
    await shell.vote(0)
    await shell.sql(
        "insert into feedback_loop.alert (app, state, since, troubled, run, as_of, changed_at)"
        " values ('default', 'ALERT', now(), true, gen_random_uuid(), now(), now())"
    )
    assert re.search(r"alert ALERT since \d{4}-", one_line(await shell.status()))


# --- runs -----------------------------------------------------------------------------------


async def test_runs_are_listed_newest_first_with_what_they_decided(shell: Shell) -> None:
    await shell.run("cron-job.org", verdict="watch", likes=59, dislikes=41)
    await shell.run("kim")
    head, newest, older = (await shell.runs()).splitlines()
    assert head.split() == ["started", "state", "verdict", "👍", "👎", "ratio", "by"]
    assert newest.split()[2:] == ["waiting", "kim"]
    assert older.split()[2:] == ["decided", "watch", "59", "41", "41.0%", "cron-job.org"]


async def test_runs_show_the_app_where_there_are_several(shell: Shell) -> None:
    await shell.run("kim", app="shop")
    await shell.run("kim", app="desk")
    assert [line.split()[-2] for line in (await shell.runs()).splitlines()] == ["app", "desk", "shop"]


async def test_runs_can_be_of_one_app_of_some_days_and_so_many(shell: Shell) -> None:
    old = await shell.run("old")
    await shell.sql("update feedback_loop.run set started_at = now() - interval '10 days' where id = $1", old)
    await shell.run("one")
    await shell.run("two")
    await shell.run("shop", app="shop")

    async def listed(**chosen: Any) -> list[str]:
        return [run["requested_by"] for run in await shell.runs_json(**chosen)]

    assert await listed() == ["shop", "two", "one", "old"]
    assert await listed(app="default") == ["two", "one", "old"]
    assert await listed(app="default", days=9) == ["two", "one"]
    assert await listed(limit=1) == ["shop"]


async def test_a_run_that_led_to_a_retrain_shows_its_outcome(shell: Shell) -> None:
    run = await shell.run(verdict="act", likes=1, dislikes=1)
    await shell.sql(
        "with r as (insert into feedback_loop.retrain (id, app, run, finished_at, outcome)"
        " values ($1, 'default', $1, now(), 'promoted') returning id)"
        " update feedback_loop.decision set retrain = r.id from r where run = $1",
        run,
    )
    assert "act → promoted" in await shell.runs()


async def test_json_of_runs_has_ids_times_and_the_explanation(shell: Shell) -> None:
    id = await shell.run(verdict="ok", why="within the threshold")
    [run] = await shell.runs_json()
    assert (run["id"], run["explanation"]) == (str(id), "within the threshold")
    assert datetime.fromisoformat(run["started_at"]).tzinfo is not None


async def test_nothing_to_list_is_said_or_an_empty_list(shell: Shell) -> None:
    assert (await shell.runs(), await shell.votes()) == (
        "There are no such runs.\n",
        "There are no such votes.\n",
    )
    assert (await shell.runs_json(), await shell.votes_json()) == ([], [])


# --- votes ----------------------------------------------------------------------------------


async def test_votes_are_chosen_by_rating_reason_comment_app_and_age(shell: Shell) -> None:
    await shell.vote(1, comment="fine")
    await shell.vote(0, reason="wrong", comment="no")
    await shell.vote(0, reason="outdated")
    await shell.vote(0, reason="wrong", comment="no", app="shop")
    await shell.vote(0, reason="wrong", age=timedelta(days=30))

    async def chosen(**given: Any) -> int:
        return len(await shell.votes_json(**given))

    assert await chosen() == 4
    assert await chosen(days=31) == 5
    assert await chosen(rated="up") == 1
    assert await chosen(rated="down") == 3
    assert await chosen(reasons=("wrong",)) == 2
    assert await chosen(reasons=("wrong", "outdated")) == 3
    assert await chosen(comment=True) == 3
    assert await chosen(app="shop") == 1
    assert await chosen(limit=2) == 2


async def test_a_vote_shows_what_was_asked_and_what_the_user_says(shell: Shell) -> None:
    await shell.vote(0, question="환불은 며칠 안에?", reason="wrong", comment="14일입니다")
    _, first, second = (await shell.votes()).splitlines()
    assert first.split(maxsplit=4)[2:4] == ["👎", "wrong"]
    assert first.rstrip().endswith("환불은 며칠 안에?")
    assert second.strip() == "→ 14일입니다"


async def test_a_dislike_that_was_looked_at_shows_its_cause_and_group(shell: Shell) -> None:
    await shell.vote(0, reason="wrong")
    await shell.sql(
        "insert into feedback_loop.complaint_group (id, app, label) values ('g', 'default', 'returns')"
    )
    await shell.sql(
        "insert into feedback_loop.complaint (vote, app, cause, group_id)"
        " select id, app, 'retrieval_miss', 'g' from feedback_loop.vote"
    )
    [vote] = await shell.votes_json()
    assert (vote["cause"], vote["group"]) == ("retrieval_miss", "returns")
    assert "retrieval_miss" in await shell.votes()


async def test_json_of_votes_has_answer_user_and_the_whole_comment(shell: Shell) -> None:
    await shell.vote(0, question="How long?", comment=HOSTILE * 50)
    [vote] = await shell.votes_json()
    assert (vote["answer"], vote["user"], vote["rated"]) == ("Within 7 days.", "kim", "down")
    assert vote["comment"] == HOSTILE * 50


# --- how it looks ---------------------------------------------------------------------------

WIDE = [
    "short",
    "오래된 정보입니다",
    "👍🏽👨\u200d👩\u200d👧❤️🇰🇷",
    unicodedata.normalize("NFD", "한글"),
    "e\u0301te\u0301",
]


async def test_wide_letters_and_emoji_keep_the_columns_aligned(shell: Shell) -> None:
    for reason in WIDE:
        await shell.vote(0, question="HERE", reason=reason)
    lines = (await shell.votes()).splitlines()[1:]
    starts = {columns(line.partition("HERE")[0]) for line in lines if "HERE" in line}
    assert len(starts) == 1


@pytest.mark.parametrize("word", ["x" * 5000, "한" * 5000, "👍" * 5000, "한 x 👍 " * 900, HOSTILE * 100])
async def test_no_line_is_wider_than_80_columns(shell: Shell, word: str) -> None:
    await shell.vote(0, app=word[:64], question=word, reason=word, comment=word)
    await shell.vote(0)
    await shell.run(word[:200], app=word[:64], verdict="insufficient_data", why=word, dislikes=2**31 - 1)
    await shell.run("kim", verdict="act")
    for printed in (await shell.status(), await shell.runs(), await shell.votes()):
        assert max(columns(line) for line in printed.splitlines()) <= 80


async def test_hostile_text_reaches_the_terminal_harmless(shell: Shell) -> None:
    await shell.vote(0, app=HOSTILE, question=HOSTILE, reason=HOSTILE, comment=HOSTILE)
    await shell.vote(0)
    await shell.run(HOSTILE, app=HOSTILE, verdict="ok", why=HOSTILE)
    await shell.run()
    for printed in (await shell.status(), await shell.runs(), await shell.votes()):
        assert all(c.isprintable() or c == "\n" for c in printed)
    assert "[bold]no markup[/] :smile:" in one_line(await shell.votes())


async def test_json_escapes_what_a_terminal_would_obey(shell: Shell, capsys: Any) -> None:
    await shell.vote(0, comment=HOSTILE)
    await look(
        shell._settings,
        lambda db: overview.votes(db, overview.VoteFilter()),
        tables.show_votes,
        True,
    )
    printed = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in printed)
    assert json.loads(printed)[0]["comment"] == HOSTILE


# --- the commands ---------------------------------------------------------------------------


async def command(dsn: str, *arguments: str, timezone: str = "Asia/Seoul") -> str:
    environment = {**os.environ, "DATABASE_URL": dsn, "TIMEZONE": timezone, "PYTHONIOENCODING": "utf-8"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments), env=environment, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def test_the_options_of_the_commands_choose(shell: Shell, dsn: str) -> None:
    await shell.vote(0, reason="wrong", comment="no", app="shop")
    await shell.vote(0, reason="outdated", app="shop")
    await shell.vote(1, app="shop")
    options = ("--rated", "down", "--reason", "wrong", "--comment", "--app", "shop", "--days", "2")
    printed = await command(dsn, "votes", *options, "--limit", "5", "--json")
    assert [vote["comment"] for vote in json.loads(printed)] == ["no"]


async def test_times_are_those_of_the_time_zone(shell: Shell, dsn: str) -> None:
    run = await shell.run()
    await shell.sql("update feedback_loop.run set started_at = '2026-11-23 00:30Z' where id = $1", run)
    assert "2026-11-23 09:30" in await command(dsn, "runs")
