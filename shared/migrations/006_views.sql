-- What other services and other programs read.

create view feedback_loop.run_status as
select r.id, r.app, r.started_at, r.as_of, r.requested_by, r.scheduled, r.hits,
       case when exists (select from feedback_loop.inbox i where i.correlation = r.id and i.state = 'dead')
                 then 'failed'
            when d.run is null then case when o.published_at is null then 'waiting' else 'started' end
            when t.id is not null and t.finished_at is null then 'retraining'
            when n.posted_at is null then 'decided'
            else 'done' end as state,
       d.decided_at, d.verdict, d.reason, d.explanation, d.likes, d.dislikes,
       d.likes + d.dislikes as total,
       case when d.likes + d.dislikes > 0 then d.dislikes::double precision / (d.likes + d.dislikes) end as ratio,
       d.generation,
       n.posted_at as reported_at,
       t.id as retrain, t.outcome as retrain_outcome, t.detail as retrain_detail,
       t.generation as retrain_generation, t.finished_at as retrain_finished_at
from feedback_loop.run r
left join feedback_loop.outbox o on o.event_id = r.id
left join feedback_loop.decision d on d.run = r.id
left join feedback_loop.retrain t on t.id = d.retrain
left join lateral (select min(posted_at) as posted_at from feedback_loop.notification
                   where correlation = r.id and kind = 'report') n on true;
comment on view feedback_loop.run_status is 'Where each run stands';

create view feedback_loop.run_step as
select o.correlation as run, 'emitted:' || o.event_id as step, o.type, o.producer as service,
       'emitted' as what, null::text as detail, o.created_at as at, o.xid
from feedback_loop.outbox o where o.type <> 'embedding.requested'
union all
select i.correlation, i.state || ':' || i.consumer || ':' || i.event_id, i.type, i.consumer,
       i.state, i.reason, i.processed_at, i.xid
from feedback_loop.inbox i where i.type <> 'embedding.requested'
union all
select n.correlation, 'posted:' || n.key, n.kind, 'notifier', 'posted', n.destination, n.posted_at, n.xid
from feedback_loop.notification n where n.state = 'posted';
comment on view feedback_loop.run_step is
    'What happened, as facts that never change; xid lets a reader resume without a gap';

-- The view `active_chunk` (text, source, vector of the active generation) has a branch per embedding
-- model; the embedder replaces it when a model's table is made. Until then it is empty.
create view feedback_loop.active_chunk as
select a.app, g.source, g.ordinal, c.heading, c.text, c.hash, a.generation, null::vector as vector
from feedback_loop.active_generation a
join feedback_loop.generation_chunk g on g.generation = a.generation
join feedback_loop.chunk c on c.hash = g.chunk_hash
where false;

create view feedback_loop.build_progress as
select id as generation, app, run, reason, state, chunks, batches, batches - remaining as done, created_at,
       finished_at
from feedback_loop.generation;
comment on view feedback_loop.build_progress is 'How far each build is, in batches';
