"""Campaigns: how often a fault was injected, and how often a promise broke.

    async def test_nothing_is_lost(campaign: Begin) -> None:
        with campaign(4, "redelivery after the votes changed", quick=20, full=1000) as fault:
            while fault.goes_on():
                fault.ran(problems=[...])         # one run, and what was wrong with it

Environment: `FAULTS=full` chooses the full form, `FAULTS_SEED` the seed of all randomness (a number;
printed with the table), `FAULTS_SECONDS` ends each campaign early: the table then says how many of the
planned runs were made.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from shared.runtime import Runtime

__all__ = ["Begin", "Campaign", "Row", "Start", "begin", "is_full", "rows_of", "seed", "table"]

ROWS = "FAULTS_ROWS"
"""Environment variable: the file that rows are appended to, by every process of the test run."""
_MOST_TOLD = 20
_TELLS = 30.0
"""Seconds between two lines on how far a campaign of the full form has come."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one campaign (or of one part of it).

    Attributes:
        planned: runs that the form asks for.
        failures: promises that were broken.
        note: what was measured, where something was.
    """

    number: int
    fault: str
    planned: int
    runs: int
    failures: int
    seconds: float
    note: str = ""


@dataclass
class Campaign:
    """One fault, injected again and again.

    Attributes:
        random: seeded by `FAULTS_SEED` and the fault's number alone.
        planned: runs to make; may be set when it becomes known only on the way ("every k").
        note: what the table says beside the counts.
    """

    number: int
    fault: str
    full: bool
    planned: int
    random: Random
    seconds: float | None = None
    runs: int = 0
    problems: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    note: str = ""
    told: float = field(default_factory=time.monotonic)

    @property
    def late(self) -> bool:
        """Whether its time is up."""
        return self.seconds is not None and time.monotonic() - self.began > self.seconds

    def goes_on(self) -> bool:
        """Whether there is another run to make, and time for it."""
        return self.runs < self.planned and not self.late

    def batch(self, most: int) -> range:
        """The numbers of the next runs, `most` at a time."""
        return range(self.runs, min(self.runs + most, self.planned))

    def ran(self, count: int = 1, problems: Iterable[str] = ()) -> None:
        """Count runs, and each promise that they broke."""
        self.runs += count
        self.problems += problems
        if self.full and time.monotonic() - self.told > _TELLS:
            self.told = time.monotonic()
            passed = self.told - self.began
            print(
                f"fault {self.number}: {self.runs} of {self.planned} runs,"
                f" {len(self.problems)} broken promises,"
                f" {passed:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    def row(self) -> Row:
        seconds = round(time.monotonic() - self.began, 1)
        return Row(self.number, self.fault, self.planned, self.runs, len(self.problems), seconds, self.note)


Begin = Callable[..., AbstractContextManager[Campaign]]
"""`campaign(number, fault, quick=…, full=…)`: the runs of either form."""
Start = Callable[..., Awaitable[Runtime]]
"""The fixture `start`."""


def is_full() -> bool:
    return os.environ.get("FAULTS") == "full"


def seed() -> int:
    """The seed of this test run; drawn once, and the same in all of its processes."""
    return int(os.environ.setdefault("FAULTS_SEED", str(Random().randrange(1_000_000))))


@contextmanager
def begin(number: int, fault: str, *, quick: int, full: int) -> Iterator[Campaign]:
    """A campaign; at its end its row is written, and any problem fails the test.

    Raises:
        AssertionError: a promise was broken; the text says how, and with which seed to do it again.
    """
    seconds = os.environ.get("FAULTS_SECONDS")
    campaign = Campaign(
        number,
        fault,
        is_full(),
        full if is_full() else quick,
        Random(f"{seed()}/{number}"),
        float(seconds) if seconds else None,
    )
    try:
        yield campaign
    except BaseException:
        campaign.ran(1, ["it broke off"])
        raise
    finally:
        _append(campaign.row())
    told = "\n".join(campaign.problems[:_MOST_TOLD])
    assert not campaign.problems, (
        f"{len(campaign.problems)} broken promises in {campaign.runs} runs (FAULTS_SEED={seed()}):\n{told}"
    )


def _append(row: Row) -> None:
    if ROWS in os.environ:
        with Path(os.environ[ROWS]).open("a") as file:  # short lines: appended whole
            file.write(json.dumps(asdict(row)) + "\n")


def rows_of(file: Path) -> list[Row]:
    """What was written, with the parts of one fault added up."""
    found: dict[tuple[int, str], Row] = {}
    for line in file.read_text().splitlines():
        row = Row(**json.loads(line))
        sofar = found.get((row.number, row.fault), Row(row.number, row.fault, 0, 0, 0, 0))
        found[row.number, row.fault] = Row(
            row.number,
            row.fault,
            sofar.planned + row.planned,
            sofar.runs + row.runs,
            sofar.failures + row.failures,
            round(sofar.seconds + row.seconds, 1),
            row.note,
        )
    return [found[key] for key in sorted(found)]


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of text."""
    form = "full" if is_full() else "quick"
    lines = [f"{'#':>2}  {'fault':<46} {'runs':>6} {'planned':>8} {'failures':>9} {'seconds':>8}"]
    lines += [
        f"{row.number:>2}  {row.fault:<46} {row.runs:>6} {row.planned:>8} {row.failures:>9}"
        f" {row.seconds:>8.1f}  {row.note}".rstrip()
        for row in rows
    ]
    return [*lines, f"{form} form; FAULTS_SEED={seed()} repeats it"]
