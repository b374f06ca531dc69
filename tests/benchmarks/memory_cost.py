"""What is kept in memory: for a token that is remembered, and for what strangers send.

Strangers come to a process of their own, because what they leave is seen in the pages that the system gave it.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import secrets
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from asgi_token_auth import ManagedTokens, StaticTokens, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.middleware import DEFAULT_MAX_TOKEN_BYTES
from asgi_token_auth.tokens.text import new_nonce
from tests.benchmarks.apps import protected
from tests.benchmarks.harness import App, http_scope
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.stores import managed_tokens

_WARM_UP: Final = 200


async def ask(app: App, token: str | None) -> None:
    """One request whose answer nobody keeps."""
    await app(http_scope(token), None, _ignore)


async def _ignore(message: object) -> None:
    pass


async def bytes_per_token(folder: Path, count: int) -> float:
    """What the whole middleware keeps for a token that it remembers, whatever it is made of."""
    async with AsyncExitStack() as stack:
        store, tokens = await managed_tokens(stack, folder / "remembered.db", rows=count, known=count)
        source = ManagedTokens(store)
        app = protected(source)
        await ask(app, tokens.pop())
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for token in tokens:
                # Twice, because what is quick the second time may be kept then.
                await ask(app, token)
                await ask(app, token)
            # Notes of use are gone as soon as they are written.
            await source.flush()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return (after - before) / len(tokens)


def junk(folder: Path) -> list[Callable[[int], str]]:
    """Every kind of value that strangers can send as often as they like, by its number."""
    other = TokenStore(SQLite(folder / "other.db"), secret="a secret of somebody else")
    forged = other.text.build(1, new_nonce())
    long = secrets.token_hex((DEFAULT_MAX_TOKEN_BYTES - 100) // 2)
    return [
        lambda number: f"unknown-{number}",
        lambda number: f"{forged[:8]}{number}.{forged[9:]}",
        lambda number: f"{number}{long}",
        lambda number: f"{forged[:8]}{number}.{long}",
        lambda number: f"{number} two words",
        lambda number: f"{number}{long}{long}",
    ]


async def _growth(folder: Path, count: int) -> float:
    async with AsyncExitStack() as stack:
        store, tokens = await managed_tokens(stack, folder / "junk.db", known=_WARM_UP)
        app = protected(StaticTokens({secrets.token_urlsafe(32): {"id": "bot"}}), ManagedTokens(store))
        kinds = junk(folder)
        for number, token in enumerate(tokens):
            await ask(app, token)
            # A few of each kind, so that code that runs for the first time is not counted.
            if number < 2 * len(kinds):
                await ask(app, kinds[number % len(kinds)](-number))
        gc.collect()
        before = _resident()
        for number in range(count):
            await ask(app, kinds[number % len(kinds)](number))
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        gc.collect()
        return (_resident() - before) / 1e6


def _resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _child(folder: str, count: int, found: Any) -> None:
    found.send(asyncio.run(_growth(Path(folder), count)))


def growth(folder: Path, count: int) -> float:
    """Megabytes that ``count`` different junk values leave in a process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(str(folder), count, there))
    process.start()
    there.close()
    try:
        grown: float = here.recv()
    except EOFError:
        raise RuntimeError("the process that was sent junk has ended") from None
    finally:
        process.join()
    return grown


def benchmark(size: Size) -> Report:
    """Measure."""
    found = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        token = asyncio.run(bytes_per_token(folder, size.remembered))
        found.values["bytes per remembered token"] = token
        rows = [(f"a remembered token, of {size.remembered:,}", f"{token:,.0f} bytes")]
        if sys.platform == "linux":
            grown = growth(folder, size.junk)
            found.values["MB more after different junk values"] = grown
            rows.append((f"{size.junk:,} different junk values, of six kinds and up to 16 kB", f"{grown:.2f} MB"))
        else:
            found.missing.append("What junk leaves in memory is read from /proc, which only Linux has.")
    found.tables.append(Table("Memory", ("", "kept"), rows))
    return found
