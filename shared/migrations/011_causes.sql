-- What the analyzer sorts dislikes by. Read by the analyzer.

comment on column feedback_loop.search_log.shown is
    'In order of rank: {"chunk", "score"}, and the parts of the score: "dense", "lexical", maybe "memory"';

create index vote_citations on feedback_loop.vote (app, created_at) where citations <> '{}';

-- As `normal` in services/embedder/learning/credit.py. (PostgreSQL normalizes UTF-8 only.)
create function feedback_loop.same_question(question text) returns text
language sql immutable strict parallel safe as $$
    select rtrim(btrim(regexp_replace(lower(
        case when getdatabaseencoding() = 'UTF8' then normalize(question, nfkc) else question end
    ), '\s+', ' ', 'g')), ' ?!.。？！')
$$;
comment on function feedback_loop.same_question is
    'What makes two questions the same: neither case, nor spacing, nor a sign at the end';

create view feedback_loop.standing_chunk as
select a.app, m.chunk_hash as chunk
from feedback_loop.active_generation a
join feedback_loop.generation_chunk m on m.generation = a.generation
join feedback_loop.document d on d.id = m.document;
comment on view feedback_loop.standing_chunk is 'Hashes of the chunks that a search can show today';

create view feedback_loop.liked_citation as
select j.app, j.voted, j.user_id, feedback_loop.same_question(j.question) as asked, c.key as chunk
from feedback_loop.judged_answer j
cross join lateral jsonb_each(j.votes_on_citations) c
where j.votes_on_citations <> '{}' and j.question is not null and c.value = '1';
comment on view feedback_loop.liked_citation is 'Which chunk a user liked for which question';

-- `offset 0` and `not in` keep each chunk a look-up by its hash: joined, where the planner knows little of the tables, whole
-- generations would be read for each dislike.
create view feedback_loop.dislike as
select d.id, d.app, d.voted, d.user_id, d.reason_code, d.question, d.asked, d.votes_on_citations,
       d.chunks as shown,
       (select max((s ->> 'dense')::double precision) from jsonb_array_elements(d.shown) s) as dense,
       (select max((s ->> 'lexical')::double precision) from jsonb_array_elements(d.shown) s) as lexical,
       exists (
           select from unnest(d.chunks) hash
           cross join lateral (select m.generation, m.document, m.source from feedback_loop.generation_chunk m
                               where m.chunk_hash = hash offset 0) m
           where case when d.cited = '[]' then hash = d.shown -> 0 ->> 'chunk'
                      else d.cited @> jsonb_build_array(jsonb_build_object('chunk', hash))
                        or d.cited @> jsonb_build_array(jsonb_build_object('source', m.source)) end
             -- Cut in another way, a text that has not changed has another hash.
             and (select g.app = d.app and (o.id is null or o.chunker = g.chunker)
                  from feedback_loop.generation g left join feedback_loop.document o on o.id = m.document
                  where g.id = m.generation limit 1)
             and d.app not in (select k.app from feedback_loop.document_chunk k where k.chunk_hash = hash)
       ) as text_left
from (
    select j.*, feedback_loop.same_question(j.question) as asked,
           array(select s ->> 'chunk' from jsonb_array_elements(j.shown) s
                 union select c ->> 'chunk' from jsonb_array_elements(j.cited) c where c ? 'chunk') as chunks
    from feedback_loop.judged_answer j where j.value = 0
) d;
comment on view feedback_loop.dislike is
    'Dislikes, with what is known of why: what was shown, how near the best of it was, what has left since';
comment on column feedback_loop.dislike.asked is 'The question as `same_question` has it';
comment on column feedback_loop.dislike.shown is 'Chunks that search showed or the answer cites, in no order';
comment on column feedback_loop.dislike.dense is 'The best of what was shown, by part; null where not logged';
comment on column feedback_loop.dislike.text_left is
    'What the answer cites (else: what was shown first) is no longer the text of any document';
