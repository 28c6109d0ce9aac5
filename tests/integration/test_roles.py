"""What a service may do as its own user: its work, and nothing of the others'."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import aiormq
import asyncpg
import pytest

from services.commands.doctor import mend
from services.commands.rights import RightsError, make_database_roles
from services.dashboard.build import build as dashboard
from services.embedder.tables import index_vectors, register_model
from services.embedder.warming import SEARCHED_LATELY
from shared.bus.envelope import Envelope, Message, to_json
from shared.bus.port import BusError, Delivery, Topology
from shared.bus.rabbit import RabbitBus
from shared.events import LoopPaused
from shared.postgres.database import Database, SchemaBehind
from shared.postgres.owner_tables import read_owner_tables
from shared.postgres.roles import ROLES, group, user
from shared.settings import Settings
from tests.support.events import wait_until
from tests.support.rabbit import channel, depth
from tests.support.roles import PASSWORDS, as_service, passwords, virtual_host

As = Callable[[str], Awaitable[Any]]
VOTE = "insert into feedback_loop.vote (conversation_id, value) values ('c', 1)"
REFUSED = [
    ("analyzer", VOTE),
    ("analyzer", "update feedback_loop.vote set value = 1"),
    ("analyzer", "delete from feedback_loop.vote"),
    ("analyzer", "update feedback_loop.generation set state = 'promoted'"),
    ("collector", "update feedback_loop.retrain set outcome = 'promoted'"),
    ("collector", "insert into feedback_loop.vote_word values ('meh', 0)"),
    ("dashboard", VOTE),
    ("dashboard", "select from feedback_loop.vote"),
    ("dashboard", "update feedback_loop.outbox set envelope = '{}'"),
    ("dashboard", "delete from feedback_loop.outbox"),
    ("dashboard", "insert into feedback_loop.inbox (consumer, event_id, type, correlation, state)"
     " select 'analyzer', gen_random_uuid(), 'report.ready', gen_random_uuid(), 'processed'"),
    ("dashboard", "delete from feedback_loop.consumer"),
    ("dashboard", "insert into feedback_loop.run (id, app, as_of) select gen_random_uuid(), 'a', now()"),
    ("dashboard", "update feedback_loop.active_generation set generation = 1"),
    ("dashboard", "select from feedback_loop.read_owner_tables()"),
    ("embedder", VOTE),
    ("embedder", "insert into feedback_loop.model (name, dimensions, table_name) values ('m', 2, 'vote')"),
    ("embedder", "select query from feedback_loop.search_log"),
    ("embedder", "create table feedback_loop.mine ()"),
    ("embedder", "create or replace view feedback_loop.active_chunk as select 1 as app"),
    ("embedder", "update feedback_loop.notification set state = 'posted'"),
    ("notifier", "select comment from feedback_loop.vote"),
    ("notifier", "select question from feedback_loop.conversation"),
    ("notifier", "select label from feedback_loop.complaint_group"),
    ("notifier", "update feedback_loop.decision set verdict = 'act'"),
    ("trigger", "select comment from feedback_loop.vote"),
    ("trigger", "select from feedback_loop.dashboard_vote"),
    ("trigger", "select from feedback_loop.register_model('m', 2)"),
    ("notifier", "select from feedback_loop.retain(1)"),
]  # fmt: skip


@pytest.fixture
async def as_(dsn: str, database: Database) -> AsyncIterator[As]:
    """A connection as a service's own user: `await as_("analyzer")`."""
    opened: list[Any] = []
    async with database.transaction() as owner:
        await make_database_roles(owner, PASSWORDS)

    async def connect(service: str) -> Any:
        opened.append(await asyncpg.connect(as_service(dsn, service)))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


@pytest.mark.parametrize(
    ("service", "type"),
    [("dashboard", "retrain.requested"), ("collector", "feedback.evaluate"), ("analyzer", "loop.resumed")],
)
async def test_an_event_that_another_service_sends_is_refused(as_: As, service: str, type: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await (await as_(service)).execute(
            "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope)"
            " select gen_random_uuid(), $1, 'analyzer', gen_random_uuid(), '{}'",
            type,
        )


@pytest.mark.parametrize("lie", ["", "type", "id"])
async def test_an_event_that_says_another_type_or_id_inside_is_refused(as_: As, lie: str) -> None:
    dashboard, envelope = await as_("dashboard"), Envelope.root(LoopPaused(), "/feedback-loop/dashboard")
    other = {"": {}, "type": {"type": "retrain.requested"}, "id": {"id": str(uuid.uuid4())}}[lie]
    written = dashboard.execute(
        "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope)"
        " values ($1, 'loop.paused', 'dashboard', $1, $2)",
        envelope.id,
        json.dumps({**json.loads(to_json(envelope)), **other}),
    )
    if not lie:
        await written
        return
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await written


@pytest.mark.parametrize(("service", "statement"), REFUSED)
async def test_what_is_another_service_s_is_refused(as_: As, service: str, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await (await as_(service)).execute(statement)


@pytest.mark.parametrize("service", ROLES)
async def test_no_service_may_change_the_schema(as_: As, service: str) -> None:
    connection = await as_(service)
    for statement in (
        "create table feedback_loop.mine ()",
        "alter table feedback_loop.vote add column mine text",
        "drop view feedback_loop.run_status",
        "create function feedback_loop.mine() returns text language sql as 'select 1'",
        "insert into feedback_loop.migration (name) values ('999_mine.sql')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize("service", ROLES)
async def test_no_service_can_make_the_loop_forget_what_is_young(
    as_: As, database: Database, service: str
) -> None:
    async with database.connection() as owner:
        await owner.execute(
            "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope, created_at)"
            " select gen_random_uuid(), 'report.ready', 'analyzer', gen_random_uuid(), '{}', now() - d"
            " from unnest('{29 days,91 days}'::interval[]) d"
        )
        await (await as_(service)).execute("select feedback_loop.forget_events(0)")
        assert await owner.fetchval("select count(*) from feedback_loop.outbox") == 1


async def test_the_analyzer_brings_the_ledger_up_to_date_without_writing_votes_itself(
    as_: As, database: Database
) -> None:
    async with database.connection() as owner:
        await owner.execute(
            "create table public.feedback_log (id serial, conversation_id text, feedback text);"
            "insert into public.feedback_log (conversation_id, feedback) values ('c', 'like'), ('d', 'down')"
        )
    analyzer = await as_("analyzer")
    async with analyzer.transaction():
        assert (await read_owner_tables(analyzer)).votes == 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await analyzer.execute("select from public.feedback_log")


async def test_the_embedder_gets_a_table_for_a_new_model(as_: As, database: Database) -> None:
    embedder = await as_("embedder")
    for name, dimensions in (("small", 3), ("large", 3000)):
        model = await register_model(embedder, name, dimensions)
        await embedder.execute(
            f"insert into {model.table} select 'h', array_fill(1, array[{dimensions}])::real[]::{model.type}"
        )
        await index_vectors(embedder, model.id)
    async with database.connection() as owner:
        assert await owner.fetchval("select count(*) from feedback_loop.active_chunk") == 0


async def test_the_embedder_sees_which_apps_are_searched(as_: As) -> None:
    assert await (await as_("embedder")).fetch(SEARCHED_LATELY) == []


async def test_roles_made_later_reach_the_tables_of_vectors_that_there_are(
    dsn: str, database: Database
) -> None:
    async with database.transaction() as owner:
        table = (await register_model(owner, "m", 3)).table
        await make_database_roles(owner, PASSWORDS)
    embedder = await asyncpg.connect(as_service(dsn, "embedder"))
    try:
        await embedder.execute(f"delete from {table}")
    finally:
        await embedder.close()


async def test_a_command_of_the_dashboard_is_written_and_published_as_its_own_user(
    as_: As, dsn: str, start: Callable[..., Any], database: Database
) -> None:
    runtime = await start([dashboard], database_url=as_service(dsn, "dashboard"))
    address = f"http://127.0.0.1:{runtime.port}/dashboard/commands"
    order = {"command": "pause", "app": "shop"}
    async with aiohttp.ClientSession() as http, http.post(address, json=order) as response:
        assert response.status == 202, await response.text()
    async with database.connection() as owner:
        assert await owner.fetchval("select type from feedback_loop.outbox") == "loop.paused"


# --- making them ------------------------------------------------------------------------


async def test_making_them_again_takes_away_what_is_not_theirs(as_: As, database: Database) -> None:
    async with database.transaction() as owner:
        await owner.execute(f"grant insert on feedback_loop.vote to {group('analyzer')}")
        await make_database_roles(owner, PASSWORDS)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await (await as_("analyzer")).execute(VOTE)


async def test_the_groups_cannot_log_in(as_: As, database: Database) -> None:
    async with database.connection() as owner:
        can = await owner.fetch("select rolname from pg_roles where rolcanlogin and rolname ~ '^feedback_'")
    assert {row["rolname"] for row in can} == {user(service) for service in ROLES}


async def test_who_may_not_make_roles_is_told_what_to_do(as_: As) -> None:
    with pytest.raises(RightsError, match="migrate --print"):
        await make_database_roles(await as_("embedder"), PASSWORDS)


async def test_a_service_does_not_migrate(as_: As, dsn: str, database: Database) -> None:
    its = Database(as_service(dsn, "trigger"))
    await its.connect()
    try:
        assert await its.migrate() == []
        async with database.connection() as owner:
            await owner.execute("delete from feedback_loop.migration where name ~ '^016'")
        with pytest.raises(SchemaBehind, match="feedback-loop migrate --roles"):
            await its.migrate()
    finally:
        await its.close()


async def test_a_service_waits_where_there_is_no_schema_yet(as_: As, dsn: str, database: Database) -> None:
    name = f"fl_{uuid.uuid4().hex[:12]}"
    async with database.connection() as owner:
        await owner.execute(f"create database {name}")
        its = Database(as_service(urlunsplit(urlsplit(dsn)._replace(path=f"/{name}")), "trigger"))
        try:
            await its.connect()
            with pytest.raises(SchemaBehind):
                await its.migrate()
        finally:
            await its.close()
            await owner.execute(f"drop database {name} with (force)")


# --- on the broker ----------------------------------------------------------------------


@pytest.fixture
async def broker(amqp_url: str, make_settings: Callable[..., Settings]) -> AsyncIterator[str]:
    """A virtual host in which everything is made, and each service has its permissions."""
    async with virtual_host(amqp_url) as url:
        assert await mend(_administration(make_settings, url))
        yield url


def _administration(make_settings: Callable[..., Settings], url: str) -> Settings:
    api = os.environ["TEST_RABBITMQ_API"]
    return make_settings(amqp_url=url, role_passwords=passwords(), rabbitmq_management_url=api)


async def _bus(url: str, service: str) -> RabbitBus:
    bus = RabbitBus(as_service(url, service), Topology(), declares=False)
    await bus.connect()
    return bus


MESSAGE = Message("report.ready", {}, b"{}")


async def test_a_consumer_takes_retries_and_buries_as_its_own_user(broker: str) -> None:
    bus, taken = await _bus(broker, "notifier"), []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.message.routing_key)
        await delivery.ack()

    try:
        await bus.subscribe("notifier", ["report.ready"], take, 1)
        await bus.publish(MESSAGE)
        await bus.send("notifier", MESSAGE, delay=1)
        await bus.bury("notifier", MESSAGE, "no use")
        await wait_until(lambda: len(taken) == 2)
        assert await depth(broker, Topology().dead) == 1
    finally:
        await bus.close()


async def test_the_relay_of_any_service_reaches_a_consumer(broker: str) -> None:
    bus = await _bus(broker, "dashboard")
    try:
        await bus.send("analyzer", MESSAGE)
        assert await depth(broker, Topology().queue("analyzer")) == 1
    finally:
        await bus.close()


@pytest.mark.parametrize("service", ["trigger", "analyzer"])
async def test_no_service_may_read_declare_bind_or_delete_what_is_not_its_own(
    broker: str, service: str
) -> None:
    other = Topology().queue("embedder")

    async def read(opened: Any) -> None:
        await (await opened.get_queue(other, ensure=False)).get()

    async def bind(opened: Any) -> None:
        await (await opened.get_queue(other, ensure=False)).bind(Topology().exchange, "#")

    for attempt in (
        read,
        bind,
        lambda opened: opened.declare_queue("mine"),
        lambda opened: opened.queue_delete(other),
        lambda opened: opened.exchange_delete(Topology().exchange),
        lambda opened: opened.declare_exchange("mine"),
    ):
        async with channel(as_service(broker, service)) as opened:
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
                await attempt(opened)


async def test_a_service_that_may_declare_nothing_waits_for_what_is_missing(
    amqp_url: str, make_settings: Callable[..., Settings]
) -> None:
    async with virtual_host(amqp_url) as url:
        assert await mend(_administration(make_settings, url))
        async with channel(url) as opened:
            await opened.exchange_delete(Topology().exchange)
        with pytest.raises(BusError, match="no exchange"):
            await _bus(url, "trigger")
        assert await mend(_administration(make_settings, url))
        await (await _bus(url, "trigger")).close()


async def test_a_consumer_goes_on_once_its_queue_has_been_made_again(
    broker: str, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    bus, taken = await _bus(broker, "notifier"), []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.message.routing_key)
        await delivery.ack()

    try:
        await bus.subscribe("notifier", ["report.ready"], take, 1)
        async with channel(broker) as opened:
            await opened.queue_delete(Topology().queue("notifier"))
        # Made again sooner, the broker itself may lose the consumer (docs/operations.md).
        await wait_until(lambda: "cancelled by the broker" in caplog.text)
        assert await mend(_administration(make_settings, broker))
        await bus.publish(MESSAGE)
        await wait_until(lambda: len(taken) == 1, 30)
    finally:
        await bus.close()


async def test_without_the_management_api_the_commands_are_printed(
    amqp_url: str, exchange: str, make_settings: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    async with virtual_host(amqp_url) as url:
        assert await mend(make_settings(amqp_url=url, role_passwords=passwords()))
        assert f"rabbitmqctl set_permissions --vhost '{urlsplit(url).path[1:]}' feedback_trigger" in (
            said := capsys.readouterr().out
        )
        assert PASSWORDS["trigger"] not in said
