"""Pictures and the page's script, made by a process of their own."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shared import child
from shared.charts import picture
from shared.charts.picture import Bundle, PictureError, picture_language, render_png
from shared.charts.vega_lite import Marker, Point, trend

SEOUL = ZoneInfo("Asia/Seoul")
ROOT = Path(__file__).parents[2]


def spec(**more: Any) -> dict[str, Any]:
    points = [Point(date(2026, 11, 1) + timedelta(n), 8, 2, 0.2, 0.06, 0.51) for n in range(14)]
    markers = [Marker(datetime(2026, 11, 5, tzinfo=SEOUL), 3, "promotion")]
    given = {"threshold": 0.3, "language": "en", "theme": "light", "width": 300, "height": 120, **more}
    return trend(points, markers, **given)


def size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


async def test_a_specification_becomes_a_picture_of_its_size() -> None:
    width, height = size(await render_png(spec(), scale=2))
    assert 600 <= width <= 1000 and 240 <= height <= 500


async def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(PictureError):
        await render_png({"mark": "no such mark", "encoding": 7})


async def test_a_picture_that_takes_too_long_is_given_up_and_its_process_is_gone() -> None:
    with pytest.raises(PictureError, match="not within"):
        await render_png(spec(), timeout=0.05)
    ps = await asyncio.create_subprocess_exec(
        *("ps", "--ppid", str(os.getpid()), "-o", "args="), stdout=asyncio.subprocess.PIPE
    )
    children, _ = await ps.communicate()
    assert b"shared.charts.picture" not in children


async def test_nothing_is_loaded_from_elsewhere() -> None:
    reached = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        data = {"url": f"http://127.0.0.1:{port}/data.json"}
        with pytest.raises(PictureError):
            await render_png({"data": data, "mark": "bar", "encoding": {"x": {"field": "a"}}})
    assert not reached.is_set()


async def test_the_process_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    assert "xoxb-secret" not in str(child.environment())


def test_the_renderer_is_never_imported_here() -> None:
    code = "import sys, shared.charts.picture, shared.charts.vega_lite; sys.exit('vl_convert' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- the page's script ----------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """How often a script was made, instead of the seconds it takes."""
    calls: list[tuple[str, ...]] = []

    async def child(task: bytes, timeout: float, *arguments: str) -> bytes:
        calls.append(arguments)
        return b"script"

    monkeypatch.setattr(picture, "_child", child)
    return calls


async def test_the_script_defines_one_global_that_needs_no_eval(tmp_path: Path) -> None:
    script = (await Bundle(tmp_path).script()).decode()
    assert script.startswith('"use strict";(() => {') and "window.vegaEmbed = " in script.replace("=", " = ")
    assert "ast:" in script.replace(" ", "") and "http" not in script[-600:]


async def test_the_script_is_made_once_for_all_who_ask(made: list[Any], tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    assert set(await asyncio.gather(*(bundle.script() for _ in range(5)))) == {b"script"}
    assert len(made) == 1


async def test_the_next_process_finds_the_script(made: list[Any], tmp_path: Path) -> None:
    await Bundle(tmp_path / "data").script()
    assert await Bundle(tmp_path / "data").script() == b"script" and len(made) == 1


async def test_a_disk_that_cannot_be_written_costs_only_time(made: list[Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bundle = Bundle(tmp_path / "file")
    assert [await bundle.script(), await bundle.script()] == [b"script", b"script"] and len(made) == 1


# --- fonts ----------------------------------------------------------------------------------


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Only these fonts are installed."""

    def install(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_bytes(b"")

    monkeypatch.setattr(picture, "_FOLDERS", (str(tmp_path), "/nowhere"))
    picture.has_korean_font.cache_clear()
    yield install
    picture.has_korean_font.cache_clear()


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("NanumGothic.ttf", "ko"),
        ("NotoSansCJK-Regular.ttc", "ko"),
        ("NotoSansKR[wght].ttf", "ko"),
        ("AppleSDGothicNeo.ttc", "ko"),
        ("DejaVuSans.ttf", "en"),
        ("NotoSans-Regular.ttf", "en"),
    ],
)
def test_korean_is_drawn_where_there_is_a_font_for_it(
    name: str, language: str, fonts: Callable[..., None]
) -> None:
    fonts(name)
    assert picture_language("ko") == language


def test_english_is_drawn_everywhere(fonts: Callable[..., None]) -> None:
    fonts()
    assert picture_language("en") == "en"
