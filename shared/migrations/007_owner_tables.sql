-- The owner's own tables, public.feedback_log and public.conversation_log, read into the ledger.
--
-- Guaranteed: they are only read. A row of feedback_log is one vote, whatever else is like it; only rows
-- that name both user and message are one vote per (conversation, message, user), the latest. Rows that
-- commit out of order are not lost: the cursor passes an id only once every transaction that could
-- commit a lower one has ended, and everything from 48 hours before the last reading on is read again.
-- Inserts, updates and deletes there follow at the next reading; those of rows older than that, at the
-- weekly reading of everything. Any shape will do that has an id (and, for votes, feedback).
-- Not guaranteed: a row dated further back than that, whose session took the id long before it wrote the
-- row, or whose transaction was overtaken by one that began earlier, may follow only at the weekly one.
--
-- read_owner_tables() runs with its owner's rights (016): every name here is qualified, and the search path
-- is fixed. Where the loop's role may not read the owner's tables, one that may, and may write the ledger,
-- can own it, and grant `execute`.

create table feedback_loop.vote_word (word text primary key, value smallint not null);
comment on table feedback_loop.vote_word is 'What people write for a vote, in small letters; 1 = like, 0 = dislike';
insert into feedback_loop.vote_word values
    ('like', 1), ('up', 1), ('thumbs_up', 1), ('thumbsup', 1), ('positive', 1), ('true', 1), ('1', 1),
    ('dislike', 0), ('down', 0), ('thumbs_down', 0), ('thumbsdown', 0), ('negative', 0), ('false', 0),
    ('0', 0), ('-1', 0);

create table feedback_loop.reason_word (word text primary key, code text not null);
comment on table feedback_loop.reason_word is 'Reasons that are a known word, in small letters, and their code';
insert into feedback_loop.reason_word values
    ('wrong', 'wrong'), ('incorrect', 'wrong'), ('inaccurate', 'wrong'), ('not true', 'wrong'),
    ('false', 'wrong'), ('hallucination', 'wrong'), ('wrong answer', 'wrong'), ('틀림', 'wrong'),
    ('틀렸어요', 'wrong'), ('오답', 'wrong'), ('부정확', 'wrong'), ('부정확해요', 'wrong'), ('사실과 다름', 'wrong'),
    ('사실과 달라요', 'wrong'),
    ('outdated', 'outdated'), ('out of date', 'outdated'), ('old', 'outdated'), ('obsolete', 'outdated'),
    ('stale', 'outdated'), ('오래됨', 'outdated'), ('오래된 정보', 'outdated'), ('오래된 정보예요', 'outdated'),
    ('예전 정보', 'outdated'), ('최신 아님', 'outdated'), ('최신 정보가 아니에요', 'outdated'),
    ('incomplete', 'incomplete'), ('missing', 'incomplete'), ('not enough', 'incomplete'),
    ('too short', 'incomplete'), ('partial', 'incomplete'), ('missing information', 'incomplete'),
    ('불완전', 'incomplete'), ('부족', 'incomplete'), ('부족해요', 'incomplete'), ('내용 부족', 'incomplete'),
    ('설명 부족', 'incomplete'), ('정보 부족', 'incomplete'), ('빠진 내용', 'incomplete'),
    ('irrelevant', 'irrelevant'), ('off topic', 'irrelevant'), ('unrelated', 'irrelevant'),
    ('not relevant', 'irrelevant'), ('did not answer', 'irrelevant'), ('not what i asked', 'irrelevant'),
    ('관련 없음', 'irrelevant'), ('무관', 'irrelevant'), ('동문서답', 'irrelevant'), ('질문과 다름', 'irrelevant'),
    ('관련 없는 답변', 'irrelevant'), ('엉뚱한 답변', 'irrelevant'),
    ('unclear', 'unclear'), ('confusing', 'unclear'), ('hard to understand', 'unclear'),
    ('too long', 'unclear'), ('이해 안 됨', 'unclear'), ('이해하기 어려움', 'unclear'), ('이해하기 어려워요', 'unclear'),
    ('불명확', 'unclear'), ('너무 길어요', 'unclear'),
    ('source', 'source'), ('bad source', 'source'), ('wrong source', 'source'),
    ('wrong citation', 'source'), ('no source', 'source'), ('broken link', 'source'), ('출처', 'source'),
    ('출처 오류', 'source'), ('출처 없음', 'source'), ('링크 오류', 'source'),
    ('tone', 'tone'), ('rude', 'tone'), ('impolite', 'tone'), ('unfriendly', 'tone'), ('말투', 'tone'),
    ('말투 불만', 'tone'), ('불친절', 'tone'), ('불친절해요', 'tone'), ('무례함', 'tone'),
    ('slow', 'slow'), ('too slow', 'slow'), ('latency', 'slow'), ('느림', 'slow'), ('느려요', 'slow'),
    ('너무 느려요', 'slow'),
    ('unsafe', 'unsafe'), ('harmful', 'unsafe'), ('offensive', 'unsafe'), ('유해함', 'unsafe'),
    ('부적절', 'unsafe'), ('부적절해요', 'unsafe'),
    ('other', 'other'), ('others', 'other'), ('etc', 'other'), ('misc', 'other'), ('기타', 'other');

create function feedback_loop.owner_column_type(owner regclass, name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format_type(a.atttypid, null) from pg_attribute a
    where a.attrelid = owner and a.attname = name and a.attnum > 0 and not a.attisdropped
$$;
comment on function feedback_loop.owner_column_type is 'The type of a column; null where there is none';

create function feedback_loop.as_time(given text) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return given::timestamptz;
exception when data_exception then
    return null;
end $$;
comment on function feedback_loop.as_time is 'For times kept as text; null where it is none';

-- Where this reading begins, and the cursor for the next one. A snapshot's highest id becomes safe at
-- the first reading at which all transactions that ran at that snapshot have ended. The snapshot is
-- taken before the rows are read, so these are in hand then.
create function feedback_loop.open_owner_table(
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
    since := case when whole then '-infinity' else c.read_at - interval '48 hours' end;
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

-- The query for the rows to read: id and created_at, and the wanted columns, those there are, as
-- `data`. Its parameters: $1 the cursor, $2 since when, $3 the ids read before that are as young.
create function feedback_loop.owner_rows(
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
    -- `in (select …)` is hashed, `= any` would compare each row with each of them.
    return format(
        'select distinct on (f.id) f.id::text as id, jsonb_build_object(%s) as data,'
        -- Infinity and the like are no time that a vote was cast.
        || ' case when %s between ''1970-01-01Z'' and ''9998-12-31Z'' then %2$s end as created_at'
        || ' from %3$s f where f.id is not null and (%4$s) order by f.id',
        columns, at, owner,
        case when whole then 'true'
             when numbered then format('f.id > $1 or %s or f.id in (select unnest($3::bigint[]))', recent)
             else format('%s or f.id::text in (select unnest($3))', recent) end
    );
end $$;

create function feedback_loop.read_feedback_log(out changed bigint, out skipped bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner regclass := 'public.feedback_log';
    c record;
    seen text[];
    n bigint;
begin
    changed := 0;
    skipped := 0;
    if feedback_loop.owner_column_type(owner, 'id') is null
        or feedback_loop.owner_column_type(owner, 'feedback') is null then
        raise warning 'public.feedback_log has no id or no feedback: it is not read';
        return;
    end if;
    select * into c from feedback_loop.open_owner_table(owner);
    select coalesce(array_agg(v.source_id), '{}') into seen from feedback_loop.vote v
    where not c.whole and v.app = 'default' and v.created_at >= c.since and v.source = 'feedback_log'
        and (not c.numbered or v.source_id ~ '^-?[0-9]{1,18}$');

    -- With a key: what the planner knows of the ledger may be old, and it must not loop over a heap.
    create temp table owner_vote (
        id text primary key, conversation_id text collate "C", message_id text collate "C",
        user_id text collate "C", row_key text collate "C", value smallint, reason_code text, comment text,
        created_at timestamptz
    ) on commit drop;
    execute
        'insert into pg_temp.owner_vote'
        ' select r.id, k.conversation, k.message, k.person,'
        '   case when k.message <> '''' and k.person <> '''' then '''' else ''feedback_log:'' || r.id end,'
        '   case when greatest(octet_length(r.id), octet_length(k.conversation), octet_length(k.message),'
        '     octet_length(k.person)) <= 600 then w.value end,'
        '   s.code, case when s.code is null then left(nullif(btrim(r.data ->> ''reason''), ''''), 4000) end,'
        '   r.created_at'
        ' from (' || feedback_loop.owner_rows(
            owner, '{conversation_id,message_id,user_id,feedback,reason}', c.numbered, c.whole
        ) || ') r cross join lateral (select'
        '   coalesce(r.data ->> ''conversation_id'', '''') as conversation,'
        '   coalesce(r.data ->> ''message_id'', '''') as message,'
        '   coalesce(r.data ->> ''user_id'', '''') as person) k'
        ' left join feedback_loop.vote_word w on w.word = lower(btrim(r.data ->> ''feedback'', E'' \t\r\n''))'
        ' left join feedback_loop.reason_word s'
        '   on s.word = btrim(regexp_replace(lower(r.data ->> ''reason''), ''[\s_.!-]+'', '' '', ''g''))'
        using c.after, c.since, seen;
    analyze pg_temp.owner_vote;
    select count(*) into skipped from pg_temp.owner_vote o where o.value is null;

    -- What is gone, no vote any more, or has become a vote on something else.
    delete from feedback_loop.vote v
    where v.source = 'feedback_log' and v.app = 'default' and v.source_id is not null
        and v.created_at >= c.since
        and not exists (select from pg_temp.owner_vote o where o.id = v.source_id);
    get diagnostics n = row_count;
    changed := changed + n;
    delete from feedback_loop.vote v using pg_temp.owner_vote o
    where v.source = 'feedback_log' and v.source_id = o.id
        and (o.value is null or (v.conversation_id, v.message_id, v.user_id, v.row_key)
            is distinct from (o.conversation_id, o.message_id, o.user_id, o.row_key));
    get diagnostics n = row_count;
    changed := changed + n;

    -- Of several votes of one user on one message the last is left, and of that what is not recorded as
    -- it is. (On conflict alone would lock, and so write, each row. As one statement with the insert,
    -- looking for them would scan a table that grows.)
    delete from pg_temp.owner_vote o using pg_temp.owner_vote l
    where o.row_key = '' and l.row_key = '' and l.value is not null
        and (o.conversation_id, o.message_id, o.user_id) = (l.conversation_id, l.message_id, l.user_id)
        and (coalesce(o.created_at, '-infinity'), length(o.id), o.id)
            < (coalesce(l.created_at, '-infinity'), length(l.id), l.id);
    delete from pg_temp.owner_vote o using feedback_loop.vote v
    where v.source = 'feedback_log' and v.source_id = o.id
        and (v.value, v.reason_code, v.comment, v.created_at) is not distinct from
            (o.value, o.reason_code, o.comment, coalesce(o.created_at, v.created_at));

    insert into feedback_loop.vote as v (conversation_id, message_id, user_id, row_key, value, reason_code,
        comment, source, source_id, created_at)
    select o.conversation_id, o.message_id, o.user_id, o.row_key, o.value, o.reason_code, o.comment,
        'feedback_log', o.id, coalesce(o.created_at, now())
    from pg_temp.owner_vote o where o.value is not null
    order by o.conversation_id, o.message_id, o.user_id, o.row_key
    on conflict (app, conversation_id, message_id, user_id, name, row_key) do update set
        value = excluded.value, reason_code = excluded.reason_code, comment = excluded.comment,
        source = excluded.source, source_id = excluded.source_id, updated_at = now(),
        -- now() stands for a row without a time: it was cast when it was first seen.
        created_at = case when excluded.created_at = now() then v.created_at else excluded.created_at end
    where v.source = excluded.source and (v.source_id = excluded.source_id
            or v.created_at <= excluded.created_at) or v.created_at < excluded.created_at;
    get diagnostics n = row_count;
    changed := changed + n;
    drop table pg_temp.owner_vote;
end $$;

create function feedback_loop.read_conversation_log(out changed bigint, out skipped bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner regclass := 'public.conversation_log';
    c record;
    seen text[];
    n bigint;
begin
    changed := 0;
    skipped := 0;
    if feedback_loop.owner_column_type(owner, 'id') is null then
        raise warning 'public.conversation_log has no id: it is not read';
        return;
    end if;
    select * into c from feedback_loop.open_owner_table(owner);
    select coalesce(array_agg(a.conversation_id), '{}') into seen from feedback_loop.conversation a
    where not c.whole and a.source = 'conversation_log' and a.answered_at >= c.since
        and (not c.numbered or a.conversation_id ~ '^-?[0-9]{1,18}$');

    create temp table owner_answer (
        id text primary key, user_id text, question text, answer text, created_at timestamptz
    ) on commit drop;
    execute
        'insert into pg_temp.owner_answer'
        ' select r.id, coalesce(r.data ->> ''user_id'', ''''), coalesce(r.data ->> ''question'', ''''),'
        '   coalesce(r.data ->> ''answer'', ''''), r.created_at'
        ' from (' || feedback_loop.owner_rows(owner, '{user_id,question,answer}', c.numbered, c.whole) || ') r'
        using c.after, c.since, seen;
    delete from pg_temp.owner_answer o where octet_length(o.id) > 600;
    get diagnostics skipped = row_count;
    analyze pg_temp.owner_answer;

    delete from feedback_loop.conversation a
    where a.source = 'conversation_log' and a.answered_at >= c.since
        and not exists (select from pg_temp.owner_answer o where o.id = a.conversation_id);
    get diagnostics changed = row_count;

    delete from pg_temp.owner_answer o using feedback_loop.conversation a
    where a.app = 'default' and a.conversation_id = o.id and a.message_id = ''
        -- What the bot itself has said about an answer (citations, generation) is worth more.
        and (a.source <> 'conversation_log'
            or (a.user_id, a.question, a.answer, a.answered_at) is not distinct from
                (o.user_id, o.question, o.answer, coalesce(o.created_at, a.answered_at)));
    insert into feedback_loop.conversation as a
        (conversation_id, user_id, question, answer, source, answered_at)
    select o.id, o.user_id, o.question, o.answer, 'conversation_log', coalesce(o.created_at, now())
    from pg_temp.owner_answer o order by o.id collate "C"
    on conflict (app, conversation_id, message_id) do update set
        user_id = excluded.user_id, question = excluded.question, answer = excluded.answer,
        updated_at = now(),
        answered_at = case when excluded.answered_at = now() then a.answered_at else excluded.answered_at end
    where a.source = excluded.source;
    get diagnostics n = row_count;
    changed := changed + n;
    drop table pg_temp.owner_answer;
end $$;

create function feedback_loop.read_owner_tables()
returns table (source text, changed bigint, skipped bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if to_regclass('public.feedback_log') is null and to_regclass('public.conversation_log') is null then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('feedback_loop.owner_tables', 0));
    if to_regclass('public.conversation_log') is not null then
        return query select 'conversation_log', r.* from feedback_loop.read_conversation_log() r;
    end if;
    if to_regclass('public.feedback_log') is not null then
        return query select 'feedback_log', r.* from feedback_loop.read_feedback_log() r;
    end if;
end $$;
comment on function feedback_loop.read_owner_tables is
    'Bring the ledger up to date with the owner''s tables; rows new, changed or removed, and rows skipped';
