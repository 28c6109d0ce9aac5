"""`/search`: the order of what is found, what a search may ask, whole answers while generations change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.commands.errands import ingest_folder, show_search
from shared.failures import Unavailable
from tests.support.embedder import Bigrams, Rig, article, start_rig
from tests.support.events import wait_until

Start = Callable[..., Any]


@pytest.fixture
async def rig(start: Start) -> Rig:
    return await start_rig(start)


async def fill(rig: Rig, chunks: int, app: str = "default") -> int:
    """A promoted generation of `chunks` random vectors, written by SQL. Returns its id."""
    async with rig.database.transaction() as connection:
        generation: int = await connection.fetchval(
            "insert into feedback_loop.generation (app, model, chunker, reason, state, chunks, batches,"
            " remaining, counts, starts_anew)"
            " values ($1, 1, 'x', 'manual', 'promoted', $2, 0, 0, '{}', false) returning id",
            app,
            chunks,
        )
        await connection.execute(
            "insert into feedback_loop.document (app, source, title, media_type, data_hash, chunker, origin)"
            " select $1, 'random ' || n, '', '', '', 'x', 'api' from generate_series(0, $2 / 10) n",
            app,
            chunks,
        )
        await connection.execute(
            "insert into feedback_loop.chunk (hash, heading, text)"
            " select $1 || n, 'heading', 'text ' || n from generate_series(0, $2::integer - 1) n",
            app,
            chunks,
        )
        await connection.execute(
            "insert into feedback_loop.generation_chunk (generation, chunk_hash, document, source, ordinal)"
            " select $1, $3 || n, d.id, d.source, n from generate_series(0, $2::integer - 1) n"
            " join feedback_loop.document d on d.app = $3 and d.source = 'random ' || n / 10",
            generation,
            chunks,
            app,
        )
        # Building an index anew is quicker than adding to it.
        await connection.execute("drop index feedback_loop.vector_1_embedding_idx")
        await connection.execute("select setseed(0.5)")
        await connection.execute(
            "insert into feedback_loop.vector_1 (chunk_hash, embedding)"
            " select $1 || n, array(select random() - 0.5 + 0 * n from generate_series(1, 64))::vector"
            " from generate_series(0, $2::integer - 1) n",
            app,
            chunks,
        )
        await connection.execute(
            "create index vector_1_embedding_idx on feedback_loop.vector_1"
            " using hnsw (embedding vector_cosine_ops)"
        )
        await connection.execute(
            "insert into feedback_loop.active_generation (app, generation) values ($1, $2)"
            " on conflict (app) do update set generation = $2",
            app,
            generation,
        )
        await connection.execute("analyze")
    return generation


# --- what is found --------------------------------------------------------------------------


async def test_the_nearest_come_first_with_their_scores(rig: Rig) -> None:
    await rig.post(
        "shop", article("Shop", {"Refunds": "money back", "Delivery": "two days", "Gifts": "wrap"})
    )
    await rig.settled()
    results = (await rig.search("Shop › Delivery\ntwo days"))["results"]
    assert [hit["rank"] for hit in results] == [1, 2, 3]
    assert results[0]["score"] == pytest.approx(1, abs=1e-5)
    scores = [hit["score"] for hit in results]
    assert scores == sorted(scores, reverse=True)
    assert (results[0]["source"], results[0]["heading"], results[0]["text"]) == (
        "shop", "Shop › Delivery", "two days",
    )  # fmt: skip


async def test_before_the_first_generation_nothing_is_found(rig: Rig) -> None:
    assert await rig.search("anything") == {"generation": None, "results": []}


async def test_a_content_in_many_documents_is_found_once(rig: Rig) -> None:
    documents = [{"source": f"d{n:02}", "content": article("Terms", 1)} for n in range(40)]
    documents.append({"source": "other", "content": article("Other", 4)})
    await rig.call("POST", "/documents", documents)
    await rig.settled()
    results = (await rig.search("What Terms says in part 0", 5))["results"]
    assert results[0]["source"] == "d00"
    assert len({hit["chunk"] for hit in results}) == 5


@pytest.mark.parametrize("k", [1, 10, 100])
async def test_as_many_are_found_as_asked_for(rig: Rig, k: int) -> None:
    await rig.post("long", article("Long", 150))
    await rig.settled()
    assert len((await rig.search("part", k))["results"]) == k


@pytest.mark.parametrize("chunks", [30, 1600], ids=["compared whole", "though the index gives up"])
async def test_a_small_app_beside_a_large_one_gets_its_results(start: Start, dsn: str, chunks: int) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("load 'vector'")
    name = await connection.fetchval("select current_database()")
    # Where the index gives up; the usual 20,000 would take a table of more than that.
    await connection.execute(f"alter database {name} set hnsw.max_scan_tuples = 300")
    await connection.close()
    rig = await start_rig(start)
    await rig.post("small", article("Small", chunks), app="small")
    await rig.settled()
    # Everything else is nearer to any query.
    await rig.value(
        "update feedback_loop.vector_1 set embedding = array_fill(0, array[64])::vector - embedding"
    )
    await fill(rig, 3000)
    results = (await rig.search("part", 10, app="small"))["results"]
    assert [hit["source"] for hit in results] == ["small"] * 10
    scores = [hit["score"] for hit in results]
    assert scores == sorted(scores, reverse=True)


async def test_a_large_generation_is_searched_by_its_index(rig: Rig) -> None:
    await rig.post("seed", article("Seed", 1))
    await rig.settled()
    generation = await fill(rig, 20_000)
    scans = (
        "select idx_scan from pg_stat_user_indexes where schemaname = 'feedback_loop'"
        " and indexrelname = 'vector_1_embedding_idx'"
    )
    for number in range(12):  # prepared statements get a generic plan after some
        found = await rig.search(f"query {number}")
        assert (found["generation"], len(found["results"])) == (generation, 10)

    async def counted() -> bool:
        return bool(await rig.value(scans) >= 12)

    await wait_until(counted)


# --- what a search may ask ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "q"),
        ({"q": "  "}, "q"),
        ({"q": "x" * 2001}, "q"),
        ({"q": "x", "k": "0"}, "k"),
        ({"q": "x", "k": "101"}, "k"),
        ({"q": "x", "k": "ten"}, "k"),
        ({"q": "x", "k": "²"}, "k"),
        ({"q": "x", "app": "no/app"}, "app"),
        ({"q": "x", "app": ""}, "app"),
    ],
)
async def test_what_does_not_fit_is_refused_naming_the_field(
    rig: Rig, query: dict[str, str], field: str
) -> None:
    status, answer = await rig.call("GET", "/search", **query)
    assert (status, answer["field"]) == (422, field)


@pytest.mark.parametrize("query", ["'; drop table x --", "\0", "🙂", "\u200d", "%00%ff", "환불은 언제?"])
async def test_any_text_can_be_searched_for(rig: Rig, query: str) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    assert len(await rig.sources(query)) == 3


async def test_a_process_of_another_model_says_what_to_do(start: Start, rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    other = await start_rig(start, Bigrams(96, "bigrams-96"))
    status, answer = await other.call("GET", "/search", q="faq")
    assert status == 503
    assert answer["reason"] == (
        "generation 1 is of the model bigrams; this embedder has bigrams-96:"
        " re-embed (`feedback-loop ingest`), or set EMBEDDER back"
    )


async def test_other_dimensions_under_one_name_are_said(start: Start, rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    other = await start_rig(start, Bigrams(96))
    status, answer = await other.call("GET", "/search", q="faq")
    assert status == 503
    assert "96 dimensions now, and 64" in answer["reason"]


async def test_an_embedder_that_is_away_is_said(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable("embedding API", "503", rig.embedder.check)

    monkeypatch.setattr(rig.embedder, "embed", away)
    assert (await rig.call("GET", "/search", q="faq"))[0] == 503


# --- while generations change ---------------------------------------------------------------


async def test_readers_see_one_whole_generation_while_generations_change(rig: Rig) -> None:
    def texts(color: str) -> list[dict[str, str]]:
        return [{"source": f"d{n}", "content": article(f"D{n}", {"Color": f"{color} {n}"})} for n in range(8)]

    await rig.call("POST", "/documents", texts("red"))
    await rig.settled()
    ended, searches, seen = False, 0, set[int]()

    async def read() -> None:
        nonlocal searches
        while not ended:
            found = await rig.search("Color", 50)
            colors = {hit["text"].split()[0] for hit in found["results"]}
            assert (len(found["results"]), len(colors)) == (8, 1), found
            # Odd generations are red.
            assert colors == {"red" if found["generation"] % 2 else "blue"}
            seen.add(found["generation"])
            searches += 1

    async def flip() -> None:
        nonlocal ended
        try:
            for number in range(8):
                await rig.call("POST", "/documents", texts("red" if number % 2 else "blue"))
                await rig.settled()
        finally:
            ended = True

    await asyncio.gather(flip(), *(read() for _ in range(4)))
    assert len(seen) >= 5
    assert searches >= 50


async def test_readers_of_the_view_see_one_whole_generation(rig: Rig) -> None:
    await rig.post("number", article("Number", {str(n): f"1 {n}" for n in range(6)}))
    await rig.settled()
    ended = False

    async def read() -> None:
        while not ended:
            rows = await rig.rows(
                "select generation, split_part(text, ' ', 1) from feedback_loop.active_chunk"
            )
            assert len(rows) == 6
            assert len(set(rows)) == 1
            assert str(rows[0][0]) == rows[0][1]

    async def flip() -> None:
        nonlocal ended
        try:
            for number in range(2, 7):
                await rig.post("number", article("Number", {str(n): f"{number} {n}" for n in range(6)}))
                await rig.settled()
        finally:
            ended = True

    await asyncio.gather(flip(), read())


# --- hybrid ---------------------------------------------------------------------------------


async def test_a_rare_word_finds_its_chunk_though_the_vectors_see_nothing(rig: Rig) -> None:
    for number in range(20):
        await rig.post(f"doc-{number:02}", f"# Topic {number}\n\nSome text about subject {number}, in words.")
    await rig.post("needle", "# Codes\n\nThe error ZX81QQ means that the cable is loose.")
    await rig.settled()
    hit = (await rig.search("what does ZX81QQ mean?", k=1))["results"][0]
    assert hit["source"] == "needle"
    assert hit["scores"]["lexical"] > 0.5


async def test_a_score_is_the_even_mean_of_its_parts_and_does_not_depend_on_k(rig: Rig) -> None:
    await rig.post("faq", article("FAQ", 8))
    await rig.settled()
    many = (await rig.search("What FAQ says in part 3", k=8))["results"]
    for hit in many:
        assert hit["score"] == pytest.approx(
            (hit["scores"]["dense"] + hit["scores"]["lexical"]) / 2, abs=1e-5
        )
    few = (await rig.search("What FAQ says in part 3", k=2))["results"]
    assert few == many[:2]


async def test_post_searches_as_get_does(rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    status, found = await rig.call("POST", "/search", {"q": "part 1", "k": 2})
    assert status == 200
    assert found == await rig.search("part 1", k=2)


async def test_what_a_conversation_was_shown_is_remembered(rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    body = {"q": "part 1", "k": 2, "conversation_id": 17, "message_id": "m"}
    _, found = await rig.call("POST", "/search", body)
    [row] = await rig.rows(
        "select conversation_id, message_id, query, generation, shown from feedback_loop.search_log"
    )
    assert row[:4] == ("17", "m", "part 1", found["generation"])
    assert [entry["chunk"] for entry in row[4]] == [hit["chunk"] for hit in found["results"]]


async def test_a_search_without_a_conversation_leaves_no_trace(rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    await rig.search("part 1")
    assert await rig.value("select count(*) from feedback_loop.search_log") == 0


# --- on a terminal --------------------------------------------------------------------------


async def test_a_command_obeys_nothing_that_a_document_says(
    rig: Rig, make_settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("services.commands.errands.make_embedder", lambda settings: Bigrams())
    source = "notes [/x] [link=file:///].md"
    await rig.post(source, "# Hours [/bold]\n\nThe library opens at \x1b[2Jnine.")
    await rig.settled()
    await show_search(make_settings(), "when does the library open", 1, "default", False)
    printed = capsys.readouterr().out
    assert source in printed and "Hours [/bold]" in printed
    assert "\x1b" not in printed


async def test_a_folder_with_a_file_named_like_markup_is_taken_over(
    make_settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a [b].md").write_text("# Hours\n\nThe library opens at nine.", encoding="utf-8")
    (folder / "scan [b] [#].pdf").write_bytes(b"%PDF-")
    await ingest_folder(make_settings(knowledge_dir=tmp_path), folder, "default")
    printed = " ".join(capsys.readouterr().out.split())
    assert "skipped scan [b] [#].pdf" in printed and "promoted: generation" in printed
