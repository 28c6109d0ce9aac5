-- The HNSW index of a model's vectors is made once its first generation is whole: a vector that goes into an
-- index costs four times one that does not, and an index over all that are there a fifth of that for each.

create or replace function feedback_loop.register_model(named text, size integer) returns feedback_loop.model
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
        'create table feedback_loop.%1$I (chunk_hash text primary key, embedding %2$s.%3$s(%4$s) not null)',
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
    'Make a new embedding model known, with a table for its vectors; `index_vectors` comes later';

-- Nothing is to be done where there is one already. Whoever adds vectors meanwhile waits; whoever reads does not.
create function feedback_loop.index_vectors(wanted smallint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    home text := (select quote_ident(n.nspname) from pg_extension e
                  join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector');
    -- Locked: of two who find none, the second waits, and finds the first's.
    made feedback_loop.model := (select m from feedback_loop.model m where m.id = wanted for no key update);
    vectors regclass := format('feedback_loop.%I', made.table_name)::regclass;
begin
    if exists (select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
               where i.indrelid = vectors and a.amname = 'hnsw') then
        return;
    end if;
    execute format('create index on %s using hnsw (embedding %s.%s_cosine_ops)', vectors, home,
        case when made.dimensions <= 2000 then 'vector' else 'halfvec' end);
end $$;
comment on function feedback_loop.index_vectors is 'Make the HNSW index of a model''s vectors, where there is none';
revoke execute on function feedback_loop.index_vectors(smallint) from public;
