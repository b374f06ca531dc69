"""Other plugins' ASGI wrappers: outside of what is refused, inside of what is checked, in whichever order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asgi_token_auth.datasette import wrap_datasette
from tests.support.sites import BOT, bearer, bot_block, make, registered, serving, who

pytestmark = pytest.mark.anyio

SEEN = "x-wrapper"


class Wrapper:
    """A plugin that adds a header to every answer, as datasette-cors does, and keeps what it has seen."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.answers_itself = self.fails = False
        self.status: int | None = None

    def asgi_wrapper(self, datasette: Any) -> Any:
        def wrap(app: Any) -> Any:
            async def wrapped(scope: Any, receive: Any, send: Any) -> None:
                self.scopes.append(dict(scope))

                async def adding(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        headers = [*message["headers"], (SEEN.encode(), b"yes")]
                        message = {**message, "headers": headers, "status": self.status or message["status"]}
                    await send(message)

                if scope["type"] == "http" and self.fails:
                    raise RuntimeError("the wrapper is broken")
                if scope["type"] == "http" and self.answers_itself:
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": b"for everybody"})
                    return
                await app(scope, receive, adding)

            return wrapped

        return wrap


@pytest.fixture(params=["found first", "found last", "tryfirst"])
def wrapper(request: pytest.FixtureRequest) -> Iterator[Wrapper]:
    from datasette.plugins import pm

    from asgi_token_auth.datasette import hooks

    wrapper = Wrapper()
    name = pm.get_name(hooks)
    if name is not None and request.param == "found first":
        pm.unregister(hooks)
    with registered(
        tryfirst=request.param == "tryfirst", asgi_wrapper=lambda datasette: wrapper.asgi_wrapper(datasette)
    ):
        if not pm.is_registered(hooks):
            pm.register(hooks, name="asgi_token_auth")
        yield wrapper


DOORS = pytest.mark.parametrize("by_hand", [False, True], ids=["plugin", "by hand"])


def served(by_hand: bool, **more: Any) -> Any:
    datasette = make(block=bot_block(param="_auth_token"), **more)
    return serving(wrap_datasette(datasette) if by_hand else datasette.app())


@DOORS
async def test_refusals_have_the_headers_of_other_plugins_wrappers(wrapper: Wrapper, by_hand: bool) -> None:
    async with served(by_hand) as client:
        for headers, parameters, status in (
            (bearer("an-expired-or-revoked-token"), {}, 401),
            ({}, {"_auth_token": "an-expired-or-revoked-token"}, 401),
            (bearer("two words"), {}, 400),
            (bearer(BOT), {"_auth_token": BOT}, 400),
        ):
            answer = await client.get("/-/actor.json", headers=headers, params=parameters)
            assert (answer.status_code, answer.headers.get_list(SEEN)) == (status, ["yes"])
            assert answer.headers["cache-control"].endswith("no-store")
            assert answer.json()["status"] == status
        head = await client.head("/", headers=bearer("an-expired-or-revoked-token"))
        assert (head.status_code, head.content, head.headers[SEEN]) == (401, b"", "yes")
        good = await client.get("/-/actor.json", headers=bearer(BOT))
        assert (good.status_code, good.headers[SEEN]) == (200, "yes")


@DOORS
async def test_wrappers_see_no_credential_and_no_cookie_of_what_is_refused(wrapper: Wrapper, by_hand: bool) -> None:
    async with served(by_hand) as client:
        wrapper.scopes.clear()
        for token in (BOT, "an-expired-or-revoked-token"):
            for parameters, headers in (({}, bearer(token)), ({"_auth_token": token}, {})):
                await client.get("/-/actor.json", params=parameters, headers={**headers, "cookie": "ds_actor=x"})
        await client.post("/-/actor.json", params={"_auth_token": BOT})
        assert len(wrapper.scopes) == 5
        assert BOT not in repr(wrapper.scopes)
        assert "an-expired" not in repr(wrapper.scopes)
        assert "ds_actor" not in repr(wrapper.scopes)
        assert [scope["actor"] for scope in wrapper.scopes] == [{"id": "bot"}, {"id": "bot"}, None, None, None]


@DOORS
async def test_no_wrapper_rescues_a_bad_token_or_breaks_its_refusal(wrapper: Wrapper, by_hand: bool) -> None:
    async with served(by_hand) as client:
        wrapper.status = 200
        answer = await client.get("/-/actor.json", headers=bearer("an-expired-or-revoked-token"))
        assert (answer.status_code, answer.json()["ok"]) == (401, False)
        wrapper.answers_itself = True
        assert await who(client, "an-expired-or-revoked-token") == 401
        assert (await client.get("/-/actor.json")).text == "for everybody"
        wrapper.fails = True
        assert await who(client, "an-expired-or-revoked-token") == 401


async def test_a_datasette_without_our_configuration_has_the_wrappers_as_they_were(wrapper: Wrapper) -> None:
    async with serving(make().app()) as client:
        answer = await client.get("/-/actor.json", headers=bearer("nobody-asks"))
        assert (answer.status_code, answer.headers[SEEN]) == (200, "yes")
