"""The embedder's HTTP routes for documents."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import unicodedata
from typing import Annotated, Any

from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from services.embedder import store
from services.embedder.knowledge import MAX_BYTES, MEDIA_TYPES, RawDocument, skip
from services.embedder.parsing import Unreadable
from services.embedder.reading import Reader
from services.embedder.store import CutDocument
from shared.bus.envelope import Envelope
from shared.events import GenerationRequested
from shared.postgres.database import Connection
from shared.runtime import Kernel
from shared.web import http

__all__ = ["DocumentsApi"]

SOURCE = "/feedback-loop/embedder"
LARGEST_BODY = 32 * 1024 * 1024
"""Bytes of a request with documents: one of 20 MB in base64, and then some."""
READERS = 2
"""Requests whose documents are read at once; others wait for their turn, in no thread."""
_APP = r"^[\w.-]{1,64}$"


def _source(source: str) -> str:
    """A document's name as it is stored: like those of files, in NFC."""
    if not source.isprintable():
        raise ValueError("must have printable characters only")
    return unicodedata.normalize("NFC", source)


class NewDocument(BaseModel):
    """A document as it is posted: text, or the bytes of a file in base64."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["content"]}, {"required": ["content_base64"]}]},
    )

    app: str = Field("default", pattern=_APP)
    source: Annotated[
        str,
        Field(min_length=1, max_length=500, json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f-\x9f]+$"}),
        AfterValidator(_source),
    ]
    content: str | None = None
    content_base64: str | None = None

    @model_validator(mode="after")
    def _one_content(self) -> NewDocument:
        if (self.content is None) == (self.content_base64 is None):
            raise ValueError("give either content or content_base64")
        return self

    @property
    def field(self) -> str:
        """Where its content stands."""
        return "content" if self.content_base64 is None else "content_base64"

    def data(self) -> bytes:
        """The file's bytes. Raises ValueError where the base64 is none."""
        if self.content_base64 is not None:
            return base64.b64decode("".join(self.content_base64.split()), validate=True)
        return (self.content or "").encode("utf-8", "replace")


_DOCUMENTS = TypeAdapter(Annotated[list[NewDocument], Field(min_length=1)])


class DocumentsApi:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._reading = asyncio.Semaphore(READERS)

    async def post_documents(self, request: web.Request) -> web.Response:
        """`POST /documents`: one or several; all are taken or none. A generation is built behind it."""
        self._kernel.require_ready()
        given = _documents(await http.read_json(request))
        async with self._reading:
            read = await asyncio.to_thread(_read_all, given)
        async with self._kernel.database.transaction() as connection:
            await store.lock(connection)
            for app, documents in read.items():
                await store.put(connection, app, "api", documents)
            asked = [await self._ask(connection, app) for app in sorted(read)]
        await self._kernel.outbox.publish_soon([envelope for envelope in asked if envelope])
        return web.json_response({"status": "ok", "documents": len(given)}, status=202)

    async def delete_document(self, request: web.Request) -> web.Response:
        """`DELETE /documents?source=…`: searches stop showing it at once."""
        self._kernel.require_ready()
        app, source = _app(request), unicodedata.normalize("NFC", request.query.get("source", ""))
        async with self._kernel.database.transaction() as connection:
            await store.lock(connection)
            if not source.isprintable() or not await store.remove(connection, app, source):
                raise http.BadRequest("source", "there is no such document", status=404)
            asked = await self._ask(connection, app)
        await self._kernel.outbox.publish_soon([asked] if asked else [])
        return web.json_response({"status": "ok"})

    async def list_documents(self, request: web.Request) -> web.Response:
        """`GET /documents`: what there is today."""
        self._kernel.require_ready()
        async with self._kernel.database.connection() as connection:
            rows = await connection.fetch(
                "select source, title, media_type, origin, updated_at::text,"
                " (select count(*) from feedback_loop.document_chunk c"
                "   where c.app = d.app and c.source = d.source) as chunks"
                " from feedback_loop.document d where app = $1 order by source",
                _app(request),
            )
        return web.json_response({"documents": [dict(row) for row in rows]})

    async def _ask(self, connection: Connection, app: str) -> Envelope | None:
        """Ask for a generation of the changed documents, unless one is asked for and not yet planned.

        The caller holds the knowledge lock, and so does every plan: none can slip in between.
        """
        waiting = await connection.fetchval(
            "select exists (select from feedback_loop.outbox o where o.type = $1 and o.done_at is null"
            " and o.envelope -> 'data' ->> 'app' = $2 and o.envelope -> 'data' ->> 'reason' = 'documents'"
            " and not exists (select from feedback_loop.inbox i"
            "   where i.event_id = o.event_id and i.consumer = 'embedder'))",
            GenerationRequested.type,
            app,
        )
        if waiting:
            return None
        envelope = Envelope.root(GenerationRequested(app=app, reason="documents", requested_by="api"), SOURCE)
        await self._kernel.outbox.add(connection, [envelope])
        return envelope


def _documents(body: object) -> list[NewDocument]:
    """The documents of a body: one, or a list of them.

    Raises:
        BadRequest: the first field that does not fit.
    """
    try:
        given = _DOCUMENTS.validate_python(body if isinstance(body, list) else [body])
    except ValidationError as error:
        field, reason = http.fields_of(error)
        if not isinstance(body, list):
            field = field.removeprefix("0").removeprefix(".") or "body"
        raise http.BadRequest(field, reason, status=422) from None
    seen = set[tuple[str, str]]()
    for index, document in enumerate(given):
        if (document.app, document.source) in seen:
            raise http.BadRequest(f"{index}.source", "is there twice: which one counts?", status=422)
        seen.add((document.app, document.source))
    return given


def _read_all(given: list[NewDocument]) -> dict[str, list[CutDocument]]:
    """Documents by app, parsed and cut."""
    read: dict[str, list[CutDocument]] = {}
    with Reader() as reader:
        for index, document in enumerate(given):
            try:
                read.setdefault(document.app, []).extend(store.cut([_read(document, reader)]))
            except (Unreadable, ValueError) as error:
                field = document.field if len(given) == 1 else f"{index}.{document.field}"
                if isinstance(error, Unreadable):
                    reason = skip(document.source, error.code, **error.figures).reason
                else:
                    reason = str(error)
                raise http.BadRequest(field, reason, status=422) from None
    return read


def _read(document: NewDocument, reader: Reader) -> RawDocument:
    """Parse a posted document. Its source's suffix gives the type; without one it is Markdown.

    Raises:
        ValueError: the base64 is none, or too much.
        Unreadable: the content is not of its type, or holds no text.
    """
    try:
        data = document.data()
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from None
    given = next((suffix for suffix in MEDIA_TYPES if document.source.lower().endswith(suffix)), None)
    suffix = given or ".md"
    if len(data) > MAX_BYTES[suffix]:
        raise ValueError(f"larger than {MAX_BYTES[suffix] // 1024**2} MB")
    parsed = reader.parse(document.source if given else document.source + suffix, data)
    return RawDocument(document.source, MEDIA_TYPES[suffix], hashlib.sha256(data).hexdigest(), parsed)


def _app(request: web.Request) -> Any:
    app = request.query.get("app", "default")
    if not app or len(app) > 64 or not all(letter.isalnum() or letter in "._-" for letter in app):
        raise http.BadRequest("app", "must be 1 to 64 letters, digits, '.', '_' or '-'", status=422)
    return app
