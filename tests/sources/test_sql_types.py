"""Columns of every type behind a custom query: what cannot be an id is no id, and actors are made of JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asgi_token_auth import Credential, SQLTokens, TokenAuthMiddleware
from asgi_token_auth.authentication import Rejected
from tests.support.asgi import App, ask, http
from tests.support.places import Place, PostgresPlace

pytestmark = pytest.mark.anyio

#: What somebody may send for an id. None of it is in any of the tables below.
BAD_IDS = [
    *("word", "9" * 30, "9" * 400, "007", "1e3", "1.5.5", "0x1", "1_0", "+1", " 1", "1 ", "\t1", "\u0661", "\u00b2"),
    *("", "a\0b", "\0", "1\0", "%", "%s", "$1", ":token_id", "'", "''", '"', "\\", "\udc80", "1\ud800", "\U0001f600"),
    *("9223372036854775808", "2147483648", "32768", "NaN", "Infinity", "null", "true", "{}", "[]", "{1}", "now", "t"),
    *("00000000-0000-0000-0000-00000000000", "{a0eebc999c0b4ef8bb6d6bb9bd380a11", "2020-13-01", "x" * 8_000),
]

# The type of the id, and an id that is in the table, as it is sent.
TYPES = {
    "text": "a%20word",
    "varchar(20)": "a_word",
    "smallint": "32767",
    "integer": "2147483647",
    "bigint": "9223372036854775807",
    "numeric": "12345678901234567890.5",
    # As PostgreSQL also reads it: a hyphen ends the id of a token.
    "uuid": "a0eebc999c0b4ef8bb6d6bb9bd380a11",
}


only_postgres = pytest.mark.parametrize("place", ["postgres"], indirect=True)


async def status(app: TokenAuthMiddleware, token: str) -> int:
    header = (b"authorization", b"Bearer " + token.encode("utf-8", "surrogatepass"))
    return (await ask(app, http([header]))).status


@pytest.mark.parametrize("kind", TYPES)
async def test_an_id_that_cannot_be_one_is_unknown_and_harms_nobody(place: Place, kind: str) -> None:
    good = TYPES[kind]
    place.run(f"create table sources (id {kind} primary key, secret text, actor text)")
    place.run(f"insert into sources values ('{good}', 's', 'ann')")
    database = place.database(pool_size=1) if isinstance(place, PostgresPlace) else place.database()
    source = SQLTokens(
        database,
        f"select actor as actor_id, secret as token_secret from {database.qualified('sources')} where id = :token_id",
        timeout=30,
    )
    app = TokenAuthMiddleware(App(), sources=[source])
    await source.open()
    try:
        assert await status(app, f"{good}-s") == 200
        before = await session(place, source)
        for bad in BAD_IDS:
            outcome = await source.authenticate(Credential(f"{bad}-s"))
            assert outcome is None or isinstance(outcome, Rejected), bad
            # Some cannot even be sent.
            assert await status(app, f"{bad}-s") in (400, 401), bad
        assert await status(app, f"{good}-s") == 200
        # All of that was on one and the same connection.
        assert await session(place, source) == before
    finally:
        await source.close()


async def session(place: Place, source: SQLTokens) -> Any:
    if place.kind == "sqlite":
        return None
    return (await source._database.query("select pg_backend_pid()", {})).rows


@only_postgres
async def test_a_query_may_compare_its_id_in_any_way(place: PostgresPlace) -> None:
    place.run("create table sources (id integer primary key, name text)")
    place.run("insert into sources values (7, 'seven')")
    for condition, good, bad in (
        ("id = :token_id", "7", "8"),
        ("id = :token_id::integer", "7", "word"),
        ("id = cast(:token_id as bigint)", "7", "9" * 30),
        ("id::text = :token_id", "7", "007"),
        ("id = :token_id::text::integer", "7", "word"),
        ("name = :token_id and :token_id <> ':token_id'", "seven", "eight"),
        ("id = any(array[:token_id]::integer[])", "7", "word"),
        ("id = 7 and :token_id ~ '^[a-z]+$'", "seven", "7"),
    ):
        database = place.database()
        sql = f"select 'ann' as actor_id, 's' as token_secret from {database.qualified('sources')} where {condition}"
        source = SQLTokens(database, sql)
        app = TokenAuthMiddleware(App(), sources=[source])
        for _ in range(3):
            assert await status(app, f"{good}-s") == 200, condition
            assert await status(app, f"{bad}-s") == 401, condition
        await source.close()


@pytest.fixture
async def actor_of(place: PostgresPlace, anyio_backend: str) -> AsyncIterator[Any]:
    sources: list[SQLTokens] = []

    async def actor_of(column: str) -> Any:
        sql = f"select 'ann' as actor_id, 's' as token_secret, {column} as actor_x where :token_id::text = '1'"
        source = SQLTokens(place.database(), sql)
        sources.append(source)
        app = App()
        assert await status(TokenAuthMiddleware(app, sources=[source]), "1-s") == 200, column
        actor = app.scope["actor"]
        assert json.loads(json.dumps(actor)) == actor
        return actor["x"]

    yield actor_of
    for source in sources:
        await source.close()


@only_postgres
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("null", None),
        ("null::uuid", None),
        ("true", True),
        ("7::smallint", 7),
        ("9223372036854775807::bigint", 2**63 - 1),
        ("1.5::real", 1.5),
        ("1.5::double precision", 1.5),
        ("1.50::numeric", 1.5),
        ("12345678901234567890123::numeric", 12345678901234567890123),
        ("'x'::char(3)", "x  "),
        ("'x'::name", "x"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("'2020-01-02'::date", "2020-01-02"),
        ("'2020-01-02 03:04:05'::timestamp", "2020-01-02T03:04:05"),
        ("'2020-01-02 03:04:05+00'::timestamptz", "2020-01-02T03:04:05+00:00"),
        ("'03:04:05'::time", "03:04:05"),
        ("'{\"a\": [1]}'::json", '{"a": [1]}'),
        ("'{\"a\": [1]}'::jsonb", '{"a": [1]}'),
        ("array['a', null, 'b']", ["a", None, "b"]),
        ("array[array[1, 2], array[3, 4]]", [[1, 2], [3, 4]]),
        ("array['2020-01-02'::date]", ["2020-01-02"]),
        ("'{}'::text[]", []),
        ("'10.0.0.1'::inet", "10.0.0.1"),
        ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
        ("row(1, 'a')", [1, "a"]),
        ("interval '1 day'", "1 day, 0:00:00"),
        # There are no such numbers in JSON.
        ("'NaN'::numeric", None),
        ("'NaN'::double precision", None),
        ("'-Infinity'::real", None),
        ("'Infinity'::numeric", None),
        ("array['NaN'::real, 1]", [None, 1.0]),
    ],
)
async def test_a_column_becomes_json(place: PostgresPlace, actor_of: Any, column: str, value: object) -> None:
    assert await actor_of(column) == value


@only_postgres
@pytest.mark.parametrize(
    "column",
    [
        *("'infinity'::date", "'infinity'::timestamptz", "point '(1,2)'", "int4range(1, 5)"),
        *("bit '101'", "money '5'", "to_tsvector('a b')", "'integer'::regtype", "macaddr '08:00:2b:01:02:03'"),
    ],
)
async def test_a_column_of_an_odd_type_becomes_some_json(place: PostgresPlace, actor_of: Any, column: str) -> None:
    await actor_of(column)
