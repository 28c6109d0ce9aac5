"""Every metric of this system, its name, type, labels, unit and meaning: the one place to look.

Names follow Prometheus (https://prometheus.io/docs/practices/naming/): base units, `_total` for what only
grows. `docs/observability.md` shows this as a table (`python -m scripts.metrics_table`).

What is guaranteed: a scrape reads nothing but this process's memory, so that it keeps no idle database
awake; labels are bounded (routes as they are declared, types and consumers of the registry, verdicts, and
at most `MOST_APPS` apps). What is not: that a value which lies in the database is newer than this process's
last look at it; each says when that is.
"""

from __future__ import annotations

from typing import Literal, get_args

from shared.events import Event, ReportReady, RetrainCompleted, RetrainRequested
from shared.telemetry.instruments import Counter, Gauge, Histogram, Instrument

__all__ = ["INVALID", "MOST_APPS", "Metrics", "Outcome"]

MOST_APPS = 100
"""Apps with gauges of their own: whoever may vote can name a new one. The longest unheard of goes."""
Outcome = Literal["processed", "duplicate", "retried", "parked", "dead", "left"]
"""How handling a delivery ends."""
INVALID = "invalid"
"""The type of a message that is no event that its consumer takes."""
VERDICTS = ("ok", "watch", "act", "insufficient_data", "paused")

_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one process; each runtime has its own."""

    def __init__(self) -> None:
        # --- HTTP ---------------------------------------------------------------------------
        self.requests = Counter(
            "feedback_loop_http_requests_total",
            "HTTP requests answered. `route` is the path as it is declared; `none`: there is no such route",
            ("method", "route", "status"),
        )
        self.request_seconds = Histogram(
            "feedback_loop_http_request_duration_seconds",
            "Seconds from a request's header to the end of its answer; streams are left out",
            ("method", "route"),
            _REQUEST,
        )
        # --- what comes in and is asked -----------------------------------------------------
        self.votes = Counter(
            "feedback_loop_votes_total",
            "Votes committed that came over HTTP, repeated ones too. `vote`: `like`, `dislike`, `retracted`,"
            " or `addition` (a reason, to a vote that is there)",
            ("vote",),
        )
        self.searches = Counter(
            "feedback_loop_searches_total",
            "Searches answered. `result`: `found`, `empty` (no chunk), `unavailable` (say, no model)",
            ("result",),
        )
        # --- events -------------------------------------------------------------------------
        self.published = Counter(
            "feedback_loop_events_published_total",
            "Events that the bus took from this process, the relay's not counted",
            ("type",),
        )
        self.relayed = Counter(
            "feedback_loop_events_relayed_total",
            "Events that the relay sent again, because a consumer had not dealt with them",
            ("type",),
        )
        self.handled = Counter(
            "feedback_loop_events_handled_total",
            "Deliveries dealt with. `outcome`: `processed`, `duplicate`, `retried` (failed, comes again),"
            " `parked` (a dependency is down, no attempt burnt), `dead` (given up, in the dead-letter queue),"
            " `left` (the bus failed: it comes again). What is no event has the type `invalid`",
            ("consumer", "type", "outcome"),
        )
        self.handling_seconds = Histogram(
            "feedback_loop_event_handling_seconds",
            "Seconds from a delivery to its acknowledgement, its transaction and what follows included",
            ("consumer", "type"),
            _WORK,
        )
        self.parked = Gauge(
            "feedback_loop_consumer_parked",
            "1 while a consumer takes nothing because a dependency is down, else 0",
            ("consumer",),
        )
        # --- the outbox ---------------------------------------------------------------------
        self.outbox_open = Gauge(
            "feedback_loop_outbox_open_events",
            "Events of all processes that some consumer has not dealt with, at this process's last look: at"
            " its start, and while any is open after 30 s, then ever more seldom, at last every ten minutes",
        )
        self.outbox_oldest = Gauge(
            "feedback_loop_outbox_oldest_age_seconds",
            "Age of the oldest open event at that look; 0: none is open",
        )
        # --- the process --------------------------------------------------------------------
        self.ready = Gauge(
            "feedback_loop_ready",
            "1 while everything is connected and consuming, else 0: `/readyz` without asking the database",
        )
        # --- Slack --------------------------------------------------------------------------
        self.posts = Counter(
            "feedback_loop_slack_posts_total",
            "Messages posted (to the terminal, where no Slack is set up). `kind`: `report`, `outcome`, …",
            ("kind",),
        )
        self.post_failures = Counter(
            "feedback_loop_slack_failures_total",
            "Attempts to post that did not succeed. `reason`: `busy` (asks to wait), `down`, `refused` (a"
            " person must mend something), `unclear` (it may be posted)",
            ("reason",),
        )
        # --- embedding ----------------------------------------------------------------------
        self.batches = Histogram(
            "feedback_loop_embedding_batch_seconds",
            "Seconds in which the model embedded a batch of a build; its count is the number of batches",
            (),
            _WORK,
        )
        self.chunks = Counter(
            "feedback_loop_embedding_chunks_total", "Chunks embedded for builds, repeated ones too"
        )
        self.retrains = Counter(
            "feedback_loop_builds_total",
            "Builds and rollbacks that ended. `outcome`: `promoted`, `rejected`, `unchanged`, `superseded`,"
            " `failed`; `reason`: `feedback`, `documents`, `manual`, `rollback`",
            ("outcome", "reason"),
        )
        # --- the judgement: of the process that analyses, from its last evaluation on; at a start, as the
        # --- last one was written down
        self.evaluations = Counter(
            "feedback_loop_evaluations_total",
            "Evaluations committed by this process, by verdict",
            ("verdict",),
        )
        self.evaluated = Gauge(
            "feedback_loop_last_evaluation_timestamp_seconds",
            "When an app was last evaluated (Unix time)",
            ("app",),
        )
        self.ratio = Gauge(
            "feedback_loop_negative_ratio",
            "Negative ratio (0 to 1) of the last report's window; absent where it had no votes",
            ("app",),
        )
        self.window_votes = Gauge("feedback_loop_window_votes", "Votes in the last report's window", ("app",))
        self.generation = Gauge(
            "feedback_loop_active_generation",
            "The generation whose answers were judged, or that was promoted since; absent before the first",
            ("app",),
        )
        self._prepare()

    @property
    def all(self) -> list[Instrument]:
        """Every metric, in the order in which they stand here."""
        return [entry for entry in vars(self).values() if isinstance(entry, Instrument)]

    def _prepare(self) -> None:
        for verdict in VERDICTS:
            self.evaluations.add(verdict, by=0)
        for reason in ("busy", "down", "refused", "unclear"):
            self.post_failures.add(reason, by=0)
        for vote in ("like", "dislike", "retracted", "addition"):
            self.votes.add(vote, by=0)
        self.ready.set(0)
        self.outbox_open.set(0)
        self.outbox_oldest.set(0)

    def consumes(self, consumer: str, types: list[str]) -> None:
        """Make the series of a consumer known."""
        self.parked.set(0, consumer)
        for type in types:
            for outcome in get_args(Outcome):
                self.handled.add(consumer, type, outcome, by=0)
        self.handled.add(consumer, INVALID, "dead", by=0)

    def produced(self, event: Event, now: float) -> None:
        """Count what a committed event says.

        Args:
            now: Unix time, in seconds.
        """
        if isinstance(event, ReportReady | RetrainRequested):
            self.evaluations.add(event.verdict)
            self.judged(event.app, now, event.ratio, event.total, event.generation)
        elif isinstance(event, RetrainCompleted):
            self.retrains.add(event.outcome, event.reason)

    def judged(self, app: str, when: float, ratio: float | None, votes: int, generation: int | None) -> None:
        """Keep how an app stands."""
        self.evaluated.forget(app)  # the app heard of last stands last
        self.evaluated.set(when, app)
        self.window_votes.set(votes, app)
        for gauge, value in ((self.ratio, ratio), (self.generation, generation)):
            if value is None:
                gauge.forget(app)
            else:
                gauge.set(value, app)
        while len(self.evaluated.values) > MOST_APPS:
            (oldest,) = next(iter(self.evaluated.values))
            for gauge in (self.evaluated, self.window_votes, self.ratio, self.generation):
                gauge.forget(oldest)

    def consumed(self, event: Event) -> None:
        """Keep what a handled event says: the process that analyses hears of generations so."""
        if (
            isinstance(event, RetrainCompleted)
            and event.generation_after is not None
            and (event.app,) in self.evaluated.values
        ):
            self.generation.set(event.generation_after, event.app)
