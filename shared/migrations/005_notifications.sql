-- What was posted, and where. Written by the notifier.

create table feedback_loop.notification (
    key             text primary key,
    event_id        uuid not null,
    correlation     uuid not null,
    kind            text not null,
    destination     text not null,
    state           text not null check (state in ('claimed', 'posted')),
    attempts        integer not null default 0,
    lease_until     timestamptz,
    uncertain_since timestamptz,
    channel         text,
    ts              text,
    claimed_at      timestamptz not null default now(),
    posted_at       timestamptz,
    xid             xid8 not null default pg_current_xact_id()
);
comment on column feedback_loop.notification.lease_until is
    'Somebody is posting; null where nobody is. One that ran out was never given back: its holder died';
comment on column feedback_loop.notification.uncertain_since is
    'The latest attempt whose answer never came: it may have been posted. Of a posted row: it may be there twice';
comment on column feedback_loop.notification.ts is 'Slack''s id of the message in its channel; a webhook gives none';
create index notification_correlation on feedback_loop.notification (correlation);
create index notification_xid on feedback_loop.notification (xid);
