"""Every way in, every place for tokens: the four sources answer together and revocation holds at once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from datasette.database import Database

from asgi_token_auth.datasette import token_store, wrap_datasette
from asgi_token_auth.errors import ConfigurationError
from tests.support.sites import (
    BOT,
    SENSOR,
    bearer,
    bot_block,
    demo_files,
    full_block,
    issue,
    make,
    needs_0_65,
    needs_1_0,
    registered,
    serving,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio

Door = Callable[[list[Path], dict[str, Any]], AbstractAsyncContextManager[tuple[Any, httpx.AsyncClient]]]


@asynccontextmanager
async def by_hand(files: list[Path], block: dict[str, Any]) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    datasette = make(files)
    async with wrapped(datasette, block) as client:
        yield datasette, client


@asynccontextmanager
async def wrapped_own_section(files: list[Path], block: dict[str, Any]) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    datasette = make(files, block)
    async with wrapped(datasette) as client:
        yield datasette, client


@asynccontextmanager
async def own_section(files: list[Path], block: dict[str, Any]) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    datasette = make(files, block)
    async with serving(datasette.app()) as client:
        yield datasette, client


@asynccontextmanager
async def predecessors_section(
    files: list[Path], block: dict[str, Any]
) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    datasette = make(files, block, section="datasette-auth-tokens")
    async with serving(datasette.app()) as client:
        yield datasette, client


DOORS = pytest.mark.parametrize(
    "door", [by_hand, wrapped_own_section, own_section, predecessors_section], ids=lambda door: door.__name__
)


@DOORS
@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_the_four_sources_answer_together_by_every_door(door: Door, journal: str, tmp_path: Path) -> None:
    files = demo_files(tmp_path, journal=journal)
    async with door(files, full_block()) as (datasette, client):
        issued = await issue(datasette)
        assert await who(client, BOT) == {"id": "bot", "token": "static"}
        assert await who(client, issued.token) == {"id": "alice", "token": "dsatok", "token_id": issued.record.id}
        assert await who(client, SENSOR) == {"id": "sensor-1", "name": "Greenhouse", "token": "sql"}
        assert await who(client, signed()) == {"id": "carol", "token": "dstok"}
        assert await who(client) is None
        for refused in ("nobody-knows-this", "1-wrong", issued.token + "x", signed() + "x", "dsatok_MQ.x", "dstok_x.y"):
            assert await who(client, refused) == 401
        for token in (BOT, issued.token, SENSOR, signed()):
            assert await who(client, params={"_auth_token": token}) == await who(client, token)
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == (journal,), "the operator's choice is kept"


@DOORS
async def test_a_revoked_token_is_refused_by_the_next_request(door: Door, tmp_path: Path) -> None:
    async with door(demo_files(tmp_path), full_block()) as (datasette, client):
        kept, ended = await issue(datasette, "kept"), await issue(datasette, "ended")
        assert (await who(client, ended.token))["id"] == "ended"
        await token_store(datasette).revoke(ended.record.id, owner="ended")
        answer = await client.get("/-/actor.json", headers=bearer(ended.token))
        assert (answer.status_code, answer.json()["error"]) == (401, "The access token has been revoked.")
        assert (await who(client, kept.token))["id"] == "kept"


@DOORS
async def test_tokens_work_without_lifespan_events(door: Door, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block())
    async with wrapped(datasette, lifespan=False) as client:
        issued = await issue(datasette)
        assert (await who(client, issued.token))["id"] == "alice"
        assert (await who(client, SENSOR))["id"] == "sensor-1"


async def test_a_database_in_memory_holds_tokens_and_forgets_none_of_their_ends() -> None:
    datasette = make(memory=False)
    datasette.add_database(Database(datasette, memory_name="tokens_of_one_test"), name="tokens")
    async with wrapped(datasette, {"manage_tokens": True, "manage_tokens_database": "tokens"}) as client:
        issued = await issue(datasette)
        for _ in range(3):
            assert (await who(client, issued.token))["id"] == "alice"
        await token_store(datasette).revoke(issued.record.id, owner="alice")
        assert await who(client, issued.token) == 401


async def test_the_custom_query_may_run_on_a_database_in_memory_and_use_functions_of_plugins() -> None:
    def prepare_connection(conn: sqlite3.Connection) -> None:
        conn.create_function("backwards", 1, lambda text: text[::-1])

    datasette = make()
    datasette.add_database(Database(datasette, memory_name="sensors_of_one_test"), name="live")
    sql = "select 'one' as actor_id, backwards('terces') as token_secret where :token_id = 'a'"
    with registered(prepare_connection=prepare_connection):
        async with wrapped(datasette, {"query": {"sql": sql, "database": "live"}}) as client:
            assert await who(client, "a-secret") == {"id": "one", "token": "sql"}
            assert await who(client, "a-terces") == 401


@needs_1_0
async def test_managed_tokens_without_a_database_go_to_the_internal_file_and_outlive_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    internal = str(tmp_path / "internal.db")
    datasette = make(block={"manage_tokens": True}, internal=internal)
    async with serving(datasette.app()) as client:
        token = (await issue(datasette)).token
        assert (await who(client, token))["id"] == "alice"
    restarted = make(block={"manage_tokens": True}, internal=internal)
    async with serving(restarted.app()) as client:
        assert (await who(client, token))["id"] == "alice"
    assert "temporary internal database" not in caplog.text


@needs_1_0
async def test_the_temporary_internal_database_works_and_warns_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    datasette = make()
    with caplog.at_level(logging.WARNING, "asgi_token_auth"):
        async with wrapped(datasette, {"manage_tokens": True}) as client:
            assert "lost at a restart" in caplog.text
            issued = await issue(datasette)
            assert (await who(client, issued.token))["id"] == "alice"
            await token_store(datasette).revoke(issued.record.id, owner="alice")
            assert await who(client, issued.token) == 401


@needs_0_65
async def test_0_65_asks_for_a_database_because_it_has_no_lasting_internal_one() -> None:
    with pytest.raises(ConfigurationError, match="has no lasting internal database; name an attached one"):
        wrap_datasette(make(), {"manage_tokens": True})


async def test_the_query_uses_the_first_database_when_it_names_none(tmp_path: Path) -> None:
    block = full_block()
    del block["query"]["database"]
    async with wrapped(make(demo_files(tmp_path)), block) as client:
        assert (await who(client, SENSOR))["id"] == "sensor-1"


async def test_two_instances_in_one_process_do_not_know_each_others_tokens(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first = make(demo_files(folders[0]), full_block(tokens=[{"token": "first-" + BOT, "actor": {"id": "first"}}]))
    second = make(demo_files(folders[1]), full_block(tokens=[{"token": "second-" + BOT, "actor": {"id": "second"}}]))
    bare = make()
    async with serving(first.app()) as one, serving(second.app()) as two, serving(bare.app()) as none:
        in_first, in_second = await issue(first, "alice"), await issue(second, "root")
        assert in_first.record.id == in_second.record.id, "only then could they be mistaken for each other"
        assert [await who(one, "first-" + BOT), await who(two, "first-" + BOT)] == [
            {"id": "first", "token": "static"},
            401,
        ]
        assert [await who(one, in_first.token), await who(two, in_first.token)] == [
            {"id": "alice", "token": "dsatok", "token_id": 1},
            401,
        ]
        assert await who(none, "first-" + BOT) is None, "an instance without a block is left alone"
        assert await who(none, in_first.token) is None


async def test_one_block_serves_two_instances_and_is_not_changed(tmp_path: Path) -> None:
    block = full_block()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        plugins = {"plugins": {"asgi-token-auth": block}}
        datasette = make(demo_files(folder), config=plugins)
        async with serving(datasette.app()) as client:
            assert await who(client, BOT) == {"id": "bot", "token": "static"}
    assert block == full_block()


async def test_without_a_block_wrapping_is_refused_and_the_plugin_costs_nothing() -> None:
    datasette = make()
    with pytest.raises(ConfigurationError, match="Nothing is configured"):
        wrap_datasette(datasette)
    async with serving(datasette.app()) as client:
        assert await who(client, "anything") is None


async def test_a_former_secret_still_verifies_and_datasettes_own_signs(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    old = make(files, full_block(), secret="the secret of last year")
    async with serving(old.app()):
        token = (await issue(old)).token
    for former, expected in (([], 401), (["the secret of last year"], "alice")):
        block = full_block(secret=former) if former else full_block()
        datasette = make(files, block)
        async with serving(datasette.app()) as client:
            found = await who(client, token)
            assert (found if found == 401 else found["id"]) == expected


async def test_the_client_inside_datasette_gets_token_actors_and_follows_revocation(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block()):
        issued = await issue(datasette)
        for token, actor_id in ((BOT, "bot"), (issued.token, "alice"), (SENSOR, "sensor-1"), (signed(), "carol")):
            assert (await who(datasette.client, token))["id"] == actor_id
        assert await who(datasette.client, "nobody-knows-this") == 401
        await token_store(datasette).revoke(issued.record.id, owner="alice")
        assert await who(datasette.client, issued.token) == 401


async def test_a_base_url_changes_nothing(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), settings={"base_url": "/pre/"})
    async with wrapped(datasette, full_block()) as client:
        for path in ("/pre/-/actor.json", "/-/actor.json"):
            assert (await client.get(path, headers=bearer(BOT))).json()["actor"]["id"] == "bot"
            assert (await client.get(path, headers=bearer("wrong"))).status_code == 401
            answer = await client.get(path, params={"_auth_token": BOT})
            assert answer.json()["actor"]["id"] == "bot"
        assert (await who(datasette.client, BOT))["id"] == "bot"


@pytest.mark.parametrize("headers", [bearer("wrong"), {"authorization": "Bearer"}], ids=["401", "400"])
async def test_refusals_carry_datasettes_cors_headers_when_cors_is_on(headers: dict[str, str]) -> None:
    for cors in (True, False):
        async with wrapped(make(cors=cors), bot_block()) as client:
            answer = await client.get("/-/actor.json", headers=headers)
            assert answer.status_code in (400, 401)
            assert answer.headers.get("access-control-allow-origin") == ("*" if cors else None)
            preflight = await client.options(
                "/-/actor.json", headers={"origin": "https://example.com", "access-control-request-method": "GET"}
            )
            assert preflight.status_code != 401
