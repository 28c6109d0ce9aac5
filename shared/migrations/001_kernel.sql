-- Inbox, outbox and runs: what makes events reliable.

create table feedback_loop.consumer (
    consumer      text not null,
    type          text not null,
    registered_at timestamptz not null default now(),
    primary key (consumer, type)
);
comment on table feedback_loop.consumer is 'Which consumers take which event type';

create table feedback_loop.outbox (
    event_id     uuid primary key,
    type         text not null,
    producer     text not null,
    cause        uuid,
    correlation  uuid not null,
    envelope     jsonb not null,
    created_at   timestamptz not null default now(),
    published_at timestamptz,
    publishes    integer not null default 0,
    done_at      timestamptz,
    xid          xid8 not null default pg_current_xact_id()
);
comment on column feedback_loop.outbox.published_at is 'Only delays the relay; done_at ends it';
comment on column feedback_loop.outbox.done_at is 'Every registered consumer has an inbox row';
create index outbox_open on feedback_loop.outbox (created_at) where done_at is null;
create index outbox_cause on feedback_loop.outbox (cause);
create index outbox_correlation on feedback_loop.outbox (correlation);
create index outbox_xid on feedback_loop.outbox (xid);

create table feedback_loop.inbox (
    consumer     text not null,
    event_id     uuid not null,
    type         text not null,
    correlation  uuid not null,
    state        text not null check (state in ('processed', 'dead')),
    reason       text,
    processed_at timestamptz not null default now(),
    buried_at    timestamptz,
    xid          xid8 not null default pg_current_xact_id(),
    primary key (consumer, event_id)
);
comment on column feedback_loop.inbox.buried_at is 'When the dead letter was safe in its queue';
create index inbox_event on feedback_loop.inbox (event_id);
create index inbox_correlation on feedback_loop.inbox (correlation);
create index inbox_xid on feedback_loop.inbox (xid);

create table feedback_loop.attempt (
    consumer   text not null,
    event_id   uuid not null,
    failures   integer not null default 0,
    deliveries integer not null default 0,
    next_at    timestamptz,
    reason     text,
    changed_at timestamptz not null default now(),
    primary key (consumer, event_id)
);
comment on table feedback_loop.attempt is 'Failures and suspicious redeliveries of an event not yet handled';
comment on column feedback_loop.attempt.next_at is 'On a retry queue until then: the relay leaves it alone';

create table feedback_loop.run (
    id              uuid primary key,
    app             text not null,
    started_at      timestamptz not null default now(),
    as_of           timestamptz not null,
    as_of_given     timestamptz,
    requested_by    text not null default '',
    scheduled       boolean not null default false,
    joinable        boolean not null default true,
    hits            integer not null default 1,
    idempotency_key text,
    unique (app, idempotency_key)
);
comment on table feedback_loop.run is 'One evaluation of one app; its id is the id of its feedback.evaluate';
create index run_started on feedback_loop.run (app, started_at desc);
