"""Reading a folder of documents.

What is read: every regular file below the folder with a suffix in `parsing.SUFFIXES`, sorted by its
path. What is named as skipped, so that nobody waits for an answer from a document that was never
read: files of another type, too large, unreadable or broken ones, links out of the folder and links
to folders. What is passed over in silence: hidden files and folders, what editors and systems leave
behind (`~$report.docx`, `Thumbs.db`), pictures, styles and fonts that belong to pages, and files
without a suffix (`LICENSE`).

What is guaranteed: the same folder gives the same result, no file can stop the others, and nothing
outside the folder is read. What is not: a snapshot; a file that changes meanwhile is read as it is
when its turn comes. The calls block: run them in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.embedder.parsing import SUFFIXES, Document, Unreadable, parse
from shared.events import Because, Skipped
from shared.reasons import say

__all__ = ["MAX_BYTES", "MEDIA_TYPES", "Folder", "RawDocument", "read_folder", "skip"]

_MB = 1024 * 1024
MAX_BYTES = {".md": 2 * _MB, ".html": 4 * _MB, ".htm": 4 * _MB, ".txt": 20 * _MB, ".pdf": 20 * _MB}
"""Largest file that is read. Markup is bounded by the memory of its tree: a byte of dense Markdown
takes about 95 bytes, one of HTML 64, and a small machine has 512 MB for everything."""

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}

_ASSETS = {
    "", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico",
    ".css", ".js", ".map", ".woff", ".woff2", ".ttf",
}  # fmt: skip
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, slots=True)
class RawDocument:
    """One file that was read.

    Attributes:
        source: path below the folder with `/`, in NFC: the document's name for good.
        media_type: as in `MEDIA_TYPES`.
        data_hash: SHA-256 of the file's bytes, in hex.
        document: its title and blocks.
    """

    source: str
    media_type: str
    data_hash: str
    document: Document

    @property
    def title(self) -> str:
        return self.document.title


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        documents: what was read, by source.
        unchanged: sources whose bytes have the hash that was known; they were not parsed.
        skipped: what was not read, and why, by source.
    """

    documents: dict[str, RawDocument]
    unchanged: frozenset[str]
    skipped: tuple[Skipped, ...]


def read_folder(
    root: Path,
    on_progress: Callable[[int, int], None] | None = None,
    known: Mapping[str, str] | None = None,
    parse: Callable[[str, bytes], Document] = parse,
) -> Folder:
    """Read every document below `root`.

    Args:
        root: the folder (a link to one is followed).
        on_progress: called after each file with the files done and the files in all.
        known: data hash by source, of documents that need no parsing while their bytes are the
            same. Leave out what an older parser read.
        parse: as `parsing.parse`, or with limits (`reading.py`).

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: `root` is a file.
    """
    if not root.exists():
        raise FileNotFoundError(f"knowledge folder {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"knowledge folder {root} is not a folder")
    known = known or {}
    documents: dict[str, RawDocument] = {}
    unchanged: set[str] = set()
    skipped: dict[str, Skipped] = {}
    files, whole = _files(root, skipped), root.resolve()
    for done, (source, path) in enumerate(sorted(files.items()), start=1):
        try:
            data = _read(path, whole)
            data_hash = hashlib.sha256(data).hexdigest()
            if known.get(source) == data_hash:
                unchanged.add(source)
            else:
                media_type = MEDIA_TYPES[path.suffix.lower()]
                documents[source] = RawDocument(source, media_type, data_hash, parse(source, data))
        except Unreadable as error:
            skipped[source] = skip(source, error.code, **error.figures)
        if on_progress:
            on_progress(done, len(files))
    return Folder(documents, frozenset(unchanged), tuple(skipped[source] for source in sorted(skipped)))


def skip(source: str, code: str, **figures: str | int) -> Skipped:
    """A document that is not read, for a reason that `shared/reasons.py` words."""
    because = [Because(code=code, figures=dict(figures))]
    return Skipped(source=source, reason=say(because, "en"), because=because)


def _files(root: Path, skipped: dict[str, Skipped]) -> dict[str, Path]:
    """The files to read, by source; adds to `skipped` what can be told from the name alone."""

    def passed(path: Path, code: str, **figures: str) -> None:
        source = _source(path, root)
        skipped[source] = skip(source, code, **figures)

    def refused(error: OSError) -> None:
        passed(Path(error.filename), "document_refused", message=str(error.strerror))

    files: dict[str, Path] = {}
    for folder, folders, names in os.walk(root, onerror=refused):
        folders[:] = sorted(name for name in folders if not _is_ignored(name))
        for name in folders:
            if (path := Path(folder, name)).is_symlink():
                passed(path, "document_folder_link")
        for name in sorted(name for name in names if not _is_ignored(name)):
            path = Path(folder, name)
            suffix = path.suffix.lower()
            if suffix not in SUFFIXES | _ASSETS:
                passed(path, "document_type")
            elif suffix in SUFFIXES and files.setdefault(_source(path, root), path) is not path:
                passed(path, "document_twice")
    return files


def _is_ignored(name: str) -> bool:
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in _LITTER


def _source(path: Path, root: Path) -> str:
    # A name that is not UTF-8 shows its odd bytes as "�": neither JSON nor PostgreSQL takes them.
    name = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")
    return unicodedata.normalize("NFC", name)


def _read(path: Path, root: Path) -> bytes:
    """The bytes of a file; `root` is resolved.

    Raises:
        Unreadable: it lies outside `root`, is not a regular file, too large, or refused.
    """
    try:
        if not path.resolve(strict=True).is_relative_to(root):
            raise Unreadable("document_outside")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise Unreadable("document_irregular")
        largest = MAX_BYTES[path.suffix.lower()]
        if status.st_size > largest:
            raise Unreadable("document_large", megabytes=largest // _MB)
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable("document_refused", message=reason) from None
