"""Building generations, through events: what is embedded, what is promoted, and what is said of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.analyzer.build import build as build_analyzer
from services.embedder import dense, tables
from services.embedder.build import build
from shared.bus.envelope import from_json
from shared.events import EmbeddingRequested, GenerationBuilt, GenerationRequested, RetrainRequested
from shared.failures import Reject, Unavailable
from tests.support.embedder import Bigrams, article, start_rig, write
from tests.support.events import publish_envelopes
from tests.support.rabbit import sweep

Start = Callable[..., Any]
NOW = datetime.now(UTC)


@pytest.fixture
def knowledge(tmp_path: Path) -> Path:
    """A folder of three documents of three chunks each."""
    folder = tmp_path / "knowledge"
    write(folder, returns=article("Returns"), delivery=article("Delivery"), payment=article("Payment"))
    return folder


def retrain(**more: Any) -> RetrainRequested:
    facts: dict[str, Any] = {
        "run": uuid.uuid4(),
        "as_of": NOW,
        "window_start": NOW - timedelta(days=1),
        "window_end": NOW,
        "likes": 59,
        "dislikes": 41,
        "total": 100,
        "ratio": 0.41,
        "interval": None,
        "verdict": "act",
        "reason": "over_threshold",
        "explanation": "",
        "policy": "ratio",
        "threshold": 0.3,
        "retrain": uuid.uuid4(),
        "requested_by": "cron-job.org",
    }
    return RetrainRequested(**{**facts, **more})


# --- what a build does ----------------------------------------------------------------------


async def test_a_folder_becomes_a_promoted_generation(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    ended = await rig.build()
    assert ended.outcome == "promoted"
    assert (ended.generation_before, ended.generation_after) == (None, 1)
    assert (await rig.search("What Returns says in part 1"))["results"][0]["source"] == "returns.md"


async def test_the_first_build_counts_everything_as_added(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    counts = (await rig.build()).counts
    assert counts.model_dump() == {
        "documents": 3, "added": 3, "changed": 0, "removed": 0,
        "chunks": 9, "embedded": 9, "reused": 0, "skipped": [],
    }  # fmt: skip
    assert len(rig.embedder.built) == 9


INDEXES = "select count(*) from pg_indexes where tablename = 'vector_1' and indexdef like '%hnsw%'"


@pytest.mark.parametrize("few", [True, False])
async def test_vectors_have_an_index_after_their_first_build_and_many_from_the_beginning(
    start: Start, knowledge: Path, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    rig, meanwhile = await start_rig(start, knowledge_dir=knowledge), list[int]()
    if not few:
        monkeypatch.setattr(tables, "_LATER", 8 * 64)

    async def look(texts: Sequence[str]) -> None:
        meanwhile.append(await rig.value(INDEXES))

    rig.embedder.before = look
    assert (await rig.build()).outcome == "promoted"
    assert meanwhile[0] == (0 if few else 1)
    assert await rig.value(INDEXES) == 1


async def test_an_index_that_two_builds_make_at_once_is_made_once(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    await rig.value("drop index feedback_loop.vector_1_embedding_idx")

    async def make() -> None:
        async with rig.database.connection() as connection:
            await tables.index_vectors(connection, 1)

    await asyncio.gather(*(make() for _ in range(4)))
    assert await rig.value(INDEXES) == 1


async def test_later_builds_count_what_differs(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    (knowledge / "payment.md").unlink()
    write(knowledge, returns=article("Returns", 4), coupons=article("Coupons", 2))
    counts = (await rig.build()).counts
    assert (counts.documents, counts.added, counts.changed, counts.removed) == (3, 1, 1, 1)
    assert (counts.chunks, counts.embedded, counts.reused) == (9, 3, 6)


async def test_what_cannot_be_read_is_named_and_the_rest_goes_on(start: Start, knowledge: Path) -> None:
    (knowledge / "broken.pdf").write_bytes(b"%PDF-1.4 not really")
    (knowledge / "binary.txt").write_bytes(bytes(range(256)) * 8)
    rig = await start_rig(start, knowledge_dir=knowledge)
    ended = await rig.build()
    assert (ended.outcome, ended.counts.documents) == ("promoted", 3)
    assert [skipped.source for skipped in ended.counts.skipped] == ["binary.txt", "broken.pdf"]
    assert all(skipped.reason for skipped in ended.counts.skipped)


async def test_nothing_changed_is_said_and_nothing_is_embedded(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    rig.embedder.built.clear()
    ended = await rig.build()
    assert (ended.outcome, ended.generation_after) == ("unchanged", 1)
    assert ended.detail
    assert rig.embedder.built == []
    assert await rig.value("select count(*) from feedback_loop.generation") == 1


async def test_an_edit_embeds_its_own_section_only(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    rig.embedder.built.clear()
    text = article("Returns").replace("says in part 1", "says now in part 1")
    write(knowledge, returns=text)
    ended = await rig.build()
    assert ended.outcome == "promoted"
    assert rig.embedder.built == ["Returns › Part 1\nWhat Returns says now in part 1."]


async def test_the_same_content_in_two_documents_is_embedded_once(start: Start, tmp_path: Path) -> None:
    write(tmp_path, one=article("Terms"), two=article("Terms"))
    rig = await start_rig(start, knowledge_dir=tmp_path)
    counts = (await rig.build()).counts
    assert (counts.chunks, counts.embedded, counts.reused) == (6, 3, 3)
    assert len(rig.embedder.built) == 3


async def test_a_deleted_file_disappears_from_search_and_view(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    (knowledge / "payment.md").unlink()
    assert (await rig.build()).outcome == "promoted"
    assert set(await rig.sources("What Payment says in part 0", 50)) == {"returns.md", "delivery.md"}
    shown = await rig.rows("select distinct source from feedback_loop.active_chunk order by 1")
    assert shown == [("delivery.md",), ("returns.md",)]


async def test_the_view_has_text_source_and_vector(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    rows = await rig.rows(
        "select source, ordinal, heading, text, generation, vector_dims(vector)"
        " from feedback_loop.active_chunk where app = 'default' and source = 'returns.md' and ordinal = 2"
    )
    assert rows == [("returns.md", 2, "Returns › Part 2", "What Returns says in part 2.", 1, 64)]


async def test_a_retrain_carries_who_and_why_to_its_outcome(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    event = retrain()
    ended = await rig.retrain(event)
    assert (ended.retrain, ended.run, ended.ratio) == (event.retrain, event.run, 0.41)
    assert (ended.outcome, ended.reason, ended.requested_by) == ("promoted", "feedback", "cron-job.org")
    assert (ended.gate["planned"], ended.gate["shown"], ended.gate["embedded"]) == (9, 9, 9)
    assert ended.seconds is not None


async def test_apps_have_generations_of_their_own(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    await rig.post("manual", article("Manual"), app="shop")
    await rig.settled()
    assert {hit["source"] for hit in (await rig.search("part", 50, app="shop"))["results"]} == {"manual"}
    assert "manual" not in await rig.sources("What Manual says in part 0", 50)


async def test_a_build_of_many_batches_ends(start: Start, tmp_path: Path) -> None:
    write(tmp_path, long=article("Long", 40))
    rig = await start_rig(start, knowledge_dir=tmp_path, embedding_batch=1)
    assert (await rig.build()).outcome == "promoted"
    requested = "select count(*) from feedback_loop.outbox where type = 'embedding.requested'"
    assert await rig.value(requested) == 40
    assert len(rig.embedder.built) == 40


# --- what ends a build otherwise ------------------------------------------------------------


async def test_an_empty_folder_is_rejected(start: Start, tmp_path: Path) -> None:
    rig = await start_rig(start, knowledge_dir=tmp_path)
    ended = await rig.build()
    assert (ended.outcome, ended.generation_after) == ("rejected", None)
    assert "empty" in ended.detail
    assert [skipped.source for skipped in ended.counts.skipped] == [str(tmp_path)]


async def test_a_missing_folder_is_rejected_and_named(start: Start, tmp_path: Path) -> None:
    rig = await start_rig(start, knowledge_dir=tmp_path / "nowhere")
    ended = await rig.build()
    assert ended.outcome == "rejected"
    assert "does not exist" in ended.counts.skipped[0].reason


def _remove(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _empty(folder: Path) -> None:
    _remove(folder)
    folder.mkdir()


@pytest.mark.parametrize("lose", [_remove, _empty])
async def test_a_folder_that_gets_lost_takes_nothing_with_it(
    start: Start, knowledge: Path, lose: Callable[[Path], None]
) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    lose(knowledge)
    ended = await rig.build()
    assert ended.outcome == "unchanged"
    assert ended.counts.skipped[0].source == str(knowledge)
    assert len(await rig.sources("What Returns says", 50)) == 9


async def test_a_generation_without_all_its_vectors_is_rejected(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    write(knowledge, coupons=article("Coupons"))
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: Sequence[str]) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    asked = await rig.publish(GenerationRequested(reason="manual"))
    await held.wait()
    await rig.value(
        "delete from feedback_loop.vector_1 where chunk_hash ="
        " (select chunk_hash from feedback_loop.generation_chunk where source = 'returns.md' limit 1)"
    )
    release.set()
    ended = await rig.end_of(asked)
    assert (ended.outcome, ended.generation_after) == ("rejected", 1)
    assert ended.gate == {"planned": 12, "shown": 12, "embedded": 11}


async def test_a_lost_vector_is_embedded_again(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    await rig.value("delete from feedback_loop.vector_1")
    ended = await rig.build()
    assert (ended.outcome, ended.counts.embedded) == ("promoted", 9)


async def test_a_build_that_was_overtaken_is_superseded_and_its_documents_built_again(
    start: Start, knowledge: Path
) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    await rig.build()
    write(knowledge, coupons=article("Coupons"))
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: Sequence[str]) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    event = retrain()
    asked = await rig.publish(event)
    await held.wait()
    async with rig.database.transaction() as connection:  # another one, promoted meanwhile
        await connection.execute(
            "insert into feedback_loop.generation (app, model, chunker, base, reason, state, chunks, batches,"
            " remaining, counts, starts_anew)"
            " select app, model, chunker, id, 'manual', 'promoted', chunks, 0, 0, counts, false"
            " from feedback_loop.generation where id = 1"
        )
        await connection.execute(
            "update feedback_loop.active_generation set generation ="
            " (select max(id) from feedback_loop.generation)"
        )
    release.set()
    ended = await rig.end_of(asked)
    assert (ended.outcome, ended.retrain, ended.generation_before) == ("superseded", event.retrain, 1)
    assert ended.generation_after == 3
    await rig.settled()
    assert [later.outcome for later in rig.outcomes.of(asked.id)] == ["superseded", "promoted"]
    assert "coupons.md" in await rig.sources("What Coupons says in part 0")


async def test_documents_that_come_while_building_are_built_after_it(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: Sequence[str]) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    asked = await rig.publish(GenerationRequested(reason="manual"))
    await held.wait()
    await rig.post("late", article("Late"))
    release.set()
    assert (await rig.end_of(asked)).counts.documents == 3
    await rig.settled()
    assert (await rig.sources("What Late says in part 0"))[0] == "late"


async def test_a_refusing_embedder_fails_the_build_once(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)

    async def refuse(texts: Sequence[str]) -> None:
        raise Reject("the key is wrong")

    rig.embedder.before = refuse
    event = retrain()
    ended = await rig.retrain(event)
    await rig.settled()
    assert (ended.outcome, ended.detail, ended.retrain) == ("failed", "the key is wrong", event.retrain)
    assert (ended.counts.embedded, ended.counts.reused) == (0, 0)
    assert len(rig.outcomes.completed) == 1


async def test_a_failing_embedder_ends_on_top_of_the_ladder(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)

    async def fail(texts: Sequence[str]) -> None:
        raise ArithmeticError("no luck")

    rig.embedder.before = fail
    ended = await rig.retrain(retrain())
    await rig.settled()
    assert (ended.outcome, ended.detail) == ("failed", "ArithmeticError: no luck")
    assert len(rig.outcomes.completed) == 1
    assert rig.outcomes.failures[0].attempts == 4


async def test_a_failed_build_does_not_block_the_next(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    luck = iter([False])

    async def fail_first(texts: Sequence[str]) -> None:
        if not next(luck, True):
            raise Reject("once")

    rig.embedder.before = fail_first
    assert (await rig.build("documents")).outcome == "failed"
    await rig.settled()
    assert (await rig.build("documents")).outcome == "promoted"
    assert sorted(rig.embedder.built) == sorted(set(rig.embedder.built))


async def test_documents_that_came_while_a_build_failed_are_built(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    held, release = asyncio.Event(), asyncio.Event()

    async def fail_first(texts: Sequence[str]) -> None:
        if not held.is_set():
            held.set()
            await release.wait()
            raise Reject("once")

    rig.embedder.before = fail_first
    asked = await rig.publish(GenerationRequested(reason="manual"))
    await held.wait()
    await rig.post("late", article("Late"))
    release.set()
    assert (await rig.end_of(asked)).outcome == "failed"
    await rig.settled()
    assert (await rig.sources("What Late says in part 0"))[0] == "late"


async def test_a_failed_retrain_is_freed(start: Start, knowledge: Path) -> None:
    async def refuse(texts: Sequence[str]) -> None:
        raise Reject("the key is wrong")

    embedder = Bigrams()
    embedder.before = refuse
    rig = await start_rig(start, embedder, more=[build_analyzer], knowledge_dir=knowledge)
    event = retrain()
    await rig.value(
        "insert into feedback_loop.retrain (id, app, run) values ($1, 'default', $2)",
        event.retrain,
        event.run,
    )
    await rig.retrain(event)
    await rig.settled()
    freed = await rig.rows("select outcome, finished_at is not null from feedback_loop.retrain")
    assert freed == [("failed", True)]


async def test_an_embedder_that_is_away_parks_the_build_until_it_is_back(
    start: Start, knowledge: Path
) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    calls = 0

    async def back() -> None:
        pass

    async def away(texts: Sequence[str]) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise Unavailable("embedding API", "503", back)

    rig.embedder.before = away
    ended = await rig.build()
    assert ended.outcome == "promoted"
    assert len(rig.embedder.built) == 9
    assert await rig.value("select coalesce(sum(failures), 0) from feedback_loop.attempt") == 0


# --- the same event twice, and replicas -----------------------------------------------------


async def test_duplicates_of_every_event_change_nothing(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    await rig.build()
    await rig.settled()
    events = "select envelope from feedback_loop.outbox order by event_id"
    state = "select id, state, remaining, embedded, finished_at from feedback_loop.generation order by id"
    before = await rig.rows(events), await rig.rows(state)
    rig.embedder.built.clear()
    await publish_envelopes(rig.runtime.kernel, *[from_json(envelope) for (envelope,) in before[0]])
    await rig.build()  # it comes after them in the queue
    after = await rig.rows(events), await rig.rows(state)
    assert after[1] == before[1]
    assert rig.embedder.built == []
    assert [ended.outcome for _, ended in rig.outcomes.completed] == ["promoted", "unchanged"]


@pytest.mark.parametrize("replayed", ["embedding", "built"])
async def test_a_step_replayed_by_hand_changes_nothing(start: Start, knowledge: Path, replayed: str) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    await rig.build()
    rig.embedder.built.clear()
    if replayed == "embedding":
        await rig.publish(EmbeddingRequested(generation=1, batch=0))
    else:
        await rig.publish(GenerationBuilt(generation=1, chunks=9, batches=5))
    await rig.settled()
    assert rig.embedder.built == []
    assert len(rig.outcomes.completed) == 1


async def test_replicas_share_a_build(start: Start, amqp_url: str, exchange: str, tmp_path: Path) -> None:
    write(tmp_path, **{f"d{number}": article(f"Document {number}", 10) for number in range(6)})
    settings: dict[str, Any] = {
        "knowledge_dir": tmp_path,
        "embedding_batch": 2,
        "amqp_url": amqp_url,
        "amqp_exchange": exchange,
    }
    rig = await start_rig(start, **settings)
    other = Bigrams()
    replica = await start([partial(build, embedder=other)], **settings)

    async def take_time(texts: Sequence[str]) -> None:
        await asyncio.sleep(0.02)

    rig.embedder.before = other.before = take_time
    try:
        ended = await rig.build()
        await rig.settled()
    finally:
        await sweep(amqp_url, replica.kernel.bus.topology, ["embedder", "listener"])
    assert (ended.outcome, ended.counts.embedded) == ("promoted", 60)
    texts = rig.embedder.built + other.built
    assert len(texts) == len(set(texts)) == 60
    assert len(rig.embedder.built) >= 10
    assert len(other.built) >= 10
    built = "select count(*) from feedback_loop.outbox where type = 'generation.built'"
    assert await rig.value(built) == 1
    assert await rig.value("select count(*) from feedback_loop.promotion") == 1


async def test_two_builds_at_once_embed_their_content_once(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)
    asked = [await rig.publish(GenerationRequested(reason="manual")) for _ in range(2)]
    ended = [await rig.end_of(envelope) for envelope in asked]
    await rig.settled()
    assert len(rig.embedder.built) == 9
    assert sum(end.counts.embedded for end in ended) == 9
    assert sorted(end.outcome for end in ended) in (["promoted", "superseded"], ["promoted", "unchanged"])


# --- what is kept ---------------------------------------------------------------------------


async def test_the_last_three_generations_are_kept(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    for number in range(5):
        write(knowledge, returns=article(f"Returns {number}"))
        assert (await rig.build()).outcome == "promoted"
    kept = await rig.rows("select distinct generation from feedback_loop.generation_chunk order by 1")
    assert kept == [(3,), (4,), (5,)]
    # Six shared by all three, and three more in each.
    assert await rig.value("select count(*) from feedback_loop.vector_1") == 15
    assert await rig.value("select count(*) from feedback_loop.chunk") == 15
    assert await rig.value("select count(*) from feedback_loop.batch") == 0


async def test_a_document_not_yet_built_outlives_the_cleaning(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge)
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: Sequence[str]) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    asked = await rig.publish(GenerationRequested(reason="manual"))
    await held.wait()
    await rig.post("late", article("Late"))
    release.set()
    await rig.end_of(asked)
    await rig.settled()
    assert await rig.value("select count(*) from feedback_loop.active_chunk where source = 'late'") == 3


# --- another model --------------------------------------------------------------------------


async def test_another_model_embeds_everything_in_a_table_of_its_own(start: Start, knowledge: Path) -> None:
    first = await start_rig(start, knowledge_dir=knowledge)
    await first.build()
    await first.runtime.stop()
    second = await start_rig(start, Bigrams(96, "bigrams-96"), knowledge_dir=knowledge)
    ended = await second.build()
    assert (ended.outcome, ended.counts.embedded, ended.counts.changed) == ("promoted", 9, 0)
    tables = await second.rows("select name, dimensions from feedback_loop.model order by id")
    assert tables == [("bigrams", 64), ("bigrams-96", 96)]
    dimensions = "select distinct vector_dims(vector) from feedback_loop.active_chunk"
    assert await second.rows(dimensions) == [(96,)]
    assert (await second.sources("What Returns says in part 1"))[0] == "returns.md"


async def test_the_view_shows_apps_of_different_models(start: Start) -> None:
    first = await start_rig(start)
    await first.post("a", article("A"), app="one")
    await first.settled()
    await first.runtime.stop()
    second = await start_rig(start, Bigrams(96, "bigrams-96"))
    await second.post("b", article("B"), app="two")
    await second.settled()
    shown = "select distinct app, source, vector_dims(vector) from feedback_loop.active_chunk order by 1"
    assert await second.rows(shown) == [("one", "a", 64), ("two", "b", 96)]


async def test_a_model_of_more_than_2000_dimensions_is_indexed_as_halfvec(
    start: Start, knowledge: Path
) -> None:
    rig = await start_rig(start, Bigrams(3072, "large"), knowledge_dir=knowledge)
    assert (await rig.build()).outcome == "promoted"
    kind = "select atttypid::regtype::text from pg_attribute where attrelid = $1::regclass and attname = $2"
    assert await rig.value(kind, "feedback_loop.vector_1", "embedding") == "halfvec"
    assert (await rig.sources("What Returns says in part 1"))[0] == "returns.md"


@pytest.mark.parametrize(("dimensions", "within"), [(64, 0), (3072, 0.001)])
async def test_vectors_are_stored_as_they_are_and_stay(start: Start, dimensions: int, within: float) -> None:
    """Also where another build has stored some of them meanwhile."""
    rig = await start_rig(start, Bigrams(dimensions, "m"))
    given = await rig.embedder.embed([f"text {n}" for n in range(4)])
    async with rig.database.transaction() as connection:
        model = await tables.register_model(connection, "m", dimensions)
    for hashes, vectors in ((["b", "a"], given[:2]), (["c", "b", "d"], given[1:])):
        async with rig.database.transaction() as connection:
            await tables.store_vectors(connection, model, hashes, vectors)
    async with rig.database.connection() as connection:
        stored = await dense.vectors(connection, model, ["a", "b", "c", "d"])
    for hash, vector in (("a", given[1]), ("b", given[0]), ("c", given[1]), ("d", given[3])):
        assert np.abs(np.array(stored[hash]) - vector).max() <= within


@pytest.mark.parametrize(("dimensions", "said"), [(96, "64 dimensions before and gives 96"), (4001, "4001")])
async def test_other_dimensions_under_one_name_fail_clearly(
    start: Start, knowledge: Path, dimensions: int, said: str
) -> None:
    first = await start_rig(start, knowledge_dir=knowledge)
    await first.build()
    await first.runtime.stop()
    second = await start_rig(start, Bigrams(dimensions), knowledge_dir=knowledge)
    write(knowledge, coupons=article("Coupons"))
    ended = await second.build()
    assert (ended.outcome, ended.generation_after) == ("failed", 1)
    assert said in ended.detail


async def test_dimensions_that_change_in_mid_build_fail_clearly(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)

    async def change(texts: Sequence[str]) -> None:
        rig.embedder._dimensions = 96

    rig.embedder.before = change
    ended = await rig.build()
    assert ended.outcome == "failed"
    assert "gave 96 dimensions, and 64 before" in ended.detail


async def test_a_build_of_a_model_that_is_no_longer_configured_fails(start: Start, knowledge: Path) -> None:
    rig = await start_rig(start, knowledge_dir=knowledge, embedding_batch=2)

    async def change(texts: Sequence[str]) -> None:
        rig.embedder.model = "another"

    rig.embedder.before = change
    ended = await rig.build()
    assert ended.outcome == "failed"
    assert "reconfigured" in ended.detail


async def test_the_real_model_finds_by_meaning(start: Start, tmp_path: Path) -> None:
    shop = {
        "Refunds": "You get your money back within five days.",
        "Shipping": "Parcels take two days inside the country.",
        "Accounts": "Change your password in the settings.",
    }
    write(tmp_path, shop=article("Shop", shop))
    rig = await start_rig(start, configured=True, knowledge_dir=tmp_path)
    assert (await rig.build()).counts.embedded == 3
    best = (await rig.search("배송은 며칠 걸리나요?", 1))["results"][0]
    assert best["heading"] == "Shop › Shipping"
