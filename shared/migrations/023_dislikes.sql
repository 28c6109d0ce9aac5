-- The dislikes that an evaluation sorts, read in less time: nothing is looked for where nothing was shown or
-- cited, what was shown is taken apart once, and of an answer that cites nothing only the chunk is looked up
-- that it rests on.

-- `offset 0` and `not in` keep each chunk a look-up by its hash: joined, where the planner knows little of the
-- tables, whole generations would be read for each dislike.
create or replace view feedback_loop.dislike as
select d.id, d.app, d.voted, d.user_id, d.reason_code, d.question, d.asked, d.votes_on_citations,
       d.chunks as shown, d.dense, d.lexical,
       case when d.chunks = '{}' then false else exists (
           -- Without citations it rests on what was shown first.
           select from unnest(case d.cited when '[]' then array[d.shown -> 0 ->> 'chunk'] else d.chunks end) hash
           cross join lateral (select m.generation, m.document, m.source from feedback_loop.generation_chunk m
                               where m.chunk_hash = hash offset 0) m
           where (d.cited = '[]'
                  or d.cited @> jsonb_build_array(jsonb_build_object('chunk', hash))
                  or d.cited @> jsonb_build_array(jsonb_build_object('source', m.source)))
             -- Cut in another way, a text that has not changed has another hash.
             and (select g.app = d.app and (o.id is null or o.chunker = g.chunker)
                  from feedback_loop.generation g left join feedback_loop.document o on o.id = m.document
                  where g.id = m.generation limit 1)
             and d.app not in (select k.app from feedback_loop.document_chunk k where k.chunk_hash = hash)
       ) end as text_left
from (
    select j.*, feedback_loop.same_question(j.question) as asked, s.dense, s.lexical,
           case when j.cited = '[]' then coalesce(s.chunks, '{}') else s.chunks || array(
               select c ->> 'chunk' from jsonb_array_elements(j.cited) c where c ? 'chunk') end as chunks
    from feedback_loop.judged_answer j
    cross join lateral (
        select array_agg(e ->> 'chunk') as chunks, max((e ->> 'dense')::double precision) as dense,
               max((e ->> 'lexical')::double precision) as lexical
        from jsonb_array_elements(j.shown) e) s
    where j.value = 0
) d;
