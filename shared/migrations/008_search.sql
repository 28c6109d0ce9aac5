-- What searches showed. Written by the embedder.

create table feedback_loop.search_log (
    id              bigint generated always as identity primary key,
    app             text not null,
    conversation_id text not null,
    message_id      text not null default '',
    query           text not null,
    generation      bigint not null,
    shown           jsonb not null,
    searched_at     timestamptz not null default now()
);
comment on table feedback_loop.search_log is
    'Searches of a conversation: a later vote on it finds here what its answer was made from';
comment on column feedback_loop.search_log.shown is 'In order of rank: {"chunk", "score"}';
create index search_log_conversation on feedback_loop.search_log (app, conversation_id, message_id);
create index search_log_time on feedback_loop.search_log (searched_at);
