"""A `curl` for machines that have none: a bare Debian does not, and the READMEs' commands are run there too.

It knows the options that the READMEs use, and sends real requests; another option is an error.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import stat
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

__all__ = ["folder_with_curl"]


def folder_with_curl(folder: Path) -> str | None:
    """A folder for PATH that has a `curl`; None where the machine has its own."""
    if shutil.which("curl"):
        return None
    script = folder / "curl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-G", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-u", dest="user")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", action="append", default=[])
    parser.add_argument("--data-urlencode", dest="encoded", action="append", default=[])
    parser.add_argument("url")
    given = parser.parse_args()
    pairs = (part.split("=", 1) for part in given.encoded)
    data = "&".join([*given.data, *(f"{name}={urllib.parse.quote(value)}" for name, value in pairs)])
    if given.G:
        given.url, data = f"{given.url}?{data}", ""
    headers = {"User-Agent": "curl/0 (tests)", "Accept": "*/*"}
    headers |= {name: value.strip() for name, value in (header.split(":", 1) for header in given.headers)}
    parts = urllib.parse.urlsplit(given.url)
    if "@" in parts.netloc:
        given.user, _, host = parts.netloc.rpartition("@")
        given.url = urllib.parse.urlunsplit(parts._replace(netloc=host))
    if given.user:
        headers["Authorization"] = f"Basic {base64.b64encode(given.user.encode()).decode()}"
    request = urllib.request.Request(given.url, data.encode() or None, headers, method=given.method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            sys.stdout.buffer.write(response.read())
    except urllib.error.HTTPError as error:
        sys.stdout.buffer.write(error.read())
    except OSError as error:
        sys.exit(f"curl: {error}")


if __name__ == "__main__":
    main()
