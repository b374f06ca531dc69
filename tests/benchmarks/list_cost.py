"""What the pages cost with many tokens, next to the same pages with few, all in one interleaved run."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from asgi_token_auth import TokenStore, from_config
from asgi_token_auth.databases.protocol import Steps
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.harness import App, Case, measure
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size

_SECRET = "a secret for benchmarks only"
_FEW = 100
_PATH = "/-/api/tokens"

# Half of the tokens are ann's, three are bob's, one more is of each of the other users. As many of few tokens as of
# many hold "needle", "old" and "user 00007", because showing what was found costs more than finding it. Of everybody's
# but ann's a third was used, and two, the oldest ones, long ago.
_FILL = """
    insert into {table}
    (token_status, description, actor_id, permissions, created_timestamp, secret_version, token_digest,
    last_used_timestamp)
    with recursive n(i) as (select 1 union all select i + 1 from n where i < :count)
    select 'A',
    case when i % (:count / 10) = 1 then 'the needle' when i between 20 and 30 then 'an old one'
    when i % 2 = 1 then 'Deploys number ' || i || ' from CI to production' else 'Backups of number ' || i end,
    case when i in (9, 49, 95) then 'bob' when i % 2 = 1 then 'ann'
    else 'user ' || printf('%05d', i % (:count / 10)) end, 'null', 1700000000, 0, hex(randomblob(32)),
    case when i in (2, 4) then 1600000000 when i % 6 = 0 then 1700000000 + i end from n
"""

PAGES = {
    "list of an owner": ("ann", "", b""),
    "list of everybody": ("root", "", b""),
    "list, a page in the middle": ("root", "", b"next=%(middle)d"),
    "active ones of an owner": ("ann", "", b"status=active"),
    "revoked ones of an owner, none": ("ann", "", b"status=revoked"),
    "expired ones of an owner, none": ("ann", "", b"status=expired"),
    "revoked ones of everybody, none": ("root", "", b"status=revoked"),
    "expired ones of everybody, none": ("root", "", b"status=expired"),
    "search of an owner, found often": ("ann", "", b"search=production"),
    "search of an owner, in the middle": ("ann", "", b"search=production&next=%(middle)d"),
    "search of an owner, found rarely": ("ann", "", b"search=needle"),
    "search of an owner of three": ("bob", "", b"search=production"),
    "search of everybody, found often": ("root", "", b"search=production"),
    "search of everybody, in the middle": ("root", "", b"search=production&next=%(middle)d"),
    "search of everybody, found rarely": ("root", "", b"search=needle"),
    "search of everybody, only old ones": ("root", "", b"search=old"),
    "search of everybody, found never": ("root", "", b"search=nowhere"),
    "search of everybody, by actor": ("root", "", b"search=user+00006"),
    "search for a letter, found never": ("root", "", b"search=q"),
    "search for a letter, found often": ("root", "", b"search=m"),
    "search for two letters, found never": ("root", "", b"search=xq"),
    "search for two letters, an owner, never": ("ann", "", b"search=xq"),
    "search for two letters, found rarely": ("root", "", b"search=ee"),
    "used after, an owner, none": ("ann", "", b"used_after=1650000000"),
    "used after, everybody, none": ("root", "", b"used_after=1900000000"),
    "used after, everybody, often": ("root", "", b"used_after=1650000000"),
    "used between, an owner, none": ("ann", "", b"used_after=1&used_before=1650000000"),
    "used between, everybody, two old ones": ("root", "", b"used_after=1&used_before=1650000000"),
    "used before, an owner, often": ("ann", "", b"used_before=1650000000"),
    "used before, everybody, often": ("root", "", b"used_before=1650000000"),
    "active and used between, two old ones": ("root", "", b"status=active&used_after=1&used_before=1650000000"),
    "revoked and used before, none": ("root", "", b"status=revoked&used_before=1650000000"),
    "search and used between, two old ones": ("root", "", b"search=r&used_after=1&used_before=1650000000"),
    "search and used after, an owner, none": ("ann", "", b"search=production&used_after=1650000000"),
    "search and revoked, none": ("root", "", b"search=production&status=revoked"),
    "details": ("ann", "/1", b""),
    "details as JSON": ("ann", "/1.json", b""),
}


async def signed_in(scope: Any) -> Any:
    return {"id": scope["user_id"]}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the pages did not answer")


def page(app: App, user: str, path: str, query: bytes) -> App:
    async def at(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "path": _PATH + path, "query_string": query, "user_id": user}, receive, send)

    return at


async def site(stack: AsyncExitStack, path: Path, count: int) -> App:
    store = TokenStore(SQLite(path), secret=_SECRET)

    def fill() -> Steps[None]:
        yield _FILL.format(table=store.table), {"count": count}

    async with store:
        await store.database.transaction(fill())
    block = {"manage_tokens": True, "permissions": {"auth-tokens-view-all": {"id": "root"}}}
    database = SQLite(path)
    stack.push_async_callback(database.close)
    return from_config(nothing, block, databases={"tokens": database}, secret=_SECRET, signed_in=signed_in)


async def run(size: Size) -> Report:
    many = size.listed
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            apps = {count: await site(stack, Path(name) / f"{count}.db", count) for count in (_FEW, many)}
            cases = [
                Case(f"{title}, {count:,}", page(app, user, path, query.replace(b"%(middle)d", b"%d" % (count // 2))))
                for title, (user, path, query) in PAGES.items()
                for count, app in apps.items()
            ]
            results = await measure(cases, rounds=size.list_rounds, seconds=size.list_seconds)
    rows, ratios = [], []
    for title in PAGES:
        few, large = f"{title}, {_FEW:,}", f"{title}, {many:,}"
        ratios.append(results.ratio(large, few))
        took = [f"{results.microseconds(name) / 1000:.2f}" for name in (few, large)]
        rows.append((title, *took, f"{ratios[-1]:.2f}"))
    columns = ("", f"ms, {_FEW:,} tokens", f"ms, {many:,}", "ratio")
    return Report(
        [Table("Pages of the list", columns, rows)],
        {"longest list / the same of few tokens, worst page": max(ratios)},
    )


def benchmark(size: Size) -> Report:
    """Measure."""
    return asyncio.run(run(size))
