"""Datasette starts once, whoever comes first; what came early waits; nothing waits for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from datasette.database import Database
from datasette.utils import StartupError
from datasette.utils.asgi import Response

from asgi_token_auth.datasette import token_store, wrap_datasette
from asgi_token_auth.errors import ConfigurationError
from tests.support.sites import (
    BOT,
    IS_1_0,
    SENSOR,
    StartFailed,
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


class SlowStart:
    """A plugin whose startup hook takes its time, and a route that tells whether it was over."""

    def __init__(self) -> None:
        self.started = 0
        self.ready = False
        self.served_early = 0

    def startup(self) -> Callable[[], Awaitable[None]]:
        async def slowly() -> None:
            self.started += 1
            for _ in range(200):
                await asyncio.sleep(0)
            self.ready = True

        return slowly

    def register_routes(self) -> list[Any]:
        async def probe() -> Any:
            self.served_early += not self.ready
            return Response.json({"ready": self.ready})

        return [(r"^/-/probe$", probe)]


async def _everybody_at_once(clients: list[Any], tokens: list[str]) -> list[int]:
    requests = [
        client.get("/-/probe", headers=bearer(token) if token else {})
        for _ in range(5)
        for client in clients
        for token in tokens
    ]
    return [answer.status_code for answer in await asyncio.gather(*requests)]


@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "no lifespan"])
@pytest.mark.parametrize("by_hand", [True, False], ids=["wrapped", "plugin"])
async def test_startup_runs_once_and_no_request_is_served_before(by_hand: bool, lifespan: bool, tmp_path: Path) -> None:
    slow = SlowStart()
    with registered(startup=slow.startup, register_routes=slow.register_routes):
        datasette = make(demo_files(tmp_path), full_block())
        app = wrap_datasette(datasette) if by_hand else datasette.app()
        async with serving(app, lifespan=lifespan) as client:
            statuses = await _everybody_at_once([client], ["", BOT, SENSOR, signed(), "nobody-knows-this"])
            assert (slow.started, slow.served_early) == (1, 0)
            assert sorted(statuses) == [200] * 20 + [401] * 5
    await token_store(datasette).close()


async def test_the_client_inside_datasette_waits_for_the_same_start(tmp_path: Path) -> None:
    slow = SlowStart()
    with registered(startup=slow.startup, register_routes=slow.register_routes):
        datasette = make(demo_files(tmp_path))
        async with wrapped(datasette, full_block(), lifespan=False) as client:
            statuses = await _everybody_at_once([client, datasette.client], ["", BOT, signed()])
            assert (slow.started, slow.served_early) == (1, 0)
            assert set(statuses) == {200}


async def test_the_first_requests_with_managed_tokens_all_wait_for_one_opening(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    before = make(files, full_block())
    async with serving(before.app()):
        token = (await issue(before)).token
    slow = SlowStart()
    with registered(startup=slow.startup, register_routes=slow.register_routes):
        datasette = make(files)
        async with wrapped(datasette, full_block(), lifespan=False) as client:
            statuses = await _everybody_at_once([client], [token])
            assert (slow.started, slow.served_early, set(statuses)) == (1, 0, {200})


@needs_1_0
@pytest.mark.parametrize("first", ["request with a managed token", "request without", "lifespan", "store"])
async def test_a_startup_hook_that_mints_a_token_does_not_hang(first: str, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    before = make(files, full_block())
    async with serving(before.app()):
        earlier = (await issue(before)).token
    minted: list[str] = []

    def startup(datasette: Any) -> Callable[[], Awaitable[None]]:
        async def mint() -> None:
            minted.append(await datasette.create_token("minted-at-start"))

        return mint

    async def begin() -> None:
        datasette = make(files)
        async with wrapped(datasette, full_block(), lifespan=first == "lifespan") as client:
            if first == "store":
                await issue(datasette)
            elif first != "lifespan":
                await who(client, earlier if "managed" in first else None)
            (token,) = minted
            assert token.startswith("dsatok_")
            assert (await who(client, token))["id"] == "minted-at-start"

    with registered(startup=startup):
        await asyncio.wait_for(begin(), 10)


async def test_a_startup_hook_that_uses_the_client_does_not_hang() -> None:
    answers: list[Any] = []

    def startup(datasette: Any) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            # Datasette starts again for this request, so a hook has to know that it is at work already.
            if not answers:
                answers.append(None)
                answers[0] = await who(datasette.client, BOT)

        return ask

    async def begin() -> None:
        datasette = make(block=bot_block())
        if IS_1_0:
            # Its apps hold a lock while they start, and any hook that asks the client then waits for ever.
            await datasette.invoke_startup()
        async with serving(datasette.app(), lifespan=False) as client:
            assert await who(client, BOT) == {"id": "bot", "token": "static"}
        assert answers == [{"id": "bot", "token": "static"}]

    with registered(startup=startup):
        await asyncio.wait_for(begin(), 10)


@pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "no lifespan"])
async def test_the_plugin_may_name_a_database_that_another_one_attaches(lifespan: bool, tmp_path: Path) -> None:
    demo_files(tmp_path)

    def startup(datasette: Any) -> None:
        for name in ("tokens", "demo"):
            datasette.add_database(Database(datasette, path=str(tmp_path / f"{name}.db"), is_mutable=True), name=name)

    with registered(startup=startup):
        datasette = make(block=full_block())
        async with serving(datasette.app(), lifespan=lifespan) as client:
            assert (await who(client, SENSOR))["id"] == "sensor-1"
            assert (await who(client, (await issue(datasette)).token))["id"] == "alice"
        if not lifespan:
            await token_store(datasette).close()
        with pytest.raises(ConfigurationError, match="no database 'tokens' is attached"):
            wrap_datasette(make(), full_block())


async def test_a_start_that_fails_inside_datasette_is_told_to_the_server(tmp_path: Path) -> None:
    def startup() -> None:
        raise StartupError("this plugin will not start")

    with registered(startup=startup):
        for app in (make(block=bot_block()).app(), wrap_datasette(make(), bot_block())):
            with pytest.raises(StartFailed, match="this plugin will not start"):
                async with serving(app):
                    pass


async def test_startup_may_run_in_another_event_loop_than_the_requests(tmp_path: Path) -> None:
    """As ``datasette serve`` of 0.65 does it."""
    datasette = make(demo_files(tmp_path), full_block())

    def start_elsewhere() -> None:
        asyncio.run(datasette.invoke_startup())

    await asyncio.to_thread(start_elsewhere)
    async with serving(datasette.app()) as client:
        assert (await who(client, (await issue(datasette)).token))["id"] == "alice"
        assert (await who(client, SENSOR))["id"] == "sensor-1"


@needs_0_65  # 1.0 closes its databases for good when the server ends.
async def test_a_second_lifespan_of_the_same_app_works_where_datasette_allows_it(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    app = wrap_datasette(datasette, full_block())
    for _ in range(2):
        async with serving(app) as client:
            assert (await who(client, (await issue(datasette)).token))["id"] == "alice"


async def test_last_uses_are_written_when_the_server_stops(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block())
    async with serving(datasette.app()) as client:
        issued = await issue(datasette)
        assert issued.record.last_used_at is None
        await who(client, issued.token)
    after = make(demo_files_again(tmp_path), full_block())
    async with serving(after.app()):
        record = await token_store(after).get(issued.record.id, owner="alice")
        assert record.last_used_at is not None


async def test_last_uses_reach_a_database_in_memory_before_datasette_closes_it() -> None:
    datasette = make(block={"manage_tokens": True, "manage_tokens_database": "tokens"})
    kept = Database(datasette, memory_name="tokens_of_the_last_use_test")
    datasette.add_database(kept, name="tokens")
    elsewhere = make()
    same = Database(elsewhere, memory_name="tokens_of_the_last_use_test")
    elsewhere.add_database(same, name="tokens")
    # A connection of another instance keeps the memory from vanishing with the first one.
    await same.execute_write_fn(lambda connection: connection.execute("select 1").fetchall())
    async with serving(datasette.app()) as client:
        await who(client, (await issue(datasette)).token)
    rows = await same.execute_write_fn(
        lambda connection: connection.execute("select last_used_timestamp from _datasette_auth_tokens").fetchall()
    )
    assert rows[0][0] is not None


def demo_files_again(folder: Path) -> list[Path]:
    return [folder / "demo.db", folder / "tokens.db"]
