"""The whole database as text, to be searched for what must not be in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["everything"]

_TABLES = """
select format('%I.%I', n.nspname, c.relname) as name, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname in ('feedback_loop', 'public') and ($1::text is null or n.nspname = $1)
order by 1
"""


async def everything(connection: Any, schema: str | None = None, without: Collection[str] = ()) -> str:
    """Every row of every table of the schema (of ours and `public`), a line each."""
    lines = []
    for table in await connection.fetch(_TABLES, schema):
        if table["relname"] not in without:
            rows = await connection.fetch(f"select t::text as row from {table['name']} t order by 1")
            # Text within jsonb is escaped in a row's text form.
            lines += [f"{table['relname']}: {row['row']}" for row in rows]
    return "\n".join(lines).replace('\\"', '"').replace('""', '"')
