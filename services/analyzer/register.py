"""Where dislikes are entered with their cause and their group, in the evaluation's transaction.

What is guaranteed: each dislike that an evaluation has looked at has one row, and a group is there as long
as a vote is in it. A vote stays in the group that its comment is in, whatever an evaluation at the same
time has found. What is not: that a cause is for good. The next evaluation may know more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from services.analyzer.causes import Cause, Dislike
from services.analyzer.comments import Heard
from services.analyzer.complaints import Complaint, clean, code_group, digest, enough, report
from shared.events import ComplaintGroup
from shared.postgres.database import Connection

__all__ = ["enter"]

_MAKE = """
insert into feedback_loop.complaint_group as g (id, app, label, reason_code)
select id, $1, label, code from unnest($2::text[], $3::text[], $4::text[]) as n (id, label, code) order by id
on conflict (id) do update set label = excluded.label
"""

# In the order of their votes: whoever retracts votes meanwhile waits as little as can be.
_ENTER = """
insert into feedback_loop.complaint as c (vote, app, cause, group_id, said)
select n.vote, $1, n.cause, n.group_id, n.said
from unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) as n (vote, cause, group_id, said)
order by n.vote
on conflict (vote) do update set cause = case when $6 then c.cause else excluded.cause end,
    group_id = excluded.group_id, said = excluded.said, judged_at = now()
"""

_KEEP = """
insert into feedback_loop.complaint_vector as x (vote, model, said, vector, core)
select n.vote, $1, n.said, n.vector, n.core
from unnest($2::bigint[], $3::text[], $4::bytea[], $5::boolean[]) as n (vote, said, vector, core)
join feedback_loop.vote v on v.id = n.vote
order by n.vote
on conflict (vote) do update set model = excluded.model, said = excluded.said, vector = excluded.vector,
    core = excluded.core or (x.core and x.said = excluded.said)
"""

_FORGET = """
delete from feedback_loop.complaint_vector x using feedback_loop.vote v
where v.id = x.vote and v.app = $1 and not x.core and x.vote <> all($2::bigint[])
"""

_CLOSE = """
delete from feedback_loop.complaint_group g
where g.app = $1 and not exists (select from feedback_loop.complaint c where c.group_id = g.id)
"""


class _Entry(NamedTuple):
    dislike: Dislike
    cause: Cause
    text: str
    said: str | None
    group: str | None

    def is_new(self, late: bool) -> bool:
        """Whether it is not entered, or otherwise; where `late` its cause stays."""
        filed = self.dislike.filed
        if filed is None:
            return True
        return filed.group != self.group or filed.said != self.said or not (late or filed.cause == self.cause)


async def enter(
    connection: Connection,
    app: str,
    dislikes: Sequence[tuple[Dislike, Cause]],
    heard: Heard,
    start: datetime,
    *,
    late: bool,
) -> list[ComplaintGroup]:
    """Write causes and groups of dislikes.

    Args:
        dislikes: each with its cause.
        heard: what their comments say.
        start: of the report window.
        late: an evaluation of later votes has been here: its causes stay.

    Returns:
        The groups of the dislikes cast after `start`, as the report has them.
    """
    entries, codes = _place(app, dislikes, heard, await _there(connection, app, dislikes, heard))
    labels = await _labels(connection, app, entries, heard.labels, codes)
    if new := [one for one in entries if one.is_new(late)]:
        await connection.execute(
            _ENTER,
            app,
            [one.dislike.vote for one in new],
            [one.cause for one in new],
            [one.group for one in new],
            [one.said for one in new],
            late,
        )
    await _keep_vectors(connection, app, heard, late)
    await connection.execute(_CLOSE, app)
    complaints = [
        Complaint(one.dislike.vote, one.dislike.user, one.group, one.text, _near(heard, one))
        for one in entries
        if one.group is not None and one.dislike.voted > start
    ]
    return report(complaints, labels)


def _place(
    app: str, dislikes: Sequence[tuple[Dislike, Cause]], heard: Heard, there: Mapping[str, bool]
) -> tuple[list[_Entry], dict[str, str]]:
    """Each dislike with the group that its comment is in, else with its reason code's: one that is there, or
    that has enough now.

    Args:
        there: the groups that there are of those that are of interest, and whether each is a reason code's.

    Returns:
        The entries, and the codes of the groups by code, by their ids.
    """
    left: dict[str | None, list[str]] = defaultdict(list)
    places = []
    for one, _ in dislikes:
        # Most say nothing.
        text, said, group = _by_comment(one, heard, there) if one.comment else ("", None, None)
        if group is None:
            left[one.reason].append(one.user)
        places.append((text, said, group))
    groups = {
        reason: id
        for reason, users in left.items()
        if (id := code_group(app, reason)) is not None and (id in there or enough(users))
    }
    entries = [
        _Entry(one, cause, text, said, group or groups.get(one.reason))
        for (one, cause), (text, said, group) in zip(dislikes, places, strict=True)
    ]
    return entries, {id: reason or "" for reason, id in groups.items()}


def _by_comment(one: Dislike, heard: Heard, there: Mapping[str, bool]) -> tuple[str, str | None, str | None]:
    """A comment as it is compared, its digest, and the group that it is in."""
    text = clean(one.comment)
    if not text:
        return "", None, None
    said = digest(text)
    filed, found = one.filed, heard.groups.get(one.vote)
    if filed is not None and filed.said == said and there.get(filed.group or "") is False:
        return text, said, filed.group
    # A group that was found may have lost its last vote meanwhile.
    if found is not None and found.said == said and (found.group in there or found.group in heard.labels):
        return text, said, found.group
    return text, said, None


async def _labels(
    connection: Connection,
    app: str,
    entries: Sequence[_Entry],
    heard: Mapping[str, str],
    codes: Mapping[str, str],
) -> dict[str, str]:
    """Make or rename the groups that the entries are in; the labels of all of them."""
    used = sorted({one.group for one in entries if one.group})
    written = {id: label for id, label in {**heard, **codes}.items() if id in used}
    if ids := list(written):
        await connection.execute(_MAKE, app, ids, [written[id] for id in ids], [codes.get(id) for id in ids])
    rows = await connection.fetch(
        "update feedback_loop.complaint_group set seen_at = now() where id = any($1::text[])"
        " returning id, label",
        used,
    )
    return {row["id"]: row["label"] for row in rows}


async def _there(
    connection: Connection, app: str, dislikes: Sequence[tuple[Dislike, Cause]], heard: Heard
) -> dict[str, bool]:
    """Of the groups that these may be in, those that there are, and whether each is a reason code's."""
    asked = {one.group for one in heard.groups.values()}
    asked |= {one.filed.group for one, _ in dislikes if one.filed and one.filed.group}
    asked |= {id for reason in {one.reason for one, _ in dislikes} if (id := code_group(app, reason))}
    rows = await connection.fetch(
        "select id, reason_code is not null as by_code from feedback_loop.complaint_group"
        " where id = any($1::text[])",
        list(asked),
    )
    return {row["id"]: row["by_code"] for row in rows}


async def _keep_vectors(connection: Connection, app: str, heard: Heard, late: bool) -> None:
    if votes := list(heard.vectors):
        await connection.execute(
            _KEEP,
            heard.model,
            votes,
            [heard.vectors[vote][0] for vote in votes],
            [heard.vectors[vote][1] for vote in votes],
            [vote in heard.core for vote in votes],
        )
    if heard.looked_at and not late:
        await connection.execute(_FORGET, app, list(heard.looked_at))


def _near(heard: Heard, entry: _Entry) -> int | None:
    found = heard.groups.get(entry.dislike.vote)
    return found.near if found is not None and found.group == entry.group else None
