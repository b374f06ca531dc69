"""What a request costs through the middleware, next to its peers and to the goals. Run it: it prints one table.

    python -m tests.benchmarks.request_cost [--rows 1000000]

Only ratios mean anything, and only within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import secrets
import sqlite3
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import aiosqlite
from itsdangerous import BadSignature, URLSafeSerializer
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from asgi_token_auth import (
    Credential,
    ManagedTokens,
    SignedTokens,
    Source,
    SQLTokens,
    StaticTokens,
    TokenAuthMiddleware,
    TokenStore,
)
from asgi_token_auth.databases.protocol import Steps
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.text import digest_nonce, new_nonce
from tests.benchmarks.harness import App, Case, Results, Scope, measure

_SECRET = "a secret for benchmarks only"
_IN_ROTATION = 100
_ROWS = 1_000
_NO_OPS = 10
_REMEMBERED = 2_000

BARE = "bare app"
NO_OPS = f"{_NO_OPS} no-op middlewares"
STARLETTE = "Starlette's AuthenticationMiddleware, a dict"
SELECT = "itsdangerous, then an aiosqlite SELECT"
LOADS = "bad signature: itsdangerous loads()"
ANONYMOUS = "no credential"
STATIC = {count: f"hard-coded, {count:,} tokens" for count in (1, 100, 10_000)}
SIGNED = "signed (dstok_)"
MANAGED = "managed, WAL"
VERSION = "nothing but PRAGMA data_version, WAL"
JOURNAL = "managed, rollback journal"
COMMITS = {rate: f"managed, WAL, {rate:,} commits/s elsewhere" for rate in (100, 1_000)}
BAD_SIGNATURE = "bad signature: managed"
SQL = "custom SQL"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


class NoOp:
    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class DictBackend(AuthenticationBackend):
    """As Starlette's documentation writes a backend: new credentials and a new user for every request."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._known = dict.fromkeys(tokens, "bot")

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self._known:
            return None
        return AuthCredentials(["authenticated"]), SimpleUser(self._known[token])


class SelectPerRequest:
    """The same check without a cache: the signature, then the row."""

    def __init__(self, app: App, serializer: URLSafeSerializer, connection: aiosqlite.Connection) -> None:
        self.app = app
        self._serializer = serializer
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        token_id = self._serializer.loads(_bearer(scope))
        rows = await self._connection.execute_fetchall("select name from tokens where id = ?", (token_id,))
        await self.app({**scope, "actor": {"id": next(iter(rows))[0]}}, receive, send)


class VersionOnly:
    """Nothing but the question that a strict answer costs."""

    def __init__(self, app: App, connection: sqlite3.Connection) -> None:
        self.app = app
        self._cursor = connection.cursor()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self._cursor.execute("pragma data_version").fetchall()
        await self.app(scope, receive, send)


class LoadsOnly:
    """Nothing but itsdangerous and a fixed answer."""

    def __init__(self, serializer: URLSafeSerializer) -> None:
        self._serializer = serializer

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            self._serializer.loads(_bearer(scope))
        except BadSignature:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value[7:], "ascii")
    return ""


class Untouched(SQLite):
    """A database that turns every use into an error, and so into a status that no case expects."""

    async def open(self) -> NoReturn:
        raise RuntimeError("the database was opened")

    def lookup(self, table: str, columns: str) -> Any:
        return self

    def version(self) -> NoReturn:
        raise RuntimeError("the database was read")


class Writer:
    """Another process that commits to an unrelated table of ``path``, while it is told to."""

    def __init__(self, path: Path, rate: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._running = context.Event()
        self._process = context.Process(target=_commit, args=(path, rate, self._running), daemon=True)
        self._process.start()

    def start(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _commit(path: Path, rate: int, running: Any) -> None:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.execute("pragma synchronous = off")
    connection.execute("create table if not exists unrelated (id integer primary key, value)")
    connection.execute("insert or ignore into unrelated values (1, 0)")
    while running.wait():
        due = time.perf_counter()
        while running.is_set():
            connection.execute("update unrelated set value = value + 1 where id = 1")
            due += 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))


async def managed_tokens(
    stack: AsyncExitStack, path: Path, *, rows: int, known: int = _IN_ROTATION, wal: bool = True
) -> tuple[TokenStore, list[str]]:
    """A store with ``rows`` tokens, and the text of the ``known`` ones."""
    store = TokenStore(SQLite(path, journal_mode="wal" if wal else None), secret=_SECRET)
    await stack.enter_async_context(store)
    nonces = {token_id: new_nonce() for token_id in range(1, known + 1)}

    def fill() -> Steps[None]:
        columns = "token_status, actor_id, permissions, created_timestamp, secret_version, token_digest"
        for token_id, nonce in nonces.items():
            yield (
                f"insert into {store.table} (id, {columns}) values (:id, 'A', :actor, 'null', 1, 0, :digest)",
                {"id": token_id, "actor": f"actor {token_id}", "digest": digest_nonce(nonce)},
            )
        yield (
            f"insert into {store.table} ({columns}) with recursive n(i) as (select 1 where :more > 0 union all "
            "select i + 1 from n where i < :more) select 'A', 'actor', 'null', 1, 0, hex(randomblob(32)) from n",
            {"more": rows - known},
        )

    await store.database.transaction(fill())
    return store, [store.text.build(token_id, nonce) for token_id, nonce in nonces.items()]


async def bytes_per_token(stack: AsyncExitStack, folder: Path) -> float:
    """What a remembered token takes, whatever it is made of."""
    store, tokens = await managed_tokens(stack, folder / "remembered.db", rows=_REMEMBERED, known=_REMEMBERED)
    source = ManagedTokens(store)
    await source.authenticate(Credential(tokens.pop()))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for token in tokens:
        await source.authenticate(Credential(str(bytes(token, "ascii"), "ascii")))
    # Notes of use are gone as soon as they are written.
    await source.flush()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(tokens)


async def build_cases(stack: AsyncExitStack, folder: Path, rows: int) -> list[Case]:
    def protected(*sources: Source) -> App:
        return TokenAuthMiddleware(bare, sources=sources)

    hard_coded = [secrets.token_urlsafe(32) for _ in range(10_000)]
    no_ops: App = bare
    for _ in range(_NO_OPS):
        no_ops = NoOp(no_ops)
    cases = [
        Case(BARE, bare),
        Case(NO_OPS, no_ops),
        Case(
            STARLETTE,
            AuthenticationMiddleware(bare, backend=DictBackend(hard_coded[:_IN_ROTATION])),
            hard_coded[:_IN_ROTATION],
        ),
        Case(ANONYMOUS, protected(StaticTokens({hard_coded[0]: {"id": "bot"}}))),
    ]
    for count, name in STATIC.items():
        tokens = hard_coded[:count]
        cases.append(Case(name, protected(StaticTokens({token: {"id": "bot"} for token in tokens})), tokens))
    signed = SignedTokens(_SECRET)
    cases.append(Case(SIGNED, protected(signed), [signed.create_token(f"actor {n}") for n in range(_IN_ROTATION)]))

    async def managed(name: str, file: str, *, wal: bool = True, rows: int = _ROWS, commits: int | None = None) -> None:
        store, tokens = await managed_tokens(stack, folder / file, rows=rows, wal=wal)
        app = protected(ManagedTokens(store))
        if commits is None:
            cases.append(Case(name, app, tokens))
            return
        writer = Writer(folder / file, commits)
        stack.callback(writer.close)
        cases.append(Case(name, app, tokens, before=writer.start, after=writer.pause))

    await managed(MANAGED, "wal.db")
    version = sqlite3.connect(folder / "wal.db", isolation_level=None)
    stack.callback(version.close)
    cases.append(Case(VERSION, VersionOnly(bare, version)))
    if rows != _ROWS:
        await managed(_many(rows), "many.db", rows=rows)
    for rate, name in COMMITS.items():
        await managed(name, f"commits{rate}.db", commits=rate)
    await managed(JOURNAL, "journal.db", wal=False)

    serializer = URLSafeSerializer(_SECRET, salt="benchmark")
    store = TokenStore(Untouched(folder / "untouched.db"), secret=_SECRET)
    other = TokenStore(SQLite(folder / "untouched.db"), secret="a secret of somebody else")
    forged = [other.text.build(n, new_nonce()) for n in range(1, _IN_ROTATION + 1)]
    cases += [
        Case(BAD_SIGNATURE, protected(ManagedTokens(store)), forged, status=401),
        Case(LOADS, LoadsOnly(serializer), [token.removeprefix("dsatok_") for token in forged], status=401),
    ]

    connection = await stack.enter_async_context(aiosqlite.connect(folder / "other.db"))
    await connection.executescript(
        "pragma journal_mode = wal; create table tokens (id integer primary key, name text, token_secret text)"
    )
    kept = {n: secrets.token_hex(16) for n in range(1, _IN_ROTATION + 1)}
    await connection.executemany("insert into tokens values (?, 'bot', ?)", kept.items())
    await connection.commit()
    own = SQLTokens(
        SQLite(folder / "other.db"),
        "select name as actor_id, token_secret from tokens where id = cast(:token_id as integer)",
    )
    await own.open()
    stack.push_async_callback(own.close)
    cases += [
        Case(SQL, protected(own), [f"{n}-{secret}" for n, secret in kept.items()]),
        Case(SELECT, SelectPerRequest(bare, serializer, connection), [str(serializer.dumps(n)) for n in kept]),
    ]
    return cases


def _many(rows: int) -> str:
    return f"managed, WAL, {rows:,} rows"


@dataclass(frozen=True)
class Goal:
    text: str
    reached: float
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        met = self.reached >= self.limit if self.at_least else self.reached <= self.limit
        sign = ">=" if self.at_least else "<="
        return f"{self.text:78} {sign} {self.limit:7.2f}   {self.reached:8.2f}   {'met' if met else 'MISSED'}"


def goals(results: Results, remembered: float, rows: int) -> list[Goal]:
    reached = [
        Goal("1  managed, WAL: added cost in no-op middlewares", results.cost(MANAGED, NO_OPS, _NO_OPS), 28),
        Goal("1  managed, WAL: added cost against Starlette's with a dict", results.cost(MANAGED, STARLETTE), 1.6),
        Goal(
            "1  hard-coded, 100: added cost against Starlette's with a dict", results.cost(STATIC[100], STARLETTE), 0.7
        ),
        Goal(
            "1  hard-coded, 10,000 tokens: the request against 1 token", results.ratio(STATIC[10_000], STATIC[1]), 1.3
        ),
        Goal(
            "2  a SELECT through aiosqlite against managed: added cost",
            results.cost(SELECT, MANAGED),
            40,
            at_least=True,
        ),
        Goal("5  1,000 commits/s elsewhere: the request against idle", results.ratio(COMMITS[1_000], MANAGED), 3),
        Goal("5  100 commits/s elsewhere: the request against idle", results.ratio(COMMITS[100], MANAGED), 1.1),
        Goal("8  bad signature: added cost against itsdangerous' loads()", results.cost(BAD_SIGNATURE, LOADS), 1.0),
        Goal("8  bytes per remembered token", remembered, 1024),
    ]
    if rows != _ROWS:
        reached.insert(
            5, Goal(f"4  {rows:,} rows: the request against {_ROWS:,}", results.ratio(_many(rows), MANAGED), 1.05)
        )
    return reached


def print_report(results: Results, reached: Sequence[Goal]) -> None:
    print(f"{'':46} {'x bare':>8} {'adds, no-ops':>13} {'adds, Starlettes':>17} {'us':>8}")
    for name in results.medians:
        print(
            f"{name:46} {results.ratio(name, BARE):8.2f} {results.cost(name, NO_OPS, _NO_OPS):13.1f} "
            f"{results.cost(name, STARLETTE):17.2f} {results.microseconds(name):8.2f}"
        )
    print()
    for goal in reached:
        print(goal)


async def run(*, rounds: int, seconds: float, rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            folder = Path(name)
            remembered = await bytes_per_token(stack, folder)
            cases = await build_cases(stack, folder, rows)
            results = await measure(cases, rounds=rounds, seconds=seconds)
            print_report(results, goals(results, remembered, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="What a request costs through the middleware.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.04, help="of each case's turn in a round")
    parser.add_argument("--rows", type=int, default=_ROWS, help="compare a table of so many rows, for example 1000000")
    arguments = parser.parse_args()
    asyncio.run(run(rounds=arguments.rounds, seconds=arguments.seconds, rows=arguments.rows))


if __name__ == "__main__":
    main()
