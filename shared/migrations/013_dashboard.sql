-- What the dashboard reads: views, so that a role can be granted these alone, and a hint that votes have
-- changed. (The complaints' views are the analyzer's, those of runs and builds the kernel's.)

create index conversation_time on feedback_loop.conversation (app, answered_at);

-- One row for each transaction that wrote votes or conversations: a reader that knows an earlier snapshot
-- finds what it did not see, however late it committed. Appended only, so votes never wait for each other.
create table feedback_loop.vote_change (
    xid xid8 primary key,
    at  timestamptz not null default now()
);
comment on table feedback_loop.vote_change is
    'Transactions that wrote votes or conversations; kept for a day, as hints for open pages';

create function feedback_loop.note_vote_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into feedback_loop.vote_change (xid) values (pg_current_xact_id()) on conflict do nothing;
    -- Now and then somebody sweeps; who meets another's sweep leaves it alone.
    if random() < 0.01 then
        delete from feedback_loop.vote_change where xid in (
            select c.xid from feedback_loop.vote_change c where c.at < now() - interval '1 day'
            order by c.xid limit 1000 for update skip locked);
    end if;
    return null;
end $$;

create trigger vote_change after insert or update or delete on feedback_loop.vote
    for each statement execute function feedback_loop.note_vote_change();
create trigger vote_change after insert or update or delete on feedback_loop.conversation
    for each statement execute function feedback_loop.note_vote_change();

create view feedback_loop.dashboard_change as select xid from feedback_loop.vote_change;
comment on view feedback_loop.dashboard_change is 'Transactions of the last day that changed what votes say';

-- A column that is not asked for costs nothing: the join is left out, a subquery is not run.
create view feedback_loop.dashboard_vote as
select v.id, v.app, v.created_at, v.value, v.reason_code, nullif(v.comment, '') as comment,
       v.conversation_id, v.message_id,
       coalesce(nullif(v.user_id, ''), c.user_id, '') as user_id,
       coalesce(nullif(c.question, ''), (
           select l.query from feedback_loop.search_log l
           where l.app = v.app and l.conversation_id = v.conversation_id and l.message_id in (v.message_id, '')
           order by l.message_id = v.message_id desc, l.id desc limit 1), '') as question,
       coalesce(c.answer, '') as answer,
       v.citations as votes_on_citations,
       coalesce(c.citations, '[]') as cited,
       coalesce((
           select l.shown from feedback_loop.search_log l
           where l.app = v.app and l.conversation_id = v.conversation_id and l.message_id in (v.message_id, '')
           order by l.message_id = v.message_id desc, l.id desc limit 1), '[]') as shown,
       case when v.generation is not null then v.generation else (
           select coalesce(a.generation, (
               select p.generation from feedback_loop.promotion p
               where p.app = v.app and p.promoted_at <= coalesce(a.answered_at, v.created_at)
               order by p.promoted_at desc, p.id desc limit 1))
           from (values (true)) one
           left join feedback_loop.conversation a on a.app = v.app and a.conversation_id = v.conversation_id
                and a.message_id = v.message_id) end as generation
from feedback_loop.vote v
left join feedback_loop.conversation c on c.app = v.app and c.conversation_id = v.conversation_id
     and c.message_id = v.message_id
where v.name = 'user_feedback';
comment on view feedback_loop.dashboard_vote is 'Votes, with what is known of the answers they are on';
comment on column feedback_loop.dashboard_vote.generation is
    'The one that answered: as stamped, else the one active then; null before the first';
comment on column feedback_loop.dashboard_vote.cited is 'What the answer cites: "source", "chunk", "rank"';
comment on column feedback_loop.dashboard_vote.shown is 'What search showed, in order of rank: "chunk"';

create view feedback_loop.dashboard_answer as
select c.app, c.conversation_id, c.message_id, c.answered_at from feedback_loop.conversation c;
comment on view feedback_loop.dashboard_answer is 'Answers, rated or not';

-- Skips from app to app in the index, however many rows each has.
create view feedback_loop.dashboard_app as
with recursive voted (app) as (
    (select v.app from feedback_loop.vote v order by v.app limit 1)
    union all
    select (select v.app from feedback_loop.vote v where v.app > voted.app order by v.app limit 1)
    from voted where voted.app is not null
), answered (app) as (
    (select c.app from feedback_loop.conversation c order by c.app limit 1)
    union all
    select (select c.app from feedback_loop.conversation c where c.app > answered.app order by c.app limit 1)
    from answered where answered.app is not null
)
select app from voted where app is not null
union select app from answered where app is not null
union select app from feedback_loop.active_generation;
comment on view feedback_loop.dashboard_app is 'Apps that have votes, answers or a generation';

create view feedback_loop.dashboard_chunk as
select g.app, m.generation, m.chunk_hash as hash, m.source, c.heading, c.text
from feedback_loop.generation_chunk m
join feedback_loop.generation g on g.id = m.generation
left join feedback_loop.chunk c on c.hash = m.chunk_hash;
comment on view feedback_loop.dashboard_chunk is 'Which documents a chunk stands in, by generation that is kept';

create view feedback_loop.dashboard_promotion as
select id, app, generation, kind, promoted_at from feedback_loop.promotion;

create view feedback_loop.dashboard_generation as
select g.id, g.app, g.state, g.reason, g.detail, g.gate, g.finished_at,
       (select max(p.promoted_at) from feedback_loop.promotion p
        where p.app = g.app and p.generation = g.id) as promoted_at,
       exists (select from feedback_loop.active_generation a where a.app = g.app and a.generation = g.id)
           as active
from feedback_loop.generation g;
comment on view feedback_loop.dashboard_generation is 'Generations, with the figures that their gate looked at';
