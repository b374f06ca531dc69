"""What cannot work does not start, and one sentence says what to change."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from datasette.plugins import pm
from datasette.utils import StartupError

from asgi_token_auth.datasette import token_store, version, wrap_datasette
from asgi_token_auth.errors import ConfigurationError
from tests.support.sites import (
    BOT,
    StartFailed,
    bearer,
    bot_block,
    demo_files,
    full_block,
    make,
    needs_0_65,
    needs_1_0,
    serving,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"tokns": []}, "tokns: there is no such key; did you mean tokens?"),
    "a wrong type": ({"manage_tokens": "yes"}, "manage_tokens: must be true or false, not a string."),
    "an unset variable": (
        {"tokens": [{"token": {"$env": "ASGI_TOKEN_AUTH_UNSET"}, "actor": {"id": "bot"}}]},
        "the environment variable ASGI_TOKEN_AUTH_UNSET is not set",
    ),
    "a missing file": (
        {"tokens": [{"token": {"$file": "./no-such-file"}, "actor": {"id": "bot"}}]},
        "the file ./no-such-file cannot be read",
    ),
    "required": (bot_block(required=True), "required: Datasette's own users cannot be seen from outside it"),
    "scopes": (
        bot_block(manage_tokens=True, manage_tokens_database="tokens", scopes=["read"]),
        "scopes: Datasette has actions of its own",
    ),
    "a missing token database": (
        {"manage_tokens": True, "manage_tokens_database": "elsewhere"},
        "manage_tokens_database: no database 'elsewhere' is attached",
    ),
    "a missing query database": (
        {"query": {"sql": "select 1 as actor_id, 2 as token_secret where :token_id", "database": "elsewhere"}},
        "query.database: no database 'elsewhere' is attached",
    ),
    "a query without a secret": (
        {"query": {"sql": "select name as actor_id from sensors where id = :token_id", "database": "demo"}},
        "query.sql: the query must return a column token_secret.",
    ),
    "a query that writes": (
        {"query": {"sql": "delete from sensors where id = :token_id returning 1", "database": "demo"}},
        "it must be one SELECT",
    ),
    "a query on a missing table": (
        {"query": {"sql": "select actor_id, token_secret from gone where id = :token_id", "database": "demo"}},
        "no such table: gone",
    ),
}
ONLY_1_0: dict[str, tuple[dict[str, Any], str]] = {
    "permissions": (
        full_block(permissions={"auth-tokens-create": True}),
        "Datasette 1.0 has its own permissions block",
    ),
    "trusted_origins": (
        full_block(trusted_origins=["https://example.com"]),
        "trusted_origins: Datasette 1.0 refuses such forms itself",
    ),
    "signed_tokens": (bot_block(signed_tokens=True), "use its setting allow_signed_tokens."),
    "max_signed_tokens_ttl": (bot_block(max_signed_tokens_ttl=60), "max_signed_tokens_ttl: Datasette 1.0 decides that"),
}
ROWS = pytest.mark.parametrize(
    ("block", "sentence"),
    [pytest.param(*row, id=name) for name, row in BROKEN.items()]
    + [pytest.param(*row, id=name, marks=needs_1_0) for name, row in ONLY_1_0.items()],
)


@ROWS
async def test_a_broken_block_stops_the_start_of_the_plugin(
    block: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    async def start() -> None:
        await make(demo_files(tmp_path), block).invoke_startup()

    with pytest.raises(StartupError) as refused:
        await start()
    assert str(refused.value).startswith("asgi-token-auth: ")
    assert sentence in refused.value.args[0]
    assert "\n" not in str(refused.value)


@ROWS
async def test_a_broken_block_stops_the_wrapped_app(block: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    with pytest.raises((ConfigurationError, StartFailed)) as refused:
        async with wrapped(datasette, block):
            pass
    assert sentence in str(refused.value)


async def test_without_lifespan_a_broken_query_refuses_every_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datasette = make(demo_files(tmp_path))
    block, sentence = BROKEN["a query without a secret"]
    async with wrapped(datasette, {**block, **bot_block()}, lifespan=False) as client:
        for token in (BOT, None, BOT, None):
            answer = await client.get("/-/actor.json", headers=bearer(token) if token else {})
            assert answer.status_code == 503
            assert answer.json()["ok"] is False
    assert sentence.partition(":")[0] in caplog.text


async def test_a_file_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files, full_block())
    for file in tmp_path.glob("tokens.db*"):
        file.unlink()
    # 1.0 looks into every database itself before it asks plugins.
    with pytest.raises((StartupError, sqlite3.Error), match=r"open|is not there"):
        await datasette.invoke_startup()
    assert not files[1].exists(), "an empty database in its place would forget every token"


async def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files, full_block())
    for file in tmp_path.glob("tokens.db*"):
        file.unlink()
    files[1].write_bytes(b"this is no database at all, and it is long enough to be sure of that" * 20)
    with pytest.raises((StartupError, sqlite3.Error), match=r"not a (SQLite )?database"):
        await datasette.invoke_startup()


async def test_an_immutable_database_cannot_hold_tokens(tmp_path: Path) -> None:
    demo, tokens = demo_files(tmp_path, journal="delete")
    block = full_block()
    datasette = make([demo], immutables=[str(tokens)])
    with pytest.raises(ConfigurationError, match="tokens is attached as immutable and cannot hold tokens"):
        wrap_datasette(datasette, block)


async def test_the_custom_query_may_read_an_immutable_database(tmp_path: Path) -> None:
    demo, tokens = demo_files(tmp_path, journal="delete")
    datasette = make([tokens], immutables=[str(demo)])
    async with wrapped(datasette, full_block()) as client:
        assert (await who(client, "1-open-sesame"))["id"] == "sensor-1"


@pytest.mark.parametrize(
    "name", ["token", "sql", "next", "_next", "_search", "_search_name", "_size", "_shape", "_facet_size", "csrftoken"]
)
async def test_a_parameter_that_datasette_uses_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"param: Datasette uses '{name}' itself; use _auth_token."):
        wrap_datasette(make(), bot_block(param=name))


@needs_0_65
async def test_0_65_takes_the_keys_that_1_0_decides_itself(tmp_path: Path) -> None:
    block = full_block(max_signed_tokens_ttl=60, permissions={"auth-tokens-create": True})
    async with wrapped(make(demo_files(tmp_path)), block) as client:
        assert (await who(client, signed()))["id"] == "carol"
    async with wrapped(make(), bot_block(signed_tokens=False)) as client:
        assert await who(client, signed()) == 401


@pytest.fixture
def predecessor() -> Iterator[None]:
    module = ModuleType("datasette_auth_tokens")
    pm.register(module)
    try:
        yield
    finally:
        pm.unregister(module)


@pytest.mark.usefixtures("predecessor")
@pytest.mark.parametrize("section", ["asgi-token-auth", "datasette-auth-tokens"])
async def test_beside_the_active_predecessor_the_start_is_refused(section: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="pip uninstall datasette-auth-tokens"):
        await make(demo_files(tmp_path), full_block(), section=section).invoke_startup()
    with pytest.raises(ConfigurationError, match="two plugins cannot both own the tokens"):
        wrap_datasette(make(), bot_block())


@pytest.mark.usefixtures("predecessor")
async def test_beside_the_predecessor_an_instance_without_a_block_starts() -> None:
    async with serving(make().app()) as client:
        assert await who(client) is None


async def test_a_store_is_only_handed_out_where_tokens_are_managed() -> None:
    datasette = make(block=bot_block())
    for instance in (make(), datasette):
        with pytest.raises(ConfigurationError, match="manage_tokens: is not on"):
            token_store(instance)


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("0.65", True),
        ("0.65.5", True),
        ("1.0a36", True),
        ("1.0a41", True),
        ("1.0a41+local", True),
        ("0.64.8", False),
        ("0.66", False),
        ("1.0a35", False),
        ("1.0a2", False),
        ("1.0", False),
        ("1.1a1", False),
        ("2.0", False),
        ("nonsense", False),
    ],
)
async def test_other_versions_of_datasette_are_refused(
    text: str, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "installed", text)
    if supported:
        wrap_datasette(make(), bot_block())
        return
    with pytest.raises(ConfigurationError, match=f"Datasette {text} is not supported: install 0.65 or a 1.0 alpha"):
        wrap_datasette(make(), bot_block())


async def test_a_short_secret_of_datasette_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    datasette = make(secret="short")
    async with wrapped(datasette, bot_block()) as client:
        assert (await who(client, BOT))["id"] == "bot"
    assert "Datasette's secret has fewer than 16 characters" in caplog.text


async def test_a_token_database_that_people_may_query_is_named_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = demo_files(tmp_path)
    async with wrapped(make(files), full_block()):
        assert "the database tokens holds the tokens, and people may run SQL on it" in caplog.text
    caplog.clear()
    closed = {"databases": {"tokens": {"allow_sql": False}}}
    async with wrapped(make(files, config=closed), full_block()):
        assert "people may run SQL" not in caplog.text
    async with wrapped(make(files, config={"databases": {"tokens": {"allow_sql": {"id": "*"}}}}), full_block()):
        assert "people may run SQL" in caplog.text, "whoever signs in is people"
    with closing(sqlite3.connect(files[1])) as connection:
        assert connection.execute("select count(*) from _datasette_auth_tokens").fetchone() == (0,)


@pytest.mark.parametrize("section", ["asgi-token-auth", "datasette-auth-tokens"])
@pytest.mark.parametrize("nothing", [{}, [], None, False])
async def test_a_section_with_nothing_in_it_stops_the_start(tmp_path: Path, section: str, nothing: object) -> None:
    with pytest.raises(StartupError, match="nothing is configured"):
        await make(demo_files(tmp_path), config={"plugins": {section: nothing}}).invoke_startup()


async def test_a_section_with_underscores_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="with hyphens"):
        await make(demo_files(tmp_path), config={"plugins": {"asgi_token_auth": bot_block()}}).invoke_startup()
