"""Fault 17: a state machine over the whole loop: votes, runs, documents, builds, rollbacks, pauses, events
that come again, and crashes, in any order. At every moment an app has at most one active generation,
and that is whole; and whenever things have settled: each run has one decision and says it once, every
retrain has ended, every event is done, nothing was given up, and reports count what the ledger holds.
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from typing import ClassVar
from uuid import UUID

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shared.events import GenerationRequested, LoopPaused, LoopResumed, RollbackRequested
from tests.support import faults
from tests.support.embedder import article
from tests.support.faults import Begin, Campaign
from tests.support.world import World, run_of

EXAMPLES = 10
"""Of one call of hypothesis; between calls the campaign looks at its time."""

_BROKEN = """
select 'generation ' || a.generation || ' of ' || a.app || ' is not whole' as problem
from feedback_loop.active_generation a join feedback_loop.generation g on g.id = a.generation
where g.state <> 'promoted' or g.app <> a.app
   or g.chunks <> (select count(*) from feedback_loop.generation_chunk m where m.generation = g.id)
   or (select count(*) from feedback_loop.active_chunk c where c.app = a.app)
      <> (select count(*) from feedback_loop.generation_chunk m
          join feedback_loop.document d on d.id = m.document where m.generation = g.id)
union all
select 'retrains at once: ' || app from feedback_loop.retrain where finished_at is null
group by app having count(*) > 1
"""
_UNSETTLED = """
select 'run ' || r.id || ' has ' || count(d.run) || ' decisions' as problem
from feedback_loop.run r left join feedback_loop.decision d on d.run = r.id
group by r.id having count(d.run) <> 1
union all
select 'run ' || r.id || ' was told ' || count(o.event_id) || ' times' from feedback_loop.run r
left join feedback_loop.outbox o on o.cause = r.id and o.type in ('report.ready', 'retrain.requested')
group by r.id having count(o.event_id) <> 1
union all
select 'retrain ' || id || ' never ended' from feedback_loop.retrain where finished_at is null
union all
select 'event ' || type || ' is not done' from feedback_loop.outbox where done_at is null
union all
select consumer || ' gave up ' || type || ': ' || reason from feedback_loop.inbox where state = 'dead'
union all
select 'generation ' || id || ' is ' || state from feedback_loop.generation
where state in ('building', 'built')
union all
select 'message ' || key || ' is ' || state from feedback_loop.notification where state <> 'posted'
"""

APPS = st.sampled_from(["default", "shop"])
SOURCES = st.sampled_from(["a.md", "b.md", "c.md"])
CONVERSATIONS = 12


class Loop(RuleBasedStateMachine):
    server: ClassVar[str]
    template: ClassVar[str]
    campaign: ClassVar[Campaign]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.server, self.template)
        self.ledger: dict[str, dict[str, int]] = defaultdict(dict)
        self.expected: dict[UUID, tuple[str, int, int]] = {}
        """Of runs whose votes have not changed since: app, likes, dislikes."""

    def teardown(self) -> None:
        self.campaign.ran()
        self.world.close()

    # --- what people and programs do ----------------------------------------------------

    @rule(app=APPS, dislikes=st.integers(0, CONVERSATIONS), asked=st.integers(1, CONVERSATIONS))
    def vote(self, app: str, dislikes: int, asked: int) -> None:
        votes = {f"c{number}": int(number >= dislikes) for number in range(asked)}
        items = [{"app": app, "conversation_id": name, "feedback": value} for name, value in votes.items()]
        self.world.post("/feedback/batch", items)
        self._changes(app)
        self.ledger[app] |= votes

    @rule(app=APPS, number=st.integers(0, CONVERSATIONS))
    def retract(self, app: str, number: int) -> None:
        self.world.post("/feedback", {"app": app, "conversation_id": f"c{number}", "feedback": None})
        self._changes(app)
        self.ledger[app].pop(f"c{number}", None)

    @rule(app=APPS)
    def evaluate(self, app: str) -> None:
        key = {"Idempotency-Key": uuid.uuid4().hex}
        run = run_of(self.world.post("/run-feedback-loop", {"app": app}, **key))
        likes = sum(self.ledger[app].values())
        self.expected[run] = (app, likes, len(self.ledger[app]) - likes)

    @rule(app=APPS, source=SOURCES, version=st.integers(0, 3))
    def write(self, app: str, source: str, version: int) -> None:
        body = {"app": app, "source": source, "content": article(f"{source} {version}", 1 + version)}
        self.world.post("/documents", body)

    @rule(app=APPS, source=SOURCES)
    def remove(self, app: str, source: str) -> None:
        assert self.world.delete(f"/documents?app={app}&source={source}") in (200, 404)

    @rule(app=APPS)
    def rebuild(self, app: str) -> None:
        self.world.publish(GenerationRequested(app=app, reason="manual"))

    @rule(app=APPS, to=st.none() | st.integers(1, 6))
    def roll_back(self, app: str, to: int | None) -> None:
        self.world.publish(RollbackRequested(app=app, to_generation=to, requested_by="somebody"))

    @rule(app=APPS)
    def pause(self, app: str) -> None:
        self.world.publish(LoopPaused(app=app, why="a person"))

    @rule(app=APPS)
    def resume(self, app: str) -> None:
        self.world.publish(LoopResumed(app=app))

    # --- what befalls them --------------------------------------------------------------

    @rule(number=st.integers(0, 1000))
    def redeliver(self, number: int) -> None:
        self.world.redeliver(number)

    @rule(seconds=st.floats(0, 0.03))
    def crash(self, seconds: float) -> None:
        self.world.crash(seconds)

    @rule(seconds=st.floats(0, 0.02))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def settle(self) -> None:
        self.world.settle()
        assert [row["problem"] for row in self.world.rows(_UNSETTLED)] == []
        rows = self.world.rows("select run, app, likes, dislikes from feedback_loop.decision")
        told = {row["run"]: (row["app"], row["likes"], row["dislikes"]) for row in rows}
        assert {run: told[run] for run in self.expected} == self.expected
        self.expected.clear()

    @invariant()
    def what_is_active_is_whole(self) -> None:
        assert [row["problem"] for row in self.world.rows(_BROKEN)] == []

    def _changes(self, app: str) -> None:
        """Runs not yet decided may count before or after."""
        self.expected = {run: counts for run, counts in self.expected.items() if counts[0] != app}


class EndsSettled(Loop):
    """The same, looked at once more at the end."""

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            super().teardown()


def test_the_loop_keeps_its_promises_in_any_order_of_events_and_crashes(
    campaign: Begin, postgres: str, template: str
) -> None:
    logging.disable(logging.ERROR)  # crashes are loud
    EndsSettled.server, EndsSettled.template = postgres, template
    steps = 50 if faults.is_full() else 20
    try:
        with campaign(17, f"a state machine over the whole loop, {steps} steps", quick=4, full=1000) as fault:
            while fault.goes_on() and not fault.problems:
                EndsSettled.campaign = fault
                examples = settings(
                    max_examples=min(EXAMPLES, fault.planned - fault.runs),
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                seed(fault.random.randrange(2**32))(EndsSettled)
                try:
                    run_state_machine_as_test(EndsSettled, settings=examples)
                except AssertionError as error:
                    fault.ran(0, ["\n".join([str(error), *getattr(error, "__notes__", [])])])
    finally:
        logging.disable(logging.NOTSET)
