"""`feedback-loop doctor`: what is set up, what is not, and what to do about it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import aiohttp
import asyncpg
from rich.console import Console
from rich.text import Text

from services.commands.glance import connect
from services.commands.rights import RightsError, as_rabbitmqctl, make_broker_users
from services.commands.webhook import read_webhook, summary
from services.up import SERVICES
from shared.bus.port import BusError, Topology
from shared.embedding.models import make_embedder
from shared.failures import Reject, Unavailable
from shared.mirror.langfuse import SinkError
from shared.mirror.mirror import make_sink
from shared.postgres.database import Database
from shared.requester import printable
from shared.runtime import Runtime
from shared.settings import Settings, SettingsError
from shared.web.outgoing import no_redirects

__all__ = ["Finding", "examine", "mend"]

SIGNS = {"ok": ("✔", "green"), "note": ("•", "yellow"), "bad": ("✘", "red")}
LONGEST = 1000
"""Characters of what one finding says."""
SLACK_HELP = {
    "invalid_auth": "SLACK_BOT_TOKEN is no valid token: copy the Bot User OAuth Token (xoxb-…) again",
    "not_authed": "SLACK_BOT_TOKEN is no valid token: copy the Bot User OAuth Token (xoxb-…) again",
    "account_inactive": "the token was revoked: install the app to the workspace again",
    "token_revoked": "the token was revoked: install the app to the workspace again",
    "channel_not_found": "SLACK_CHANNEL names no channel that the bot sees: invite it with /invite",
    "not_in_channel": "invite the bot to the channel: /invite @your-bot",
    "missing_scope": "add the scope chat:write (and channels:history, to tell a lost post from a made one)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `bad` ends the command with 1; `note` is worth knowing."""

    state: Literal["ok", "note", "bad"]
    what: str
    says: str


async def examine(settings: Settings) -> bool:
    """Look at everything and print what was found. Returns whether nothing is bad."""
    console = Console(highlight=False, soft_wrap=True)
    checks: list[Callable[[Settings], Awaitable[list[Finding]]]] = [
        _database,
        _broker,
        _slack,
        _mirror,
        _embedder,
        _rest,
    ]
    good = True
    for check in checks:
        good = _tell(console, await check(settings)) and good
    return good


async def mend(settings: Settings) -> bool:
    """Make what services need on RabbitMQ that may declare nothing themselves, and print what was made.
    Returns whether that could be."""
    console = Console(highlight=False, soft_wrap=True)
    if settings.amqp_url is None:
        return _tell(console, [Finding("note", "bus", "AMQP_URL is not set: there is nothing to make")])
    findings = await _broker(settings.model_copy(update={"amqp_declare": True}), make=True)
    good = _tell(console, findings)
    if not good or settings.rabbitmq_management_url is not None:
        return good and _tell(console, [await _broker_users(settings)])
    console.print("RABBITMQ_MANAGEMENT_URL is not set; for a user for each service, run:")
    console.print("\n".join(as_rabbitmqctl(settings)), markup=False)
    return True


def _tell(console: Console, findings: list[Finding]) -> bool:
    """Print findings. Returns whether none is bad."""
    for finding in findings:
        # What others answer is in it: text, never markup.
        says = printable(finding.says, LONGEST)
        console.print(Text.assemble(SIGNS[finding.state], " ", (finding.what, "bold"), f": {says}"))
    return all(finding.state != "bad" for finding in findings)


async def _database(settings: Settings) -> list[Finding]:
    if settings.render and settings.database_url is None:
        return [Finding("bad", "database", "set DATABASE_URL: the disk of a free service is not kept")]
    where = "DATABASE_URL" if settings.database_url else f"the embedded one in {settings.data_dir}"
    try:
        database = await connect(settings)
    except asyncpg.FeatureNotSupportedError as error:
        return [
            Finding(
                "bad", "pgvector", f"{error}; install pgvector, or use a PostgreSQL that has it (Neon does)"
            )
        ]
    except asyncpg.InsufficientPrivilegeError as error:
        return [
            Finding(
                "bad",
                "database",
                f"{error}; let an administrator run `create extension vector`, and grant create",
            )
        ]
    except Exception as error:
        return [
            Finding(
                "bad", "database", f"{where} cannot be used: {error}; check the address, user and password"
            )
        ]
    try:
        return [Finding("ok", "database", where), *await _look_inside(database)]
    finally:
        await database.close()


async def _look_inside(database: Database) -> list[Finding]:
    async with database.connection() as connection:
        version = await connection.fetchval("select split_part(version(), ' ', 2)")
        vector = await connection.fetchval("select extversion from pg_extension where extname = 'vector'")
        owner = await connection.fetchval("select to_regclass('public.feedback_log') is not null")
        open_events = await connection.fetchval(
            "select count(*) from feedback_loop.outbox"
            " where done_at is null and created_at < now() - interval '1 hour'"
        )
        webhook = await read_webhook(connection)
        dead = await connection.fetchval("select count(*) from feedback_loop.inbox where state = 'dead'")
        waiting = await connection.fetchval("select count(*) from feedback_loop.mirror_due")
        trouble = await connection.fetchval("select trouble from feedback_loop.mirror")
    findings = [Finding("ok", "pgvector", f"{vector} on PostgreSQL {version}, schema up to date")]
    if webhook is not None:
        troubled = webhook["disabled_at"] or webhook["failures"]
        findings.append(Finding("note" if troubled else "ok", "webhook", summary(webhook)))
    if owner:
        findings.append(Finding("ok", "feedback_log", "there: its votes are read before each evaluation"))
    if open_events:
        says = f"{open_events} events wait for over an hour; are all services running?"
        findings.append(Finding("note", "events", says))
    if dead:
        says = f"{dead} events were given up; feedback_loop.inbox and the dead-letter queue say why"
        findings.append(Finding("note", "dead letters", says))
    if waiting and trouble:
        says = f"{waiting} changes of votes wait: {trouble}"
        findings.append(Finding("note", "mirror", says))
    return findings


async def _broker(settings: Settings, make: bool = False) -> list[Finding]:
    """What there is on the broker; `make`: the consumers' queues and bindings first."""
    if settings.amqp_url is None:
        return [Finding("ok", "bus", "within one process (AMQP_URL is not set): use `feedback-loop up`")]
    from shared.bus.rabbit import RabbitBus

    bus = RabbitBus(
        settings.amqp_url.get_secret_value(),
        Topology(settings.amqp_exchange, settings.amqp_queue_type),
        settings.amqp_declare,
    )
    consumers = _consumers(settings)
    try:
        await bus.connect()
        for name, types in consumers.items() if make else ():
            await bus.declare(name, types)
    except BusError as error:
        with suppress(BusError):
            await bus.close()
        hint = "PRECONDITION" in str(error)
        todo = (
            "a queue exists with other arguments: set AMQP_QUEUE_TYPE as it was, or delete that queue"
            if hint
            else "check AMQP_URL: host, port, user, password, and the virtual host behind the slash"
        )
        return [Finding("bad", "RabbitMQ", f"{error}; {todo}")]
    try:
        missing = [name for name in consumers if await bus.consumers(name) == 0]
    finally:
        await bus.close()
    findings = [
        Finding("ok", "RabbitMQ", f"exchange {settings.amqp_exchange}, retry and dead-letter queues there")
    ]
    if missing and not make:
        run = " ".join(sorted({"notifier" if name == "webhook" else name for name in missing}))
        says = f"nobody consumes for {', '.join(missing)}: start `feedback-loop run {run}`, or `up`"
        findings.append(Finding("note", "queues", says))
    return findings


def _consumers(settings: Settings) -> dict[str, list[str]]:
    """The event types that each consumer takes."""
    services = Runtime(settings, list(SERVICES.values())).services
    taken = {service.name: [one.event.type for one in service.registrations] for service in services}
    return {name: types for name, types in taken.items() if types}


async def _broker_users(settings: Settings) -> Finding:
    if not settings.passwords:
        return Finding("note", "users", "ROLE_PASSWORDS is not set: no service got a user of its own")
    try:
        users = await make_broker_users(settings)
    except RightsError as error:
        return Finding("bad", "users", f"{error}; is that user an administrator?")
    return Finding("ok", "users", f"{', '.join(users)} have their permissions")


async def _slack(settings: Settings) -> list[Finding]:
    if settings.slack_bot_token is not None:
        return [await _slack_bot(settings)]
    if settings.slack_webhook_url is not None:
        url = settings.slack_webhook_url.get_secret_value()
        if not url.startswith("https://") and settings.production:
            return [Finding("bad", "Slack", "SLACK_WEBHOOK_URL must begin with https://")]
        return [Finding("ok", "Slack", "an incoming webhook (it can only be tried by posting)")]
    return [
        Finding(
            "note", "Slack", "not set up: reports go to the terminal; set SLACK_BOT_TOKEN and SLACK_CHANNEL"
        )
    ]


async def _slack_bot(settings: Settings) -> Finding:
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web.async_client import AsyncWebClient

    assert settings.slack_bot_token is not None and settings.slack_channel is not None
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with aiohttp.ClientSession(
            timeout=timeout, trust_env=True, middlewares=[no_redirects]
        ) as session:
            client = AsyncWebClient(
                settings.slack_bot_token.get_secret_value(),
                base_url=settings.slack_api_url,
                session=session,
                retry_handlers=[],
            )
            client.proxy = None  # the session knows the proxy, and NO_PROXY too
            who = await client.auth_test()
            if settings.slack_channel[:1] in "CG" and settings.slack_channel.isalnum():
                await client.conversations_info(channel=settings.slack_channel)
    except SlackApiError as error:
        said = getattr(error.response, "data", None)  # there is none where the answer was no JSON
        code = str(said.get("error")) if isinstance(said, dict) else "no answer of Slack's"
        if code == "missing_scope":  # reading a channel's name is no duty
            return Finding("ok", "Slack", "the token is valid; the channel is seen at the first post")
        return Finding(
            "bad", "Slack", f"{code}: {SLACK_HELP.get(code, 'see api.slack.com/methods/auth.test')}"
        )
    except Exception as error:  # on what is not Slack's, slack_sdk raises whatever it stumbles over
        return Finding(
            "bad", "Slack", f"cannot be reached: {error}; is there a way out to {settings.slack_api_url}?"
        )
    return Finding("ok", "Slack", f"{who['user']} in {who['team']}, posting to {settings.slack_channel}")


async def _mirror(settings: Settings) -> list[Finding]:
    if settings.mirror == "off":
        return []
    sink = make_sink(settings)
    try:
        project = await sink.project()
    except SinkError as error:
        return [Finding("bad", "Langfuse", f"{error}; until then votes wait, and nothing is lost")]
    finally:
        await sink.close()
    return [Finding("ok", "Langfuse", f"votes are mirrored to the project {project}")]


async def _embedder(settings: Settings) -> list[Finding]:
    try:
        embedder = make_embedder(settings)
    except SettingsError as error:
        return [Finding("bad", "embedder", str(error))]
    try:
        async with asyncio.timeout(60):
            await embedder.check()
            return [Finding("ok", "embedder", f"{embedder.model}, {await embedder.dimensions()} dimensions")]
    except (Reject, Unavailable, TimeoutError) as error:
        return [Finding("bad", "embedder", str(error) or "no answer within a minute")]
    finally:
        await embedder.close()


async def _rest(settings: Settings) -> list[Finding]:
    findings = []
    if settings.knowledge_dir is None:
        findings.append(
            Finding("note", "knowledge", "KNOWLEDGE_DIR is not set: use `ingest PATH` or POST /documents")
        )
    elif not settings.knowledge_dir.is_dir():
        findings.append(Finding("bad", "knowledge", f"KNOWLEDGE_DIR {settings.knowledge_dir} is no folder"))
    else:
        findings.append(Finding("ok", "knowledge", str(settings.knowledge_dir)))
    if settings.trigger_token is None:
        findings.append(Finding("note", "trigger", "open to anyone who knows the URL: set TRIGGER_TOKEN"))
    if settings.database_url is None:
        free = shutil.disk_usage(settings.data_dir if settings.data_dir.exists() else ".").free
        if free < 1 << 30:
            findings.append(Finding("note", "disk", f"{free >> 20} MiB left for the embedded database"))
    return findings
