-- What the notifier reads for its summaries, and what it remembers of Slack's requests.

create view feedback_loop.report_vote as
select app, created_at as at, value from feedback_loop.vote where name = 'user_feedback';
comment on view feedback_loop.report_vote is 'The votes that reports count';

create view feedback_loop.report_complaint as
select v.app, v.created_at as at, c.group_id, l.label
from feedback_loop.complaint_of_vote c
join feedback_loop.vote v on v.id = c.vote
join feedback_loop.complaint_group_label l on l.id = c.group_id;
comment on view feedback_loop.report_complaint is 'Dislikes that belong to a complaint group';

create view feedback_loop.report_promotion as
select id, app, generation, kind, promoted_at as at from feedback_loop.promotion;
comment on view feedback_loop.report_promotion is 'Which generation became active when';

create view feedback_loop.report_aftermath as
select app, generation, verdict, decided_at as at, before_likes, before_dislikes, after_likes, after_dislikes,
       after_end - promoted_at as span
from feedback_loop.verdict;
comment on view feedback_loop.report_aftermath is 'What promotions led to';

create index outbox_outcome on feedback_loop.outbox (created_at) where type = 'retrain.completed';
create view feedback_loop.report_outcome as
select envelope -> 'data' ->> 'app' as app, created_at as at, envelope
from feedback_loop.outbox where type = 'retrain.completed';
comment on view feedback_loop.report_outcome is 'How builds and rollbacks of the last 90 days ended';

create view feedback_loop.report_event as
select n.key, o.envelope
from feedback_loop.notification n
join feedback_loop.outbox o on o.event_id = n.event_id
where n.kind = 'report';
comment on view feedback_loop.report_event is 'The event behind each report of the last 90 days';

create table feedback_loop.slack_request (
    signature   text primary key,
    received_at timestamptz not null default now()
);
comment on table feedback_loop.slack_request is
    'Requests that Slack signed within the last hour: none of them is taken twice';
create index slack_request_time on feedback_loop.slack_request (received_at);

create table feedback_loop.slack_action (
    run       uuid not null,
    action    text not null,
    app       text not null,
    user_id   text not null,
    user_name text not null,
    event_id  uuid not null,
    done_at   timestamptz not null default now(),
    primary key (run, action)
);
comment on table feedback_loop.slack_action is
    'Buttons of reports that were pressed, each at most once, and the event that stands for it';

-- A run is also done when its report was not worth a message (REPORT=on_change).
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
       t.generation as retrain_generation, t.finished_at as retrain_finished_at
from feedback_loop.run r
left join feedback_loop.outbox o on o.event_id = r.id
left join feedback_loop.decision d on d.run = r.id
left join feedback_loop.retrain t on t.id = d.retrain
left join lateral (select min(posted_at) as posted_at from feedback_loop.notification
                   where correlation = r.id and kind = 'report') n on true;
