-- What an evaluation reads, in less time: dislikes, the likes of chunks that tell their causes, and counts.
-- `dislikes_of` and `votes_between` are planned once for a connection, and not, as a query is whose plans with and
-- without its parameters look alike, each time: that took as long as a hundred dislikes.

-- Whoever writes an answer comes to its votes: in this order nobody waits in a circle.
lock table feedback_loop.conversation, feedback_loop.search_log in share row exclusive mode;

-- The newest dislikes are found without passing the likes between them.
create index vote_disliked on feedback_loop.vote (app, created_at, id) where value = 0 and name = 'user_feedback';

-- --- marks ---------------------------------------------------------------------------------------

-- As in 017, but what an update changed is not joined: a plan made for an update of few votes is kept, and went
-- through all pairs at one of many.
create or replace function feedback_loop.mark_votes() returns trigger
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
        from (
            (select id, app, conversation_id, message_id, name, value, generation, created_at from fresh
             except select id, app, conversation_id, message_id, name, value, generation, created_at from gone)
            union all
            (select id, app, conversation_id, message_id, name, value, generation, created_at from gone
             except select id, app, conversation_id, message_id, name, value, generation, created_at from fresh)
        ) v
        where v.name = 'user_feedback';
    end if;
    return null;
end $$;

-- As in 024, but in time for many votes too, for the same reason; and what is noted of a question is no news.
create or replace function feedback_loop.mark_mirror() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
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
        where f.source <> kind and (f.asked is not distinct from g.asked or f.updated_at <> g.updated_at)
          and (f.value <> g.value
            or exists (select from feedback_loop.mirrored m where m.vote = f.id)
            or exists (select from feedback_loop.mirror_due d where d.vote = f.id));
    end if;
    return null;
end $$;

-- --- likes of chunks ------------------------------------------------------------------------------

-- What others liked for the same question is found by the question, of which a vote that likes a chunk keeps a digest
-- as long as the question is there. Before, the newest 20,000 of these votes were read at each evaluation, and the
-- question of each looked up: 350 ms.

alter table feedback_loop.vote add column asked bigint;
comment on column feedback_loop.vote.asked is
    'Of a vote that likes a citation: which question was asked, as `question_key`; null where that is not known';

-- As before, but made for the encoding that the database has: what asks for that at each call is not inlined, and a
-- call took 12 µs where the expression takes 7.
do $do$
begin
    execute format($f$
        create or replace function feedback_loop.same_question(question text) returns text
        language sql immutable parallel safe as $$
            select rtrim(btrim(regexp_replace(lower(%s), '\s+', ' ', 'g')), ' ?!.。？！')
        $$ $f$,
        case when getdatabaseencoding() = 'UTF8' then 'normalize(question, nfkc)' else 'question' end);
end $do$;

create function feedback_loop.question_key(asked text) returns bigint
language sql immutable parallel safe as $$
    select ('x' || left(md5(nullif(asked, '')), 16))::bit(64)::bigint
$$;
comment on function feedback_loop.question_key is 'A digest of what `same_question` gives; null of nothing';

create function feedback_loop.asked_of(v feedback_loop.vote) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when jsonb_path_exists(v.citations, '$.* ? (@ == 1)') then
        feedback_loop.question_key(feedback_loop.same_question(coalesce(  -- as `judged_answer` has it
            (select nullif(c.question, '') from feedback_loop.conversation c
             where c.app = v.app and c.conversation_id = v.conversation_id and c.message_id = v.message_id),
            (select l.query from feedback_loop.search_log l
             where l.app = v.app and l.conversation_id = v.conversation_id and l.message_id in (v.message_id, '')
             order by l.message_id = v.message_id desc, l.id desc limit 1))))
    end
$$;
comment on function feedback_loop.asked_of is 'What belongs into the `asked` of a vote';

-- Before the triggers are there; those that are find nothing that concerns them, and are not asked where there is none.
do $$
begin
    if exists (select from feedback_loop.vote v where v.citations <> '{}') then
        update feedback_loop.vote v set asked = feedback_loop.asked_of(v) where v.citations <> '{}';
    end if;
end $$;

create function feedback_loop.note_question() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    new.asked := feedback_loop.asked_of(new);
    return new;
end $$;
revoke execute on function feedback_loop.note_question() from public;
create trigger vote_asked_insert before insert on feedback_loop.vote
    for each row when (new.citations <> '{}') execute function feedback_loop.note_question();
create trigger vote_asked_update before update of app, conversation_id, message_id, citations on feedback_loop.vote
    for each row when (new.citations <> '{}' or new.asked is not null)
    execute function feedback_loop.note_question();

-- An answer may be told of after its votes, and what is stripped or removed takes the digest along. One by one by
-- their keys: the plan is kept.
create function feedback_loop.note_questions() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    others bigint[];
begin
    if tg_op = 'DELETE' then  -- a search may be of no message
        others := array(select v.id from gone g join feedback_loop.vote v using (app, conversation_id)
                        where v.asked is not null and feedback_loop.asked_of(v) is distinct from v.asked);
    else
        others := array(select v.id from fresh f join feedback_loop.vote v using (app, conversation_id, message_id)
                        where v.citations <> '{}' and feedback_loop.asked_of(v) is distinct from v.asked);
    end if;
    if others <> '{}' then  -- seldom; in the order in which votes are cast
        perform from feedback_loop.vote v where v.id = any (others)
        order by app, conversation_id, message_id, user_id, name, row_key for no key update;
        update feedback_loop.vote v set asked = feedback_loop.asked_of(v) where v.id = any (others);
    end if;
    return null;
end $$;
revoke execute on function feedback_loop.note_questions() from public;
create trigger answer_asked_insert after insert on feedback_loop.conversation
    referencing new table as fresh for each statement execute function feedback_loop.note_questions();
create trigger answer_asked_update after update on feedback_loop.conversation
    referencing new table as fresh for each statement execute function feedback_loop.note_questions();
create trigger answer_asked_delete after delete on feedback_loop.conversation
    referencing old table as gone for each statement execute function feedback_loop.note_questions();
create trigger search_asked_delete after delete on feedback_loop.search_log
    referencing old table as gone for each statement execute function feedback_loop.note_questions();

-- A vote and its answer that are written at the same time do not see each other.
create function feedback_loop.find_questions(of_app text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
    found bigint;
begin
    with latest as materialized (
        select o.id from feedback_loop.vote o
        where o.app = of_app and o.citations <> '{}' and o.asked is null
          and jsonb_path_exists(o.citations, '$.* ? (@ == 1)') and o.updated_at > now() - interval '1 day'
        order by o.updated_at desc limit 1000
    ), known as (
        select o.id from latest l join feedback_loop.vote o using (id)
        where feedback_loop.asked_of(o) is not null for no key update of o skip locked
    )
    update feedback_loop.vote v set asked = feedback_loop.asked_of(v) from known k where v.id = k.id;
    get diagnostics found = row_count;
    return found;
end $$;
comment on function feedback_loop.find_questions is
    'Note the questions of an app''s newest thousand votes of the last day that lack one; of how many votes';
revoke execute on function feedback_loop.find_questions(text) from public;

create index vote_asked on feedback_loop.vote (app, asked, created_at) where asked is not null;
create index vote_unasked on feedback_loop.vote (app, updated_at)
    where citations <> '{}' and asked is null and jsonb_path_exists(citations, '$.* ? (@ == 1)');
drop index feedback_loop.vote_citations;  -- whoever still reads `liked_citation` is slower without

-- --- dislikes ------------------------------------------------------------------------------------

-- One function instead of the view `dislike`, for the newest have to be known before anything is looked up of them,
-- and their votes were looked up a second time for that. The view stays, as `liked_citation` and `standing_chunk` do,
-- for analyzers of the version before.

-- `limit 1` (keys are unique), `offset 0` and `not in` keep each row a look-up by its key: joined, where the plan
-- was made while tables were small, all conversations ever or whole generations would be read. That the liker is not
-- the disliker is told from the aggregates: with all pairs of users, a question that thousands voted on would
-- take minutes.
create function feedback_loop.dislikes_of(
    of_app text, since timestamptz, until timestamptz, most integer, also bigint[],
    most_likes integer, most_liked integer)
returns table (
    id bigint, voted timestamptz, user_id text, reason_code text, comment text, votes_on_citations jsonb,
    question text, asked text, shown text[], dense double precision, lexical double precision, text_left boolean,
    liked text[], only_by text[], cause text, said text, group_id text)
language plpgsql stable security definer rows 1000
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    return query
    with these as (
        (select v.* from feedback_loop.vote v
         where v.app = of_app and v.name = 'user_feedback' and v.value = 0
           and v.created_at > since and v.created_at <= until
         order by v.created_at desc, v.id desc limit most)
        union all
        select v.* from feedback_loop.vote v
        where v.id = any (also) and v.app = of_app and v.name = 'user_feedback' and v.value = 0
          and v.created_at > since and v.created_at <= until
    ), answer as (  -- as `judged_answer` has it
        select v.id, v.app, v.created_at, v.reason_code, v.comment, v.citations as votes_on_citations,
               coalesce(nullif(v.user_id, ''), nullif(c.user_id, ''), 'conversation/' || v.conversation_id) as user_id,
               coalesce(nullif(c.question, ''), s.query) as question,
               coalesce(c.citations, '[]') as cited, coalesce(s.shown, '[]') as shown
        from these v
        left join lateral (
            select c.user_id, c.question, c.citations from feedback_loop.conversation c
            where c.app = v.app and c.conversation_id = v.conversation_id and c.message_id = v.message_id limit 1
        ) c on true
        left join lateral (
            select l.query, l.shown from feedback_loop.search_log l
            where l.app = v.app and l.conversation_id = v.conversation_id and l.message_id in (v.message_id, '')
            order by l.message_id = v.message_id desc, l.id desc limit 1
        ) s on true
    ), known as (
        select a.*, s.dense, s.lexical,
               case when a.cited = '[]' then coalesce(s.chunks, '{}') else s.chunks || array(
                   select c ->> 'chunk' from jsonb_array_elements(a.cited) c where c ? 'chunk') end as chunks
        from answer a
        cross join lateral (
            select array_agg(e ->> 'chunk') as chunks, max((e ->> 'dense')::double precision) as dense,
                   max((e ->> 'lexical')::double precision) as lexical
            from jsonb_array_elements(a.shown) e) s
    ), dislike as materialized (
        select k.*, feedback_loop.same_question(k.question) as asked,
               case when k.chunks = '{}' then false else exists (
                   -- Without citations it rests on what was shown first.
                   select from unnest(case k.cited when '[]' then array[k.shown -> 0 ->> 'chunk'] else k.chunks end) hash
                   cross join lateral (select m.generation, m.document, m.source from feedback_loop.generation_chunk m
                                       where m.chunk_hash = hash offset 0) m
                   where (k.cited = '[]'
                          or k.cited @> jsonb_build_array(jsonb_build_object('chunk', hash))
                          or k.cited @> jsonb_build_array(jsonb_build_object('source', m.source)))
                     -- Cut in another way, a text that has not changed has another hash.
                     and (select g.app = k.app and (o.id is null or o.chunker = g.chunker)
                          from feedback_loop.generation g left join feedback_loop.document o on o.id = m.document
                          where g.id = m.generation limit 1)
                     and k.app not in (select d.app from feedback_loop.document_chunk d where d.chunk_hash = hash)
               ) end as text_left
        from known k
    ), best as (
        select q.asked, array_agg(l.chunk order by l.users desc, l.chunk) as chunks,
               array_agg(case when l.users = 1 then l.one end order by l.users desc, l.chunk) as only_by
        from (select distinct d.asked from dislike d where d.asked <> '') q
        cross join lateral (select g.* from (
            select c.key as chunk, count(distinct n.user_id) as users, min(n.user_id) as one
            from (select coalesce(nullif(v.user_id, ''), (
                             select nullif(a.user_id, '') from feedback_loop.conversation a where a.app = v.app
                             and a.conversation_id = v.conversation_id and a.message_id = v.message_id
                         ), 'conversation/' || v.conversation_id) as user_id, v.citations
                  from feedback_loop.vote v
                  where v.app = of_app and v.asked = feedback_loop.question_key(q.asked)
                    and v.created_at <= until and v.name = 'user_feedback'
                  order by v.created_at desc limit most_likes) n
            cross join lateral jsonb_each(n.citations) c
            where c.value = '1' group by c.key) g
            where exists (  -- a search can show it today
                select from (select m.generation, m.document from feedback_loop.generation_chunk m
                             where m.chunk_hash = g.chunk offset 0) m
                join feedback_loop.active_generation a on a.app = of_app and a.generation = m.generation
                join feedback_loop.document d on d.id = m.document)
            order by g.users desc, g.chunk limit most_liked) l
        group by q.asked
    )
    -- Where there is nothing there is null, which costs whoever reads it nothing.
    select d.id, d.created_at, d.user_id, d.reason_code, d.comment, nullif(d.votes_on_citations, '{}'),
           d.question, d.asked, nullif(d.chunks, '{}'), d.dense, d.lexical, d.text_left,
           b.chunks, b.only_by, c.cause, c.said, c.group_id
    from dislike d left join best b on b.asked = d.asked and d.asked <> ''
    left join lateral (
        select c.cause, c.said, c.group_id from feedback_loop.complaint c where c.vote = d.id limit 1) c on true;
end $$;
comment on function feedback_loop.dislikes_of is
    'The newest dislikes of an app cast in `(since, until]`, so many at most, and of `also` those that were too, with'
    ' what is known of why. `asked`: the question as `same_question` has it; `shown`: chunks that search showed or the'
    ' answer cites, in no order; `dense`, `lexical`: the best of what was shown, by part, null where not logged;'
    ' `text_left`: what the answer cites (else what was shown first) is no longer the text of any document; `liked`:'
    ' chunks that users liked for the same question and that search can show today, `most_liked` that most users did,'
    ' of its newest `most_likes`; `only_by`: who, where one user did; `cause`, `said`, `group_id`: as entered';
revoke execute on function feedback_loop.dislikes_of(
    text, timestamptz, timestamptz, integer, bigint[], integer, integer) from public;

-- --- counts --------------------------------------------------------------------------------------

-- Several windows are counted in one go: an evaluation has four, whose ends are largely the same. As
-- `votes_counted`, but summed where they are read.
create function feedback_loop.votes_between(of_app text, moments timestamptz[])
returns table (slot integer, generation bigint, likes bigint, dislikes bigint)
language plpgsql stable security definer rows 10
set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    -- A window has its end and not its start.
    ends timestamptz[] := array(select m + interval '1 microsecond' from unnest(moments) m order by m);
    -- The quarters that each begins with, but for what it has more or less.
    quarters timestamptz[] := array(
        select feedback_loop.quarter(e + interval '7 minutes 30 seconds') from unnest(ends) e order by e);
    first timestamptz := quarters[1];
    last timestamptz := quarters[cardinality(quarters)];
begin
    return query
    with recursive mark (at) as (  -- skips from quarter to quarter, however many marks each has
        select min(d.at) from feedback_loop.vote_dirty d where d.app = of_app and d.at >= first and d.at < last
        union all
        select (select min(d.at) from feedback_loop.vote_dirty d
                where d.app = of_app and d.at > m.at and d.at < last)
        from mark m where m.at is not null
    ), marked as materialized (
        select m.at from mark m where m.at is not null
    ), ledger (low, high, slot, sign) as (
        select m.at, m.at + interval '15 minutes', width_bucket(m.at, quarters), 1 from marked m
        union all  -- what lies between an end and its quarter is the neighbour's
        select least(e, q), greatest(e, q), s.slot, s.sign
        from unnest(ends, quarters) with ordinality as u (e, q, n)
        cross join lateral (values (n::integer, case when e > q then -1 else 1 end),
                                   (n::integer - 1, case when e > q then 1 else -1 end)) s (slot, sign)
        where e <> q and s.slot between 1 and cardinality(ends) - 1
    )
    select n, c.generation, sum(c.likes), sum(c.dislikes)
    from generate_series(1, cardinality(ends) - 1) n cross join lateral (
        select c.generation, c.likes, c.dislikes from feedback_loop.vote_count c
        where c.app = of_app and c.at >= quarters[n] and c.at < quarters[n + 1]
          and c.at not in (select m.at from marked m)
    ) c
    group by n, c.generation
    union all
    select l.slot, n.generation, l.sign * n.likes, l.sign * n.dislikes
    from ledger l cross join lateral (
        select v.generation, count(*) filter (where v.value = 1) as likes,
               count(*) filter (where v.value = 0) as dislikes
        from feedback_loop.dashboard_vote v
        where v.app = of_app and v.created_at >= l.low and v.created_at < l.high
        group by v.generation) n;
end $$;
comment on function feedback_loop.votes_between is
    'Votes cast between moments, by generation: after the first until the second (slot 1), after that until the third'
    ' (slot 2), and so on; for the sum of several rows, of which some may be negative';
revoke execute on function feedback_loop.votes_between(text, timestamptz[]) from public;
