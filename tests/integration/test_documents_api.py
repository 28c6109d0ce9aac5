"""`/documents`: what is taken, what is refused and how, what a deletion does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.embedder.documents_api import LARGEST_BODY
from tests.support.embedder import Rig, article, start_rig, write

Start = Callable[..., Any]
PDF = Path(__file__).parents[2] / "services/commands/demo/knowledge/en/campus-library-guide.pdf"


@pytest.fixture
async def rig(start: Start) -> Rig:
    return await start_rig(start)


async def sources(rig: Rig, **query: str) -> list[str]:
    """The documents there are."""
    _, body = await rig.call("GET", "/documents", **query)
    return [document["source"] for document in body["documents"]]


# --- what is taken --------------------------------------------------------------------------


async def test_a_posted_document_is_found(rig: Rig) -> None:
    status, body = await rig.call("POST", "/documents", {"source": "faq", "content": article("FAQ")})
    assert (status, body) == (202, {"status": "ok", "documents": 1})
    await rig.settled()
    assert (await rig.sources("What FAQ says in part 2"))[0] == "faq"


async def test_several_are_posted_at_once(rig: Rig) -> None:
    documents = [{"source": f"d{n}.md", "content": article(f"Document {n}")} for n in range(5)]
    status, body = await rig.call("POST", "/documents", documents)
    assert (status, body["documents"]) == (202, 5)
    await rig.settled()
    assert await sources(rig) == [f"d{n}.md" for n in range(5)]
    assert len(rig.outcomes.completed) == 1


async def test_a_pdf_is_posted_in_base64(rig: Rig) -> None:
    wrapped = base64.encodebytes(PDF.read_bytes()).decode()  # with line breaks, as `base64` prints it
    status, _ = await rig.call("POST", "/documents", {"source": "guide.pdf", "content_base64": wrapped})
    assert status == 202
    await rig.settled()
    _, body = await rig.call("GET", "/documents")
    document = body["documents"][0]
    assert (document["media_type"], document["origin"]) == ("application/pdf", "api")
    assert document["chunks"] > 1


async def test_a_second_post_replaces_the_first(rig: Rig) -> None:
    await rig.post("faq", article("Old", {"Hours": "We open at nine."}))
    await rig.settled()
    await rig.post("faq", article("New", {"Hours": "We open at ten."}))
    await rig.settled()
    assert [hit["text"] for hit in (await rig.search("open"))["results"]] == ["We open at ten."]


async def test_documents_that_are_posted_again_unchanged_build_nothing(rig: Rig) -> None:
    for _ in range(2):
        await rig.post("faq", article("FAQ"))
        await rig.settled()
    assert [ended.outcome for _, ended in rig.outcomes.completed] == ["promoted", "unchanged"]


async def test_a_source_has_one_name_in_every_unicode_form(rig: Rig) -> None:
    await rig.post("환불", article("환불"))
    await rig.post("환불", article("환불", 2))  # decomposed
    assert await sources(rig) == ["환불"]


async def test_a_burst_is_few_builds_and_ends_with_all_of_it(rig: Rig) -> None:
    texts = {f"d{n}": article(f"Document {n}", {"Only": f"Text {n}"}) for n in range(30)}
    await asyncio.gather(*(rig.post(source, text) for source, text in texts.items()))
    await rig.settled()
    found = {hit["source"] for hit in (await rig.search("Text", 100))["results"]}
    assert found == texts.keys()
    assert len(rig.outcomes.completed) <= 10
    assert len(rig.embedder.built) == 30


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content": "text"}, "source"),
        ({"source": "", "content": "text"}, "source"),
        ({"source": "x" * 501, "content": "text"}, "source"),
        ({"source": "nul\0", "content": "text"}, "source"),
        ({"source": "\ud800", "content": "text"}, "source"),
        ({"source": "a"}, "body"),
        ({"source": "a", "content": "x", "content_base64": "eA=="}, "body"),
        ({"source": "a", "content": 5}, "content"),
        ({"source": "a", "content": ""}, "content"),
        ({"source": "a", "content": " \n\t"}, "content"),
        ({"source": "a", "content": "\0\1\2" * 50}, "content"),
        ({"source": "a.docx", "content_base64": "UEsDBBQABgAIAAAA"}, "content_base64"),
        ({"source": "a.pdf", "content_base64": "bm8gcGRm"}, "content_base64"),
        ({"source": "a", "content_base64": "not base64!"}, "content_base64"),
        ({"source": "a", "content_base64": "é"}, "content_base64"),
        ({"source": "a", "content": "x", "app": "no/app"}, "app"),
        ({"source": "a", "content": "x", "tags": []}, "tags"),
        ([], "body"),
        ("text", "body"),
        ([{"source": "a", "content": "x"}, {"source": "b"}], "1"),
        ([{"source": "a", "content": "x"}, {"source": "b", "content": ""}], "1.content"),
        ([{"source": "a", "content": "x"}, {"source": "a", "content": "y"}], "1.source"),
    ],
)
async def test_what_does_not_fit_is_refused_naming_the_field(rig: Rig, body: object, field: str) -> None:
    status, answer = await rig.call("POST", "/documents", body)
    assert (status, answer["field"]) == (422, field)
    assert answer["reason"]
    assert await sources(rig) == []


async def test_too_much_markdown_in_one_document_is_refused(rig: Rig) -> None:
    status, answer = await rig.call("POST", "/documents", {"source": "a", "content": "x" * 3_000_000})
    assert (status, answer["field"], answer["reason"]) == (422, "content", "larger than 2 MB")


async def send(rig: Rig, data: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{rig.runtime.port}/documents"
    async with rig.session.post(url, data=data, headers={"Content-Type": content_type}) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("data", "content_type", "status", "field"),
    [
        (b"{", "application/json", 400, "body"),
        (b"", "application/json", 400, "body"),
        (b"\xff\xfe", "application/json", 400, "body"),
        (b"text", "text/plain", 415, "content-type"),
        (b" " * (LARGEST_BODY + 1), "application/json", 413, "body"),
    ],
    ids=["broken", "empty", "binary", "text", "too large"],
)
async def test_what_is_no_json_is_refused(
    rig: Rig, data: bytes, content_type: str, status: int, field: str
) -> None:
    answered, answer = await send(rig, data, content_type)
    assert (answered, answer["field"]) == (status, field)


async def test_a_body_larger_than_other_routes_take_is_taken(rig: Rig) -> None:
    text = json.dumps({"source": "a.txt", "content": "A line of text.\n\n" * 100_000})
    assert (await send(rig, text.encode(), "application/json"))[0] == 202


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_without_the_token_nothing_is_shown_or_taken(start: Start, method: str) -> None:
    rig = await start_rig(start, api_token="secret")
    assert (await rig.call(method, "/documents", {"source": "a", "content": "x"}))[0] == 401
    assert (await rig.call("GET", "/search", q="x"))[0] == 401


# --- deleting -------------------------------------------------------------------------------


@asynccontextmanager
async def no_build(rig: Rig) -> AsyncIterator[None]:
    """Inside the block a build is under way, and no build ends."""
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(texts: object) -> None:
        held.set()
        await release.wait()

    rig.embedder.before = hold
    await rig.post("late", article("Late"))
    await held.wait()
    yield
    release.set()


async def test_a_deleted_document_disappears_before_any_build(rig: Rig) -> None:
    await rig.post("keep", article("Keep"))
    await rig.post("drop", article("Drop"))
    await rig.settled()
    generation = (await rig.search("part"))["generation"]

    async with no_build(rig):
        await rig.delete("drop")
        found = await rig.search("What Drop says in part 1", 50)
        shown = await rig.rows("select distinct source from feedback_loop.active_chunk")
    assert found["generation"] == generation
    assert {hit["source"] for hit in found["results"]} == {"keep"}
    assert shown == [("keep",)]


async def test_a_document_that_comes_again_does_not_show_its_old_text(rig: Rig) -> None:
    await rig.post("keep", article("Keep"))
    await rig.post("price", article("Price", {"Now": "It costs five."}))
    await rig.settled()

    async with no_build(rig):
        await rig.delete("price")
        await rig.post("price", article("Price", {"Now": "It costs six."}))
        found = await rig.search("It costs five.", 50)
    assert {hit["source"] for hit in found["results"]} == {"keep"}


async def test_a_document_that_comes_again_unchanged_is_found_again(rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    await rig.delete("faq")
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    assert len(await rig.sources("What FAQ says in part 1")) == 3


async def test_deleting_what_is_not_there_is_said(rig: Rig) -> None:
    for source in ("nothing", "", "nul\0"):
        status, answer = await rig.call("DELETE", "/documents", source=source)
        assert (status, answer["field"]) == (404, "source")


async def test_the_last_document_can_be_deleted(rig: Rig) -> None:
    await rig.post("faq", article("FAQ"))
    await rig.settled()
    await rig.delete("faq")
    await rig.settled()
    assert await rig.sources("part") == []
    assert rig.outcomes.completed[-1][1].outcome == "rejected"


# --- beside a folder ------------------------------------------------------------------------


async def test_a_folder_leaves_posted_documents_alone(start: Start, tmp_path: Path) -> None:
    write(tmp_path, file=article("File"))
    rig = await start_rig(start, knowledge_dir=tmp_path)
    await rig.post("posted", article("Posted"))
    await rig.settled()
    assert await sources(rig) == ["file.md", "posted"]


async def test_a_file_whose_document_was_deleted_stays_away_until_it_changes(
    start: Start, tmp_path: Path
) -> None:
    write(tmp_path, file=article("File"), other=article("Other"))
    rig = await start_rig(start, knowledge_dir=tmp_path)
    await rig.build()
    await rig.delete("file.md")
    ended = await rig.build()
    assert await sources(rig) == ["other.md"]
    assert [skipped.source for skipped in ended.counts.skipped] == ["file.md"]
    write(tmp_path, file=article("File", 4))
    await rig.build()
    assert await sources(rig) == ["file.md", "other.md"]


async def test_a_post_over_a_file_counts_until_the_file_changes(start: Start, tmp_path: Path) -> None:
    write(tmp_path, hours=article("Hours", {"Open": "At nine."}))
    rig = await start_rig(start, knowledge_dir=tmp_path)
    await rig.build()
    await rig.post("hours.md", article("Hours", {"Open": "At ten."}))
    await rig.settled()
    assert [hit["text"] for hit in (await rig.search("At"))["results"]] == ["At ten."]
    write(tmp_path, hours=article("Hours", {"Open": "At eleven."}))
    await rig.build()
    assert [hit["text"] for hit in (await rig.search("At"))["results"]] == ["At eleven."]
