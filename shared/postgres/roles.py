"""Least privilege, as data: what each service may do in PostgreSQL and on RabbitMQ. Pure.

What is guaranteed: a service that runs as its own user can do its work, and write nothing that another
service writes. Each table has one writing service; inbox, outbox and attempts belong to the router that all
services share, each writes events of its own types only, in the row as in the envelope that is published, and
of an event nobody can change more than when it was published and that it is done.
What is not: that a service reads only what it must. Events are in the outbox for all of them, and whoever
relays events may publish to every queue.

In PostgreSQL the rights are those of a group `feedback_loop_<service>` that cannot log in; the user
`feedback_<service>`, on the broker too, is a member of it. Groups and users are the server's: two
deployments on one server share them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["ROLES", "Permissions", "Role", "group", "permissions", "statements", "user"]

_RELAY = {
    "migration": "select",
    "consumer": "select",
    "outbox": "select, insert, update (published_at, publishes, done_at)",
    "inbox": "select (consumer, event_id)",
    "attempt": "select (consumer, event_id, next_at)",
}
"""What every service needs, to write its own events and to relay any that were left behind."""

_INBOX = _RELAY | {
    "consumer": "select, insert, delete",
    "inbox": "select, insert, update (buried_at)",
    "attempt": "select, insert, update",
}
"""What a service needs that takes events."""

_RUNS = {"run": "select, insert, update (hits, scheduled)"}
"""What a service needs that receives `feedback.evaluate`, on either side of the bus."""

_MIRROR = {
    "mirror": "select, update",
    "mirror_due": "select, insert, delete",
    "mirrored": "select, insert, update, delete",
    "vote": "select",
}
"""What a service needs that sends votes to where they are mirrored."""

_COMMANDS = (
    *("feedback.evaluate", "generation.requested", "rollback.requested"),
    *("loop.paused", "loop.resumed"),
)
"""What a person may ask of the loop."""

_VOTES_COUNTED = "votes_counted(text[], timestamptz, timestamptz)"
"""How many votes were cast when."""


@dataclass(frozen=True, slots=True)
class Role:
    """What one service may do.

    Attributes:
        tables: privileges by table or view of the schema `feedback_loop`.
        calls: functions of it, of those that not everybody may call.
        emits: event types that it may write to the outbox.
        vectors: privileges on the tables of vectors, of which there is one for each embedding model.
        queues: consumers whose queues it reads.
    """

    tables: Mapping[str, str]
    emits: tuple[str, ...]
    calls: tuple[str, ...] = ()
    vectors: str = ""
    queues: tuple[str, ...] = ()


ROLES = {
    "trigger": Role(
        _RELAY | _RUNS | {"run_status": "select", "vote": "select (app)"},
        emits=("feedback.evaluate",),
    ),
    "collector": Role(
        _RELAY
        | _MIRROR
        | {
            "conversation": "select, insert, update",
            "search_log": "select",
            "vote": "select, insert, update, delete",
        },
        emits=(),
        calls=("read_owner_tables()", "fold_votes(text, integer)"),
    ),
    "analyzer": Role(
        _INBOX
        | _RUNS
        | _MIRROR
        | {
            "alert": "select, insert, update",
            "complaint": "select, insert, update",
            "complaint_group": "select, insert, update, delete",
            "complaint_vector": "select, insert, update, delete",
            "decision": "select, insert",
            "rest": "select, insert, update",
            "retrain": "select, insert, update",
            "verdict": "select, insert",
            # What the others write
            "active_generation": "select",
            "conversation": "select",
            "generation": "select",
            "judged_answer": "select",
            "promotion": "select",
            "vote": "select",
            # Read by the version before, which may run beside this one
            "dislike": "select",
            "liked_citation": "select",
            "standing_chunk": "select",
        },
        emits=("feedback.evaluate", "report.ready", "retrain.requested", "rollback.requested", "loop.failed"),
        calls=(
            "read_owner_tables()",
            "retain(integer)",
            "fold_votes(text, integer)",
            _VOTES_COUNTED,  # the version before
            "votes_between(text, timestamptz[])",
            "find_questions(text)",
            "dislikes_of(text, timestamptz, timestamptz, integer, bigint[], integer, integer)",
        ),
        queues=("analyzer",),
    ),
    "embedder": Role(
        _INBOX
        | {
            "active_generation": "select, insert, update",
            "batch": "select, insert, update, delete",
            "chunk": "select, insert, delete",
            "document": "select, insert, update, delete",
            "document_chunk": "select, insert, delete",
            "folder_file": "select, insert, update, delete",
            "generation": "select, insert, update",
            "generation_chunk": "select, insert, delete",
            "learned": "select, insert, update",
            "model": "select",
            "promotion": "select, insert",
            "search_log": "insert, select (app, searched_at)",
            # What the others write
            "judged_answer": "select",
        },
        emits=(
            *("generation.requested", "embedding.requested", "generation.built", "retrain.completed"),
            "loop.failed",
        ),
        calls=("register_model(text, integer)", "index_vectors(smallint)"),
        vectors="select, insert, delete",
        queues=("embedder",),
    ),
    "notifier": Role(
        _INBOX
        | _RUNS
        | {
            "notification": "select, insert, update",
            "slack_action": "select, insert",
            "slack_request": "select, insert, delete",
            "webhook": "select, insert, update",
            "webhook_message": "select, insert, update, delete",
            # What the others write
            "alert_state": "select",
            "build_progress": "select",
            "report_aftermath": "select",
            "report_complaint": "select",
            "report_event": "select",
            "report_outcome": "select",
            "report_promotion": "select",
            "report_vote": "select",
            "run_status": "select",
        },
        emits=(*_COMMANDS, "webhook.disabled", "loop.failed"),
        queues=("notifier", "webhook"),
    ),
    "dashboard": Role(
        _RELAY
        | {
            "alert_state": "select",
            "build_progress": "select",
            "complaint_group_label": "select",
            "complaint_of_vote": "select",
            "dashboard_answer": "select",
            "dashboard_app": "select",
            "dashboard_change": "select",
            "dashboard_chunk": "select",
            "dashboard_generation": "select",
            "dashboard_promotion": "select",
            "dashboard_vote": "select",
            "run_status": "select",
            "run_step": "select",
            "webhook_state": "select",
        },
        emits=(*_COMMANDS, "webhook.test"),
        calls=(_VOTES_COUNTED, "votes_about(text[], jsonb[], timestamptz, timestamptz)"),
    ),
}

_CALLS = ("forget_events(integer)",)
"""Functions that every service calls."""


def group(service: str) -> str:
    """The role in PostgreSQL that has the service's rights."""
    return f"feedback_loop_{service}"


def user(service: str) -> str:
    """Who the service logs in as, to PostgreSQL and to RabbitMQ."""
    return f"feedback_{service}"


def statements(service: str, vector_tables: Iterable[str] = ()) -> list[str]:
    """The SQL that gives a service's group, which must be there, its rights, and takes away all others
    that it has in the schema.

    Args:
        vector_tables: the tables of vectors that there are.
    """
    role, its = ROLES[service], group(service)
    taken = [
        f"revoke all on all {kind} in schema feedback_loop from {its}"
        for kind in ("tables", "sequences", "functions")
    ]
    tables = dict(role.tables)
    if role.vectors:
        tables |= dict.fromkeys(vector_tables, role.vectors)
    given = [f"grant {what} on feedback_loop.{table} to {its}" for table, what in tables.items()]
    calls = [f"grant execute on function feedback_loop.{call} to {its}" for call in (*role.calls, *_CALLS)]
    types = ", ".join(f"'{type}'" for type in role.emits) or "null"
    policy = [
        f"drop policy if exists {its} on feedback_loop.outbox",
        # The relay publishes the envelope, by its own type and id.
        f"create policy {its} on feedback_loop.outbox for insert to {its} with check (type in ({types})"
        " and envelope ->> 'type' = type and envelope ->> 'id' = event_id::text)",
    ]
    return [*taken, *policy, f"grant usage on schema feedback_loop to {its}", *given, *calls]


@dataclass(frozen=True, slots=True)
class Permissions:
    """Names of exchanges and queues, as the regular expressions of RabbitMQ
    (https://www.rabbitmq.com/docs/access-control#authorisation)."""

    configure: str
    write: str
    read: str


def permissions(service: str, exchange: str) -> Permissions:
    """What a service may do on the broker: publish, send to one consumer's queue (the relay), retry, and
    take from its own queues. It can declare, bind and delete nothing: see `AMQP_DECLARE`.

    Args:
        exchange: `AMQP_EXCHANGE`, with which all names begin.
    """
    name = re.escape(exchange)
    if not ROLES[service].queues:
        return Permissions("^$", rf"^({name}|amq\.default)$", "^$")
    queues = "|".join(ROLES[service].queues)
    return Permissions("^$", rf"^({name}|amq\.default|{name}\.retry\.[0-9]+ms)$", rf"^{name}\.({queues})$")
