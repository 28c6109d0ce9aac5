-- Votes are folded once whoever wrote at the earlier snapshot has ended: all of them. That was asked of the ids
-- below `pg_snapshot_xmax`, which comes after the last transaction that has *ended*: younger ones may be at work,
-- and the youngest was not waited for. If it changed the generation of a vote that it had not seen, the vote
-- kept the one before. Our own id, taken after the snapshot, is above all of theirs. Else as in 017.
create or replace function feedback_loop.fold_votes(of_app text, most integer) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    before pg_snapshot;
    own xid8;
    due timestamptz[];
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise feature_not_supported using message = 'votes are folded in READ COMMITTED only';
    end if;
    -- Two at once would only wait for each other's marks. Whoever comes second leaves it.
    if not pg_try_advisory_xact_lock(hashtextextended('feedback_loop.vote_count ' || of_app, 0)) then
        return 0;
    end if;
    if not exists (select from feedback_loop.vote_dirty d where d.app = of_app) then
        return 0;  -- and nobody waits for our id
    end if;
    before := pg_current_snapshot();
    own := pg_current_xact_id();
    for attempt in 1 .. 50 loop
        exit when pg_snapshot_xmin(pg_current_snapshot()) >= own;
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

-- What may have been counted wrongly: whatever was counted, as far back as somebody may look.
insert into feedback_loop.vote_dirty (app, at) select distinct app, at from feedback_loop.vote_count;
