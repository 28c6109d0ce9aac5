"""The dashboard's page and its files, through HTTP."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from services.dashboard.build import build
from shared.runtime import Runtime
from shared.settings import Settings
from tests.support.dashboard import (
    Start,
    eventually,
    url,
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("path", ["/", "/dashboard"])
async def test_page_is_locked_to_its_own_origin(start: Start, http: aiohttp.ClientSession, path: str) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, path)) as response:
        assert response.content_type == "text/html"
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("query", "accepted", "default", "language"),
    [
        ("", "", "ko", "ko"),
        ("", "", "en", "en"),
        ("", "fr-FR,de;q=0.9", "ko", "ko"),
        ("", "en-US,en;q=0.9,ko;q=0.8", "ko", "en"),
        ("", "en;q=0.5,ko-KR", "en", "ko"),
        ("", "en;q=0", "ko", "ko"),
        ("?lang=en", "ko", "ko", "en"),
        ("?lang=ko", "en", "en", "ko"),
        ("?lang=xx", "en", "ko", "en"),
    ],
)
async def test_page_speaks_the_readers_language(
    start: Start, http: aiohttp.ClientSession, query: str, accepted: str, default: str, language: str
) -> None:
    runtime = await start([build], report_language=default)
    async with http.get(url(runtime, f"/{query}"), headers={"Accept-Language": accepted}) as response:
        assert f'<html lang="{language}"' in await response.text()


async def test_page_and_its_files_need_nothing_from_elsewhere(
    start: Start, http: aiohttp.ClientSession
) -> None:
    runtime = await start([build])
    for path, text in (await _files(http, runtime)).items():
        assert set(re.findall(r"https?://[^/'\"]*", text)) <= {"http://www.w3.org"}, path  # SVG's name


async def test_files_write_no_markup(start: Start, http: aiohttp.ClientSession) -> None:
    runtime = await start([build])
    for path, text in (await _files(http, runtime)).items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(", text
        ), path


async def _files(http: aiohttp.ClientSession, runtime: Runtime) -> dict[str, str]:
    """The page and whatever it loads, followed through imports."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        async with http.get(url(runtime, path)) as response:
            assert response.status == 200, path
            found[path] = await response.text()
        names = re.findall(r'(?:src|href)="(/static/[^"]+)"|from "\.(/[^"]+)"', found[path])
        waiting += {one or f"/static{other}" for one, other in names} - found.keys() - set(waiting)
    assert len(found) > 3
    return found


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/style.css"])
async def test_unchanged_file_is_not_sent_again(start: Start, http: aiohttp.ClientSession, path: str) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, path)) as response:
        tag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
    async with http.get(url(runtime, path), headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "index.html", "%00"])
async def test_no_other_file_is_served(start: Start, http: aiohttp.ClientSession, name: str) -> None:
    runtime = await start([build])
    async with http.get(url(runtime, f"/static/{name}")) as response:
        assert response.status == 404


async def test_before_it_is_ready_only_the_page_is_there(
    make_settings: Callable[..., Settings], http: aiohttp.ClientSession
) -> None:
    runtime = Runtime(make_settings(database_url="postgresql://nobody@127.0.0.1:1/none"), [build])
    await runtime.start()
    try:
        await eventually(lambda: "the database" in runtime.kernel.waiting_for)
        answers = {}
        for path in ("/", "/static/app.js", "/dashboard/runs", "/dashboard/stream"):
            async with http.get(url(runtime, path)) as response:
                answers[path] = response.status
                if response.status == 503:
                    assert "waiting for the database" in (await response.json())["reason"]
    finally:
        await runtime.stop()
    assert answers == {"/": 200, "/static/app.js": 200, "/dashboard/runs": 503, "/dashboard/stream": 503}


# --- what draws the charts ------------------------------------------------------------------


async def test_chart_library_is_served_as_a_file_of_the_page(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    runtime = await start([build], data_dir=tmp_path)
    async with http.get(url(runtime, "/static/vega.js")) as response:
        assert (response.status, response.content_type) == (200, "text/javascript")
        assert b"vegaEmbed" in await response.read()
        tag = response.headers["ETag"]
    async with http.get(url(runtime, "/static/vega.js"), headers={"If-None-Match": tag}) as response:
        assert response.status == 304


async def test_page_says_when_charts_cannot_be_drawn(
    start: Start, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    runtime = await start([build], data_dir=tmp_path)
    async with http.get(url(runtime, "/static/vega.js")) as response:
        assert response.status == 503
        assert "charts cannot be drawn" in (await response.json())["reason"]


async def test_files_travel_packed_for_whoever_unpacks_them(start: Start) -> None:
    runtime = await start([build])
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        bodies = {}
        for accepted in ("gzip, br", "identity"):
            headers = {"Accept-Encoding": accepted}
            async with session.get(
                f"http://localhost:{runtime.port}/static/app.js", headers=headers
            ) as answer:
                assert "Accept-Encoding" in answer.headers["Vary"]
                bodies[answer.headers.get("Content-Encoding", "identity")] = await answer.read()
    assert gzip.decompress(bodies["gzip"]) == bodies["identity"]
