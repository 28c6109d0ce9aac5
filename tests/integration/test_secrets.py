"""Every secret setting holds a word of its own; all that the loop says or stores is searched for it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import traceback
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from click.testing import CliRunner
from pydantic import SecretStr, ValidationError

from services.cli import main
from services.up import SERVICES
from shared.bus.envelope import Message
from shared.bus.port import BusError, Topology
from shared.bus.rabbit import RabbitBus
from shared.events import FeedbackEvaluate, WebhookTest
from shared.postgres.database import Database
from shared.runtime import Runtime
from shared.settings import Settings, SettingsError, load
from shared.telemetry.logs import configure_logs
from tests.support.events import publish, wait_until
from tests.support.everything import everything
from tests.support.receiver import Fault as HookFault
from tests.support.receiver import Receiver
from tests.support.slack import CHANNEL, TOKEN, FakeSlack, Fault

SECRETS = sorted(
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)


def word(name: str) -> str:
    """The word that the secret `name` holds."""
    return "zq" + hashlib.blake2s(name.encode()).hexdigest()[:20]


WORDS = {**{name: word(name) for name in SECRETS}, "slack_bot_token (the fake's)": TOKEN[5:]}
WORDS |= {f"{name}, encoded": b64encode(f"{user}{w}".encode()).decode().rstrip("=")
          for name, w in list(WORDS.items()) for user in ("guest:", "\0guest\0")}  # fmt: skip


def told(said: object) -> list[str]:
    """The secrets that a text tells."""
    text = str(said)
    return [name for name, secret in WORDS.items() if secret in text]


def planted(dsn: str, **given: Any) -> dict[str, Any]:
    """Settings in which every secret is set, but the broker's address."""
    parts = urlsplit(dsn)
    user = f"postgres:{word('database_url')}@"  # which a socket does not ask for
    values = {name: word(name) for name in SECRETS}
    values |= {
        "database_url": urlunsplit(parts._replace(netloc=user + parts.netloc.rpartition("@")[2])),
        "rabbitmq_management_url": f"http://admin:{word('rabbitmq_management_url')}@127.0.0.1:1",
        "role_passwords": f"trigger={word('role_passwords')}",
        "slack_webhook_url": f"http://127.0.0.1:1/services/{word('slack_webhook_url')}",
        "vote_token_secret": word("vote_token_secret") * 2,
        "webhook_secret": f"whsec_{word('webhook_secret') * 2}",  # which is base64
        "webhook_url": f"http://127.0.0.1:1/{word('webhook_url')}",
        "slack_bot_token": TOKEN,
    }
    del values["amqp_url"]
    return {**values, "slack_channel": CHANNEL, "slack_allowed_users": "U0JIN", **given}


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """What is logged, DEBUG too, for people and as JSON lines."""
    root, heard = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    known = root.manager.loggerDict.items()
    levels = {name: one.level for name, one in known if isinstance(one, logging.Logger)}
    handlers = []
    for form in ("json", "text"):
        configure_logs(form, "DEBUG")
        handlers += root.handlers
    for handler in handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(heard)
    root.handlers[:] = [*before, *handlers]
    yield heard
    root.handlers[:] = before
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


class Api:
    """An embeddings API that repeats the key it is given when it refuses."""

    def __init__(self) -> None:
        self.url, self.status = "", 200

    async def answer(self, request: web.Request) -> web.Response:
        key = request.headers.get("Authorization", "")
        if self.status != 200:
            body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}})
            return web.Response(
                status=self.status, text=body, headers={"Location": f"http://127.0.0.1:1/{quote(key)}"}
            )
        texts = (await request.json())["input"]
        vectors = [[float(len(text)), 1.0, float(sum(map(ord, text)) % 97)] for text in texts]
        return web.json_response({"data": [{"index": n, "embedding": v} for n, v in enumerate(vectors)]})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api, app = Api(), web.Application()
    app.router.add_post("/v1/embeddings", api.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield api
    await runner.cleanup()


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
def whole(start: Callable[..., Any], dsn: str, slack: FakeSlack, api: Api) -> Callable[..., Any]:
    """Start every service in this process, with every secret set."""

    async def begin(**more: Any) -> Runtime:
        given = planted(dsn, slack_api_url=slack.api_url, embedder="openai", openai_base_url=api.url, **more)
        runtime: Runtime = await start(list(SERVICES.values()), **given)
        return runtime

    return begin


@asynccontextmanager
async def caller(token: str) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(headers={"Authorization": token}, timeout=timeout) as session:
        yield session


async def ask(session: aiohttp.ClientSession, method: str, url: str, **more: Any) -> str:
    """An answer, status, headers and body; of a stream what comes at first."""
    async with session.request(method, url, **more) as answer:
        body = b""
        try:
            async with asyncio.timeout(0.5 if "stream" in url else 10):
                async for part in answer.content.iter_any():
                    body += part
        except TimeoutError:
            pass
        return f"{answer.status} {dict(answer.headers)} {body.decode(errors='replace')}"


def addresses(runtime: Runtime) -> list[tuple[str, str]]:
    """Every route: method and URL."""
    found = []
    for route in runtime.routes:
        path = str(getattr(route, "path", "")).replace("{", "").replace("}", "").replace(":.*", "")
        found.append((str(getattr(route, "method", "GET")), f"http://127.0.0.1:{runtime.port}{path}"))
    return [("GET" if method == "*" else method, url) for method, url in found]


async def a_run(runtime: Runtime, sql: Any) -> None:
    """Documents, votes that call for a retrain, and an evaluation."""
    url = f"http://127.0.0.1:{runtime.port}"
    async with caller(f"Bearer {word('admin_token')}") as session:
        await ask(session, "POST", f"{url}/documents", json={"source": "a.md", "text": "# A\n\nSome text."})
        votes = [{"conversation_id": f"c{n}", "feedback": "dislike", "reason": "slow"} for n in range(30)]
        assert (await ask(session, "POST", f"{url}/feedback/batch", json=votes)).startswith("200")
    await publish(runtime.kernel, FeedbackEvaluate(as_of=await sql.fetchval("select now()")))
    await wait_until(lambda: sql.fetchval("select count(*) from feedback_loop.decision"))


async def settled(sql: Any, seconds: float = 20) -> None:
    """Wait until every event is dealt with."""
    await wait_until(
        lambda: sql.fetchval(
            "select not exists (select from feedback_loop.outbox o join feedback_loop.consumer c"
            " on c.type = o.type where not exists (select from feedback_loop.inbox i"
            " where i.consumer = c.consumer and i.event_id = o.event_id))"
        ),
        seconds,
    )


# --- the services ---------------------------------------------------------------------------


def test_every_secret_has_a_word_of_its_own(dsn: str) -> None:
    given = planted(dsn) | {"amqp_url": word("amqp_url")}
    assert [name for name in SECRETS if name != "slack_bot_token" and word(name) not in given[name]] == []


async def test_when_all_goes_well(whole: Any, sql: Any, slack: FakeSlack, logs: io.StringIO) -> None:
    runtime = await whole(slack_start_notice=True)
    await a_run(runtime, sql)
    await settled(sql)
    answers = []
    async with caller(f"Bearer {word('admin_token')}") as session:
        for method, url in addresses(runtime):
            answers.append(await ask(session, method, url))
    assert slack.messages
    assert told(logs.getvalue()) == []
    assert told(answers) == []
    assert told(await everything(sql)) == []
    assert told([message.body for message in slack.messages]) == []


async def test_bad_requests(whole: Any, sql: Any, logs: io.StringIO) -> None:
    runtime = await whole()
    answers = []
    for name in ("trigger_token", "api_token", "read_token", "admin_token"):
        for token in (f"Bearer {word(name)}x", f"bearer {word(name)}", word(name), f"Basic {word(name)}"):
            async with caller(token) as session:
                for method, url in addresses(runtime)[:: 1 if name == "admin_token" else 4]:
                    answers.append(await ask(session, method, url, params={"token": word(name)}))
    async with caller(f"Bearer {word('admin_token')}") as session:
        for method, url in addresses(runtime):
            for body in (b"{", b'{"items": 7}', b"\xff"):
                said = await ask(
                    session, method, url, data=body, headers={"Content-Type": "application/json"}
                )
                answers.append(said)
    assert told(answers) == []
    assert told(logs.getvalue()) == []
    assert told(await everything(sql)) == []


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500])
async def test_an_embedding_api_that_refuses(
    status: int, whole: Any, sql: Any, api: Api, logs: io.StringIO, slack: FakeSlack
) -> None:
    runtime = await whole()
    api.status = status
    await a_run(runtime, sql)
    async with caller(f"Bearer {word('admin_token')}") as session:
        found = await ask(session, "GET", f"http://127.0.0.1:{runtime.port}/search?q=text")
        ready = await ask(session, "GET", f"http://127.0.0.1:{runtime.port}/readyz")
    if status != 500:  # which is waited for
        await settled(sql)
    assert told([found, ready, logs.getvalue(), runtime.kernel.bus.dead]) == []
    assert told(await everything(sql)) == []
    assert told([message.body for message in slack.messages]) == []


@pytest.mark.parametrize(
    "fault",
    [Fault(error="invalid_auth"), Fault(status=500), Fault(then="drop"), Fault(then="garble")],
    ids=lambda fault: fault.error or fault.then,
)
@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_a_slack_that_does_not_take_it(
    through: str, fault: Fault, start: Any, dsn: str, sql: Any, slack: FakeSlack, logs: io.StringIO
) -> None:
    more: dict[str, Any] = {"slack_api_url": slack.api_url}
    if through == "webhook":
        more |= {"slack_bot_token": None, "slack_channel": None}
        more |= {"slack_webhook_url": slack.webhook_url + word("slack_webhook_url")}
    runtime = await start([SERVICES["analyzer"], SERVICES["notifier"]], **planted(dsn, **more))
    slack.always(fault)
    await publish(runtime.kernel, FeedbackEvaluate(as_of=await sql.fetchval("select now()")))
    await wait_until(lambda: slack.calls)
    await wait_until(
        lambda: sql.fetchval("select count(*) from feedback_loop.notification where state = 'claimed'")
    )
    await asyncio.sleep(0.3)
    assert told(logs.getvalue()) == []
    assert told(await everything(sql)) == []
    assert told(runtime.kernel.bus.dead) == []


@pytest.mark.parametrize(
    "fault",
    [HookFault(status=500), HookFault(status=308, headers={"Location": "/x"}), HookFault(then="drop")],
)
async def test_a_webhook_that_does_not_take_it(
    fault: HookFault, start: Any, dsn: str, sql: Any, slack: FakeSlack, logs: io.StringIO
) -> None:
    async with Receiver() as receiver:
        url = receiver.url + "?" + word("webhook_url")
        given = planted(dsn, slack_api_url=slack.api_url, webhook_url=url)
        runtime = await start([SERVICES["analyzer"], SERVICES["notifier"]], **given)
        receiver.always(fault)
        await publish(
            runtime.kernel, FeedbackEvaluate(as_of=await sql.fetchval("select now()")), WebhookTest()
        )
        await wait_until(lambda: len(receiver.ids) > 2)
        await settled(sql)
    assert told(logs.getvalue()) == []
    assert told(await everything(sql)) == []
    assert told([message.body for message in slack.messages]) == []
    assert told([body for _, body in receiver.raw]) == []


async def test_a_dead_letter_tells_nothing(whole: Any, sql: Any, logs: io.StringIO) -> None:
    runtime = await whole()
    bus = runtime.kernel.bus
    await bus.publish(Message("feedback.evaluate", {"ce-id": str(uuid.uuid4())}, b'{"as_of": "never"}'))
    await wait_until(lambda: bus.dead)
    await settled(sql)
    assert told([bus.dead, logs.getvalue(), await everything(sql)]) == []


async def test_what_is_printed_of_the_objects(whole: Any) -> None:
    runtime = await whole()
    kernel = runtime.kernel
    things = [kernel.settings, kernel, kernel.guard, kernel.bus, kernel.database, kernel.outbox, runtime]
    things += [*runtime.services, *runtime.routers, kernel.embedder()]
    assert told([f"{thing!r} {thing}" for thing in things]) == []
    assert told([kernel.settings.model_dump(), kernel.settings.model_dump_json()]) == []


def test_a_secret_is_kept_as_one(dsn: str) -> None:
    settings = Settings(_env_file=None, **planted(dsn, amqp_url=f"amqp://u:{word('amqp_url')}@h/"))
    assert all(isinstance(getattr(settings, name), SecretStr) for name in SECRETS)


# --- what cannot be reached -----------------------------------------------------------------


@asynccontextmanager
async def refusing_postgres() -> AsyncIterator[int]:
    """A server that asks for the password, and repeats it where it refuses (which no real one does)."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(4096))[4:8] == b"\x04\xd2\x16\x2f":
            writer.write(b"N")
        writer.write(b"R\0\0\0\x08\0\0\0\x03")
        await reader.read(4096)
        fields = b'SFATAL\0C28P01\0Mpassword authentication failed for user "loop"\0\0'
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def waits(settings: Settings) -> str:
    """What a process says of itself that cannot start."""
    runtime = Runtime(settings, [SERVICES["trigger"]])
    await runtime.start()
    boot = runtime._boot
    assert boot is not None
    try:
        await wait_until(
            lambda: runtime.kernel.waiting_for.startswith(("waiting for", "the ")) or boot.done()
        )
        async with caller(f"Bearer {word('trigger_token')}") as session:
            said = [
                await ask(session, "GET", f"http://127.0.0.1:{runtime.port}{path}")
                for path in ("/readyz", "/runs")
            ]
        if boot.done() and (error := boot.exception()) is not None:
            said.append("".join(traceback.format_exception(error)))
        return "".join(said)
    finally:
        await runtime.stop()


async def test_a_database_that_refuses_the_password(make_settings: Any, dsn: str, logs: io.StringIO) -> None:
    async with refusing_postgres() as port:
        url = f"postgresql://loop:{word('database_url')}@127.0.0.1:{port}/x?sslmode=disable"
        said = await waits(make_settings(**planted(dsn, database_url=url)))
    assert "password authentication failed" in logs.getvalue()
    assert "password authentication" not in said
    assert told([said, logs.getvalue()]) == []


@pytest.mark.parametrize("query", ["password={}", "password={}&sslmode=maybe", "password={}&x=%zz"])
async def test_a_database_that_is_not_there(
    query: str, make_settings: Any, dsn: str, logs: io.StringIO
) -> None:
    url = f"postgresql://u@127.0.0.1:1/db?{query.format(word('database_url'))}"
    said = await waits(make_settings(**planted(dsn, database_url=url)))
    assert told([said, logs.getvalue()]) == []


@pytest.mark.parametrize("form", ["amqp://u:{}@127.0.0.1:1/", "amqps://u:{}@127.0.0.1:1/?cafile=/none"])
async def test_a_broker_that_is_not_there(form: str, make_settings: Any, dsn: str, logs: io.StringIO) -> None:
    said = await waits(make_settings(**planted(dsn, amqp_url=form.format(word("amqp_url")))))
    assert told([said, logs.getvalue()]) == []


MALFORMED = ["x://u:{}/x@h:1/n", "x://u:{}#x@h:1/n", "x://u:{}?x@h:1/n", "x://u:x@h:{}/n", "x://u:{}@[::1/n",
             "mysql://u:{}@h/n", "{}", "{}://h/n"]  # fmt: skip


@pytest.mark.parametrize("form", MALFORMED)
@pytest.mark.parametrize(("name", "scheme"), [("database_url", "postgresql"), ("amqp_url", "amqp")])
def test_an_address_that_is_none_is_refused_and_not_repeated(
    name: str, scheme: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, {name: form.format(word(name)).replace("x://", f"{scheme}://")})
    with pytest.raises(SettingsError, match=name.upper()) as caught:
        load()
    with pytest.raises(ValidationError) as direct:
        Settings()
    said = [traceback.format_exception(error) for error in (caught.value, direct.value)]
    assert told(said) == []


async def test_a_broker_that_refuses_the_password(amqp_url: str, exchange: str, logs: io.StringIO) -> None:
    parts = urlsplit(amqp_url)
    where = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"guest:{word('amqp_url')}@{where}"))
    bus = RabbitBus(url, Topology(exchange))
    with pytest.raises(BusError) as caught:
        await bus.connect()
    await bus.close()
    assert told(["".join(traceback.format_exception(caught.value)), repr(bus), logs.getvalue()]) == []


async def test_a_pool_that_lost_its_database(dsn: str, logs: io.StringIO) -> None:
    database = Database(planted(dsn)["database_url"])
    await database.connect()
    await database.close()
    with pytest.raises(Exception, match="not connected") as caught:
        await database.ping()
    assert told(["".join(traceback.format_exception(caught.value)), logs.getvalue()]) == []


# --- the command line -----------------------------------------------------------------------


def environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    for name, value in values.items():
        monkeypatch.setenv(name.upper(), str(value))


@pytest.mark.parametrize("name", SECRETS)
def test_a_setting_that_does_not_fit_is_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, {"port": "many", name: word(name), "threshold": "7"})
    with pytest.raises(SettingsError) as caught:
        load()
    assert told("".join(traceback.format_exception(caught.value))) == []


COMMANDS = [
    ["--help"], ["doctor"], ["status"], ["migrate"], ["trigger"], ["schedule", "--show"], ["votes"],
    ["webhook"], ["forget", "--user", "x"], ["search", "text"], ["doctor", "--fix"], ["import"],
]  # fmt: skip


@pytest.mark.parametrize("reached", [True, False], ids=["well", "badly"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_commands_repeat_no_secret(
    arguments: list[str], reached: bool, dsn: str, slack: FakeSlack, api: Api, logs: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = planted(dsn, slack_api_url=slack.api_url, embedder="openai", openai_base_url=api.url, port=1)
    given |= {"cron_job_org_api_url": "http://127.0.0.1:1", "host": "127.0.0.1"}
    if not reached:
        api.status = 401
        given["slack_bot_token"] = f"xoxb-{word('slack_bot_token')}"
        given["amqp_url"] = f"amqp://u:{word('amqp_url')}@127.0.0.1:1/"
        given["database_url"] = f"postgresql://u:{word('database_url')}@127.0.0.1:1/db"
    environment(monkeypatch, given)
    done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    said = [done.output, logs.getvalue()]
    if done.exc_info is not None:
        said += traceback.format_exception(*done.exc_info)
    assert told(said) == []
