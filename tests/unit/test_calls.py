"""`feedback-loop trigger` as a scheduler: it says so, tries again, and knows when that is of no use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click import ClickException

from services.commands.calls import hit
from shared.settings import Settings


class Trigger:
    """A trigger that answers with these statuses, one after the other, and keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = [200]
        self.arrived: list[Any] = []
        self.page: bytes | None = None
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.arrived.append(await request.json())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if self.page is not None:
            return web.Response(
                status=status, body=self.page, headers={"Content-Type": "text/html; charset=base64"}
            )
        return web.json_response({"status": "answered"}, status=status)


@pytest.fixture
async def trigger() -> AsyncIterator[Trigger]:
    served = Trigger()
    app = web.Application()
    app.router.add_post("/run-feedback-loop", served.answer)
    async with TestServer(app) as server:
        served.url = f"{server.host}:{server.port}"  # as platforms say it, without a scheme
        yield served


def settings(trigger: Trigger) -> Settings:
    return Settings(_env_file=None, trigger_url=trigger.url, trigger_token="t0ken")


LONG = timedelta(minutes=5)


async def test_a_failure_that_passes_is_tried_again(trigger: Trigger) -> None:
    trigger.statuses = [503, 502, 429, 200]
    await hit(settings(trigger), None, "shop", scheduled=True, retry_for=LONG, pause=0.01)
    assert trigger.arrived == [{"app": "shop", "scheduled": True}] * 4


@pytest.mark.parametrize("status", [401, 422, 302])
async def test_a_failure_that_stays_is_not(trigger: Trigger, status: int) -> None:
    trigger.statuses = [status]
    with pytest.raises(ClickException, match=str(status)):
        await hit(settings(trigger), None, None, retry_for=LONG, pause=0.01)
    assert trigger.arrived == [{}]


async def test_a_page_of_something_in_front_is_told_on_one_line(trigger: Trigger) -> None:
    trigger.statuses, trigger.page = [502], "\x1b[2J게이트웨이\n오류".encode("cp949")
    with pytest.raises(ClickException, match="502") as failed:
        await hit(settings(trigger), None, None)
    assert failed.value.message.isprintable()


@pytest.mark.parametrize(
    "url", ["http://u:pa55word@127.0.0.1:1", "http://" + "a" * 300, "http://[x", "http://h:99999"]
)
async def test_an_address_that_cannot_be_one_is_told_without_its_password(trigger: Trigger, url: str) -> None:
    with pytest.raises(ClickException, match="cannot reach") as failed:
        await hit(settings(trigger), url, None)
    assert "pa55word" not in failed.value.message


async def test_without_patience_one_try_is_made(trigger: Trigger) -> None:
    trigger.statuses = [503]
    with pytest.raises(ClickException, match="503"):
        await hit(settings(trigger), None, None)
    assert len(trigger.arrived) == 1


async def test_patience_ends(trigger: Trigger) -> None:
    trigger.statuses = [503]
    with pytest.raises(ClickException, match="503"):
        await hit(settings(trigger), None, None, retry_for=timedelta(seconds=1), pause=0.01)
    assert len(trigger.arrived) > 1
