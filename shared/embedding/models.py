"""The embedders: text in, unit vectors out.

What is guaranteed: `embed` gives one row per text, in order, float32, finite, of L2 length 1; an
embedder never changes its dimensions; urgent work (a search) passes waiting work (a build); a
cancelled call leaves the embedder usable. What is not: equal vectors from two versions of a model
that an API serves under one name.

Failures of the API are `Unavailable` where waiting may help, and `Reject`, naming the setting to
look at, where it will not. The API key is in no error and no `repr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from shared.embedding.use_model import UseEmbedder
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.embedding.vectors import Vectors

__all__ = ["Embedder", "make_embedder"]


class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: which kind, as in the setting `EMBEDDER`.
        model: stable id of the model, stored with its vectors: only equal ids compare.
    """

    name: str
    model: str

    async def dimensions(self) -> int:
        """The length of its vectors."""
        ...

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        """The vectors of `texts` (none of them empty), in their order; `urgent` passes waiting work."""
        ...

    async def check(self) -> None:
        """Embed a word; what it raises (`Reject`, `Unavailable`) says what to do."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections; waits at most for the batch in hand."""
        ...


def make_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name; nothing is loaded or connected yet.

    Raises:
        SettingsError: `OPENAI_BASE_URL` or `OPENAI_API_KEY` cannot be one.
    """
    if settings.embedder == "use":
        return UseEmbedder()
    from shared.embedding.openai_api import OpenAIEmbedder  # with it comes numpy

    key = settings.openai_api_key
    return OpenAIEmbedder(
        settings.openai_base_url,
        key.get_secret_value() if key else None,
        settings.openai_embedding_model,
        batch=settings.embedding_batch,
    )
