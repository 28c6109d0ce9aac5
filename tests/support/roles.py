"""The services' own users: addresses with their names in them, and a virtual host to give them rights on."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import pytest

from shared.postgres.roles import ROLES, user

__all__ = ["PASSWORDS", "as_service", "passwords", "virtual_host"]

PASSWORDS = {service: f"{service}-3f9a1c" for service in ROLES}


def passwords() -> str:
    """`ROLE_PASSWORDS`."""
    return ",".join(f"{service}={password}" for service, password in PASSWORDS.items())


def as_service(url: str, service: str) -> str:
    """An address with a service's user and password in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user(service)}:{PASSWORDS[service]}@{host}"))


@asynccontextmanager
async def virtual_host(amqp_url: str) -> AsyncIterator[str]:
    """The broker's address with a virtual host of the test's own: users are the broker's, and what they
    may do is a virtual host's. Skips the test where the broker has no HTTP API."""
    api = os.environ.get("TEST_RABBITMQ_API")
    if not api:
        pytest.skip("the broker has no HTTP API")
    name = f"t-{uuid.uuid4().hex[:10]}"
    administrator = urlsplit(api).username or "guest"
    async with aiohttp.ClientSession() as session:

        async def ask(method: str, path: str, body: dict[str, str]) -> None:
            async with session.request(method, f"{api}/api/{path}", json=body) as response:
                assert response.status in (201, 204), await response.text()

        await ask("PUT", f"vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await ask("PUT", f"permissions/{name}/{quote(administrator)}", everything)
        try:
            yield urlunsplit(urlsplit(amqp_url)._replace(path=f"/{name}"))
        finally:
            await ask("DELETE", f"vhosts/{name}", {})
