-- Votes that another system shows too: which are there, and which are still to be sent (shared/mirror/mirror.py).
--
-- Guaranteed: whatever changes a vote, in whatever way, leaves a mark in the same transaction while mirroring
-- is on, and a mark goes only once what it stands for has arrived. Nothing here waits for anything, and none
-- of it says whose vote it is. Where mirroring is off, a statement on votes costs one more look at one row.

create table feedback_loop.mirror (
    one          boolean primary key default true check (one),
    sink         text,
    last_sink    text,
    origin       uuid not null default gen_random_uuid(),
    lease        uuid,
    leased_until timestamptz,
    trouble      text
);
comment on table feedback_loop.mirror is 'Where votes are mirrored to, and who is at it';
comment on column feedback_loop.mirror.sink is 'What it is and where; null: nothing is mirrored';
comment on column feedback_loop.mirror.last_sink is 'Where what is `mirrored` went, also while nothing is mirrored';
comment on column feedback_loop.mirror.origin is 'Tells the scores of this ledger from those of another';
comment on column feedback_loop.mirror.trouble is 'Why the last attempt failed; null where it did not';
insert into feedback_loop.mirror default values;

-- Appended only, so votes never wait for each other.
create table feedback_loop.mirror_due (
    id   bigint generated always as identity primary key,
    vote bigint not null
);
create index mirror_due_vote on feedback_loop.mirror_due (vote);
comment on table feedback_loop.mirror_due is 'Votes that have changed since they were sent, one row per change';

create table feedback_loop.mirrored (
    vote     bigint primary key,
    score    uuid not null,
    first_at timestamptz not null,
    revision integer not null default 0,
    sent_at  timestamptz not null default now()
);
comment on table feedback_loop.mirrored is
    'Votes that were sent, or are about to be; of a retracted one, until its score is deleted';
comment on column feedback_loop.mirrored.first_at is 'The time that its score has there, whatever becomes of the vote';
comment on column feedback_loop.mirrored.sent_at is 'When it was last to be sent';

create function feedback_loop.mark_mirror() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    kind text := (select split_part(m.sink, ' ', 1) from feedback_loop.mirror m where m.sink is not null);
begin
    if kind is null then
        return null;
    end if;
    if tg_op = 'DELETE' then
        insert into feedback_loop.mirror_due (vote) select id from gone where source <> kind;
    elsif tg_op = 'INSERT' then  -- what comes from there is there already
        insert into feedback_loop.mirror_due (vote) select id from fresh where source <> kind;
    else
        -- A vote from before is news once it is another one, not when it is stripped. Whoever sends notes it in
        -- `mirrored` before it takes its mark away, so one of the two is seen.
        insert into feedback_loop.mirror_due (vote)
        select f.id from fresh f join gone g using (id)
        where f.source <> kind and (f.value <> g.value
            or exists (select from feedback_loop.mirrored m where m.vote = f.id)
            or exists (select from feedback_loop.mirror_due d where d.vote = f.id));
    end if;
    return null;
end $$;

create trigger vote_mirror_insert after insert on feedback_loop.vote
    referencing new table as fresh for each statement execute function feedback_loop.mark_mirror();
create trigger vote_mirror_update after update on feedback_loop.vote
    referencing old table as gone new table as fresh for each statement execute function feedback_loop.mark_mirror();
create trigger vote_mirror_delete after delete on feedback_loop.vote
    referencing old table as gone for each statement execute function feedback_loop.mark_mirror();
