"""Who may see and do what on the dashboard, through HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import services.dashboard
from services.dashboard.build import build
from shared.postgres.database import Database
from tests.support.dashboard import Start, url

FIGURES = ("/dashboard/runs", "/dashboard/summary", "/dashboard/trend.json", "/dashboard/backtest")
WORDS = ("/dashboard/groups", "/dashboard/votes", "/dashboard/votes.csv")
FILES = ("/", "/static/app.js", "/static/style.css", "/dashboard/access")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


DEVELOPMENT: dict[str, Any] = {}
PRODUCTION = {"environment": "production"}
TOKENS = {"environment": "production", "api_token": "api", "admin_token": "root"}
ALL = {**TOKENS, "read_token": "eyes"}


@pytest.mark.parametrize(
    ("settings", "token", "figures", "words", "admin", "closed"),
    [
        (DEVELOPMENT, None, True, True, True, {}),
        (PRODUCTION, None, True, False, False, {"words": "API_TOKEN", "admin": "ADMIN_TOKEN"}),
        ({"api_token": "api"}, None, True, False, False, {}),
        ({"api_token": "api"}, "api", True, True, True, {}),
        (TOKENS, None, True, False, False, {}),
        (TOKENS, "wrong", True, False, False, {}),
        (TOKENS, "api", True, True, False, {}),
        (TOKENS, "root", True, True, True, {}),
        (ALL, None, False, False, False, {}),
        (ALL, "eyes", True, True, False, {}),
        ({**PRODUCTION, "read_token": "eyes"}, "eyes", True, True, False, {"admin": "ADMIN_TOKEN"}),
    ],
)
async def test_access_says_what_the_routes_let_through(
    start: Start,
    http: aiohttp.ClientSession,
    settings: dict[str, Any],
    token: str | None,
    figures: bool,
    words: bool,
    admin: bool,
    closed: dict[str, str],
) -> None:
    runtime = await start([build], **settings)
    async with http.get(url(runtime, "/dashboard/access"), headers=bearer(token)) as response:
        assert await response.json() == {
            "figures": figures,
            "words": words,
            "admin": admin,
            "closed": closed,
        }
    found = {}
    for path in (*FIGURES, *WORDS, "/dashboard/stream", *FILES):
        async with http.get(url(runtime, path), headers=bearer(token)) as response:
            found[path] = response.status
            response.close()
    # An empty body is refused as such only to who may command.
    async with http.post(url(runtime, "/dashboard/commands"), json={}, headers=bearer(token)) as response:
        assert (response.status == 422) is admin
    refused = 403 if "words" in closed else 401
    assert found == {
        **dict.fromkeys((*FIGURES, "/dashboard/stream"), 200 if figures else 401),
        **dict.fromkeys(WORDS, 200 if words else refused),
        **dict.fromkeys(FILES, 200),
    }


async def test_answers_are_never_kept(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([build])
    kept = {}
    for path in (*FIGURES, *WORDS, "/dashboard/access"):
        async with http.get(url(runtime, path)) as response:
            kept[path] = response.headers["Cache-Control"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert set(kept.values()) == {"no-store"}, kept


async def test_dashboard_reads_views_only(database: Database) -> None:
    """So that a role may be granted these, and nothing that lies beneath them."""
    named = _named()
    async with database.connection() as connection:
        views = await connection.fetch("select viewname from pg_views where schemaname = 'feedback_loop'")
        functions = await connection.fetch(
            "select proname from pg_proc where pronamespace = 'feedback_loop'::regnamespace"
        )
    assert len(named) > 10
    assert named <= {row[0] for row in [*views, *functions]}


def _named() -> set[str]:
    """Whatever of the schema the dashboard's code names."""
    folder = Path(services.dashboard.__path__[0])
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    return {name for text in texts for name in re.findall(r"feedback_loop\.(\w+)", text)}
