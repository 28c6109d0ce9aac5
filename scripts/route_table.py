"""Writes the table of routes in `SECURITY.md` from what the services' routes say of themselves.

python -m scripts.route_table            writes it between the markers
python -m scripts.route_table --check    says whether it is out of date, and exits with 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from services.up import compose
from shared.settings import Settings
from shared.web.access import Access, access_of

FILE = Path(__file__).parents[1] / "SECURITY.md"
START, END = "<!-- routes: start -->", "<!-- routes: end -->"
HEAD = "| Route | Who may call it | Body | Requests a minute without a token |\n|---|---|---|---|"


def table(routes: Iterable[web.AbstractRouteDef]) -> str:
    """The routes as Markdown, in the order in which they are composed; methods alike share a line.

    Raises:
        ValueError: a route says nothing of its callers.
    """
    lines: dict[tuple[str, Access], list[str]] = {}
    for route in routes:
        assert isinstance(route, web.RouteDef)
        access = access_of(route.handler)
        if access is None:
            raise ValueError(f"{route.method} {route.path} says nothing of its callers")
        lines.setdefault((route.path, access), []).append(route.method)
    return "\n".join([HEAD, *(_line(path, access, methods) for (path, access), methods in lines.items())])


def _line(path: str, access: Access, methods: list[str]) -> str:
    rate = {"plain": "`RATE_LIMIT`", "ample": "10 × `RATE_LIMIT`", "none": "any"}[access.rate]
    body = "none" if {*methods} <= {"GET", "OPTIONS"} else _size(access.body)
    return f"| `{', '.join(methods)} {path}` | {_who(access)} | {body} | {rate} |"


def _who(access: Access) -> str:
    if access.kind == "slack":
        return "Slack, by its signature"
    if access.scope is None:
        return "everyone"
    also = ", or a vote token" if access.browser else ""
    return f"`{access.scope}`{' (people’s words)' if access.personal else ''}{also}"


def _size(bytes: int) -> str:
    for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
        if bytes % size == 0:
            return f"{bytes // size} {unit}"
    return f"{bytes:,} bytes"


def main(arguments: list[str]) -> int:
    text = FILE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"route_table: {FILE.name} lacks the markers {START} and {END}")
    routes = compose(Settings(_env_file=None)).routes
    written = f"{before}{START}\n{table(routes)}\n{END}{after}"
    if "--check" in arguments:
        if written != text:
            print("route_table: SECURITY.md is out of date: python -m scripts.route_table", file=sys.stderr)
        return int(written != text)
    FILE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
