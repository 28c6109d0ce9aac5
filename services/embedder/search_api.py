"""The embedder's HTTP routes for search."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from services.embedder.found import Question
from shared.failures import Reject, Unavailable
from shared.runtime import Kernel
from shared.web import http

if TYPE_CHECKING:
    from services.embedder.search import Searcher

__all__ = ["SearchApi"]

MOST_RESULTS = 100


def _stripped(value: object) -> object:
    """Without outer white space; an id may be a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value.strip() if isinstance(value, str) else value


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not have NUL characters or lone surrogates")
    return text


def _readable(text: str) -> str:
    """A question may hold anything: what cannot be stored becomes U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


Id = Annotated[str, BeforeValidator(_stripped), AfterValidator(_storable)]
Text = Annotated[str, BeforeValidator(_stripped), AfterValidator(_readable)]


class SearchBody(BaseModel):
    """What is asked, in the query or as JSON."""

    q: Text = Field(min_length=1, max_length=2000)
    k: int = Field(10, ge=1, le=MOST_RESULTS)
    app: str = Field("default", pattern=r"^[\w.-]{1,64}$")
    conversation_id: Id = Field("", max_length=200)
    message_id: Id = Field("", max_length=200)

    def question(self) -> Question:
        return Question(self.q, self.k, self.app, self.conversation_id, self.message_id)


class SearchApi:
    """The routes.

    Args:
        searcher: gives the process's searcher; with the first call comes what is slow to import.
    """

    def __init__(self, kernel: Kernel, searcher: Callable[[], Searcher]) -> None:
        self._kernel = kernel
        self._searcher = searcher

    async def search(self, request: web.Request) -> web.Response:
        """`GET /search?q=…&k=…&app=…&conversation_id=…`, or the same as JSON by `POST`."""
        self._kernel.require_ready()
        given = await http.read_json(request) if request.method == "POST" else dict(request.query)
        question = http.read_model(SearchBody, given).question()
        try:
            found = await self._searcher().search(question)
        except (LookupError, Reject, Unavailable) as error:
            self._kernel.metrics.searches.add("unavailable")
            return http.unavailable(str(error))
        self._kernel.metrics.searches.add("found" if found.results else "empty")
        return web.json_response(found.public())
