"""Who asked: names that are fit to be shown.

What is guaranteed: one line, printable, of bounded length, safe to encode. What is not: that the
name is true (a user agent can claim anything), nor that it is escaped for a markup: whoever renders
it does that.
"""

from __future__ import annotations

import re

__all__ = ["CRON_JOB_ORG", "printable", "requester"]

CRON_JOB_ORG = "cron-job.org"

LONGEST = 100
"""Characters of a requester's name; well within what `requested_by` of the events may hold."""

_PRODUCT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The product token that a user agent starts with (RFC 9110, sections 5.6.2 and 10.1.5)."""

_JOINER = "\u200d"
"""Holds emoji together; unlike the other invisible characters it hides nothing."""


def requester(user_agent: str | None, caller: str | None) -> str:
    """The name of whoever triggered: `cron-job.org` by its user agent, else the name that the caller
    gave, else the user agent's product (`curl` of `curl/8.5.0`), else `unknown`."""
    agent = user_agent or ""
    if CRON_JOB_ORG in agent.lower():
        return CRON_JOB_ORG
    product = _PRODUCT.match(agent.strip())
    return printable(caller or "", LONGEST) or printable(product[0] if product else "", LONGEST) or "unknown"


def printable(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, a longer one ending in `…`.

    Control characters, line separators, direction overrides and lone surrogates become spaces, and
    spaces in a row become one.
    """
    # Bounded before the work, so that a text of megabytes costs nothing.
    head = text[: 4 * limit]
    flat = " ".join("".join(c if c.isprintable() or c == _JOINER else " " for c in head).split())
    whole = len(flat) <= limit and len(head) == len(text)
    return flat if whole else flat[: limit - 1].rstrip() + "…"
