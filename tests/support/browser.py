"""A real Chromium for the tests of the dashboard's page.

`TEST_CHROMIUM` names one; else an installed one is taken; else, as root on Debian, its package is installed
(`python -m tests.support.browser` does only that, so that no test has to wait for it). One process serves
all tests of a worker; each test has windows of its own, without anything of those before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

__all__ = ["ADVICE", "Tab", "Tabs", "chromium", "prepare", "tabs"]

NAMES = (
    *("chromium", "chromium-browser", "google-chrome"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
STARTUP = 60.0
"""Seconds until Chromium must listen."""
PATIENCE = 60_000
"""Milliseconds that a test waits for what should appear: it takes none of them but on a busy machine."""
ADVICE = """\
The page's tests need a Chromium, and there is none. One of these helps:
  - install it (on Debian as root: apt-get install chromium)
  - TEST_CHROMIUM=/path/to/chrome names one"""

FLAGS = (
    *("--headless=new", "--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars"),
    *(
        "--disable-gpu",
        "--disable-software-rasterizer",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-sync", "--no-default-browser-check", "--mute-audio"),
)


def installed() -> str | None:
    """The Chromium to use, if there is one."""
    named = os.environ.get("TEST_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


def prepare() -> str | None:
    """The Chromium to use, installed where that is possible; None where there is none."""
    with _alone():
        return installed() or (installed() if _install() else None)


@contextmanager
def _alone() -> Iterator[None]:
    """One process of this machine at a time: two workers must not both install."""
    with Path(tempfile.gettempdir(), "feedback-loop-chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install() -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("browser: installing chromium", file=sys.stderr)
    for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            ["apt-get", "-qq", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(done.stderr.strip(), file=sys.stderr)
            return False
    return True


@pytest.fixture(scope="session")
def chromium() -> Iterator[str]:
    """The address under which a running Chromium is driven."""
    executable = prepare()
    if executable is None:
        pytest.fail(ADVICE)
    folder = Path(tempfile.mkdtemp(prefix="fl-chromium-"))
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [executable, *FLAGS, *root, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield _address(process, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Chromium writes its port and path down once it listens."""
    deadline, written = time.monotonic() + STARTUP, folder / "DevToolsActivePort"
    while process.poll() is None and time.monotonic() < deadline:
        found = written.read_text().split() if written.exists() else []
        if len(found) == 2:
            return f"ws://127.0.0.1:{found[0]}{found[1]}"
        time.sleep(0.05)
    pytest.fail(f"Chromium did not start:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")


@dataclass
class Tab:
    """A window on a page.

    Attributes:
        console: all that the page has written there, and errors that nobody caught.
        elsewhere: addresses of other servers that were asked for.
    """

    page: Page
    console: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


class Tabs:
    """Opens windows: `tab = await tabs.open(url)`."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    async def open(self, url: str, width: int = 1280, **given: Any) -> Tab:
        """A page in a window of its own; `given` are options of Playwright's `new_context`."""
        options = {"viewport": {"width": width, "height": 900}, "reduced_motion": "reduce", **given}
        context = await self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        tab = Tab(await context.new_page())
        own = urlsplit(url).netloc

        def asked(request: Request) -> None:
            target = urlsplit(request.url)
            if target.scheme in ("http", "https", "ws", "wss") and target.netloc != own:
                tab.elsewhere.append(request.url)

        tab.page.on("console", lambda message: tab.console.append(f"{message.type}: {message.text}"))
        tab.page.on("pageerror", lambda error: tab.console.append(f"uncaught: {error}"))
        context.on("request", asked)
        await tab.page.goto(url)
        return tab


@pytest.fixture
async def tabs(chromium: str) -> AsyncIterator[Tabs]:
    """Windows for a test; they are closed at its end."""
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        yield Tabs(browser)
        for context in browser.contexts[1:]:  # the first one is the process's own
            await context.close()


if __name__ == "__main__" and prepare() is None:
    print(ADVICE, file=sys.stderr)
