-- What promotions led to. Written by the analyzer.

create table feedback_loop.verdict (
    generation      bigint primary key,
    app             text not null,
    previous        bigint not null,
    run             uuid not null,
    verdict         text not null check (verdict in ('better', 'worse', 'same', 'unknown')),
    sentence        text not null,
    before_start    timestamptz not null,
    promoted_at     timestamptz not null,
    after_end       timestamptz not null,
    before_likes    integer not null,
    before_dislikes integer not null,
    after_likes     integer not null,
    after_dislikes  integer not null,
    decided_at      timestamptz not null default now()
);
comment on table feedback_loop.verdict is
    'The votes before and after each promotion that feedback drove, compared once';
comment on column feedback_loop.verdict.run is 'The evaluation that compared them';
comment on column feedback_loop.verdict.verdict is
    'worse: rolled back; same: no difference beyond doubt; unknown: too few votes in four weeks';
