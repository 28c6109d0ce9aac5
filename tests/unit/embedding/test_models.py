"""The embedders: the real model, and an API that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr

from shared.embedding.models import make_embedder
from shared.embedding.openai_api import OpenAIEmbedder
from shared.embedding.use_model import UseEmbedder
from shared.failures import Reject, Unavailable
from shared.settings import Settings, SettingsError

KEY = "sk-very-secret"


# --- Universal Sentence Encoder ---------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded() -> UseEmbedder:
    return UseEmbedder()  # the model is loaded once for this module; threads end with the process


class TestUse:
    async def test_vectors_are_normalised_float32(self, loaded: UseEmbedder) -> None:
        vectors = await loaded.embed(["환불은 어떻게 하나요?", "hello", ""])
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)

    async def test_shape_is_texts_by_dimensions(self, loaded: UseEmbedder) -> None:
        assert (await loaded.embed(["a", "b"])).shape == (2, await loaded.dimensions())

    async def test_no_texts_give_no_rows(self, loaded: UseEmbedder) -> None:
        assert (await loaded.embed([])).shape == (0, await loaded.dimensions())

    async def test_order_survives_batching(self, loaded: UseEmbedder) -> None:
        texts = [f"문장 {number} " * (1 + number * 7 % 50) for number in range(30)]
        alone = [(await loaded.embed([text]))[0] for text in texts]
        assert np.allclose(await loaded.embed(texts), alone, atol=1e-5)

    async def test_korean_paraphrase_is_closer_than_another_question(self, loaded: UseEmbedder) -> None:
        question, paraphrase, other = await loaded.embed(
            ["환불은 어떻게 받나요?", "돈을 돌려받고 싶은데 방법이 뭔가요?", "오늘 서울 날씨가 어떤가요?"]
        )
        assert question @ paraphrase > question @ other + 0.1

    async def test_korean_meets_english(self, loaded: UseEmbedder) -> None:
        korean, same, other = await loaded.embed(
            ["비밀번호를 잊어버렸어요", "I forgot my password", "The weather is nice today"]
        )
        assert korean @ same > korean @ other + 0.1

    async def test_text_that_is_no_unicode_is_embedded(self, loaded: UseEmbedder) -> None:
        assert np.isfinite(await loaded.embed(["a\ud800\0\uffff\U0001f468\u200d"])).all()

    async def test_check_passes(self, loaded: UseEmbedder) -> None:
        await loaded.check()

    async def test_model_is_not_loaded_before_the_first_text(self) -> None:
        embedder = UseEmbedder()
        await embedder.dimensions()
        assert embedder._use is None


class Slow:
    """In place of the model: records its batches, each of which ends when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Semaphore(0)

    def encode(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.batches.append(texts)
        assert self.go.acquire(timeout=5)
        return np.ones((len(texts), 512), np.float32)


class TestTurns:
    @pytest.fixture
    def slow(self) -> Slow:
        return Slow()

    @pytest.fixture
    async def embedder(self, slow: Slow) -> AsyncIterator[UseEmbedder]:
        embedder = UseEmbedder()
        embedder._use = slow
        yield embedder
        slow.go.release(100)
        await embedder.close()

    async def test_search_passes_waiting_batches(self, slow: Slow, embedder: UseEmbedder) -> None:
        build = asyncio.create_task(embedder.embed(["a" * 900, "b" * 900, "c" * 900]))
        other = asyncio.create_task(embedder.embed(["d"]))
        await asyncio.sleep(0.01)
        search = asyncio.create_task(embedder.embed(["q"], urgent=True))
        await asyncio.sleep(0.01)
        slow.go.release(100)
        await asyncio.gather(build, other, search)
        assert [batch[0][0] for batch in slow.batches] == ["a", "q", "d", "b", "c"]

    async def test_build_goes_on_while_searches_never_end(self, slow: Slow, embedder: UseEmbedder) -> None:
        slow.go.release(10_000)
        build = asyncio.create_task(embedder.embed(["a" * 900, "b" * 900, "c" * 900]))

        async def search() -> None:
            while not build.done() and len(slow.batches) < 500:
                await embedder.embed(["q"], urgent=True)

        await asyncio.gather(*(search() for _ in range(30)))
        assert build.done()
        await build

    async def test_cancelled_calls_leave_it_usable(self, slow: Slow, embedder: UseEmbedder) -> None:
        calls = [asyncio.create_task(embedder.embed([text])) for text in "abc"]
        await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        slow.go.release(100)
        assert (await embedder.embed(["d"])).shape == (1, 512)

    async def test_call_cancelled_as_its_turn_comes_passes_it_on(
        self, slow: Slow, embedder: UseEmbedder
    ) -> None:
        first, second, third = (asyncio.create_task(embedder.embed([text])) for text in "abc")
        await asyncio.sleep(0.01)
        slow.go.release(100)
        await first
        second.cancel()
        assert (await third).shape == (1, 512)

    async def test_model_that_does_not_load_says_what_to_do(self, embedder: UseEmbedder) -> None:
        embedder._use = object()
        with pytest.raises(Reject, match="EMBEDDER=openai"):
            await embedder.check()


# --- an OpenAI-compatible API -----------------------------------------------------------------

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class Api:
    """A local API: answers as scripted, one entry for each request, then properly."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        answer = self.script.pop(0) if self.script else proper
        return await answer(request, body)

    def embedder(self, **options: Any) -> OpenAIEmbedder:
        return OpenAIEmbedder(self.url, KEY, "small", **options)


def row(index: int, text: str, dimensions: int = 3) -> dict[str, Any]:
    return {"index": index, "embedding": [float(len(text)), 1.0, *[0.0] * (dimensions - 2)]}


async def proper(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    rows = [row(index, text) for index, text in enumerate(body["input"])]
    return web.json_response({"data": rows[::-1]})


def status(code: int, message: str = "no", **headers: str) -> Answer:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": message}}, status=code, headers=headers)

    return answer


def says(text: str) -> Answer:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=text, content_type="application/json")

    return answer


async def endless(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 2**20)
    return response


async def hang_up(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def hang_up_midway(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"data": [')
    return await hang_up(request, body)


async def dawdle(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(1)
    return await proper(request, body)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    application = web.Application()
    application.router.add_post("/v1/embeddings", api.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield api
    await runner.cleanup()


@pytest.fixture
async def embedder(api: Api) -> AsyncIterator[OpenAIEmbedder]:
    embedder = api.embedder()
    yield embedder
    await embedder.close()


class TestOpenAI:
    async def test_rows_follow_the_index_and_are_normalised(self, embedder: OpenAIEmbedder) -> None:
        vectors = await embedder.embed(["a", "bbb"])
        expected = [[1 / 2**0.5, 1 / 2**0.5, 0], [3 / 10**0.5, 1 / 10**0.5, 0]]
        assert np.allclose(vectors, expected)

    async def test_request_is_openai_s(self, api: Api, embedder: OpenAIEmbedder) -> None:
        await embedder.embed(["a"])
        assert api.requests == [{"model": "small", "input": ["a"], "encoding_format": "float"}]

    async def test_key_is_sent_as_bearer(self, api: Api, embedder: OpenAIEmbedder) -> None:
        await embedder.embed(["a"])
        assert api.headers[0]["Authorization"] == f"Bearer {KEY}"

    async def test_request_has_128_texts_at_most(self, api: Api, embedder: OpenAIEmbedder) -> None:
        await embedder.embed(["x"] * 300)
        assert [len(request["input"]) for request in api.requests] == [128, 128, 44]

    async def test_dimensions_are_asked_for_once(self, api: Api, embedder: OpenAIEmbedder) -> None:
        assert [await embedder.dimensions(), await embedder.dimensions(), len(api.requests)] == [3, 3, 1]

    async def test_no_texts_give_no_rows(self, embedder: OpenAIEmbedder) -> None:
        assert (await embedder.embed([])).shape == (0, 3)


class TestTransientFailures:
    @pytest.mark.parametrize("answer", [hang_up, hang_up_midway, status(408), status(503)])
    async def test_one_failure_is_outlived(self, api: Api, embedder: OpenAIEmbedder, answer: Answer) -> None:
        api.script = [answer]
        assert (await embedder.embed(["a"])).shape == (1, 3)

    async def test_two_server_errors_are_outlived(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [status(500), status(500)]
        await embedder.embed(["a"])
        assert len(api.requests) == 3

    async def test_retry_after_is_kept(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [status(429, **{"Retry-After": "1"})]
        began = time.monotonic()
        await embedder.embed(["a"])
        assert time.monotonic() - began >= 1

    async def test_too_long_a_retry_after_is_not_waited_for(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [status(429, "over quota", **{"Retry-After": "3600"})]
        with pytest.raises(Unavailable, match="429 over quota"):
            await asyncio.wait_for(embedder.embed(["a"]), 2)

    async def test_slow_answer_is_unavailable(self, api: Api) -> None:
        api.script = [dawdle]
        embedder = api.embedder(timeout=0.1, patience=0)
        with pytest.raises(Unavailable, match="no answer in time"):
            await embedder.embed(["a"])
        await embedder.close()

    async def test_api_that_is_not_there_is_unavailable(self) -> None:
        embedder = OpenAIEmbedder("http://127.0.0.1:1/v1", None, "small", patience=0)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await embedder.embed(["a"])
        await embedder.close()

    async def test_probe_fails_while_the_api_is_down(self, api: Api) -> None:
        api.script = [status(500), status(500)]
        embedder = api.embedder(patience=0)
        with pytest.raises(Unavailable) as caught:
            await embedder.embed(["a"])
        with pytest.raises(Exception, match="500"):
            await caught.value.probe()
        await embedder.close()

    async def test_probe_succeeds_when_the_api_answers_again(self, api: Api) -> None:
        api.script = [status(500), status(401)]
        embedder = api.embedder(patience=0)
        with pytest.raises(Unavailable) as caught:
            await embedder.embed(["a"])
        await caught.value.probe()
        await embedder.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "setting"),
        [
            (400, "OPENAI_EMBEDDING_MODEL"),
            (401, "OPENAI_API_KEY"),
            (403, "OPENAI_API_KEY"),
            (404, "OPENAI_BASE_URL and OPENAI_EMBEDDING_MODEL"),
            (413, "EMBEDDING_BATCH"),
            (418, "OPENAI_BASE_URL"),
        ],
    )
    async def test_refusal_names_the_setting(
        self, api: Api, embedder: OpenAIEmbedder, code: int, setting: str
    ) -> None:
        api.script = [status(code)]
        with pytest.raises(Reject, match=setting):
            await embedder.check()

    async def test_redirect_is_not_followed(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [status(307, Location="/v1/embeddings")]
        with pytest.raises(Reject, match="redirects"):
            await embedder.embed(["a"])

    @pytest.mark.parametrize("code", [400, 401, 429])
    async def test_key_is_in_no_error(self, api: Api, code: int) -> None:
        api.script = [status(code, f"Incorrect API key provided: {KEY}")]
        embedder = api.embedder(patience=0)
        with pytest.raises((Reject, Unavailable)) as caught:
            await embedder.embed(["a"])
        assert KEY not in f"{caught.value!r} {caught.value} {embedder!r}"
        await embedder.close()

    async def test_endless_answer_is_not_read_to_its_end(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [endless]
        with pytest.raises(Reject, match="larger than"):
            await embedder.embed(["a"])

    @pytest.mark.parametrize(
        "answer",
        [
            {"data": []},
            {"data": [row(0, "a"), row(1, "b"), row(2, "c")]},
            {"data": [row(0, "a"), row(0, "b")]},
            {"data": [row(0, "a"), row(1, "b", dimensions=4)]},
            {"data": [row(0, "a"), {"index": 1, "embedding": [float("nan"), 1, 0]}]},
            {"data": [row(0, "a"), {"index": 1, "embedding": [0, 0, 0]}]},
            {"data": [row(0, "a"), {"index": 1, "embedding": "AAAA"}]},
            {"data": [row(0, "a"), {"index": 1, "embedding": [1e300, 1e300, 0]}]},
            {"data": [row(0, "a"), {"index": 1, "embedding": [None, 1, 0]}]},
            {"embeddings": [[1, 2, 3], [4, 5, 6]]},
            [1, 2],
        ],
    )
    async def test_answer_that_is_not_whole_is_refused(
        self, api: Api, embedder: OpenAIEmbedder, answer: object
    ) -> None:
        api.script = [says(json.dumps(answer))]
        with pytest.raises(Reject, match="no embeddings"):
            await embedder.embed(["a", "b"])

    async def test_page_instead_of_json_is_refused(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [says("<html>welcome</html>")]
        with pytest.raises(Reject, match="OPENAI_BASE_URL"):
            await embedder.embed(["a"])

    async def test_change_of_dimensions_is_refused(self, api: Api, embedder: OpenAIEmbedder) -> None:
        api.script = [proper, says(json.dumps({"data": [row(0, "a", dimensions=4)]}))]
        await embedder.embed(["a"])
        with pytest.raises(Reject, match="gives 4 dimensions, before it gave 3"):
            await embedder.embed(["a"])

    async def test_other_dimensions_than_expected_are_refused(self, api: Api) -> None:
        embedder = api.embedder(expected_dimensions=1536)
        with pytest.raises(Reject, match="gives 3 dimensions, before it gave 1536"):
            await embedder.embed(["a"])
        await embedder.close()


class TestSettings:
    def test_default_is_use(self) -> None:
        assert make_embedder(Settings(_env_file=None)).model == "use-multilingual-v3"

    def test_api_s_model_names_the_api(self) -> None:
        settings = Settings(_env_file=None, embedder="openai", openai_embedding_model="bge-m3")
        assert make_embedder(settings).model == "openai/bge-m3"

    @pytest.mark.parametrize(
        "url", ["", "localhost:11434/v1", "ftp://x/v1", "http://u:p@x/v1", "http://x:y/v1"]
    )
    def test_address_that_is_none_is_refused(self, url: str) -> None:
        settings = Settings(_env_file=None, embedder="openai").model_copy(update={"openai_base_url": url})
        with pytest.raises(SettingsError, match="OPENAI_BASE_URL"):
            make_embedder(settings)

    def test_key_with_a_line_break_is_refused(self) -> None:
        settings = Settings(_env_file=None, embedder="openai", openai_api_key=SecretStr("sk\nx"))
        with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
            make_embedder(settings)
