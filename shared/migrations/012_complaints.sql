-- What dislikes have in common, and the state each app is in. Written by the analyzer.

alter table feedback_loop.decision add column causes jsonb not null default '{}', add column alert text;
comment on column feedback_loop.decision.causes is 'Dislikes of the report window by cause';
comment on column feedback_loop.decision.alert is 'The state of the app after this evaluation';

create table feedback_loop.complaint_group (
    id          text primary key,
    app         text not null,
    label       text not null,
    reason_code text,
    made_at     timestamptz not null default now(),
    seen_at     timestamptz not null default now()
);
comment on table feedback_loop.complaint_group is 'Dislikes that say the same; kept, so that a group stays what it is';
comment on column feedback_loop.complaint_group.label is 'Words of its comments, or the reason code';
comment on column feedback_loop.complaint_group.reason_code is 'Set: a group by code; null: one by what comments mean';
create index complaint_group_seen on feedback_loop.complaint_group (app, seen_at desc);

create table feedback_loop.complaint (
    vote      bigint primary key references feedback_loop.vote (id) on delete cascade,
    app       text not null,
    cause     text not null,
    group_id  text references feedback_loop.complaint_group (id),
    said      text,
    judged_at timestamptz not null default now()
);
comment on table feedback_loop.complaint is 'One row for each dislike that an evaluation has looked at';
comment on column feedback_loop.complaint.cause is 'As services/analyzer/causes.py names them';
comment on column feedback_loop.complaint.said is 'Digest of the comment; while it is the same, so is the group';
comment on column feedback_loop.complaint.judged_at is 'When cause or group were last found to be others';
create index complaint_member on feedback_loop.complaint (group_id) where group_id is not null;

create table feedback_loop.complaint_vector (
    vote   bigint primary key references feedback_loop.vote (id) on delete cascade,
    model  text not null,
    said   text not null,
    vector bytea not null,
    core   boolean not null default false
);
comment on table feedback_loop.complaint_vector is
    'Vectors of recent comments, and of the cores of the groups: what a new comment is compared with';
comment on column feedback_loop.complaint_vector.said is 'Digest of the comment; another, and the vector is stale';
comment on column feedback_loop.complaint_vector.vector is 'float32, little endian, of length 1';
comment on column feedback_loop.complaint_vector.core is 'Kept as long as its vote: it is what its group is about';
create index complaint_core on feedback_loop.complaint_vector (vote) where core;

create table feedback_loop.alert (
    app        text primary key,
    state      text not null check (state in ('UNKNOWN', 'OK', 'WATCH', 'ALERT', 'NO_DATA', 'PAUSED')),
    since      timestamptz not null,
    known      text,
    troubled   boolean not null,
    run        uuid not null,
    as_of      timestamptz not null,
    changed_at timestamptz not null
);
comment on table feedback_loop.alert is 'The state of each app after its latest evaluation';
comment on column feedback_loop.alert.known is 'The last state other than UNKNOWN';
comment on column feedback_loop.alert.troubled is 'WATCH or ALERT, and not OK since';
comment on column feedback_loop.alert.as_of is 'Of the run; an evaluation of earlier votes changes nothing';
comment on column feedback_loop.alert.changed_at is 'When there last was a change worth telling';

create view feedback_loop.complaint_of_vote as
select c.vote, c.cause, c.group_id
from feedback_loop.complaint c
join feedback_loop.vote v on v.id = c.vote and v.value = 0;
comment on view feedback_loop.complaint_of_vote is 'Cause and group of the votes that are dislikes still';

create view feedback_loop.complaint_group_label as
select id, app, label from feedback_loop.complaint_group;
comment on view feedback_loop.complaint_group_label is 'What each complaint group is called';

create view feedback_loop.alert_state as
select app, state, since from feedback_loop.alert;
comment on view feedback_loop.alert_state is 'The state each app is in';
