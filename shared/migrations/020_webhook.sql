-- The webhook: what became of it, and of each message to it. Written by the notifier; `feedback-loop webhook
-- enable` writes the first table too. There is no address here, and nothing of what was said.

create table feedback_loop.webhook (
    endpoint        text primary key,
    host            text not null,
    failures        integer not null default 0,
    disabled_at     timestamptz,
    disabled_reason text,
    delivered_at    timestamptz,
    tested_at       timestamptz,
    test_failure    text,
    seen_at         timestamptz not null default now()
);
comment on table feedback_loop.webhook is 'Each address that was configured; the one seen last is in use';
comment on column feedback_loop.webhook.endpoint is 'A hash of the address, which may be a secret';
comment on column feedback_loop.webhook.failures is 'Messages in a row that it has not taken, each after all its attempts';
comment on column feedback_loop.webhook.test_failure is 'What came of the latest test; null: it took the message';

create table feedback_loop.webhook_message (
    id           uuid primary key,
    key          text not null,
    event_id     uuid not null,
    attempts     integer not null default 1,
    attempted_at timestamptz not null default now(),
    delivered_at timestamptz,
    failed_at    timestamptz,
    failure      text
);
comment on table feedback_loop.webhook_message is 'What was sent within 90 days, under the id that the receiver knows';
create index webhook_message_time on feedback_loop.webhook_message (attempted_at);

create view feedback_loop.webhook_state as
select host, failures, disabled_at, disabled_reason, delivered_at, tested_at, test_failure
from feedback_loop.webhook
where exists (select from feedback_loop.consumer where type = 'webhook.test')
order by seen_at desc limit 1;
comment on view feedback_loop.webhook_state is 'The webhook in use; no row where there is none';
