"""Where calls go: to the hosts that the settings name, over TLS that is verified, and nowhere else."""

from __future__ import annotations

import ast
import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import pytest
from aiohttp import web
from click import ClickException

from services.commands import doctor
from services.commands.calls import hit
from services.commands.schedule.client import CronJobOrg, CronJobOrgError
from services.notifier.destinations import Message, Posted
from services.notifier.failures import NotPosted
from services.notifier.slack import Bot, Webhook
from shared.bus.port import BusError, Topology
from shared.bus.rabbit import RabbitBus
from shared.embedding.openai_api import OpenAIEmbedder
from shared.failures import Reject
from shared.mirror.langfuse import Langfuse, Score, SinkError
from shared.postgres.database import Database, DatabaseUnavailable
from shared.runtime import Runtime
from shared.web.outgoing import Redirected, no_redirects
from tests.support.slack import CHANNEL, TOKEN, FakeSlack
from tests.support.tls import Authority, amqps, postgres_tls

MESSAGE = Message("report/1", uuid.uuid4(), "text")


@dataclass
class Elsewhere:
    """A host that leads every call to another one, which counts what arrives."""

    url: str = ""
    arrived: list[str] = field(default_factory=list)


@asynccontextmanager
async def listening(
    handler: Callable[[web.Request], Any], tls: Authority | None = None
) -> AsyncIterator[str]:
    """A server; gives its URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context() if tls else None).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(params=[301, 302, 303, 307, 308])
async def elsewhere(request: pytest.FixtureRequest) -> AsyncIterator[Elsewhere]:
    found = Elsewhere()

    async def other(call: web.Request) -> web.Response:
        found.arrived.append(f"{call.method} {call.path} {dict(call.headers)}")
        return web.json_response({"ok": True, "channel": "C", "ts": "1.0", "data": [], "jobs": []})

    async with listening(other) as there:

        async def lead(call: web.Request) -> web.Response:
            return web.Response(status=request.param, headers={"Location": there + call.path})

        async with listening(lead) as here:
            found.url = here
            yield found


# --- redirects ------------------------------------------------------------------------------


async def test_a_session_follows_nothing(elsewhere: Elsewhere) -> None:
    async with aiohttp.ClientSession(middlewares=[no_redirects]) as session:
        with pytest.raises(Redirected):
            await session.post(elsewhere.url, data=b"body")
    assert elsewhere.arrived == []


async def test_slacks_token_and_message_stay_with_slack(elsewhere: Elsewhere) -> None:
    bot = Bot("xoxb-1", "#c", elsewhere.url + "/api/")
    with pytest.raises(NotPosted):
        await bot.send(MESSAGE)
    await bot.close()
    assert elsewhere.arrived == []


async def test_doctor_follows_nobody_with_slacks_token(elsewhere: Elsewhere, make_settings: Any) -> None:
    settings = make_settings(
        slack_bot_token="xoxb-1", slack_channel="C0REPORTS", slack_api_url=elsewhere.url + "/api/"
    )
    assert (await doctor._slack(settings))[0].state == "bad"
    assert elsewhere.arrived == []


@pytest.mark.parametrize(
    "said",
    [b"<html>", b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"ok": true, "user": "[/b]", "team": "\x1b[2J"}'],
    ids=["page", "list", "no text", "deep", "empty", "markup"],
)
async def test_doctor_says_what_slack_says_and_obeys_it_not(
    said: bytes, make_settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=said, content_type="application/json")

    async with listening(answer) as url:
        given = {"slack_bot_token": "xoxb-1", "slack_channel": "reports", "slack_api_url": f"{url}/api/"}
        await doctor.examine(make_settings(**given))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " Slack: " in line]
    assert line.isprintable()


@pytest.mark.parametrize("address", ["http://127.0.0.2:1/up", "http://127.0.0.1.example:1/up", "file:///x"])
async def test_a_picture_goes_to_slack_alone(slack: FakeSlack, address: str) -> None:
    bot = Bot(TOKEN, CHANNEL, slack.api_url)
    slack.upload_url = address
    with pytest.raises(NotPosted, match="not Slack's"):
        await bot.share(b"png", "title", Posted("C0REPORTS", "1.0"))
    await bot.close()


async def test_a_webhooks_message_stays_with_its_host(elsewhere: Elsewhere) -> None:
    webhook = Webhook(elsewhere.url + "/services/T/B/x")
    with pytest.raises(NotPosted):
        await webhook.send(MESSAGE)
    await webhook.close()
    assert elsewhere.arrived == []


async def test_what_is_embedded_stays_with_the_api(elsewhere: Elsewhere) -> None:
    embedder = OpenAIEmbedder(elsewhere.url, "sk-1", "m", patience=0)
    with pytest.raises(Reject, match="OPENAI_BASE_URL"):
        await embedder.embed(["text"])
    await embedder.close()
    assert elsewhere.arrived == []


async def test_cron_job_orgs_key_stays_with_it(elsewhere: Elsewhere) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(CronJobOrgError):
            await CronJobOrg(session, elsewhere.url, "key").jobs()
    assert elsewhere.arrived == []


async def test_mirrored_votes_stay_with_langfuse(elsewhere: Elsewhere) -> None:
    sink = Langfuse(elsewhere.url, "pk", "sk")
    score = Score(uuid.uuid4(), datetime.now(UTC), 0, "user_feedback", 1, None, "c")
    for call in (sink.send([score]), sink.delete(score.id), sink.project()):
        with pytest.raises(SinkError, match="MIRROR_URL"):
            await call
    await sink.close()
    assert elsewhere.arrived == []


async def test_the_triggers_token_stays_with_it(elsewhere: Elsewhere, make_settings: Any) -> None:
    with pytest.raises(ClickException, match="redirects"):
        await hit(make_settings(trigger_token="t"), elsewhere.url, None)
    assert elsewhere.arrived == []


async def test_a_service_that_wakes_itself_wakes_no_other(elsewhere: Elsewhere, make_settings: Any) -> None:
    runtime = Runtime(make_settings(render=True, render_external_url=elsewhere.url), [])
    assert runtime.kernel.outbox.while_open is not None
    await runtime.kernel.outbox.while_open()
    assert elsewhere.arrived == []


# --- TLS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Another authority, that issued nothing that is used."""
    return Authority(tmp_path)


def _verified(trusted: Path) -> str:
    return f"sslmode=verify-full&sslrootcert={trusted}"


class TestPostgres:
    async def _connects(self, dsn: str, authority: Authority, host: str, query: str) -> bool:
        """Whether a database behind TLS answers; what refuses it is raised."""
        async with postgres_tls(dsn, authority) as port:
            database = Database(f"postgresql://postgres@{host}:{port}{urlsplit(dsn).path}?{query}")
            try:
                await database.connect()
                await database.ping()
            finally:
                await database.close()
        return True

    async def test_the_right_authority_and_host_are_accepted(self, dsn: str, authority: Authority) -> None:
        assert await self._connects(dsn, authority, "localhost", _verified(authority.file))

    async def test_another_authority_is_refused(
        self, dsn: str, authority: Authority, stranger: Authority
    ) -> None:
        with pytest.raises(DatabaseUnavailable, match="certificate verify failed"):
            await self._connects(dsn, authority, "localhost", _verified(stranger.file))

    async def test_another_host_is_refused(self, dsn: str, authority: Authority) -> None:
        with pytest.raises(DatabaseUnavailable, match="certificate is not valid for"):
            await self._connects(dsn, authority, "127.0.0.1", _verified(authority.file))

    async def test_an_authority_that_is_not_there_is_refused(
        self, dsn: str, authority: Authority, tmp_path: Path
    ) -> None:
        with pytest.raises(DatabaseUnavailable, match="No such file"):
            await self._connects(dsn, authority, "localhost", _verified(tmp_path / "none.pem"))

    async def test_a_server_without_tls_is_refused(self, authority: Authority) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(8)
            writer.write(b"N")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            database = Database(f"postgresql://postgres@localhost:{port}/x?{_verified(authority.file)}")
            with pytest.raises(DatabaseUnavailable, match="rejected SSL upgrade"):
                await database.connect()
            await database.close()

    async def test_require_encrypts_and_verifies_nothing(self, dsn: str, authority: Authority) -> None:
        assert await self._connects(dsn, authority, "127.0.0.1", "sslmode=require")


def _over_tls(url: str, host: str, port: int, query: str) -> str:
    user = urlsplit(url).netloc.rpartition("@")[0]
    parts = urlsplit(url)._replace(scheme="amqps", netloc=f"{user}@{host}:{port}", query=query)
    return urlunsplit(parts)


class TestRabbit:
    async def _connect(self, url: str, exchange: str) -> None:
        bus = RabbitBus(url, Topology(exchange))
        try:
            await bus.connect()
            assert bus.trouble() is None
        finally:
            await bus.close()

    async def test_the_right_authority_and_host_are_accepted(
        self, amqp_url: str, exchange: str, authority: Authority
    ) -> None:
        async with amqps(amqp_url, authority) as port:
            await self._connect(_over_tls(amqp_url, "localhost", port, f"cafile={authority.file}"), exchange)

    async def test_another_authority_is_refused(
        self, amqp_url: str, exchange: str, authority: Authority, stranger: Authority
    ) -> None:
        async with amqps(amqp_url, authority) as port:
            with pytest.raises(BusError, match="certificate verify failed"):
                await self._connect(
                    _over_tls(amqp_url, "localhost", port, f"cafile={stranger.file}"), exchange
                )

    async def test_another_host_is_refused(self, amqp_url: str, exchange: str, authority: Authority) -> None:
        async with amqps(amqp_url, authority) as port:
            with pytest.raises(BusError, match="certificate is not valid for"):
                await self._connect(
                    _over_tls(amqp_url, "127.0.0.1", port, f"cafile={authority.file}"), exchange
                )

    async def test_without_an_authority_the_systems_are_asked(
        self, amqp_url: str, exchange: str, authority: Authority
    ) -> None:
        async with amqps(amqp_url, authority) as port:
            with pytest.raises(BusError, match="certificate verify failed"):
                await self._connect(_over_tls(amqp_url, "localhost", port, ""), exchange)


class TestHttps:
    """Certificates of authorities that the system does not know."""

    @pytest.fixture
    async def api(self, authority: Authority) -> AsyncIterator[Elsewhere]:
        found = Elsewhere()

        async def answer(call: web.Request) -> web.Response:
            found.arrived.append(call.path)
            return web.json_response({"ok": True, "channel": "C", "ts": "1.0"})

        async with listening(answer, authority) as found.url:
            yield found

    async def test_slack_must_prove_who_it_is(self, api: Elsewhere) -> None:
        bot = Bot("xoxb-1", "#c", api.url + "/api/")
        with pytest.raises(NotPosted):
            await bot.send(MESSAGE)
        await bot.close()
        assert api.arrived == []

    async def test_a_webhooks_host_must(self, api: Elsewhere) -> None:
        webhook = Webhook(api.url + "/services/T/B/x")
        with pytest.raises(NotPosted):
            await webhook.send(MESSAGE)
        await webhook.close()
        assert api.arrived == []

    async def test_the_embedding_api_must(self, api: Elsewhere) -> None:
        embedder = OpenAIEmbedder(api.url, "sk-1", "m", patience=0)
        with pytest.raises(Exception, match="certificate verify failed"):
            await embedder.embed(["text"])
        await embedder.close()
        assert api.arrived == []

    async def test_cron_job_org_must(self, api: Elsewhere) -> None:
        async def at_once(seconds: float) -> None:
            pass

        async with aiohttp.ClientSession() as session:
            with pytest.raises(CronJobOrgError, match="certificate verify failed"):
                await CronJobOrg(session, api.url, "key", sleep=at_once).jobs()
        assert api.arrived == []


# --- in the source --------------------------------------------------------------------------


def test_nothing_turns_verification_off() -> None:
    """No `ssl=False`, no unverified context, no `verify=False`, anywhere in the product."""
    found = []
    for path in [*Path("shared").rglob("*.py"), *Path("services").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in (
                "ssl",
                "verify",
                "verify_ssl",
                "check_hostname",
            ):
                found.append(f"{path}:{node.value.lineno}")
            if isinstance(node, ast.Attribute) and node.attr in ("CERT_NONE", "_create_unverified_context"):
                found.append(f"{path}:{node.lineno}")
    assert found == []
