"""Fault 2: cancellation at every await of a service's deliveries and requests, as when a drain's time is
up. A fresh process takes over; as after an exit, and nothing is dead-lettered.
"""

from __future__ import annotations

from typing import Any

import pytest

from shared.postgres.database import Database
from tests.support.faults import Begin
from tests.support.lives import Lives
from tests.support.loop import SERVICES
from tests.support.slack import FakeSlack


@pytest.mark.parametrize("service", SERVICES)
async def test_work_cancelled_at_any_await_is_done_once_by_the_next_process(
    service: str, campaign: Begin, database: Database, slack: FakeSlack, loop_settings: dict[str, Any]
) -> None:
    with campaign(2, "cancellation at the k-th await", quick=2, full=0) as fault:
        await Lives(fault, database, slack, loop_settings, service).every_await("cancel")
