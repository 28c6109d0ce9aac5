-- What lets each service run as a role that may do its own work and nothing else (shared/postgres/roles.py).
--
-- Three pieces of work need more than their callers may have; each is a function that does it and nothing
-- besides, with the rights of the schema's owner. Their search path is fixed, every name is qualified.

-- Evaluations bring the ledger up to date, and the analyzer may not write votes.
alter function feedback_loop.read_owner_tables() security definer;
revoke execute on function feedback_loop.read_owner_tables() from public;

-- The analyzer looks after what is too old, too.
revoke execute on function feedback_loop.retain(integer) from public;

-- Each service forgets old events when it starts; none may delete a young one.
create function feedback_loop.forget_events(days integer) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    delete from feedback_loop.outbox where created_at < now() - make_interval(days => greatest(days, 30));
    delete from feedback_loop.inbox where processed_at < now() - make_interval(days => greatest(days, 30));
    delete from feedback_loop.attempt where changed_at < now() - make_interval(days => greatest(days, 30));
$$;
comment on function feedback_loop.forget_events is
    'Forget events, and what was done with them, after so many days; 30 at least';
revoke execute on function feedback_loop.forget_events(integer) from public;

-- Each service writes events of its own types: it has a policy for that. Each relays what any of them left
-- behind; privileges say what it can change. (The schema's owner is bound by none of this.)
alter table feedback_loop.outbox enable row level security;
create policy everybody_reads on feedback_loop.outbox for select using (true);
create policy everybody_relays on feedback_loop.outbox for update using (true);

-- The embedder gets a table of vectors for a new model, and may make nothing else.
create function feedback_loop.register_model(named text, size integer) returns feedback_loop.model
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- pgvector is not always in `public`.
    home text := (select quote_ident(n.nspname) from pg_extension e
                  join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector');
    kind text := case when size <= 2000 then 'vector' else 'halfvec' end; -- HNSW takes no more of the first
    made feedback_loop.model;
begin
    insert into feedback_loop.model (name, dimensions, table_name)
    values (named, size, 'vector_' || nextval('feedback_loop.vector_table')) returning * into made;
    execute format(
        'create table feedback_loop.%1$I (chunk_hash text primary key, embedding %2$s.%3$s(%4$s) not null);'
        ' create index on feedback_loop.%1$I using hnsw (embedding %2$s.%3$s_cosine_ops)',
        made.table_name, home, kind, size);
    if to_regrole('feedback_loop_embedder') is not null then
        execute format('grant select, insert, delete on feedback_loop.%I to feedback_loop_embedder',
            made.table_name);
    end if;
    -- `active_chunk` gets a branch per model.
    execute 'create or replace view feedback_loop.active_chunk as ' || (
        select string_agg(format(
            'select a.app, m.source, m.ordinal, c.heading, c.text, c.hash, a.generation,'
            ' v.embedding::%s.vector as vector'
            ' from feedback_loop.active_generation a'
            ' join feedback_loop.generation g on g.id = a.generation and g.model = %s'
            ' join feedback_loop.generation_chunk m on m.generation = g.id'
            ' join feedback_loop.document d on d.id = m.document'
            ' join feedback_loop.chunk c on c.hash = m.chunk_hash'
            ' join feedback_loop.%I v on v.chunk_hash = m.chunk_hash', home, k.id, k.table_name),
            ' union all ' order by k.id)
        from feedback_loop.model k);
    return made;
end $$;
comment on function feedback_loop.register_model is
    'Make a new embedding model known, with a table and an HNSW index for its vectors';
revoke execute on function feedback_loop.register_model(text, integer) from public;
