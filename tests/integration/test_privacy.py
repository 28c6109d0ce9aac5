"""What people wrote, forgotten: by person, by age; and what stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest
from click.testing import CliRunner

from services.analyzer.build import build as analyzer
from services.cli import main
from services.commands.privacy import forget, forget_person
from services.embedder import learned
from services.embedder.learning.credit import Example
from services.embedder.learning.library import Learned
from services.embedder.learning.memory import Memory
from shared.events import ComplaintGroup, FeedbackEvaluate
from shared.postgres.database import Database
from shared.postgres.owner_tables import read_owner_tables
from shared.postgres.retention import retain
from shared.settings import Settings
from tests.support.events import publish, publish_envelopes, wait_until
from tests.support.everything import everything
from tests.support.notifying import a_run, outcome, retrain, settled
from tests.support.slack import FakeSlack
from tests.support.slack_asks import SECRET, USER, asks, presses

PERSON = "kim-haneul-77"
SECRETS = {
    "comment": "qzcomment 배송 주소가 마포구로 잘못 나왔어요",
    "question": "qzquestion 제 주문 4471은 언제 오나요?",
    "answer": "qzanswer 김하늘 님의 주문은 내일 도착합니다",
    "query": "qzquery 주문 4471 배송",
    "anonymous": "qzanonymous 같은 대화의 이름 없는 의견",
    "metadata": "qzmetadata 010-1234-5678",
    "edited": "qzedited 예전에는 이렇게 적었어요",
}
TRACES = [PERSON, *(text.split()[0] for text in SECRETS.values()), "마포구", "4471"]
OTHERS = "다른 사람의 의견"
RUN = "5b6c1c1e-0000-4000-8000-000000000001"


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def _vote(
    sql: Any, conversation: str, user: str, comment: str | None, age: str = "1 hour", **more: str
) -> int:
    id: int = await sql.fetchval(
        "insert into feedback_loop.vote (app, conversation_id, message_id, user_id, value, comment, metadata,"
        " created_at) values ($1, $2, '', $3, 0, $4, $5, now() - $6::text::interval) returning id",
        more.get("app", "default"), conversation, user, comment, json.dumps({"note": more.get("note", "")}),
        age,
    )  # fmt: skip
    return id


async def _conversation(
    sql: Any, id: str, user: str, question: str, answer: str, age: str = "1 hour"
) -> None:
    await sql.execute(
        "insert into feedback_loop.conversation (conversation_id, user_id, question, answer, answered_at)"
        " values ($1, $2, $3, $4, now() - $5::text::interval)",
        id, user, question, answer, age,
    )  # fmt: skip


async def _search(sql: Any, conversation: str, query: str, age: str = "1 hour") -> None:
    await sql.execute(
        "insert into feedback_loop.search_log (app, conversation_id, query, generation, shown, searched_at)"
        " values ('default', $1, $2, 1, '[]', now() - $3::text::interval)",
        conversation, query, age,
    )  # fmt: skip


async def _group(sql: Any, id: str, label: str, *votes: int) -> None:
    await sql.execute(
        "insert into feedback_loop.complaint_group (id, app, label) values ($1, 'default', $2)", id, label
    )
    for vote in votes:
        await sql.execute(
            "insert into feedback_loop.complaint (vote, app, cause, group_id, said)"
            " values ($1, 'default', 'unknown', $2, 'd')", vote, id,
        )  # fmt: skip
        await sql.execute(
            "insert into feedback_loop.complaint_vector (vote, model, said, vector, core)"
            " values ($1, 'm', 'd', '\\x00', true)", vote,
        )  # fmt: skip


async def _report(sql: Any, quotes: list[tuple[str, str, str]], gaps: list[str], age: str = "0") -> None:
    groups = [
        {"id": id, "label": label, "quote": quote, "votes": 3, "users": 2} for id, label, quote in quotes
    ]
    await sql.execute(
        "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope)"
        " select gen_random_uuid(), 'report.ready', 'analyzer', $1::text::uuid,"
        " jsonb_build_object('type', 'report.ready',"
        " 'data', jsonb_build_object('app', 'default', 'run', $1, 'dislikes', 7,"
        " 'window_start', now() - $4::text::interval - interval '1 day',"
        " 'window_end', now() - $4::text::interval,"
        " 'complaint_groups', $2::jsonb, 'coverage_gaps', $3::jsonb))",
        RUN, json.dumps(groups), json.dumps(gaps), age,
    )  # fmt: skip


async def _told(sql: Any) -> dict[str, Any]:
    return dict(json.loads(await sql.fetchval("select envelope -> 'data' from feedback_loop.outbox")))


async def _plant(sql: Any) -> None:
    """A person in every place that the loop has for one, and somebody else beside them."""
    await _conversation(sql, "c1", PERSON, SECRETS["question"], SECRETS["answer"])
    await _search(sql, "c1", SECRETS["query"])
    hers = await _vote(sql, "c1", PERSON, SECRETS["comment"], note=SECRETS["metadata"])
    await _vote(sql, "c1", "", SECRETS["anonymous"])
    await _conversation(sql, "c2", "other", "환불은 며칠 걸려요?", "사흘 걸립니다")
    await _search(sql, "c2", "환불 기간")
    his = await _vote(sql, "c2", "other", OTHERS)
    await _group(sql, "g1", "마포구 · 주소가", hers)
    await _group(sql, "g2", "의견 · qzanonymous", his)
    await _report(
        sql,
        [
            ("g1", "마포구 · 주소가", SECRETS["comment"]),
            ("g2", "의견", OTHERS),
            ("g3", "wrong", SECRETS["edited"][:12] + "…"),
        ],
        [SECRETS["question"], "환불은 며칠 걸려요?", SECRETS["query"][:10] + "…"],
    )
    await sql.execute(
        "insert into feedback_loop.inbox (consumer, event_id, type, correlation, state, reason)"
        " values ('analyzer', gen_random_uuid(), 'x', gen_random_uuid(), 'dead',"
        " 'DataError: invalid input: ' || $1)",
        SECRETS["comment"][:40],
    )


async def _forget(database: Database, person: str = PERSON, app: str | None = None) -> dict[str, int]:
    async with database.transaction() as connection:
        return await forget(connection, person, app)


async def test_a_person_is_forgotten_whoever_is_in_the_way(
    database: Database, sql: Any, dsn: str, make_settings: Callable[..., Settings]
) -> None:
    """An answer that is being changed, and then its votes: `forget` takes them the other way round.
    PostgreSQL ends the one that looks first, once `deadlock_timeout` is over: here, `forget`."""
    await _conversation(sql, "c", PERSON, "q", "a")
    await _vote(sql, "c", PERSON, None)
    await sql.execute("set deadlock_timeout = '60s'")
    patient = f"{dsn}{'&' if '?' in dsn else '?'}deadlock_timeout=3s"
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("update feedback_loop.conversation set answer = 'b'")
    forgetting = asyncio.create_task(forget_person(make_settings(database_url=patient), PERSON, None, False))

    async def waits() -> bool:
        async with database.connection() as connection:
            return bool(await connection.fetchval("select exists (select from pg_locks where not granted)"))

    await wait_until(waits)
    await sql.execute("update feedback_loop.vote set comment = 'c'")
    await transaction.commit()
    await forgetting
    assert await sql.fetchval("select count(*) from feedback_loop.vote") == 0


def _traces(found: str) -> list[str]:
    return [trace for trace in TRACES if trace in found]


class TestForget:
    async def test_nothing_of_the_person_is_left_in_the_database(self, database: Database, sql: Any) -> None:
        await _plant(sql)
        assert len(_traces(await everything(sql))) == len(TRACES)
        await _forget(database)
        assert _traces(await everything(sql)) == []

    async def test_it_says_what_was_removed(self, database: Database, sql: Any) -> None:
        await _plant(sql)
        removed = await _forget(database)
        counts = {"vote": 2, "conversation": 1, "search_log": 1, "complaint": 1, "complaint_vector": 1}
        assert counts.items() <= removed.items()
        assert (removed["complaint_group"], removed["complaint_group, its name"]) == (1, 1)
        assert (removed["outbox, quotes and questions"], removed["inbox, reasons"]) == (1, 1)

    async def test_what_others_wrote_stays(self, database: Database, sql: Any) -> None:
        await _plant(sql)
        await _forget(database)
        found = await everything(sql)
        assert all(text in found for text in (OTHERS, "사흘 걸립니다", "환불 기간"))
        told = await _told(sql)
        assert [group["quote"] for group in told["complaint_groups"]] == ["", OTHERS, ""]
        assert [group["label"] for group in told["complaint_groups"]] == ["—", "의견", "wrong"]
        assert told["coverage_gaps"] == ["환불은 며칠 걸려요?"]
        assert told["dislikes"] == 7

    async def test_a_quote_that_was_cut_short_stays_while_its_comment_does(
        self, database: Database, sql: Any
    ) -> None:
        await _vote(sql, "c9", "other", "아주\n긴  의견입니다 정말로")
        await _report(sql, [("g", "wrong", "아주 긴 의견…")], [])
        await _forget(database)
        assert (await _told(sql))["complaint_groups"][0]["quote"] == "아주 긴 의견…"

    async def test_a_vote_on_anothers_conversation_takes_only_the_vote(
        self, database: Database, sql: Any
    ) -> None:
        await _conversation(sql, "c3", "other", "공유된 질문", "공유된 답")
        await _search(sql, "c3", "공유된 검색")
        await _vote(sql, "c3", PERSON, "제 의견")
        await _vote(sql, "c3", "", "이름 없는 의견")
        await _forget(database)
        found = await everything(sql)
        assert "제 의견" not in found
        assert all(text in found for text in ("공유된 질문", "공유된 검색", "이름 없는 의견"))

    async def test_votes_without_a_conversation_are_nobodys(self, database: Database, sql: Any) -> None:
        await _vote(sql, "", "", "대화 없는 의견")
        await sql.execute("update feedback_loop.vote set row_key = '1'")
        await _vote(sql, "", PERSON, "이 사람의 의견")
        await _forget(database)
        assert await sql.fetchval("select array_agg(comment) from feedback_loop.vote") == ["대화 없는 의견"]

    async def test_of_one_app_alone(self, database: Database, sql: Any) -> None:
        await _vote(sql, "c1", PERSON, "여기", app="shop")
        await _vote(sql, "c1", PERSON, "저기", app="help")
        await _forget(database, app="shop")
        assert await sql.fetchval("select array_agg(comment) from feedback_loop.vote") == ["저기"]

    async def test_the_owners_tables_do_not_bring_the_person_back(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        await _read(database)
        await _forget(database)
        await _a_week_later(sql)
        await _read(database)
        found = await everything(sql, schema="feedback_loop")
        assert _traces(found) == []
        assert OTHERS in found

    async def test_not_even_what_was_not_read_yet(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        await _forget(database)
        await _read(database)
        assert _traces(await everything(sql, schema="feedback_loop")) == []

    async def test_the_owners_tables_stay_as_they_are(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        before = await sql.fetch(
            "select * from public.feedback_log f, public.conversation_log c order by f, c"
        )
        await _forget(database)
        await _read(database)
        assert before == await sql.fetch(
            "select * from public.feedback_log f, public.conversation_log c order by f, c"
        )

    async def test_what_the_person_does_later_counts_again(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        await _forget(database)
        await sql.execute(
            "insert into public.conversation_log (user_id, question, created_at)"
            " values ($1, '새 질문', now() + interval '2 days')", PERSON,
        )  # fmt: skip
        await _read(database)
        assert await sql.fetchval("select array_agg(question) from feedback_loop.conversation") == [
            "환불", "새 질문"
        ]  # fmt: skip

    async def test_the_memory_forgets_the_questions_that_nobody_else_asked(
        self, database: Database, sql: Any
    ) -> None:
        await _plant(sql)
        await _conversation(sql, "c5", PERSON, "환불은 며칠 걸려요", "…")
        generation = await _learned(
            database, sql, [SECRETS["question"], "환불은 며칠 걸려요?", "반품은 어떻게 하나요?"]
        )
        removed = await _forget(database)
        assert removed["learned, past questions"] == 1
        async with database.connection() as connection:
            memory = (await learned.read(connection, generation)).memory
            assert memory is not None
            asked = [
                bool(memory.bonus(np.zeros(8, np.float32), question))
                for question in (SECRETS["question"], "환불은 며칠 걸려요?", "반품은 어떻게 하나요?")
            ]
        assert asked == [False, True, True]

    async def test_the_next_retrain_learns_anew(self, database: Database, sql: Any) -> None:
        await _plant(sql)
        generation = await _learned(database, sql, [SECRETS["question"]])
        await sql.execute('update feedback_loop.conversation set citations = \'[{"chunk": "a"}]\'')
        async with database.connection() as connection:
            before = await learned.anything_to_learn(connection, "default", generation)
        await _forget(database)
        async with database.connection() as connection:
            after = await learned.anything_to_learn(connection, "default", generation)
        assert (before, after) == (False, True)


async def _learned(database: Database, sql: Any, questions: list[str]) -> int:
    """A generation that remembers questions."""
    await sql.execute(
        "insert into feedback_loop.model (name, dimensions, table_name) values ('m', 8, 'vector_m')"
    )
    generation: int = await sql.fetchval(
        "insert into feedback_loop.generation (app, model, chunker, reason, chunks, batches, remaining,"
        " counts, starts_anew) select 'default', id, 'c', 'feedback', 1, 1, 0, '{}', true from"
        " feedback_loop.model"
        " returning id"
    )
    now = await sql.fetchval("select now()")
    examples = [Example(question, {"a": 1.0}, {}, ("u",), 1.0, now) for question in questions]
    memory = Memory.fit(examples, np.eye(8, dtype=np.float32)[: len(questions)])
    async with database.transaction() as connection:
        await learned.write(connection, generation, Learned(memory=memory), {})
    return generation


async def _owner(sql: Any) -> None:
    await sql.execute(
        "create table public.conversation_log (id serial primary key, user_id text, question text,"
        " answer text, created_at timestamptz default now());"
        "create table public.feedback_log (id serial primary key, conversation_id integer,"
        " feedback varchar(10), reason varchar(255), created_at timestamptz default now())"
    )
    await sql.execute(
        "insert into public.conversation_log (user_id, question, answer)"
        " values ($1, $2, $3), ('other', '환불', 'x')",
        PERSON, SECRETS["question"], SECRETS["answer"],
    )  # fmt: skip
    await sql.execute(
        "insert into public.feedback_log (conversation_id, feedback, reason)"
        " values (1, 'dislike', $1), (2, 'dislike', $2), (null, 'like', null)",
        SECRETS["comment"], OTHERS,
    )  # fmt: skip


async def _read(database: Database) -> None:
    async with database.transaction() as connection:
        await read_owner_tables(connection)


async def _a_week_later(sql: Any) -> None:
    await sql.execute(
        "update feedback_loop.source_cursor set reconciled_at = reconciled_at - interval '7 days'"
    )


class TestCommand:
    @pytest.fixture
    def run(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("DATABASE_URL", dsn)
        monkeypatch.chdir("/")

        async def run(*arguments: str) -> str:
            done = await asyncio.to_thread(CliRunner().invoke, main, ["forget", *arguments])
            assert done.exit_code == 0, done.output
            return done.output

        return run

    async def test_a_dry_run_counts_and_removes_nothing(self, run: Any, sql: Any) -> None:
        await _plant(sql)
        before = await everything(sql)
        said = await run("--user", PERSON, "--dry-run")
        assert "would be removed" in said
        assert await everything(sql) == before

    async def test_it_removes_and_says_what_it_cannot_reach(self, run: Any, sql: Any) -> None:
        await _plant(sql)
        said = await run("--user", PERSON)
        assert "Slack" in said
        assert "cannot be recalled" in said
        assert _traces(await everything(sql)) == []

    async def test_it_repeats_nothing_that_was_written(self, run: Any, sql: Any) -> None:
        await _plant(sql)
        assert _traces(await run("--user", PERSON)) == []

    async def test_who_is_not_known_is_said_to_be_unknown(self, run: Any) -> None:
        assert "Nothing is known" in await run("--user", "nobody-here")


class TestRetention:
    async def _plant(self, sql: Any, age: str) -> None:
        await _conversation(sql, "c1", PERSON, SECRETS["question"], SECRETS["answer"], age)
        await _search(sql, "c1", SECRETS["query"], age)
        vote = await _vote(sql, "c1", PERSON, SECRETS["comment"], age, note=SECRETS["metadata"])
        await _group(sql, "g1", "마포구 · 주소가", vote)
        await _report(sql, [("g1", "마포구 · 주소가", SECRETS["comment"])], [SECRETS["question"]], age)
        await sql.execute(
            "insert into feedback_loop.notification (key, event_id, correlation, kind, destination, state,"
            " channel, ts, posted_at) values ('k', gen_random_uuid(), $1, 'report', 'slack',"
            " 'posted', 'C1', '1.2',"
            " now() - $2::text::interval)", UUID(RUN), age,
        )  # fmt: skip

    async def _retain(self, database: Database, days: int = 30) -> int:
        async with database.transaction() as connection:
            return await retain(connection, days)

    async def test_what_is_older_leaves_no_words_and_no_names(self, database: Database, sql: Any) -> None:
        await self._plant(sql, "40 days")
        await self._retain(database)
        found = await everything(sql)
        assert _traces(found) == []

    async def test_the_counts_stay(self, database: Database, sql: Any) -> None:
        await self._plant(sql, "40 days")
        await _vote(sql, "c1", "somebody-else", None, "40 days")
        before = await sql.fetch("select id, value, created_at from feedback_loop.vote order by id")
        await self._retain(database)
        assert before == await sql.fetch("select id, value, created_at from feedback_loop.vote order by id")
        assert await sql.fetchval("select count(*) from feedback_loop.dashboard_answer") == 1
        assert (await _told(sql))["dislikes"] == 7

    async def test_what_is_younger_stays(self, database: Database, sql: Any) -> None:
        await self._plant(sql, "20 days")
        before = await everything(sql, schema="feedback_loop", without=("privacy", "vote_change"))
        assert await self._retain(database) == 0
        assert before == await everything(sql, schema="feedback_loop", without=("privacy", "vote_change"))

    async def test_by_default_nothing_is_too_old(self, database: Database, sql: Any) -> None:
        await self._plant(sql, "4000 days")
        before = await everything(sql)
        assert await self._retain(database, 0) == 0
        assert before == await everything(sql)

    async def test_the_owners_tables_do_not_bring_it_back(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        await sql.execute(
            "update public.feedback_log set created_at = now() - interval '40 days';"
            "update public.conversation_log set created_at = now() - interval '40 days'"
        )
        await _read(database)
        await self._retain(database)
        await _a_week_later(sql)
        await _read(database)
        assert _traces(await everything(sql, schema="feedback_loop")) == []
        assert await sql.fetchval("select count(*) from feedback_loop.vote") == 3

    async def test_nor_what_has_no_time_of_its_own(self, database: Database, sql: Any) -> None:
        await _owner(sql)
        await sql.execute(
            "alter table public.feedback_log drop column created_at;"
            "alter table public.conversation_log drop column created_at"
        )
        await _read(database)
        await sql.execute(
            "update feedback_loop.vote set created_at = now() - interval '40 days';"
            "update feedback_loop.conversation set answered_at = now() - interval '40 days'"
        )
        await self._retain(database)
        await _a_week_later(sql)
        await _read(database)
        assert _traces(await everything(sql, schema="feedback_loop")) == []
        assert await sql.fetchval("select count(*) from feedback_loop.vote") == 3

    async def test_it_is_looked_at_when_the_analyzer_starts(
        self, start: Callable[..., Any], sql: Any
    ) -> None:
        await self._plant(sql, "40 days")
        await start([analyzer], retention_days=30)
        assert _traces(await everything(sql)) == []

    async def test_and_with_each_evaluation(self, start: Callable[..., Any], sql: Any) -> None:
        runtime = await start([analyzer], retention_days=30)
        await self._plant(sql, "40 days")
        await publish(runtime.kernel, FeedbackEvaluate(as_of=await sql.fetchval("select now()")))
        await wait_until(lambda: sql.fetchval("select count(*) from feedback_loop.decision"))
        assert _traces(await everything(sql)) == []

    async def test_without_the_setting_all_is_kept(self, start: Callable[..., Any], sql: Any) -> None:
        await self._plant(sql, "4000 days")
        await start([analyzer])
        assert await sql.fetchval("select comment from feedback_loop.vote") == SECRETS["comment"]

    async def test_a_row_that_somebody_holds_is_left_for_the_next_time(
        self, database: Database, sql: Any, dsn: str
    ) -> None:
        await self._plant(sql, "40 days")
        async with sql.transaction():
            await sql.execute("select from feedback_loop.vote for update")
            await self._retain(database)
        assert await sql.fetchval("select comment from feedback_loop.vote") == SECRETS["comment"]
        await self._retain(database)
        assert await sql.fetchval("select comment from feedback_loop.vote") is None


class TestSlackQuotes:
    async def test_nothing_that_users_wrote_reaches_slack(
        self, slack: FakeSlack, notifier: Callable[..., Any], sql: Any
    ) -> None:
        vote = await _vote(sql, "c1", PERSON, SECRETS["comment"], "1 day")
        await _conversation(sql, "c1", PERSON, SECRETS["question"], SECRETS["answer"])
        await _group(sql, "g1", "마포구 · 주소가", vote)
        day = await sql.fetchval("select lower(to_char(now() at time zone 'Asia/Seoul', 'dy'))")
        runtime = await notifier(
            **slack.bot, slack_quotes=False, weekly_summary=day, slack_start_notice=True,
            slack_signing_secret=SECRET, slack_allowed_users=USER,
        )  # fmt: skip
        run = a_run()
        group = ComplaintGroup(id="g1", label="마포구 · 주소가", quote=SECRETS["comment"], votes=5, users=3)
        event = retrain(run).model_copy(
            update={"complaint_groups": [group], "coverage_gaps": [SECRETS["question"]]}
        )
        await publish_envelopes(runtime.kernel, run)
        await settled(runtime, *await publish(runtime.kernel, event, cause=run))
        await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
        said = (await asks(runtime, "7")).text
        await presses(runtime, "do_pause", str(event.run), slack.response_url)
        await wait_until(lambda: slack.replies)
        kinds = await sql.fetch("select distinct kind from feedback_loop.notification")
        assert {"report", "retrain", "outcome", "weekly"} <= {row["kind"] for row in kinds}
        told = [str(message.body) for message in slack.messages] + [str(slack.replies), said]
        assert _traces("".join(told)) == []
