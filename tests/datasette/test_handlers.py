"""Datasette 1.0's own ways to make and check tokens, with ours among them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.datasette import token_store
from tests.support.sites import (
    BOT,
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

pytestmark = [pytest.mark.anyio, needs_1_0]


@pytest.fixture
async def datasette(tmp_path: Path) -> AsyncIterator[Any]:
    instance = make(demo_files(tmp_path), full_block())
    async with serving(instance.app()):
        yield instance


async def test_create_token_makes_managed_tokens_where_there_are_any(datasette: Any) -> None:
    token = await datasette.create_token("ann", expires_after=3600)
    assert token.startswith("dsatok_")
    assert await who(datasette.client, token) == {"id": "ann", "token": "dsatok", "token_id": 1}
    record = await token_store(datasette).get(1, owner="ann")
    assert record.expires_at == (record.created_at or 0) + 3600
    await token_store(datasette).revoke(1, owner="ann")
    assert await who(datasette.client, token) == 401


async def test_the_signed_handler_is_still_there(datasette: Any) -> None:
    token = await datasette.create_token("ann", handler="signed")
    assert token.startswith("dstok_")
    assert await who(datasette.client, token) == {"id": "ann", "token": "dstok"}


async def test_without_managed_tokens_create_token_signs() -> None:
    datasette = make(block=bot_block())
    async with serving(datasette.app()):
        assert (await datasette.create_token("ann")).startswith("dstok_")
        with pytest.raises(ValueError, match="dsatok"):
            await datasette.create_token("ann", handler="dsatok")


async def test_restrictions_of_datasette_are_kept(datasette: Any) -> None:
    from datasette.tokens import TokenRestrictions

    limits = TokenRestrictions().allow_all("view-instance").allow_resource("demo", "foo", "view-table")
    token = await datasette.create_token("ann", restrictions=limits)
    actor = await who(datasette.client, token)
    assert actor["_r"] == {"a": ["vi"], "r": {"demo": {"foo": ["vt"]}}}
    assert (await datasette.client.get("/demo/foo.json", headers=bearer(token))).status_code == 200
    assert (await datasette.client.get("/demo/sensors.json", headers=bearer(token))).status_code == 403


async def test_empty_restrictions_are_refused_because_they_would_mean_everything(datasette: Any) -> None:
    from datasette.tokens import TokenRestrictions

    with pytest.raises(ValueError, match="These TokenRestrictions are empty"):
        await datasette.create_token("ann", restrictions=TokenRestrictions())
    assert (await issue(datasette)).record.id == 1, "nothing was made"


@pytest.mark.parametrize("actor_id", [None, "", 5, {"x": 1}])
async def test_an_actor_id_that_is_no_text_makes_no_token(actor_id: Any, datasette: Any) -> None:
    with pytest.raises(ValueError, match="actor id"):
        await datasette.create_token(actor_id)


@pytest.mark.parametrize("expires_after", [0, -1, "60"])
async def test_an_unusable_expiry_makes_no_token(expires_after: Any, datasette: Any) -> None:
    with pytest.raises(ValueError, match="expiry"):
        await datasette.create_token("ann", expires_after=expires_after)


async def test_verify_token_knows_managed_tokens(datasette: Any) -> None:
    from datasette.tokens import TokenInvalid

    issued = await issue(datasette)
    assert await datasette.verify_token(issued.token) == {"id": "alice", "token": "dsatok", "token_id": 1}
    assert await datasette.verify_token("nobody-knows-this") is None
    await token_store(datasette).revoke(1, owner="alice")
    for token in (issued.token, "dsatok_MQ.x", "dsatok_"):
        with pytest.raises(TokenInvalid):
            await datasette.verify_token(token)


async def test_the_page_that_creates_tokens_still_signs_them(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block())
    async with serving(datasette.app()):
        page = await datasette.client.post("/-/create-token", data={"expire_type": ""}, actor={"id": "ann"})
        assert page.status_code == 200
        assert "dstok_" in page.text
        assert "dsatok_" not in page.text


async def test_switched_off_signed_tokens_are_401(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block(), settings={"allow_signed_tokens": False})
    async with serving(datasette.app()) as client:
        assert await who(client, signed()) == 401
        assert await who(client, params={"_auth_token": signed()}) == 401
        assert (await who(client, BOT))["id"] == "bot"
        with pytest.raises(ValueError, match="not enabled"):
            await datasette.create_token("ann", handler="signed")
    passing = make(block=bot_block(unknown="pass"), settings={"allow_signed_tokens": False})
    async with serving(passing.app()) as client:
        assert await who(client, signed()) == 401


async def test_max_signed_tokens_ttl_is_datasettes_own_setting() -> None:
    datasette = make(block=bot_block(), settings={"max_signed_tokens_ttl": 100})
    async with serving(datasette.app()) as client:
        actor = await who(client, signed())
        assert set(actor) == {"id", "token", "token_expires"}


async def test_the_token_handler_of_another_plugin_works_through_us(tmp_path: Path) -> None:
    from datasette.tokens import TokenHandler, TokenInvalid

    asked: list[str] = []

    class Other(TokenHandler):  # type: ignore[misc]
        name = "other"

        async def create_token(self, datasette: Any, actor_id: str, **more: Any) -> str:
            return f"other:{actor_id}"

        async def verify_token(self, datasette: Any, token: str) -> dict[str, Any] | None:
            asked.append(token)
            if not token.startswith("other:"):
                return None
            if token == "other:ended":
                raise TokenInvalid("this one has ended")
            if token == "other:odd":
                return {"id": "odd", "_r": "not restrictions"}
            return {"id": token.partition(":")[2], "token": "other"}

    with registered(register_token_handler=lambda datasette: Other()):
        datasette = make(demo_files(tmp_path))
        async with wrapped(datasette, full_block()) as client:
            token = await datasette.create_token("ann", handler="other")
            assert await who(client, token) == {"id": "ann", "token": "other"}
            assert await who(client, params={"_auth_token": token}) == {"id": "ann", "token": "other"}
            assert await who(client, "other:ended") == 401
            assert await who(client, "other:odd") == 401
            assert await who(client, "unknown:x") == 401
            asked.clear()
            await who(client, (await issue(datasette)).token)
            await who(client, BOT)
            await who(client, signed())
            assert asked == [], "tokens of ours are shown to nobody else"


async def test_a_token_handler_that_fails_is_503_and_hurts_only_its_tokens(tmp_path: Path) -> None:
    from datasette.tokens import TokenHandler

    class Failing(TokenHandler):  # type: ignore[misc]
        name = "failing"

        async def verify_token(self, datasette: Any, token: str) -> dict[str, Any] | None:
            raise RuntimeError("its server is down")

    with registered(register_token_handler=lambda datasette: Failing()):
        datasette = make(demo_files(tmp_path))
        async with wrapped(datasette, full_block()) as client:
            assert await who(client, "unknown:x") == 503
            assert (await who(client, BOT))["id"] == "bot"
            assert (await who(client, (await issue(datasette)).token))["id"] == "alice"
            assert await who(client) is None
