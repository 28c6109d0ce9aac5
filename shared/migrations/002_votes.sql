-- Conversations and the ledger of votes. Written by the collector.

create table feedback_loop.conversation (
    app             text not null default 'default',
    conversation_id text not null,
    message_id      text not null default '',
    user_id         text not null default '',
    question        text not null default '',
    answer          text not null default '',
    citations       jsonb not null default '[]',
    generation      bigint,
    source          text not null default 'api',
    answered_at     timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    primary key (app, conversation_id, message_id)
);
create index conversation_source on feedback_loop.conversation (source, answered_at) where source <> 'api';
comment on table feedback_loop.conversation is 'One answer: question, answer, and the chunks it cites';
comment on column feedback_loop.conversation.generation is 'The generation that answered, where the bot says';

create table feedback_loop.vote (
    id              bigint generated always as identity primary key,
    app             text not null default 'default',
    conversation_id text not null,
    message_id      text not null default '',
    user_id         text not null default '',
    name            text not null default 'user_feedback',
    row_key         text not null default '',
    value           smallint not null check (value in (0, 1)),
    reason_code     text,
    comment         text,
    citations       jsonb not null default '{}',
    generation      bigint,
    source          text not null default 'api',
    source_id       text,
    metadata        jsonb not null default '{}',
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (app, conversation_id, message_id, user_id, name, row_key),
    unique (source, source_id)
);
comment on table feedback_loop.vote is 'The ledger: one row per conversation, message, user and name';
comment on column feedback_loop.vote.value is '1 = like, 0 = dislike';
comment on column feedback_loop.vote.row_key is 'Tells apart imported rows that are a vote each';
comment on column feedback_loop.vote.citations is 'Votes on single citations: chunk -> 0 or 1';
create index vote_time on feedback_loop.vote (app, created_at) include (name, value);
create index vote_user on feedback_loop.vote (user_id) where user_id <> '';

create table feedback_loop.source_cursor (
    source        text primary key,
    safe_id       bigint not null default 0,
    pending_id    bigint,
    pending_xmax  xid8,
    reconciled_at timestamptz,
    read_at       timestamptz not null default now()
);
comment on table feedback_loop.source_cursor is 'How far the owner''s own tables have been read';
