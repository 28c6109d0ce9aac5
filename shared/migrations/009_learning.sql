-- What a generation has learned from votes. Written by the embedder.

create table feedback_loop.learned (
    generation bigint primary key references feedback_loop.generation (id) on delete cascade,
    alpha      double precision not null,
    memory     bytea,
    adapter    bytea,
    figures    jsonb not null default '{}',
    fitted_at  timestamptz not null default now()
);
comment on table feedback_loop.learned is 'Artefacts of a generation; without a row, it has learned nothing';
comment on column feedback_loop.learned.alpha is 'The weight of the vectors beside the words, 0 to 1';

create view feedback_loop.judged_answer as
select v.id, v.app, v.created_at as voted, v.value, v.reason_code, v.citations as votes_on_citations,
       -- Of an unknown user, a conversation is all that tells one from another.
       coalesce(nullif(v.user_id, ''), nullif(c.user_id, ''), 'conversation/' || v.conversation_id) as user_id,
       coalesce(nullif(c.question, ''), s.query) as question,
       coalesce(c.citations, '[]'::jsonb) as cited, coalesce(s.shown, '[]'::jsonb) as shown
from feedback_loop.vote v
left join feedback_loop.conversation c on c.app = v.app and c.conversation_id = v.conversation_id
     and c.message_id = v.message_id
left join lateral (
    select l.query, l.shown from feedback_loop.search_log l
    where l.app = v.app and l.conversation_id = v.conversation_id and l.message_id in (v.message_id, '')
    order by l.message_id = v.message_id desc, l.id desc limit 1
) s on true
where v.name = 'user_feedback';
comment on view feedback_loop.judged_answer is
    'Votes with what was asked, cited and shown: what learning starts from';

alter table feedback_loop.generation drop constraint generation_state_check;
alter table feedback_loop.generation add constraint generation_state_check check (state in
    ('building', 'built', 'promoted', 'rejected', 'unchanged', 'superseded', 'failed'));
