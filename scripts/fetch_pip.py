"""Brings pip's wheel into a folder and prints its path, for a Python that came without pip.

Debian's python3 has neither pip nor ensurepip. The wheel comes from wherever this machine's pip is
configured to look (environment or pip.conf: index-url, extra-index-url, find-links), else out of
Debian's package. Only the standard library is at hand. The newest stable wheel wins, as with pip; a
hash that the index gives is verified.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html.parser
import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

DEBIAN_WHEELS = Path("/usr/share/python-wheels")
UNREACHABLE = (OSError, ValueError, http.client.HTTPException)
ADVICE = """\
This Python has no pip for new environments (ensurepip), and no place to get it from is configured.
One of these helps:
  - as root: apt-get update && apt-get install python3-venv
  - PIP_INDEX_URL=<the address of your package index> scripts/setup   (or index-url in pip.conf)
  - PYTHON=<another Python, 3.11 or newer, that has ensurepip> scripts/setup"""


def configuration() -> dict[str, str]:
    """pip's options, the strongest source last: pip.conf of the machine, of the user, the environment."""
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
        home / ".pip/pip.conf",
        config_home / "pip/pip.conf",
        home / "Library/Application Support/pip/pip.conf",
    ]
    if named := os.environ.get("PIP_CONFIG_FILE"):  # os.devnull switches all files off
        files = [] if named == os.devnull else [*files, Path(named)]
    parser = configparser.RawConfigParser()
    parser.read(files, encoding="utf-8")
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            options |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value:
            options[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return options


class Page(html.parser.HTMLParser):
    """The links of an index page or of a find-links page (PEP 503), made absolute."""

    def __init__(self, address: str, text: str) -> None:
        super().__init__()
        self.base = address
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        href = found.get("href")
        if not href:
            return
        if tag == "base":
            self.base = urllib.parse.urljoin(self.base, href)
        elif tag == "a" and "data-yanked" not in found and _fits(found.get("data-requires-python") or ""):
            self.links.append(urllib.parse.urljoin(self.base, href))


def _fits(requires: str) -> bool:
    """Whether this Python satisfies the lower bound that every pip declares, such as `>=3.10`."""
    least = re.search(r">=\s*(\d+)\.(\d+)", requires)
    return not least or sys.version_info[:2] >= (int(least[1]), int(least[2]))


def version(link: str) -> tuple[int, ...] | None:
    """The version of a stable, pure wheel of pip; None for any other link."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(link).path).rpartition("/")[2]
    found = re.fullmatch(r"pip-(\d+(?:\.\d+)*)-(?:py2\.)?py3-none-any\.whl", name)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def read(address: str, certificates: str | None) -> tuple[str, bytes]:
    """What is at the address, and where redirects led; a user and password in it become a header."""
    parts = urllib.parse.urlsplit(address)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(bare, headers={"Accept": "text/html, */*;q=0.1"})
    if parts.username:
        login = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        token = base64.b64encode(login.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")  # not for another host
    context = ssl.create_default_context(cafile=certificates) if parts.scheme == "https" else None
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        return answer.geturl(), answer.read()


def links(options: dict[str, str], problems: list[str]) -> list[str]:
    """Every link that the configured places offer for pip."""
    pages: list[str] = []
    offered: list[str] = []
    for place in options.get("find-links", "").split():
        if "://" not in place and Path(place).is_dir():
            offered += [file.resolve().as_uri() for file in Path(place).iterdir()]
        else:
            pages.append(place if "://" in place else Path(place).resolve().as_uri())
    if options.get("no-index", "false").lower() in ("false", "0", "no", "off"):
        indexes = f"{options.get('index-url', '')} {options.get('extra-index-url', '')}"
        pages += [f"{index.rstrip('/')}/pip/" for index in indexes.split()]
    for page in pages:
        if page.startswith("file:"):
            path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(page).path))
            if (path / "index.html").is_file():
                page = (path / "index.html").as_uri()
            elif path.is_dir():
                offered += [file.as_uri() for file in path.iterdir()]
                continue
        try:
            address, text = read(page, options.get("cert"))
        except UNREACHABLE as error:
            problems.append(f"{_redacted(page)}: {error}")
            continue
        user = urllib.parse.urlsplit(page).netloc.rpartition("@")[0]
        for link in Page(address, text.decode("utf-8", "replace")).links:
            parts = urllib.parse.urlsplit(link)
            same_host = parts.netloc == urllib.parse.urlsplit(address).netloc
            offered.append(
                parts._replace(netloc=f"{user}@{parts.netloc}").geturl() if user and same_host else link
            )
    return offered


def _redacted(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", address)


def from_configuration(folder: Path, options: dict[str, str]) -> Path | None:
    """The newest wheel that the configured places have, saved in the folder."""
    problems: list[str] = []
    candidates = [(found, link) for link in links(options, problems) if (found := version(link))]
    for _, link in sorted(candidates, reverse=True):
        try:
            _, body = read(link.partition("#")[0], options.get("cert"))
        except UNREACHABLE as error:
            problems.append(f"{_redacted(link)}: {error}")
            continue
        digest = re.search(r"#(?:.*&)?sha256=([0-9a-f]{64})", link)
        if digest and hashlib.sha256(body).hexdigest() != digest[1]:
            problems.append(f"{_redacted(link)}: its sha256 is not the one that the index gives")
            continue
        wheel = folder / urllib.parse.unquote(urllib.parse.urlsplit(link).path).rpartition("/")[2]
        wheel.write_bytes(body)
        return wheel
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return None


def from_debian(folder: Path) -> Path | None:
    """The wheel of Debian's package, unpacked rather than installed.

    Installing it would bring ca-certificates too, which writes the machine's certificate bundle anew
    and so drops what somebody may have added to it by hand.
    """

    def newest(place: Path) -> Path | None:
        return max(place.glob("pip-*.whl"), default=None)

    def run(*command: str) -> bool:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr.strip(), file=sys.stderr)
        return done.returncode == 0

    if (wheel := newest(DEBIAN_WHEELS)) or not shutil.which("apt-get"):
        return wheel
    if os.geteuid() == 0:
        run("apt-get", "-qq", "update")  # a fresh machine has no list of packages yet
    if not run("apt-get", "-qq", "download", "python3-pip-whl"):
        return None
    unpacked = folder / "python3-pip-whl"
    for package in folder.glob("python3-pip-whl_*.deb"):
        run("dpkg-deb", "-x", package.name, unpacked.name)
    return newest(unpacked / DEBIAN_WHEELS.relative_to("/"))


def main(folder: str) -> int:
    wheel = from_configuration(Path(folder), configuration()) or from_debian(Path(folder))
    if not wheel:
        print(ADVICE, file=sys.stderr)
        return 1
    print(wheel.absolute())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
