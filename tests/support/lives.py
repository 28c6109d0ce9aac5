"""Life after life of a process that ends at an await: which awaits there are, and what is left of each."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from itertools import count
from typing import Any

from shared.bus.port import Topology
from shared.postgres.database import Database
from tests.support.awaits import STRUCK, Life, Way, live
from tests.support.faults import Campaign
from tests.support.forked import Forked
from tests.support.loop import LADDER, SERVICES, check_apps, check_slack, check_votes, furnish
from tests.support.rabbit import depth
from tests.support.slack import FakeSlack

__all__ = ["ASKED", "Lives"]

ASKED = ("trigger", "collector")
"""Services whose clients had no answer when the process died, and ask again."""
_SAMPLE = 2
"""Awaits of a service that the quick form tries, of each way."""


@dataclass
class Lives:
    """Processes, one after the other, on one database and one broker.

    Attributes:
        settings: of the services.
        service: the one whose awaits are tried.
    """

    campaign: Campaign
    database: Database
    slack: FakeSlack
    settings: dict[str, Any]
    service: str
    apps: int = 0
    before: str | None = None

    async def every_await(self, *ways: Way) -> None:
        """End a process at every await of the service (in the quick form: at some), and check in the end
        that nothing was lost and nothing happened twice."""
        awaits = (await self._live(0, "begins"))[self.service]
        sample = min(_SAMPLE, awaits)
        self.campaign.planned = len(ways) * (awaits if self.campaign.full else sample)
        for way in ways:
            some = self.campaign.random.sample(range(1, awaits + 1), sample)
            for at in count(1) if self.campaign.full else some:
                if self.campaign.late:
                    break
                # A process may wait a little less or more often than the one that was counted.
                if not await self._die(at, way) and at >= awaits:
                    break
        if not self.campaign.late:
            self.campaign.planned = self.campaign.runs
        await self._live(0, "begins")
        self.campaign.ran(0, await self._wrong())

    async def _die(self, at: int, way: Way) -> bool:
        """Whether the process got as far as that await."""
        reached = await self._live(at, way) == {}
        if reached:
            self.campaign.ran()
        return reached

    async def _live(self, at: int, way: Way) -> dict[str, int]:
        """One process. Returns how many awaits each service had; nothing where it ended at one."""
        app = f"app{self.apps}"
        self.apps += 1
        await furnish(self.database, [app])
        passes = self.campaign.random.randrange(6)
        repeat = self.before is not None and self.service in ASKED
        life = Life(self.settings, self.service, at, way, passes, app, self.before, repeat)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = Forked(live, life, sender)
        code = await process.ended(120)
        self.before = app if code == STRUCK else None
        if code not in (0, STRUCK):
            self.campaign.ran(0, [f"{app}: ended with {code}, {way} {at}"])
        counts: dict[str, int] = receiver.recv() if code == 0 and receiver.poll() else {}
        receiver.close()
        sender.close()
        return counts

    async def _wrong(self) -> list[str]:
        apps = [f"app{number}" for number in range(self.apps)]
        topology = Topology(self.settings["amqp_exchange"], ladder=LADDER)
        url = self.settings["amqp_url"]
        left = {name: await depth(url, name) for name in [topology.dead, *map(topology.queue, SERVICES)]}
        return [
            *await check_apps(self.database, apps),
            *await check_votes(self.database, dict.fromkeys(((app, "asked") for app in apps), 0)),
            *await check_slack(
                self.database, self.slack, dict.fromkeys(("report", "retrain", "outcome"), len(apps))
            ),
            *(f"{number} messages in {name}" for name, number in left.items() if number),
        ]
