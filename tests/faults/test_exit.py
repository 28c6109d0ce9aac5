"""Fault 1: the process exits at the k-th await of a service, for every k: as the await begins, or as it
has returned. A fresh process takes over; nothing is lost, and nothing happens twice.
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
async def test_a_process_that_ends_at_any_await_loses_nothing_and_does_nothing_twice(
    service: str, campaign: Begin, database: Database, slack: FakeSlack, loop_settings: dict[str, Any]
) -> None:
    with campaign(1, "the process exits at the k-th await", quick=4, full=0) as fault:
        await Lives(fault, database, slack, loop_settings, service).every_await("begins", "returned")
