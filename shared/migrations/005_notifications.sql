-- What was posted, and where. Written by the notifier.

create table feedback_loop.notification (
    key          text primary key,
    event_id     uuid not null,
    correlation  uuid not null,
    kind         text not null,
    destination  text not null,
    state        text not null check (state in ('claimed', 'posted')),
    attempts     integer not null default 0,
    uncertain    boolean not null default false,
    lease_until  timestamptz,
    channel      text,
    ts           text,
    claimed_at   timestamptz not null default now(),
    posted_at    timestamptz,
    xid          xid8 not null default pg_current_xact_id()
);
comment on column feedback_loop.notification.uncertain is 'An attempt was sent and its answer never came: it may have been posted';
create index notification_correlation on feedback_loop.notification (correlation);
create index notification_xid on feedback_loop.notification (xid);
