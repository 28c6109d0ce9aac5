-- Votes counted by quarters of an hour and generations: what makes an evaluation read as little after ten
-- million votes as after ten thousand.
--
-- What is guaranteed: `votes_counted` gives what counting the ledger would give, always, in every snapshot.
-- The counts are a cache; whatever changes what a quarter comes to leaves a mark on it in the same transaction,
-- and a marked quarter is counted from the ledger. What is not: that it is quick while much is marked. Marks go
-- with the next evaluation (`fold_votes`). Who gets around triggers gets around this.
--
-- A quarter of an hour, and not an hour, because days begin on one in every time zone of today.

create table feedback_loop.vote_count (
    app        text not null,
    at         timestamptz not null,
    generation bigint,
    likes      integer not null,
    dislikes   integer not null
);
comment on table feedback_loop.vote_count is 'Votes of the quarters of an hour that begin at `at`, as counted last';
comment on column feedback_loop.vote_count.generation is
    'The one that answered, as `dashboard_vote` has it; null before the first';
create index vote_count_time on feedback_loop.vote_count (app, at) include (generation, likes, dislikes);

-- Appended only, so votes never wait for each other.
create table feedback_loop.vote_dirty (
    app text not null,
    at  timestamptz not null,
    xid xid8 not null default pg_current_xact_id()
);
comment on table feedback_loop.vote_dirty is 'Quarters of an hour whose `vote_count` does not hold, one row per change';
comment on column feedback_loop.vote_dirty.xid is 'Who left it: see `fold_votes`';
create index vote_dirty_time on feedback_loop.vote_dirty (app, at);

create function feedback_loop.quarter(moment timestamptz) returns timestamptz
language sql immutable strict parallel safe as $$
    select date_bin('15 minutes', moment, timestamptz '2000-01-01 00:00:00Z')
$$;
comment on function feedback_loop.quarter is 'When the quarter of an hour begins that a moment lies in';

-- --- marks -------------------------------------------------------------------------------------

-- What a vote says itself. What its answer says of the generation is marked by the answer's trigger.
create function feedback_loop.mark_votes() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'INSERT' then
        insert into feedback_loop.vote_dirty (app, at)
        select distinct app, feedback_loop.quarter(created_at) from fresh where name = 'user_feedback';
    elsif tg_op = 'DELETE' then
        insert into feedback_loop.vote_dirty (app, at)
        select distinct app, feedback_loop.quarter(created_at) from gone where name = 'user_feedback';
    else  -- a comment changes no count
        insert into feedback_loop.vote_dirty (app, at)
        select distinct v.app, feedback_loop.quarter(v.created_at)
        from fresh f join gone g using (id) cross join lateral (values
            (f.app, f.name, f.created_at), (g.app, g.name, g.created_at)) v (app, name, created_at)
        where v.name = 'user_feedback'
          and (f.app, f.conversation_id, f.message_id, f.name, f.value, f.generation, f.created_at)
            is distinct from
              (g.app, g.conversation_id, g.message_id, g.name, g.value, g.generation, g.created_at);
    end if;
    return null;
end $$;

create trigger vote_marked_insert after insert on feedback_loop.vote
    referencing new table as fresh for each statement execute function feedback_loop.mark_votes();
create trigger vote_marked_update after update on feedback_loop.vote
    referencing old table as gone new table as fresh
    for each statement execute function feedback_loop.mark_votes();
create trigger vote_marked_delete after delete on feedback_loop.vote
    referencing old table as gone for each statement execute function feedback_loop.mark_votes();

-- Marks the votes that name no generation, on answers that have changed. It must see every vote that a
-- folding has seen (see `fold_votes`), so its snapshot must be younger than its transaction's id.
create function feedback_loop.mark_answers() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise feature_not_supported using message = 'answers are written in READ COMMITTED only';
    end if;
    if tg_op = 'INSERT' then
        insert into feedback_loop.vote_dirty (app, at)
        select distinct v.app, feedback_loop.quarter(v.created_at)
        from fresh c join feedback_loop.vote v using (app, conversation_id, message_id)
        where v.generation is null and v.name = 'user_feedback';
    elsif tg_op = 'DELETE' then
        insert into feedback_loop.vote_dirty (app, at)
        select distinct v.app, feedback_loop.quarter(v.created_at)
        from gone c join feedback_loop.vote v using (app, conversation_id, message_id)
        where v.generation is null and v.name = 'user_feedback';
    else
        insert into feedback_loop.vote_dirty (app, at)
        select distinct v.app, feedback_loop.quarter(v.created_at)
        from (
            (select app, conversation_id, message_id, generation, answered_at from fresh
             except select app, conversation_id, message_id, generation, answered_at from gone)
            union
            (select app, conversation_id, message_id, generation, answered_at from gone
             except select app, conversation_id, message_id, generation, answered_at from fresh)
        ) c
        join feedback_loop.vote v using (app, conversation_id, message_id)
        where v.generation is null and v.name = 'user_feedback';
    end if;
    return null;
end $$;

create trigger answer_marked_insert after insert on feedback_loop.conversation
    referencing new table as fresh for each statement execute function feedback_loop.mark_answers();
create trigger answer_marked_update after update on feedback_loop.conversation
    referencing old table as gone new table as fresh
    for each statement execute function feedback_loop.mark_answers();
create trigger answer_marked_delete after delete on feedback_loop.conversation
    referencing old table as gone for each statement execute function feedback_loop.mark_answers();

-- A promotion is written with now(), so this finds hardly any vote: those cast since its transaction began,
-- and answers dated in the future. Its snapshot as above.
create function feedback_loop.mark_promotions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise feature_not_supported using message = 'promotions are written in READ COMMITTED only';
    end if;
    insert into feedback_loop.vote_dirty (app, at)
    select v.app, feedback_loop.quarter(v.created_at)
    from changed p join feedback_loop.vote v on v.app = p.app and v.created_at >= p.promoted_at
    where v.generation is null and v.name = 'user_feedback'
    union
    select v.app, feedback_loop.quarter(v.created_at)
    from changed p join feedback_loop.conversation c on c.app = p.app and c.answered_at >= p.promoted_at
    join feedback_loop.vote v
        on (v.app, v.conversation_id, v.message_id) = (c.app, c.conversation_id, c.message_id)
    where v.generation is null and v.name = 'user_feedback';
    return null;
end $$;

create trigger promotion_marked_insert after insert on feedback_loop.promotion
    referencing new table as changed for each statement execute function feedback_loop.mark_promotions();
create trigger promotion_marked_delete after delete on feedback_loop.promotion
    referencing old table as changed for each statement execute function feedback_loop.mark_promotions();
-- An update is both.
create trigger promotion_marked_before after update on feedback_loop.promotion
    referencing old table as changed for each statement execute function feedback_loop.mark_promotions();
create trigger promotion_marked_after after update on feedback_loop.promotion
    referencing new table as changed for each statement execute function feedback_loop.mark_promotions();

create function feedback_loop.mark_everything() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into feedback_loop.vote_dirty (app, at) select distinct app, at from feedback_loop.vote_count;
    return null;
end $$;
create trigger vote_marked_truncate after truncate on feedback_loop.vote
    for each statement execute function feedback_loop.mark_everything();
create trigger answer_marked_truncate after truncate on feedback_loop.conversation
    for each statement execute function feedback_loop.mark_everything();

-- --- folding -----------------------------------------------------------------------------------

-- Why nothing is missed. A vote is in the snapshot in which it is counted if its mark is in an earlier one that
-- the mark is taken away by. What makes another generation of it (an answer, a promotion) marks the votes it
-- sees, and may not see one that has not committed yet; nor do we see its change then. So marks are taken
-- away only when whoever ran at the earlier snapshot has ended: then we see the change, or it began to write
-- later than that snapshot, and its trigger saw the vote. Hence call this in READ COMMITTED, as the first
-- statement of a transaction that has written nothing.
create function feedback_loop.fold_votes(of_app text, most integer) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    before pg_snapshot;
    due timestamptz[];
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise feature_not_supported using message = 'votes are folded in READ COMMITTED only';
    end if;
    -- Two at once would only wait for each other's marks. Whoever comes second leaves it.
    if not pg_try_advisory_xact_lock(hashtextextended('feedback_loop.vote_count ' || of_app, 0)) then
        return 0;
    end if;
    before := pg_current_snapshot();
    for attempt in 1 .. 50 loop
        exit when pg_snapshot_xmin(pg_current_snapshot()) >= pg_snapshot_xmax(before);
        if attempt = 50 then
            return 0;  -- somebody writes for long: the marks stay, and the ledger is read
        end if;
        perform pg_sleep(0.01);
    end loop;

    with recursive mark (at) as (  -- skips from quarter to quarter, however many marks each has
        (select d.at from feedback_loop.vote_dirty d where d.app = of_app order by d.at desc limit 1)
        union all
        select (select d.at from feedback_loop.vote_dirty d where d.app = of_app and d.at < mark.at
                order by d.at desc limit 1)
        from mark where mark.at is not null
    ), newest as materialized (select at from mark where at is not null limit most), taken as (
        delete from feedback_loop.vote_dirty d using newest n
        where d.app = of_app and d.at = n.at
          -- An id from the future is another server's: this database was restored from a dump.
          and (pg_visible_in_snapshot(d.xid, before) or d.xid >= pg_snapshot_xmax(pg_current_snapshot()))
        returning d.at
    )
    select coalesce(array_agg(distinct at), '{}') into due from taken;

    delete from feedback_loop.vote_count c where c.app = of_app and c.at = any (due);
    insert into feedback_loop.vote_count (app, at, generation, likes, dislikes)
    select of_app, due_at, n.generation, n.likes, n.dislikes
    from unnest(due) due_at cross join lateral (
        select v.generation, count(*) filter (where v.value = 1) as likes,
               count(*) filter (where v.value = 0) as dislikes
        from feedback_loop.dashboard_vote v
        where v.app = of_app and v.created_at >= due_at and v.created_at < due_at + interval '15 minutes'
        group by v.generation) n;
    return cardinality(due);
end $$;
comment on function feedback_loop.fold_votes is
    'Count the newest marked quarters of an app, so many at most, and take their marks away; how many it did';
revoke execute on function feedback_loop.fold_votes(text, integer) from public;

-- --- reading -----------------------------------------------------------------------------------

-- The plan is kept, and must not be one that suits tables which are still empty: hence indexes always.
create function feedback_loop.votes_counted(apps text[], since timestamptz, until timestamptz)
returns table (app text, at timestamptz, generation bigint, likes integer, dislikes integer)
language plpgsql stable security definer rows 2000
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    -- The quarters that lie in it, but for what it has more or less at its ends.
    first timestamptz := feedback_loop.quarter(since + interval '7 minutes 30 seconds');
    last timestamptz := feedback_loop.quarter(until + interval '7 minutes 30 seconds');
begin
    if since >= until then
        return;
    end if;
    return query
    with recursive mark (app, at) as (  -- skips from quarter to quarter, however many marks each has
        select a, (select min(d.at) from feedback_loop.vote_dirty d
                   where d.app = a and d.at >= first and d.at < last)
        from unnest(apps) a
        union all
        select m.app, (select min(d.at) from feedback_loop.vote_dirty d
                       where d.app = m.app and d.at > m.at and d.at < last)
        from mark m where m.at is not null
    ), marked as materialized (
        select m.app, m.at from mark m where m.at is not null
    ), ledger (app, low, high, sign) as (
        select m.app, m.at, m.at + interval '15 minutes', 1 from marked m
        union all
        select a, e.low, e.high, e.sign from unnest(apps) a cross join (values
            (since, first, 1), (first, since, -1), (last, until, 1), (until, last, -1)) e (low, high, sign)
        where e.low < e.high
    )
    select c.app, c.at, c.generation, c.likes, c.dislikes
    from feedback_loop.vote_count c
    where c.app = any (apps) and c.at >= first and c.at < last
      and (c.app, c.at) not in (select m.app, m.at from marked m)
    union all
    select l.app, feedback_loop.quarter(l.low), n.generation, l.sign * n.likes, l.sign * n.dislikes
    from ledger l cross join lateral (
        select v.generation, (count(*) filter (where v.value = 1))::integer as likes,
               (count(*) filter (where v.value = 0))::integer as dislikes
        from feedback_loop.dashboard_vote v
        where v.app = l.app and v.created_at >= l.low and v.created_at < l.high
        group by v.generation) n;
end $$;
comment on function feedback_loop.votes_counted is
    'Votes cast from `since` up to and without `until`, by quarter of an hour and generation; for the sum of'
    ' several rows, of which some may be negative';
revoke execute on function feedback_loop.votes_counted(text[], timestamptz, timestamptz) from public;

-- What is in the ledger already.
insert into feedback_loop.vote_dirty (app, at)
select distinct app, feedback_loop.quarter(created_at) from feedback_loop.vote where name = 'user_feedback';

-- --- what else grew with how much is voted -------------------------------------------------------

-- Where few dislikes say anything, all of a month's were looked at for those that do.
create index vote_comment on feedback_loop.vote (app, created_at, id)
    where comment is not null and value = 0 and name = 'user_feedback';
-- The same for the reasons that the dashboard counts.
create index vote_reason on feedback_loop.vote (app, created_at) include (reason_code, value)
    where reason_code is not null and name = 'user_feedback';
