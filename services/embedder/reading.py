"""Reading documents that somebody may have made to be slow, or to take all memory there is.

What is guaranteed: a document takes at most `CPU` seconds of a processor, `WALL` seconds by the clock and
`MEMORY` bytes, and comes to `MOST` characters, and then it is `Unreadable`; the process that reads it knows
no secret. What is not: any of this for the first `SMALL` bytes of text and for plain text of up to `PLAIN`
bytes, which are read right here, as they cannot take long.

The process is `python -m services.embedder.reading CPU MEMORY`. For each document it takes a line of JSON,
{"name": …, "bytes": n}, and n bytes, and answers with a line of JSON: {"title": …, "blocks":
[[headings, text], …]} or {"unreadable": why}.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

from services.embedder.document import Block, Document, Unreadable
from services.embedder.parsing import parse
from shared import child

__all__ = ["Reader"]

CPU = 60
"""Seconds of a processor for one document; one that a person has written takes a few."""
WALL = 300.0
"""Seconds by the clock: a small machine may have a tenth of a processor."""
MEMORY = 1024**3
"""Bytes of address space. The largest markup takes about 300 MB."""
MOST = 24 * 1024**2
"""Characters that a document may come to, each block with the headings above it: who asked keeps them all,
and under long headings a few kilobytes would come to gigabytes. The largest text has 20 MB."""
SMALL = 16 * 1024
"""Bytes of text, in all, that one reader parses in this process: one of its own would cost more."""


PLAIN = 64 * 1024
"""Bytes of one plain text that are parsed in this process, whatever came before: it is gone through once."""


class Reader:
    """Parses documents, one after the other, in a process of its own that starts when it is first needed.
    Blocks: call it in a thread. To be closed.

    Args:
        cpu, wall, memory: what one document may take, as above.
    """

    def __init__(self, cpu: int = CPU, wall: float = WALL, memory: int = MEMORY) -> None:
        self._limits = str(cpu), str(memory)
        self._wall = wall
        self._process: subprocess.Popen[bytes] | None = None
        self._left = SMALL

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def parse(self, name: str, data: bytes) -> Document:
        """As `parsing.parse`.

        Raises:
            Unreadable: as there, or it takes too long or too much memory.
        """
        if self._is_quick(name.lower(), len(data)):
            return parse(name, data)
        answer = self._asked(name, data)
        if "unreadable" in answer:
            raise Unreadable(answer["unreadable"], **answer["figures"])
        return Document(answer["title"], tuple(Block(tuple(path), text) for path, text in answer["blocks"]))

    def _is_quick(self, name: str, size: int) -> bool:
        """Whether it cannot take long, whoever wrote it."""
        if name.endswith(".txt") and size <= PLAIN:
            return True
        self._left -= size
        return self._left >= 0 and not name.endswith(".pdf")

    def _asked(self, name: str, data: bytes) -> Any:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        alarm = threading.Timer(self._wall, process.kill)
        alarm.start()
        try:
            # A broken pipe: it has just died, which the missing answer says too.
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps({"name": name, "bytes": len(data)}).encode() + b"\n" + data)
                process.stdin.flush()
                line = process.stdout.readline()
        finally:
            alarm.cancel()
        if line.endswith(b"\n"):
            return json.loads(line)
        self._end()
        return {"unreadable": "document_costly", "figures": {}}

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.embedder.reading", *self._limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=child.ROOT,
                env=child.environment(),
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:  # closes the pipes, and waits
                pass


# --- the process of its own -----------------------------------------------------------------


def _answer(name: str, data: bytes) -> dict[str, Any]:
    try:
        document = parse(name, data)
    except Unreadable as error:
        return {"unreadable": error.code, "figures": error.figures}
    except MemoryError:
        return {"unreadable": "document_costly", "figures": {}}
    if sum(len(text) for block in document.blocks for text in (block.text, *block.headings)) > MOST:
        return {"unreadable": "document_headings", "figures": {}}
    return {"title": document.title, "blocks": [(block.headings, block.text) for block in document.blocks]}


def _limit(memory: int) -> None:
    """Be the first that a machine without memory kills, and take no more than is allowed."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(ImportError, OSError, ValueError):  # not every system has each of them
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _allow(seconds: int) -> None:
    """So many seconds of a processor more, then the system ends this process."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, hard))


def serve(given: IO[bytes], told: IO[bytes], cpu: int, memory: int) -> None:
    """Read documents until there are no more."""
    _limit(memory)
    while line := given.readline():
        task = json.loads(line)
        data = given.read(task["bytes"])
        _allow(cpu)
        answer = json.dumps(_answer(task["name"], data), ensure_ascii=False)
        told.write(answer.encode(errors="replace") + b"\n")
        told.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, *map(int, sys.argv[1:]))
