-- What people are told: why something was decided, as codes and figures that each reader's language has words
-- for (shared/reasons.py); a pause at once; how a build ended; and the votes on a document, quickly.

alter table feedback_loop.decision add column because jsonb not null default '[]';
comment on column feedback_loop.decision.because is 'The explanation as codes with their figures';
alter table feedback_loop.retrain add column because jsonb not null default '[]';
comment on column feedback_loop.retrain.because is 'The detail as codes with their figures';
alter table feedback_loop.generation add column because jsonb not null default '[]';
comment on column feedback_loop.generation.because is 'The detail as codes with their figures';

create or replace view feedback_loop.run_status as
select r.id, r.app, r.started_at, r.as_of, r.requested_by, r.scheduled, r.hits,
       case when exists (select from feedback_loop.inbox i where i.correlation = r.id and i.state = 'dead')
                 then 'failed'
            when d.run is null then case when o.published_at is null then 'waiting' else 'started' end
            when t.id is not null and t.finished_at is null then 'retraining'
            when n.posted_at is null and not exists (
                select from feedback_loop.inbox i
                where i.correlation = r.id and i.consumer = 'notifier' and i.state = 'processed'
                  and i.type in ('report.ready', 'retrain.requested')) then 'decided'
            else 'done' end as state,
       d.decided_at, d.verdict, d.reason, d.explanation, d.likes, d.dislikes,
       d.likes + d.dislikes as total,
       case when d.likes + d.dislikes > 0 then d.dislikes::double precision / (d.likes + d.dislikes) end as ratio,
       d.generation,
       n.posted_at as reported_at,
       t.id as retrain, t.outcome as retrain_outcome, t.detail as retrain_detail,
       t.generation as retrain_generation, t.finished_at as retrain_finished_at,
       d.because, t.because as retrain_because
from feedback_loop.run r
left join feedback_loop.outbox o on o.event_id = r.id
left join feedback_loop.decision d on d.run = r.id
left join feedback_loop.retrain t on t.id = d.retrain
left join lateral (select min(posted_at) as posted_at from feedback_loop.notification
                   where correlation = r.id and kind = 'report') n on true;

create or replace view feedback_loop.dashboard_generation as
select g.id, g.app, g.state, g.reason, g.detail, g.gate, g.finished_at,
       (select max(p.promoted_at) from feedback_loop.promotion p
        where p.app = g.app and p.generation = g.id) as promoted_at,
       exists (select from feedback_loop.active_generation a where a.app = g.app and a.generation = g.id)
           as active,
       g.because
from feedback_loop.generation g;

-- A build that a person asked for has no other row that says how it ended.
create or replace view feedback_loop.run_step as
select o.correlation as run, 'emitted:' || o.event_id as step, o.type, o.producer as service,
       'emitted' as what,
       case o.type when 'retrain.completed' then o.envelope #>> '{data,outcome}' end as detail,
       o.created_at as at, o.xid
from feedback_loop.outbox o where o.type <> 'embedding.requested'
union all
select i.correlation, i.state || ':' || i.consumer || ':' || i.event_id, i.type, i.consumer,
       i.state, i.reason, i.processed_at, i.xid
from feedback_loop.inbox i where i.type <> 'embedding.requested'
union all
select n.correlation, 'posted:' || n.key, n.kind, 'notifier', 'posted', n.destination, n.posted_at, n.xid
from feedback_loop.notification n where n.state = 'posted';

-- A pause holds from when a person asks for it, and so does its end; of the time since nothing was judged.
create or replace view feedback_loop.alert_state as
select coalesce(a.app, r.app) as app,
       case when r.holds then 'PAUSED' when a.state = 'PAUSED' then 'UNKNOWN' else a.state end as state,
       case when r.holds then r.paused_at
            when a.state = 'PAUSED' then greatest(a.since, r.ended_at)
            else a.since end as since
from feedback_loop.alert a
full join (
    select app, paused_at,
           paused_why is not null and (paused_until is null or paused_until > now()) as holds,
           case when paused_why is null then resumed_at else least(paused_until, now()) end as ended_at
    from feedback_loop.rest
) r on r.app = a.app
where a.app is not null or r.holds;
comment on view feedback_loop.alert_state is 'The state each app is in, a pause as of now';

-- --- votes on a document -----------------------------------------------------------------------

-- Few answers are about a document: find these, not all votes of a period.
create index conversation_cited on feedback_loop.conversation using gin (citations jsonb_path_ops);
create index search_log_shown on feedback_loop.search_log using gin (shown jsonb_path_ops);

-- By indexes always: reading the whole ledger instead looks cheaper to the planner, and is not.
create function feedback_loop.votes_about(
    apps text[], wanted jsonb[], since timestamptz, until timestamptz
) returns setof bigint
language plpgsql stable security definer rows 1000
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
begin
    return query
    select v.id
    from (
        select c.app, c.conversation_id from feedback_loop.conversation c
        where c.citations @> any (wanted) and c.app = any (apps)
        union
        select l.app, l.conversation_id from feedback_loop.search_log l
        where l.shown @> any (wanted) and l.app = any (apps)
    ) k
    join feedback_loop.vote v on v.app = k.app and v.conversation_id = k.conversation_id
    where v.name = 'user_feedback' and v.created_at >= since and v.created_at < until;
end $$;
comment on function feedback_loop.votes_about is
    'Votes in conversations of which an answer cites, or a search showed, one of what is wanted'
    ' (`[{"source": …}]` or `[{"chunk": …}]`)';
revoke execute on function feedback_loop.votes_about(text[], jsonb[], timestamptz, timestamptz) from public;
