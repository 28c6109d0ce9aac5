-- What the analyzer decided. Written by the analyzer.

create table feedback_loop.retrain (
    id              uuid primary key,
    app             text not null,
    run             uuid not null,
    base_generation bigint,
    requested_at    timestamptz not null default now(),
    ratio_before    double precision,
    finished_at     timestamptz,
    outcome         text,
    generation      bigint,
    detail          text
);
comment on table feedback_loop.retrain is 'A retrain that feedback drove; its id is derived from its run';
create unique index retrain_active on feedback_loop.retrain (app) where finished_at is null;
create index retrain_finished on feedback_loop.retrain (app, finished_at desc);

create table feedback_loop.decision (
    run          uuid primary key,
    app          text not null,
    as_of        timestamptz not null,
    scheduled    boolean not null,
    verdict      text not null,
    reason       text not null,
    explanation  text not null,
    window_start timestamptz not null,
    likes        integer not null,
    dislikes     integer not null,
    generation   bigint,
    retrain      uuid references feedback_loop.retrain (id),
    decided_at   timestamptz not null default now()
);
create index decision_as_of on feedback_loop.decision (app, as_of desc);

create table feedback_loop.rest (
    app          text primary key,
    cooling_from timestamptz,
    resumed_at   timestamptz,
    paused_at    timestamptz,
    paused_why   text,
    paused_until timestamptz
);
comment on table feedback_loop.rest is 'Per app: since when it cools down, and whether a person paused it';
comment on column feedback_loop.rest.paused_why is 'Set while paused';
