"""Pictures of charts without a browser, and the script with which the page draws the same charts.

    python -m shared.charts.picture < spec.json > chart.png
    python -m shared.charts.picture --bundle > vega.js

`vl_convert` (Vega and Vega-Lite within V8) takes 120 to 170 MB while it works, a third of a small
machine: it is only ever imported by a process of its own that ends with its task. One at a time, and with
a time limit.

The page's script defines the global `vegaEmbed`. It is Vega-Embed as it is, with other defaults: no
`eval` (Vega's expression interpreter), SVG, no menu, and no styles of its own, so that it runs under
`script-src 'self'; style-src 'self'`. Where the page wants tooltips, its style sheet shapes
`#vg-tooltip-element` (hidden unless it has the class `visible`).

What is guaranteed: neither loads anything from anywhere; the script is made at most once per process,
and kept on disk for the next one where the disk can be written. What is not: Korean letters in a picture
on a machine that has no Korean font; `picture_language` says when to draw in English instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from shared import child
from shared.charts.vega_lite import Language

__all__ = ["Bundle", "PictureError", "picture_language", "render_png"]

log = logging.getLogger(__name__)

VEGA_LITE = "6.4"

SNIPPET = """
window.vegaEmbed = (element, spec, options) => vegaEmbed(element, spec, {
  ast: true, renderer: "svg", actions: false, defaultStyle: false,
  tooltip: {disableDefaultStyle: true}, ...options,
});
"""
"""What the page's script ends with. `ast` makes Vega interpret expressions instead of compiling them."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""One at a time: two would need twice the memory."""


class PictureError(Exception):
    """There is no picture (or no script); the text says why."""


async def render_png(spec: Mapping[str, Any], scale: float = 2.0, timeout: float = 30) -> bytes:
    """The picture of a Vega-Lite specification.

    Args:
        scale: pixels of the picture per pixel of the specification.
        timeout: seconds, the wait for another picture included.

    Raises:
        PictureError: it took longer, or could not be drawn.
    """
    task = json.dumps({"spec": spec, "scale": scale}).encode()
    png = await _child(task, timeout)
    if not png.startswith(b"\x89PNG"):
        raise PictureError("what was drawn is no PNG")
    return png


class Bundle:
    """The page's script, made when it is first asked for.

    Args:
        folder: where it is kept for the next process (`DATA_DIR`; never a folder that others may write
            to: browsers run what lies there).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making = asyncio.Lock()
        self._script: bytes | None = None

    async def script(self, timeout: float = 60) -> bytes:
        """The script, UTF-8.

        Raises:
            PictureError: it could not be made; the next call tries again.
        """
        async with self._making:
            if self._script is None:
                kept = self._folder / f"vega-{_edition()}.js"
                self._script = await asyncio.to_thread(_read, kept)
                if self._script is None:
                    self._script = await _child(b"", timeout, "--bundle")
                    await asyncio.to_thread(_keep, kept, self._script)
        return self._script


def picture_language(wanted: Language) -> Language:
    """The language that a picture can be drawn in here: English where there is no Korean font."""
    return wanted if wanted == "en" or has_korean_font() else "en"


_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
)
_KOREAN = (
    *("nanum", "notosanscjk", "notoserifcjk", "notosanskr", "notoserifkr", "sourcehansans", "sourcehanserif"),
    *("pretendard", "applesdgothic", "applegothic", "malgun", "unbatang", "undotum", "baekmuk", "d2coding"),
    "droidsansfallback",
)
"""How the files of fonts with Korean letters are called."""


@functools.cache
def has_korean_font() -> bool:
    """Whether a font with Korean letters is where the renderer looks for fonts, judged by file names (the
    command `fc-list` may be missing, and asking every font would be slow)."""
    for folder in _FOLDERS:
        for _, _, names in os.walk(Path(folder).expanduser()):
            if any(name.lower().replace("-", "").replace("_", "").startswith(_KOREAN) for name in names):
                return True
    return False


async def _child(task: bytes, timeout: float, *arguments: str) -> bytes:
    """What `python -m shared.charts.picture` writes for a task; it is gone when this returns."""
    process: asyncio.subprocess.Process | None = None
    try:
        turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with asyncio.timeout(timeout), turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shared.charts.picture", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=child.ROOT,
                env=child.environment(),
            )
            written, said = await process.communicate(task)
    except TimeoutError:
        raise PictureError(f"not within {timeout:g} s") from None
    except OSError as error:
        raise PictureError(f"no process could be started: {error}") from None
    finally:
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise PictureError(last[0][:300])
    return written


def _edition() -> str:
    """Changes whenever the script would."""
    made_of = f"{metadata.version('vl-convert-python')} {VEGA_LITE} {SNIPPET}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:12]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() or None
    except OSError:
        return None


def _keep(path: Path, script: bytes) -> None:
    """Keep the script where that is possible; another process never sees half of it."""
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(script)
        part.replace(path)
    except OSError as error:
        log.debug("the page's script is not kept: %s", error)


def main() -> None:
    """The process of its own: a task on standard input, what it asks for on standard output."""
    import vl_convert  # 50 MB at once, 170 MB while it works

    if "--bundle" in sys.argv[1:]:
        script = vl_convert.javascript_bundle(SNIPPET, vl_version=VEGA_LITE)
        # Its names are its own: as a plain script they would be everyone's.
        sys.stdout.buffer.write(f'"use strict";(() => {{{script}}})();\n'.encode())
        return
    task = json.load(sys.stdin.buffer)
    task = task if "spec" in task else {"spec": task}
    png = vl_convert.vegalite_to_png(
        task["spec"],
        vl_version=VEGA_LITE,
        scale=task.get("scale", 2.0),
        allowed_base_urls=[],  # a specification brings its data along
    )
    sys.stdout.buffer.write(png)


if __name__ == "__main__":
    main()
