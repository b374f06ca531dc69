"""What one owner's largest tokens cost everybody else.

While the owner's pages, lists and edits are served, a task of the same event loop notes how long it was not run.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import string
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from asgi_token_auth import ANY_OWNER, Restrictions, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.changes import MAX_FAMILY
from asgi_token_auth.tokens.record import MAX_PERMISSIONS
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size

_SECRET: Final = "a secret for benchmarks only"
_PATH: Final = "/-/api/tokens"

PAGES: Final = {
    "list": "",
    "list as JSON": ".json",
    "list as JSON, 1,000 a page": ".json?size=1000",
    "list with a search": "?search=none",
    "details": "/1",
    "details as JSON": "/1.json",
    "form of an edit": "/1/edit",
    "edit as JSON": "/1/edit.json",
}


def largest() -> Restrictions:
    """As many short names as restrictions may hold, which costs the most."""
    tables: dict[str, list[str]] = {}
    size = len('{"r": {"d": {}}}')
    for letters in itertools.product(string.ascii_lowercase, repeat=3):
        name = "".join(letters)
        size += len(f'"{name}": ["vt"], ')
        if size > MAX_PERMISSIONS:
            break
        tables[name] = ["vt"]
    return Restrictions.from_wire({"r": {"d": tables}})


class Holds:
    """How long the event loop was held up."""

    def __init__(self) -> None:
        self.longest = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        # It must have been run once before it can be held up.
        await asyncio.sleep(0.005)
        try:
            yield
        finally:
            await asyncio.sleep(0.005)
            task.cancel()

    async def _watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - 0.001)
            last = now


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def signed_in(scope: Any) -> dict[str, str]:
    return {"id": "ann"}


async def verify(app: Any, text: str) -> None:
    """One request with a token, without a client, whose own objects would be most of what is measured."""
    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"authorization", f"Bearer {text}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": headers}
    await app(scope, None, send)
    assert statuses == [200]


async def hold(action: Callable[[], Awaitable[Any]], times: int = 3) -> float:
    """The least of the longest holds, because other programs hold the loop up too. Milliseconds."""
    found = []
    for _ in range(times):
        holds = Holds()
        async with holds.watched():
            await action()
        found.append(holds.longest)
    return min(found) * 1_000


def memory() -> int:
    """Bytes that this process has had at the most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


async def run(count: int) -> list[tuple[str, float, str]]:
    """What was done, and how long it held the loop up, or what else it took."""
    rows: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.db"
        block = {"manage_tokens": True, "permissions": {"auth-tokens-create": True}}
        app = from_config(nothing, block, databases={"t": path}, secret=_SECRET, signed_in=signed_in)
        administrator = TokenStore(SQLite(path), secret=_SECRET)
        limits = largest()
        transport = httpx.ASGITransport(app)
        async with (
            TokenStore(SQLite(path), secret=_SECRET) as store,
            administrator,
            httpx.AsyncClient(transport=transport, base_url="http://benchmark") as client,
        ):
            await client.get("/")
            before = memory()
            texts = [(await store.issue("ann", restrictions=limits)).token for _ in range(count)]
            for title, address in PAGES.items():

                async def get(address: str = address) -> None:
                    assert (await client.get(_PATH + address)).status_code == 200, address

                rows.append((title, await hold(get), "ms"))

            async def verify_all() -> None:
                for text in texts:
                    await verify(app, text)
                    # Real requests come one by one.
                    await asyncio.sleep(0)

            rows.append(("each token verified", await hold(verify_all), "ms"))
            rows.append(("memory after all of that", (memory() - before) / 1e6, "MB"))
            rows += await changes(store, administrator, limits)
        for open_resource in app.resources:
            await open_resource.close()
    return rows


async def changes(store: TokenStore, administrator: TokenStore, limits: Restrictions) -> list[tuple[str, float, str]]:
    """An edit that narrows as many tokens as can come from one, and an administrator who revokes meanwhile."""
    parent = (await store.issue("ann", restrictions=limits)).record.id
    for _ in range(MAX_FAMILY - 1):
        await store.issue("ann", parent=parent, restrictions=limits)
    other = (await store.issue("bob")).record.id
    kept = dict(list(json.loads(json.dumps(limits.to_wire()))["r"]["d"].items())[::2])
    holds = Holds()
    async with holds.watched():
        edit = asyncio.create_task(
            store.edit(parent, owner="ann", restrictions=Restrictions.from_wire({"r": {"d": kept}}))
        )
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        await administrator.revoke(other, owner=ANY_OWNER)
        waited = time.perf_counter() - began
        await edit
    return [
        (f"edit that narrows {MAX_FAMILY} tokens", holds.longest * 1_000, "ms"),
        ("a revocation during that edit", waited, "s"),
    ]


def benchmark(size: Size) -> Report:
    """Measure."""
    rows = asyncio.run(run(size.largest))
    worst = {unit: max(value for _, value, other in rows if other == unit) for unit in ("ms", "s", "MB")}
    return Report(
        [Table("The largest tokens", ("", "most"), [(title, f"{value:.2f} {unit}") for title, value, unit in rows])],
        {
            "ms that the largest tokens hold others up": worst["ms"],
            "seconds of a revocation during a large edit": worst["s"],
            "MB more after the largest tokens": worst["MB"],
        },
    )
