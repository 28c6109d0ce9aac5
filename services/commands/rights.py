"""Makes the services' own users, in PostgreSQL and on RabbitMQ, and gives them their rights.

What is guaranteed: doing it again changes nothing that fits, and takes away what `shared/postgres/roles.py`
no longer lists. What is not: that a user who was taken off that list is deleted, or that a password is:
where none is given, the one that there is stays.
"""

from __future__ import annotations

from urllib.parse import quote

import aiohttp
import asyncpg
from yarl import URL

from shared.postgres.database import Connection
from shared.postgres.roles import ROLES, group, permissions, statements, user
from shared.settings import Settings

__all__ = ["RightsError", "as_rabbitmqctl", "as_sql", "make_broker_users", "make_database_roles"]

# Granting what is another's is often a warning only.
_MAY_MAKE_ROLES = """
select (r.rolcreaterole or r.rolsuper) and pg_has_role(n.nspowner, 'usage')
from pg_roles r, pg_namespace n where r.rolname = current_user and n.nspname = 'feedback_loop'
"""
_MANAGEMENT_TIMEOUT = aiohttp.ClientTimeout(total=30)


class RightsError(Exception):
    """The users could not be made; the message says what to do."""


async def make_database_roles(connection: Connection, passwords: dict[str, str]) -> list[str]:
    """The groups with their rights, and a user in it for each service whose password is given. Call it in
    a transaction, as the schema's owner.

    Returns:
        What is worth knowing, a line each.

    Raises:
        RightsError: this role may not make roles, or the schema is not its own.
    """
    advice = "let a superuser run what `feedback-loop migrate --print` prints"
    if not await connection.fetchval(_MAY_MAKE_ROLES):
        raise RightsError(f"this role may not make roles, or the schema is another's; {advice}")
    try:
        for service in ROLES:
            await _make_role(connection, service, passwords.get(service))
    except asyncpg.InsufficientPrivilegeError as error:
        raise RightsError(f"{error}; {advice}") from None
    notes = []
    if await connection.fetchval("select has_schema_privilege($1, 'public', 'create')", group("analyzer")):
        # What is made there, read_owner_tables() reads with its owner's rights.
        notes.append("everybody may create tables in public: `revoke create on schema public from public`")
    return notes


async def _make_role(connection: Connection, service: str, password: str | None) -> None:
    if not await _exists(connection, group(service)):
        await connection.execute(f"create role {group(service)}")
    vectors = await connection.fetch("select quote_ident(table_name) as name from feedback_loop.model")
    for statement in statements(service, [row["name"] for row in vectors]):
        await connection.execute(statement)
    if password is None:
        return
    made = "alter" if await _exists(connection, user(service)) else "create"
    # No statement of this kind takes parameters.
    quoted = await connection.fetchval("select quote_literal($1::text)", password)
    await connection.execute(f"{made} role {user(service)} login password {quoted}")
    await connection.execute(f"grant {group(service)} to {user(service)}")


async def _exists(connection: Connection, role: str) -> bool:
    return bool(await connection.fetchval("select to_regrole($1) is not null", role))


def as_sql() -> list[str]:
    """The same for a superuser's psql, with passwords asked for."""
    lines = []
    for service in ROLES:
        its, whose = group(service), user(service)
        lines += [f"create role {its};", *(f"{line};" for line in statements(service))]
        if ROLES[service].vectors:
            lines.append(
                f"select format('grant {ROLES[service].vectors} on feedback_loop.%I to {its}', table_name)"
                " from feedback_loop.model \\gexec"
            )
        lines += [f"create role {whose} login in role {its};", f"\\password {whose}"]
    return lines


async def make_broker_users(settings: Settings) -> list[str]:
    """A user with its permissions for each service whose password is given, over RabbitMQ's HTTP API.

    Returns:
        Their names.

    Raises:
        RightsError: the API does not answer, or refuses.
    """
    assert settings.rabbitmq_management_url is not None
    url = URL(settings.rabbitmq_management_url.get_secret_value())
    login = {"Authorization": aiohttp.encode_basic_auth(url.user or "", url.password or "")}
    host = virtual_host(settings)
    made = []
    try:
        async with aiohttp.ClientSession(headers=login, timeout=_MANAGEMENT_TIMEOUT) as session:
            for service, password in settings.passwords.items():
                name, may = user(service), permissions(service, settings.amqp_exchange)
                wanted = {"configure": may.configure, "write": may.write, "read": may.read}
                await _put(session, url, ("users", name), {"password": password, "tags": ""})
                await _put(session, url, ("permissions", host, name), wanted)
                made.append(name)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RightsError(f"RABBITMQ_MANAGEMENT_URL cannot be reached: {error or 'no answer'}") from None
    return made


async def _put(session: aiohttp.ClientSession, url: URL, path: tuple[str, ...], body: dict[str, str]) -> None:
    where = "/".join(["api", *(quote(part, safe="") for part in path)])
    address = URL(f"{url.origin()}{url.raw_path.rstrip('/')}/{where}", encoded=True)
    async with session.put(address, json=body, allow_redirects=False) as response:
        if response.status not in (201, 204):
            raise RightsError(f"RabbitMQ's HTTP API answered {response.status} to {path[0]} {path[-1]}")


def virtual_host(settings: Settings) -> str:
    """The one that `AMQP_URL` names."""
    assert settings.amqp_url is not None
    return URL(settings.amqp_url.get_secret_value()).path[1:] or "/"


def as_rabbitmqctl(settings: Settings) -> list[str]:
    """The same as commands; each `add_user` asks for the password."""
    lines = []
    for service in ROLES:
        name, may = user(service), permissions(service, settings.amqp_exchange)
        patterns = f"'{may.configure}' '{may.write}' '{may.read}'"
        lines += [
            f"rabbitmqctl add_user {name}",
            f"rabbitmqctl set_permissions --vhost '{virtual_host(settings)}' {name} {patterns}",
        ]
    return lines
