-- What people wrote, forgotten: by age (retain), and by person (forget).
--
-- Guaranteed: what was removed does not come back from the owner's own tables, which are only read; nothing
-- here waits for a row that somebody else holds, but `forget`, which takes all there is. What counts votes
-- stays as it is after `retain`; `forget` takes a person's votes too. Not guaranteed: that `retain` reaches
-- a row that is being written just then (the next time does).
--
-- Both make an event of the outbox poorer in words and nothing else. A quote is kept only as long as the
-- ledger has the comment that it is taken from.

create table feedback_loop.privacy (
    one       boolean primary key default true check (one),
    salt      bytea not null default convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'),
    kept_from timestamptz
);
comment on column feedback_loop.privacy.kept_from is
    'What is older was stripped; it only moves forward, so that nothing stripped is read again';
insert into feedback_loop.privacy default values;

create table feedback_loop.forgotten (
    hash         bytea primary key,
    forgotten_at timestamptz not null default now()
);
comment on table feedback_loop.forgotten is
    'Salted digests of users and conversations that the owner''s tables have and the ledger must not';

alter table feedback_loop.learned add column refit boolean not null default false;
comment on column feedback_loop.learned.refit is 'Votes it was fitted to are gone: the next retrain fits it anew';

-- --- the owner's tables ------------------------------------------------------------------------

create function feedback_loop.digest_of(kind text, id text) returns bytea
language sql stable set search_path = pg_catalog, pg_temp as $$
    select sha256(p.salt || sha256(p.salt || convert_to(kind || '/' || id, 'UTF8'))) from feedback_loop.privacy p
$$;

-- A day of grace: a time without a zone may be read half a day late. What comes after that is new.
create function feedback_loop.is_forgotten(kind text, id text, at timestamptz) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from feedback_loop.forgotten f where f.hash = feedback_loop.digest_of(kind, id)
                   and (at is null or at <= f.forgotten_at + interval '1 day'))
$$;

-- As in 007, but never before what is kept: what is stripped there is not compared, and so not deleted.
create or replace function feedback_loop.open_owner_table(
    owner regclass, out numbered boolean, out whole boolean, out after bigint, out since timestamptz
) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text := (select relname from pg_class where oid = owner);
    c feedback_loop.source_cursor;
    highest bigint;
    seen pg_snapshot;
begin
    insert into feedback_loop.source_cursor (source) values (name) on conflict do nothing;
    select * into strict c from feedback_loop.source_cursor s where s.source = name;
    numbered := feedback_loop.owner_column_type(owner, 'id') in ('smallint', 'integer', 'bigint');
    whole := c.reconciled_at is null or c.reconciled_at <= now() - interval '7 days'
        or not numbered and feedback_loop.owner_column_type(owner, 'created_at') is null;
    since := greatest(case when whole then '-infinity' else c.read_at - interval '48 hours' end,
                      (select p.kept_from from feedback_loop.privacy p));
    after := c.safe_id;
    if numbered then
        execute format('select coalesce(max(f.id), 0), pg_current_snapshot() from %s f', owner)
            into highest, seen;
        if c.pending_xmax <= pg_snapshot_xmin(seen) then
            c.safe_id := c.pending_id;
            c.pending_xmax := null;
        end if;
        if not exists (select from pg_snapshot_xip(seen)) then  -- nobody but us: no need to wait
            c.safe_id := highest;
            c.pending_xmax := null;
        -- One from the future is another server's: this database was restored from a dump.
        elsif c.pending_xmax is null or c.pending_xmax > pg_snapshot_xmax(seen) then
            c.pending_id := highest;
            c.pending_xmax := pg_snapshot_xmax(seen);
        end if;
    end if;
    update feedback_loop.source_cursor s set
        -- All of it is read now: should the ids have begun anew, the cursor does too.
        safe_id = case when whole then least(c.safe_id, highest) else c.safe_id end,
        pending_id = c.pending_id,
        pending_xmax = c.pending_xmax,
        reconciled_at = case when whole then now() else c.reconciled_at end,
        read_at = now()
    where s.source = name;
end $$;

create function feedback_loop.readable(owner regclass, at text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    name text := (select relname from pg_class where oid = owner);
    kept timestamptz := (select p.kept_from from feedback_loop.privacy p);
    condition text := 'true';
begin
    if kept is not null then
        -- A row without a time is as old as the ledger says.
        condition := format('coalesce(%s >= %L, not exists (%s))', at, kept, case name
            when 'feedback_log' then format('select from feedback_loop.vote v where v.source = %L'
                ' and v.source_id = f.id::text and v.created_at < %L', name, kept)
            else format('select from feedback_loop.conversation a where a.app = ''default'''
                ' and a.conversation_id = f.id::text and a.message_id = '''' and a.source = %L'
                ' and a.answered_at < %L', name, kept) end);
    end if;
    if exists (select from feedback_loop.forgotten) then
        condition := concat_ws(' and ', condition, (
            select string_agg(format('not feedback_loop.is_forgotten(%L, coalesce(to_jsonb(f.%I) #>> ''{}'', ''''), %s)',
                                     c.kind, c.name, at), ' and ')
            from (values ('user', 'user_id'),
                         ('conversation', case name when 'feedback_log' then 'conversation_id' else 'id' end)
                 ) as c (kind, name)
            where feedback_loop.owner_column_type(owner, c.name) is not null));
    end if;
    return condition;
end $$;
comment on function feedback_loop.readable is
    'A condition on a row `f` of an owner''s table, cast at `at`: neither too old nor forgotten';

-- As in 007, of what is readable.
create or replace function feedback_loop.owner_rows(
    owner regclass, wanted text[], numbered boolean, whole boolean
) returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    kind text := feedback_loop.owner_column_type(owner, 'created_at');
    at text := 'null::timestamptz';
    recent text := 'false';
    columns text := (
        select string_agg(format('%L, f.%I', a.attname, a.attname), ', ') from pg_attribute a
        where a.attrelid = owner and a.attname = any (wanted) and a.attnum > 0 and not a.attisdropped
    );
begin
    if kind in ('timestamp with time zone', 'timestamp without time zone', 'date') then
        at := 'f.created_at::timestamptz';
        recent := format('f.created_at >= $2::%s', kind);  -- in its own type, for the sake of an index
    elsif kind is not null then
        at := 'feedback_loop.as_time(f.created_at::text)';
        recent := at || ' >= $2';
    end if;
    -- Infinity and the like are no time that a vote was cast.
    at := format('(case when %s between ''1970-01-01Z'' and ''9998-12-31Z'' then %1$s end)', at);
    -- `in (select …)` is hashed, `= any` would compare each row with each of them.
    return format(
        'select distinct on (f.id) f.id::text as id, jsonb_build_object(%s) as data, %s as created_at'
        || ' from %s f where f.id is not null and (%s) and %s order by f.id',
        columns, at, owner,
        case when whole then 'true'
             when numbered then format('f.id > $1 or %s or f.id in (select unnest($3::bigint[]))', recent)
             else format('%s or f.id::text in (select unnest($3))', recent) end,
        feedback_loop.readable(owner, at)
    );
end $$;

-- --- what reports quote ------------------------------------------------------------------------

create function feedback_loop.one_line(written text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(written, '[[:cntrl:][:space:]]+', '', 'g')
$$;

create function feedback_loop.quotes(quote text, written text) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when quote like '%…'
        then starts_with(feedback_loop.one_line(written), feedback_loop.one_line(rtrim(quote, '…')))
        else feedback_loop.one_line(written) = feedback_loop.one_line(quote) end
$$;
comment on function feedback_loop.quotes is 'Whether a quote, which may be cut short, is taken from a text';

create function feedback_loop.label_is_said(label text, of_group text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
    select label = '—' or exists (select from feedback_loop.reason_word w where w.code = label)
        or not exists (
            select from unnest(string_to_array(rtrim(lower(label), '…'), ' · ')) term
            where not exists (
                select from feedback_loop.complaint c join feedback_loop.vote v on v.id = c.vote
                where c.group_id = of_group
                    and strpos(lower(regexp_replace(v.comment, '\s+', ' ', 'g')), term) > 0))
$$;
comment on function feedback_loop.label_is_said is
    'Whether each term of a group''s label is in a comment of the group, or it is a reason''s code';

create function feedback_loop.poorer(report jsonb, keep boolean) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with votes as materialized (
        select v.id, v.comment from feedback_loop.vote v
        where keep and v.app = report ->> 'app' and v.value = 0
            and v.created_at > (report ->> 'window_start')::timestamptz
            and v.created_at <= (report ->> 'window_end')::timestamptz
    ), told as (
        select coalesce(jsonb_agg(g || jsonb_build_object(
            'quote', case when exists (select from votes where feedback_loop.quotes(g ->> 'quote', comment))
                then g ->> 'quote' else '' end,
            'label', case when exists (select from feedback_loop.reason_word w where w.code = g ->> 'label')
                    or keep and feedback_loop.label_is_said(g ->> 'label', g ->> 'id')
                then g ->> 'label' else '—' end) order by n), '[]') as groups
        from jsonb_array_elements(coalesce(report -> 'complaint_groups', '[]')) with ordinality as t (g, n)
    ), asked as (
        select coalesce(jsonb_agg(q order by n), '[]') as gaps
        from jsonb_array_elements_text(coalesce(report -> 'coverage_gaps', '[]')) with ordinality as t (q, n)
        where exists (select from votes join feedback_loop.judged_answer j using (id)
                      where feedback_loop.quotes(q, j.question))
    )
    -- What an event does not have, it does not get.
    select report || jsonb_strip_nulls(jsonb_build_object(
        'complaint_groups', case when report ? 'complaint_groups' then told.groups end,
        'coverage_gaps', case when report ? 'coverage_gaps' then asked.gaps end))
    from told, asked
$$;
comment on function feedback_loop.poorer is
    'The data of a report without what users wrote; `keep`: but what the ledger still has';

-- --- by age ------------------------------------------------------------------------------------

create function feedback_loop.retain(days integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    horizon timestamptz := now() - make_interval(days => days);
    stripped bigint := 0;
    n bigint;
begin
    if days is null or days < 1 then
        return 0;
    end if;
    -- Nothing waits here: what somebody else holds is left for the next time.
    if not exists (select from feedback_loop.privacy for update skip locked) then
        return 0;
    end if;
    update feedback_loop.privacy set kept_from = greatest(kept_from, horizon);

    delete from feedback_loop.search_log where id in (
        select l.id from feedback_loop.search_log l where l.searched_at < horizon for update skip locked);
    get diagnostics n = row_count;
    stripped := stripped + n;
    delete from feedback_loop.complaint_vector where vote in (
        select x.vote from feedback_loop.complaint_vector x join feedback_loop.vote v on v.id = x.vote
        where v.created_at < horizon for update of x skip locked);
    delete from feedback_loop.complaint where vote in (
        select c.vote from feedback_loop.complaint c join feedback_loop.vote v on v.id = c.vote
        where v.created_at < horizon for update of c skip locked);
    with old as (
        select c.app, c.conversation_id, c.message_id from feedback_loop.conversation c
        where c.answered_at < horizon and (c.user_id, c.question, c.answer) <> ('', '', '')
        for update skip locked)
    update feedback_loop.conversation c set user_id = '', question = '', answer = '', updated_at = now()
    from old where (c.app, c.conversation_id, c.message_id) = (old.app, old.conversation_id, old.message_id);
    get diagnostics n = row_count;
    stripped := stripped + n;
    update feedback_loop.vote v set user_id = '', comment = null, metadata = '{}', updated_at = now(),
        -- Without its user a vote is still a vote of its own.
        row_key = case when v.user_id <> '' and v.row_key = '' then 'kept:' || v.id else v.row_key end
    where v.id in (
        select o.id from feedback_loop.vote o
        where o.created_at < horizon and (o.user_id <> '' or o.comment is not null or o.metadata <> '{}')
        for update skip locked);
    get diagnostics n = row_count;
    stripped := stripped + n;

    delete from feedback_loop.complaint_group where id in (
        select g.id from feedback_loop.complaint_group g
        where not exists (select from feedback_loop.complaint c where c.group_id = g.id)
        for update skip locked);
    update feedback_loop.complaint_group set label = '—' where id in (
        select g.id from feedback_loop.complaint_group g
        where g.reason_code is null and not feedback_loop.label_is_said(g.label, g.id)
        for update skip locked);
    update feedback_loop.outbox o
    set envelope = jsonb_set(o.envelope, '{data}', feedback_loop.poorer(o.envelope -> 'data', false))
    where o.event_id in (
        select r.event_id from feedback_loop.outbox r
        where r.type in ('report.ready', 'retrain.requested')
            and (r.envelope #>> '{data,window_start}')::timestamptz < horizon
            and r.envelope -> 'data' is distinct from feedback_loop.poorer(r.envelope -> 'data', false)
        for update skip locked);
    get diagnostics n = row_count;
    stripped := stripped + n;
    update feedback_loop.inbox set reason = null where (consumer, event_id) in (
        select i.consumer, i.event_id from feedback_loop.inbox i
        where i.processed_at < horizon and i.reason is not null
            and (i.state = 'processed' or i.buried_at is not null) for update skip locked);
    update feedback_loop.notification set channel = null, ts = null where key in (
        select n.key from feedback_loop.notification n
        where n.posted_at < horizon and (n.channel is not null or n.ts is not null) for update skip locked);
    update feedback_loop.slack_action set user_id = '', user_name = '' where (run, action) in (
        select a.run, a.action from feedback_loop.slack_action a
        where a.done_at < horizon and (a.user_id, a.user_name) <> ('', '') for update skip locked);
    return stripped;
end $$;
comment on function feedback_loop.retain is
    'Strip what people wrote, and who they are, of all that is older than so many days; rows stripped';

-- --- by person ---------------------------------------------------------------------------------

create function feedback_loop.person_conversation(person text, only_app text)
returns table (app text, conversation_id text, alone boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.app, p.conversation_id, not exists (
        select from feedback_loop.conversation o
        where o.app = p.app and o.conversation_id = p.conversation_id and o.user_id not in ('', person))
    from (select c.app, c.conversation_id from feedback_loop.conversation c where c.user_id = person
          union select v.app, v.conversation_id from feedback_loop.vote v where v.user_id = person) p
    where p.conversation_id <> '' and (only_app is null or p.app = only_app)
$$;
comment on function feedback_loop.person_conversation is
    'Conversations that a person had or voted on; `alone`: nobody else is known to be in it';

create function feedback_loop.forget(person text, only_app text)
returns table ("table" text, "rows" bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    votes bigint[];
    n bigint;
begin
    if coalesce(person, '') = '' then
        raise exception 'a person has an id' using errcode = 'invalid_parameter_value';
    end if;
    -- No reading of the owner's tables comes in between.
    perform pg_advisory_xact_lock(hashtextextended('feedback_loop.owner_tables', 0));
    create temp table person_conversation on commit drop as
        select * from feedback_loop.person_conversation(person, only_app);
    votes := array(
        select v.id from feedback_loop.vote v
        where (only_app is null or v.app = only_app) and (v.user_id = person or v.user_id = '' and exists (
            select from pg_temp.person_conversation p
            where p.alone and p.app = v.app and p.conversation_id = v.conversation_id)));
    create temp table person_text on commit drop as
        select distinct left(btrim(t.said), 24) as said from (
            select person union all
            select v.comment from feedback_loop.vote v where v.id = any (votes) union all
            select unnest(array[c.question, c.answer]) from feedback_loop.conversation c
            join pg_temp.person_conversation p on p.app = c.app and p.conversation_id = c.conversation_id
            where c.user_id in (person, '') union all
            select l.query from feedback_loop.search_log l
            join pg_temp.person_conversation p on p.app = l.app and p.conversation_id = l.conversation_id
        ) t (said) where length(btrim(t.said)) >= 4;
    if only_app is null or only_app = 'default' then
        insert into feedback_loop.forgotten (hash)
        select feedback_loop.digest_of('user', person)
        union select feedback_loop.digest_of('conversation', p.conversation_id)
        from pg_temp.person_conversation p where p.alone and p.app = 'default'
        on conflict (hash) do update set forgotten_at = now();
    end if;

    delete from feedback_loop.search_log l using pg_temp.person_conversation p
    where l.app = p.app and l.conversation_id = p.conversation_id and (p.alone or exists (
        select from feedback_loop.conversation c
        where c.app = l.app and c.conversation_id = l.conversation_id and c.message_id = l.message_id
            and c.user_id = person));
    get diagnostics n = row_count;
    return query select 'search_log', n;
    delete from feedback_loop.complaint_vector where vote = any (votes);
    get diagnostics n = row_count;
    return query select 'complaint_vector', n;
    delete from feedback_loop.complaint where vote = any (votes);
    get diagnostics n = row_count;
    return query select 'complaint', n;
    delete from feedback_loop.vote where id = any (votes);
    get diagnostics n = row_count;
    return query select 'vote', n;
    delete from feedback_loop.conversation c using pg_temp.person_conversation p
    where c.app = p.app and c.conversation_id = p.conversation_id
        and (c.user_id = person or p.alone and c.user_id = '');
    get diagnostics n = row_count;
    return query select 'conversation', n;

    delete from feedback_loop.complaint_group g
    where (only_app is null or g.app = only_app)
        and not exists (select from feedback_loop.complaint c where c.group_id = g.id);
    get diagnostics n = row_count;
    return query select 'complaint_group', n;
    update feedback_loop.complaint_group g set label = '—'
    where (only_app is null or g.app = only_app) and g.reason_code is null
        and not feedback_loop.label_is_said(g.label, g.id);
    get diagnostics n = row_count;
    return query select 'complaint_group, its name', n;
    update feedback_loop.outbox o
    set envelope = jsonb_set(o.envelope, '{data}', feedback_loop.poorer(o.envelope -> 'data', true))
    where o.type in ('report.ready', 'retrain.requested')
        and (only_app is null or o.envelope #>> '{data,app}' = only_app)
        and o.envelope -> 'data' is distinct from feedback_loop.poorer(o.envelope -> 'data', true);
    get diagnostics n = row_count;
    return query select 'outbox, quotes and questions', n;

    -- What an error said may repeat what was written.
    update feedback_loop.outbox o set envelope = jsonb_set(o.envelope, '{data,reason}', '"—"')
    where o.type = 'loop.failed' and exists (
        select from pg_temp.person_text t where strpos(o.envelope #>> '{data,reason}', t.said) > 0);
    get diagnostics n = row_count;
    return query select 'outbox, reasons', n;
    update feedback_loop.inbox i set reason = '—' where i.reason is not null and exists (
        select from pg_temp.person_text t where strpos(i.reason, t.said) > 0);
    get diagnostics n = row_count;
    return query select 'inbox, reasons', n;
    update feedback_loop.attempt a set reason = '—' where a.reason is not null and exists (
        select from pg_temp.person_text t where strpos(a.reason, t.said) > 0);
    get diagnostics n = row_count;
    return query select 'attempt, reasons', n;
    drop table pg_temp.person_conversation, pg_temp.person_text;
end $$;
comment on function feedback_loop.forget is
    'Remove a person''s votes, comments and conversations, of one app or of all; rows removed, by table';
