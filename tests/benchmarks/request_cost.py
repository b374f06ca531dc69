"""What a request costs through the middleware, next to peers of one page of code, all in one interleaved run."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiosqlite
from itsdangerous import URLSafeSerializer

from asgi_token_auth import ManagedTokens, SignedTokens, SQLTokens, StaticTokens, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.text import new_nonce
from tests.benchmarks.apps import (
    SECRET,
    LoadsOnly,
    NoOp,
    SelectHere,
    SelectPerRequest,
    VersionOnly,
    bare,
    protected,
    starlette_with_a_dict,
)
from tests.benchmarks.harness import Case, Results, http_scope, measure
from tests.benchmarks.report import Bar, Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.stores import IN_ROTATION, RESTRICTIONS, Counting, Untouched, Writer, managed_tokens

BARE: Final = "bare app"
NO_OP: Final = "no-op middleware"
ANONYMOUS: Final = "no credential"
STARLETTE: Final = "Starlette's AuthenticationMiddleware, a dict"
STATIC: Final = {count: f"hard-coded, {count:,} token{'s' if count > 1 else ''}" for count in (1, 100, 10_000)}
MANAGED: Final = "managed, WAL"
JOURNAL: Final = "managed, rollback journal"
RESTRICTED: Final = "managed, restricted"
SIGNED: Final = "signed (dstok_)"
SQL: Final = "custom SQL"
UNKNOWN: Final = "unknown token, refused"
BAD_SIGNATURE: Final = "bad signature, refused"
LOADS: Final = "itsdangerous loads() of a bad signature"
VERSION: Final = "nothing but PRAGMA data_version"
ROWS: Final = "managed, {:,} rows"
COMMITS: Final = {rate: f"managed, {rate:,} commits/s elsewhere" for rate in (100, 1_000)}
MANY: Final = "managed, {:,} tokens in rotation"
MANY_BY_HAND: Final = "itsdangerous, a SELECT, {:,} in rotation"
SELECT_HERE: Final = "itsdangerous, then a SELECT"
SELECT: Final = "itsdangerous, then an aiosqlite SELECT"

#: What the chart shows: whether it is ours, and whether it checks the token anew for each request.
BARS: Final = {
    NO_OP: (False, False),
    ANONYMOUS: (True, False),
    STARLETTE: (False, False),
    STATIC[100]: (True, False),
    STATIC[10_000]: (True, False),
    MANAGED: (True, False),
    JOURNAL: (True, False),
    SIGNED: (True, False),
    SELECT_HERE: (False, True),
    SELECT: (False, True),
    SQL: (True, False),
}


async def plain_cases() -> list[Case]:
    """Those without a database."""
    hard_coded = [secrets.token_urlsafe(32) for _ in range(10_000)]
    few = hard_coded[:IN_ROTATION]
    signed = SignedTokens(SECRET)
    static = [
        Case(STATIC[count], protected(StaticTokens({token: {"id": "bot"} for token in tokens})), tokens)
        for count in STATIC
        for tokens in [hard_coded[:count]]
    ]
    return [
        Case(BARE, bare),
        Case(NO_OP, NoOp(bare)),
        Case(ANONYMOUS, protected(StaticTokens({hard_coded[0]: {"id": "bot"}}))),
        Case(STARLETTE, starlette_with_a_dict(few), few),
        *static,
        Case(SIGNED, protected(signed), [signed.create_token(f"actor {number}") for number in range(IN_ROTATION)]),
    ]


async def managed_cases(stack: AsyncExitStack, folder: Path, size: Size, counting: Counting) -> list[Case]:
    """Those with managed tokens. ``counting`` is the database of the many tokens."""
    store, tokens = await managed_tokens(stack, folder / "wal.db")
    version = sqlite3.connect(folder / "wal.db", isolation_level=None)
    stack.callback(version.close)
    strangers = [secrets.token_urlsafe(32) for _ in range(IN_ROTATION)]
    cases = [
        Case(MANAGED, protected(ManagedTokens(store)), tokens),
        Case(VERSION, VersionOnly(bare, version)),
        Case(UNKNOWN, protected(ManagedTokens(store)), strangers, status=401),
    ]
    journal, tokens = await managed_tokens(stack, folder / "journal.db", wal=False)
    cases.append(Case(JOURNAL, protected(ManagedTokens(journal)), tokens))
    restricted, tokens = await managed_tokens(stack, folder / "restricted.db", restrictions=RESTRICTIONS)
    cases.append(Case(RESTRICTED, protected(ManagedTokens(restricted)), tokens))
    large, tokens = await managed_tokens(stack, folder / "large.db", rows=size.rows)
    cases.append(Case(ROWS.format(size.rows), protected(ManagedTokens(large)), tokens))
    many, tokens = await managed_tokens(
        stack, folder / "many.db", rows=size.many_tokens, known=size.many_tokens, database=counting
    )
    cases.append(Case(MANY.format(size.many_tokens), protected(ManagedTokens(many)), tokens))
    for rate, name in COMMITS.items():
        store, tokens = await managed_tokens(stack, folder / f"commits{rate}.db")
        writer = Writer(folder / f"commits{rate}.db", rate)
        stack.callback(writer.close)
        cases.append(Case(name, protected(ManagedTokens(store)), tokens, before=writer.start, after=writer.pause))
    return cases


async def refused_cases(folder: Path) -> list[Case]:
    """Tokens that somebody else signed."""
    store = TokenStore(Untouched(folder / "untouched.db"), secret=SECRET)
    other = TokenStore(SQLite(folder / "untouched.db"), secret="a secret of somebody else")
    forged = [other.text.build(number, new_nonce()) for number in range(1, IN_ROTATION + 1)]
    loads = LoadsOnly(URLSafeSerializer(SECRET, salt="benchmark"))
    return [
        Case(BAD_SIGNATURE, protected(ManagedTokens(store)), forged, status=401),
        Case(LOADS, loads, [token.removeprefix("dsatok_") for token in forged], status=401),
    ]


async def querying_cases(stack: AsyncExitStack, folder: Path, size: Size) -> list[Case]:
    """Custom SQL, and what makes a query for each request."""
    serializer = URLSafeSerializer(SECRET, salt="benchmark")
    connection = await stack.enter_async_context(aiosqlite.connect(folder / "other.db"))
    await connection.executescript(
        "pragma journal_mode = wal; create table tokens (id integer primary key, name text, token_secret text)"
    )
    kept = {number: secrets.token_hex(16) for number in range(1, size.many_tokens + 1)}
    await connection.executemany("insert into tokens values (?, 'bot', ?)", kept.items())
    await connection.commit()
    here = sqlite3.connect(folder / "other.db", isolation_level=None)
    stack.callback(here.close)
    own = SQLTokens(
        SQLite(folder / "other.db"),
        "select name as actor_id, token_secret from tokens where id = cast(:token_id as integer)",
    )
    await own.open()
    stack.push_async_callback(own.close)
    many = [str(serializer.dumps(number)) for number in kept]
    few = many[:IN_ROTATION]
    return [
        Case(SQL, protected(own), [f"{number}-{kept[number]}" for number in range(1, IN_ROTATION + 1)]),
        Case(SELECT_HERE, SelectHere(bare, serializer, here), few),
        Case(SELECT, SelectPerRequest(bare, serializer, connection), few),
        Case(MANY_BY_HAND.format(size.many_tokens), SelectHere(bare, serializer, here), many),
    ]


def report(results: Results, size: Size, reads: float) -> Report:
    found = Report()
    found.tables.append(table("Requests, in one process without sockets", results, BARE, STARLETTE, "Starlette's dict"))
    found.bars = [Bar(name, results.over(name), *kind) for name, kind in BARS.items()]
    found.values = {
        "managed / Starlette's dict": results.cost(MANAGED, STARLETTE),
        "hard-coded 100 / Starlette's dict": results.cost(STATIC[100], STARLETTE),
        "hard-coded 10,000 / 1, whole request": results.ratio(STATIC[10_000], STATIC[1]),
        "signed / Starlette's dict": results.cost(SIGNED, STARLETTE),
        "no credential / Starlette's dict": results.cost(ANONYMOUS, STARLETTE),
        "100 commits/s / idle, whole request": results.ratio(COMMITS[100], MANAGED),
        "1,000 commits/s / idle, whole request": results.ratio(COMMITS[1_000], MANAGED),
        "large table / 1,000 rows, whole request": results.ratio(ROWS.format(size.rows), MANAGED),
        "aiosqlite SELECT / managed": results.cost(SELECT, MANAGED),
        "bad signature / itsdangerous loads()": results.cost(BAD_SIGNATURE, LOADS),
        "many tokens / signature and SELECT": results.cost(
            MANY.format(size.many_tokens), MANY_BY_HAND.format(size.many_tokens)
        ),
        "many tokens, reads of rows per request": reads,
    }
    return found


def table(title: str, results: Results, base: str, unit: str, short: str) -> Table:
    """All cases of an interleaved run."""
    rows = [
        (
            name,
            f"{results.over(name):.2f}",
            f"{results.cost(name, unit):.2f}",
            f"{results.ratio(name, base):.2f}",
            f"{results.microseconds(name):.2f}",
            f"{results.mean(name):.2f}",
        )
        for name in results
    ]
    return Table(title, ("", f"us over {base}", f"x {short}", f"x {base}, whole", "us, whole", "mean"), rows)


async def run(size: Size) -> Report:
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            folder = Path(name)
            counting = Counting(folder / "many.db")
            cases = [
                *await plain_cases(),
                *await managed_cases(stack, folder, size, counting),
                *await refused_cases(folder),
                *await querying_cases(stack, folder, size),
            ]
            results = await measure(cases, rounds=size.rounds, seconds=size.seconds)
            many = next(case for case in cases if case.name == MANY.format(size.many_tokens))
            return report(results, size, await reads_per_request(many, counting))


async def reads_per_request(case: Case, counting: Counting) -> float:
    """How often a row is read for each request of ``case``."""
    before = counting.reads
    for token in case.tokens:
        await case.app(http_scope(token), None, _ignore)
    return (counting.reads - before) / len(case.tokens)


async def _ignore(message: object) -> None:
    """What the app sends was looked at in the rounds."""


def benchmark(size: Size) -> Report:
    """Measure."""
    return asyncio.run(run(size))
