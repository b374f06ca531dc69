"""What is changed on a Datasette that runs holds at the next request, and one that was closed says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasette.database import Database

from asgi_token_auth.datasette import token_store, wrap_datasette
from tests.support.sites import (
    BOT,
    IS_1_0,
    bearer,
    bot_block,
    demo_files,
    full_block,
    issue,
    make,
    needs_1_0,
    registered,
    serving,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio


@needs_1_0
@pytest.mark.parametrize("unknown", ["reject", "pass"])
async def test_signed_tokens_that_are_switched_off_are_refused_at_once(unknown: str, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block(unknown=unknown))
    kept: list[Any] = []

    def actor_from_request(datasette: Any, request: Any) -> None:
        kept.append(request.scope["auth"])

    with registered(actor_from_request=actor_from_request):
        async with serving(datasette.app()) as client:
            token = signed()
            assert (await who(client, token))["id"] == "carol"
            assert await kept[-1].recheck()
            datasette._settings["allow_signed_tokens"] = False
            assert await who(client, token) == 401
            assert await who(client, params={"_auth_token": token}) == 401
            assert not await kept[-1].recheck(), "a stream that asks again ends"
            assert (await who(client, BOT))["id"] == "bot"
            datasette._settings["allow_signed_tokens"] = True
            assert (await who(client, token))["id"] == "carol"


@needs_1_0
async def test_signed_tokens_that_are_switched_on_later_are_accepted() -> None:
    datasette = make(block=bot_block(), settings={"allow_signed_tokens": False})
    async with wrapped(datasette) as client:
        assert await who(client, signed()) == 401
        datasette._settings["allow_signed_tokens"] = True
        assert (await who(client, signed()))["id"] == "carol"


@needs_1_0
async def test_a_shorter_life_of_signed_tokens_holds_at_once() -> None:
    datasette = make(block=bot_block())
    async with serving(datasette.app()) as client:
        token = signed()
        assert "token_expires" not in await who(client, token)
        datasette._settings["max_signed_tokens_ttl"] = 100
        actor = await who(client, token)
        assert set(actor) == {"id", "token", "token_expires"}
        datasette._settings["max_signed_tokens_ttl"] = 0
        assert "token_expires" not in await who(client, token)
        for unusable in (-1, "soon", 1.5, True):
            datasette._settings["max_signed_tokens_ttl"] = unusable
            assert await who(client, token) == 503, "no limit at all must not follow from one that cannot be read"


@needs_1_0
@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_datasette_that_was_closed_is_served_again_and_accepts_no_token_of_its_lost_database(
    by_hand: bool, caplog: pytest.LogCaptureFixture
) -> None:
    datasette = make(block=bot_block(manage_tokens=True))
    app = wrap_datasette(datasette) if by_hand else datasette.app()
    async with serving(app) as client:
        token = (await issue(datasette)).token
        assert (await who(client, token))["id"] == "alice"
    caplog.clear()
    async with serving(app) as client:
        [line] = [record.getMessage() for record in caplog.records if record.name == "asgi_token_auth"]
        assert "was closed when an earlier server of it stopped" in line
        assert "Make a new Datasette" in line
        assert await who(client, token) == 503
        assert (await who(client, BOT))["id"] == "bot"
        assert await who(client) is None


async def test_tokens_in_a_file_work_in_a_second_lifespan_of_one_datasette(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block())
    app = wrap_datasette(datasette)
    async with serving(app) as client:
        token = (await issue(datasette)).token
        assert (await client.get("/-/actor.json", headers=bearer(token))).json()["actor"]["id"] == "alice"
    async with serving(app) as client:
        assert (await client.get("/-/actor.json", headers=bearer(token))).json()["actor"]["id"] == "alice"
        await token_store(datasette).revoke(1, owner="alice")
        assert await who(client, token) == 401


@needs_1_0
async def test_tokens_in_a_memory_database_that_was_closed_are_503_and_do_not_stop_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    datasette = make(memory=False)
    datasette.add_database(Database(datasette, memory_name="tokens_of_a_closed_one"), name="tokens")
    app = wrap_datasette(datasette, {"manage_tokens": True, "manage_tokens_database": "tokens"})
    async with serving(app) as client:
        token = (await issue(datasette)).token
        assert (await who(client, token))["id"] == "alice"
    caplog.clear()
    async with serving(app) as client:
        assert "Datasette has closed it; make a new Datasette" in caplog.text
        assert await who(client, token) == 503


async def test_refusals_have_datasettes_cors_headers_while_it_has_them_itself() -> None:
    datasette = make(block=bot_block())
    async with serving(datasette.app()) as client:
        for cors in (False, True, False):
            datasette.cors = cors
            refused = await client.get("/-/actor.json", headers=bearer("wrong"))
            own = await client.get("/-/actor.json")
            assert (refused.status_code, own.status_code) == (401, 200)
            for answer in (refused, own):
                assert ("access-control-allow-origin" in answer.headers) is cors


async def test_the_block_is_read_at_the_start_and_what_is_written_over_it_later_opens_nothing() -> None:
    datasette = make(block=bot_block())
    async with serving(datasette.app()) as client:
        content = datasette.config if IS_1_0 else datasette._metadata_local
        for section in list(content["plugins"]):
            content["plugins"][section] = {"tokens": [{"token": "another-0123456789abc", "actor": {"id": "eve"}}]}
        assert await who(client, "another-0123456789abc") == 401
        assert (await who(client, BOT))["id"] == "bot"
