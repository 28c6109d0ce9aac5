"""The state that an app is in, from one evaluation to the next. Pure.

What is guaranteed: the same evaluations in the same order give the same states; only votes that were
judged to be within the threshold make it `OK`, never their absence; a recovery is told also where days
on which nothing is known lie in between; an evaluation of earlier votes than the latest changes nothing.
What is not: that a state is news. `Alert.changed` says so.

`UNKNOWN` is no news, and what comes after it is compared with what was known before it: a team whose few
votes pause at the weekend would otherwise hear of every Saturday and every Monday. `NO_DATA`, where
nobody has voted in any window, is: the votes, or the way they come in, may have stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from shared.events import Alert, AlertState

__all__ = ["STATES", "Standing", "follow", "state_of"]

STATES: Mapping[str, AlertState] = {
    "no_votes": "NO_DATA",
    "too_few_votes": "UNKNOWN",
    # The windows are within the threshold, but of what is going on now nobody has said anything.
    "no_new_votes": "UNKNOWN",
    "within_threshold": "OK",
    "uncertain": "WATCH",
    # The votes call for a retrain as those do that get one.
    "retrain_running": "ALERT",
    "cooling_down": "ALERT",
    "rolling_back": "ALERT",
    "lower_bound_over_threshold": "ALERT",
    "ratio_over_threshold": "ALERT",
    "breaker_open": "ALERT",
    "paused": "PAUSED",
}
"""The state that each reason of a decision (`shared/policy.py`) stands for."""

_TROUBLE = ("WATCH", "ALERT")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an app stands after its latest evaluation.

    Attributes:
        since: when the state began, by database time.
        known: the last state other than `UNKNOWN`; None: there was none.
        troubled: it was `WATCH` or `ALERT`, and has not been `OK` since.
        as_of: which votes were judged: those up to here.
        changed_at: when there last was news.
    """

    state: AlertState
    since: datetime
    known: AlertState | None
    troubled: bool
    as_of: datetime
    changed_at: datetime


def state_of(reason: str, *, votes: bool) -> AlertState:
    """The state after one decision, whatever was before.

    Args:
        reason: the decision's.
        votes: there are some in any window, be it one that the policy does not look at.
    """
    state = STATES[reason]
    return "UNKNOWN" if state == "NO_DATA" and votes else state


def follow(
    before: Standing | None, state: AlertState, as_of: datetime, now: datetime
) -> tuple[Standing, Alert]:
    """Where the app stands now, and what there is to tell of it.

    Args:
        before: None at the first evaluation.
        as_of: of this evaluation; not in the future, or nothing would count until then.
        now: the database's time.
    """
    if before is not None and as_of < before.as_of:
        return before, Alert(state=before.state, since=before.since, before=before.state)
    known = before.known if before else None
    changed = state not in ("UNKNOWN", known)
    troubled = before.troubled if before else False
    standing = Standing(
        state=state,
        since=before.since if before and before.state == state else now,
        known=known if state == "UNKNOWN" else state,
        troubled=state in _TROUBLE or (troubled and state != "OK"),
        as_of=as_of,
        changed_at=now if changed or not before else before.changed_at,
    )
    alert = Alert(
        state=state,
        since=standing.since,
        before=before.state if before else None,
        changed=changed,
        recovered=state == "OK" and troubled,
    )
    return standing, alert
