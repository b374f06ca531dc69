"""A presented token decides alone: over cookies, over other plugins, over what Datasette itself makes of it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.datasette import token_store, wrap_datasette
from tests.support.asgi import ask, websocket
from tests.support.sites import (
    BOT,
    IS_1_0,
    SENSOR,
    bearer,
    bot_block,
    cookie,
    demo_files,
    full_block,
    issue,
    make,
    needs_1_0,
    only,
    registered,
    serving,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio

MALLORY = {"id": "mallory"}


def _actor_at_once(request: Any) -> dict[str, Any]:
    return MALLORY


def _actor_later(request: Any) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def later() -> dict[str, Any]:
        return MALLORY

    return later


async def _actor_coroutine(request: Any) -> dict[str, Any]:
    return MALLORY


def _raises_at_once(request: Any) -> None:
    raise RuntimeError("this plugin is broken")


async def _raises_later(request: Any) -> None:
    raise RuntimeError("this plugin is broken")


async def _raises_token_invalid(request: Any) -> None:
    from datasette.tokens import TokenInvalid

    raise TokenInvalid("another plugin dislikes this token")


OTHERS = [
    _actor_at_once,
    _actor_later,
    _actor_coroutine,
    _raises_at_once,
    _raises_later,
    pytest.param(_raises_token_invalid, marks=needs_1_0),
]


@pytest.mark.parametrize("kind", ["hard-coded", "managed", "custom SQL", "signed"])
async def test_a_token_beats_the_login_cookie(kind: str, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), full_block())
    for app in (datasette.app(), wrap_datasette(datasette)):
        async with serving(app) as client:
            issued = await issue(datasette)
            token, actor_id = {
                "hard-coded": (BOT, "bot"),
                "managed": (issued.token, "alice"),
                "custom SQL": (SENSOR, "sensor-1"),
                "signed": (signed(), "carol"),
            }[kind]
            login = cookie(datasette, {"id": "root"})
            assert await who(client, headers=login) == {"id": "root"}, "the cookie is good by itself"
            assert (await who(client, token, headers=login))["id"] == actor_id
            assert (await who(client, params={"_auth_token": token}, headers=login))["id"] == actor_id
            # 1.0 closes its databases when the server ends, and the second round is another app of the same instance.
            if IS_1_0:
                break


@pytest.mark.parametrize("token", ["nobody-knows-this", "1-wrong", "dsatok_MQ.x", "dstok_x.y", "two words"])
async def test_a_bad_token_is_never_rescued_by_a_cookie(token: str, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block()) as client:
        login = cookie(datasette, {"id": "root"})
        expected = 400 if " " in token else 401
        assert await who(client, token, headers=login) == expected
        assert await who(client, params={"_auth_token": token}, headers=login) == expected
        assert await who(datasette.client, token, headers=login) == expected


async def test_a_revoked_token_is_not_rescued_by_a_cookie(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette)
        await token_store(datasette).revoke(issued.record.id, owner="alice")
        assert await who(client, issued.token, headers=cookie(datasette, {"id": "alice"})) == 401


async def test_with_unknown_pass_an_unknown_token_is_anonymous_and_not_the_cookies_actor(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block(unknown="pass")) as client:
        login = cookie(datasette, {"id": "root"})
        for token in ("nobody-knows-this", "1-wrong"):
            assert await who(client, token, headers=login) is None
        assert await who(client, "dstok_x.y", headers=login) == 401, "what is ours is refused all the same"


@pytest.mark.parametrize("tryfirst", [False, True], ids=["late", "tryfirst"])
@pytest.mark.parametrize("other", OTHERS)
async def test_a_token_beats_other_plugins(other: Callable[..., Any], tryfirst: bool, tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    with registered(tryfirst=tryfirst, actor_from_request=other):
        async with wrapped(datasette, full_block()) as client:
            assert await who(client, BOT) == {"id": "bot", "token": "static"}
            assert (await who(client, (await issue(datasette)).token))["id"] == "alice"
            assert (await who(client, signed(), headers=cookie(datasette, {"id": "root"})))["id"] == "carol"


@pytest.mark.parametrize("other", [_actor_at_once, _actor_later, _actor_coroutine])
async def test_other_plugins_still_answer_for_requests_without_a_token(other: Callable[..., Any]) -> None:
    with registered(actor_from_request=other):
        async with wrapped(make(), bot_block()) as client:
            assert await who(client) == MALLORY
            assert await who(client, BOT) == {"id": "bot", "token": "static"}


@pytest.mark.filterwarnings("error::RuntimeWarning")
async def test_no_coroutine_of_another_plugin_is_left_unawaited() -> None:
    with registered(actor_from_request=_actor_coroutine), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with wrapped(make(), bot_block()) as client:
            for _ in range(3):
                assert await who(client, BOT) == {"id": "bot", "token": "static"}
                assert await who(client) == MALLORY
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []


@pytest.mark.parametrize("by_parameter", [False, True], ids=["header", "parameter"])
async def test_the_app_sees_neither_the_token_nor_a_cookie(by_parameter: bool, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def asgi_wrapper() -> Callable[[Any], Any]:
        def around(app: Any) -> Any:
            async def probe(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    seen.append(scope)
                await app(scope, receive, send)

            return probe

        return around

    datasette = make(demo_files(tmp_path))
    with registered(asgi_wrapper=asgi_wrapper):
        async with wrapped(datasette, full_block()) as client:
            for token in (BOT, (await issue(datasette)).token, SENSOR, signed()):
                seen.clear()
                headers = {**cookie(datasette, {"id": "root"}), "x-kept": "yes"}
                if by_parameter:
                    answer = await client.get(f"/-/actor.json?_auth_token={token}&a=1", headers=headers)
                else:
                    answer = await client.get("/-/actor.json?a=1", headers={**headers, **bearer(token)})
                assert answer.status_code == 200
                (scope,) = seen
                names = dict(scope["headers"])
                assert b"cookie" not in names
                assert names[b"x-kept"] == b"yes"
                assert names.get(b"authorization") == (None if by_parameter else b"Bearer")
                assert scope["query_string"] == b"a=1"
                assert {"token": scope["auth"].source, **scope["actor"]} == answer.json()["actor"]
                shown = {key: value for key, value in scope.items() if key != "asgi_token_auth"}
                assert token not in repr(shown)


@needs_1_0
async def test_a_token_actor_makes_no_further_signed_tokens(tmp_path: Path) -> None:
    block = full_block(tokens=[{"token": BOT, "actor": {"id": "root"}}])
    datasette = make(demo_files(tmp_path), block)
    async with serving(datasette.app()) as client:
        login = cookie(datasette, {"id": "root"})
        assert (await client.post("/-/create-token", headers=login, data={"a": "b"})).status_code == 200, "people may"
        managed = (await issue(datasette, "root")).token
        for token in (BOT, managed, SENSOR, signed("root")):
            for headers in (bearer(token), {**bearer(token), **login}):
                assert (await client.get("/-/create-token", headers=headers)).status_code == 403
                assert (await client.post("/-/create-token", headers=headers, data={"a": "b"})).status_code == 403


@needs_1_0
async def test_a_restricted_token_beside_a_cookie_does_not_get_the_cookies_rights(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block()) as client:
        token = (await issue(datasette, "root", restrictions=only("view-instance"))).token
        login = cookie(datasette, {"id": "root"})
        assert (await client.get("/demo/foo.json", headers=login)).status_code == 200
        assert (await client.get("/demo/foo.json", headers={**login, **bearer(token)})).status_code == 403


@pytest.mark.parametrize("token", [None, BOT, "nobody-knows-this-token"])
async def test_a_websocket_is_closed_and_makes_no_error(tmp_path: Path, token: str | None) -> None:
    """Datasette has none, and would answer as if it had been asked over HTTP."""
    datasette = make(demo_files(tmp_path))
    app = wrap_datasette(datasette, full_block())
    async with serving(app):
        scope = websocket([(b"authorization", f"Bearer {token}".encode())] if token else [])
        answer = await ask(app, scope)
    assert [message["type"] for message in answer.messages] == ["websocket.close"]
