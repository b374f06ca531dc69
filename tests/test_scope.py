"""What the app sees of a request: the actor, headers, cookies, the query, and never the token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asgi_token_auth import (
    StaticTokens,
    TokenAuthMiddleware,
)
from tests.support.asgi import App, Headers, Message, Scripted, ask, authenticated, bearer, http, websocket
from tests.support.sources import GOOD, sources

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("make", [http, websocket])
async def test_without_a_credential_the_app_finds_nobody_under_every_key(make: Any) -> None:
    """An app or a decorator that reads them must not fail on the requests of strangers."""
    app = App()
    scope = make([(b"cookie", b"a=1")])
    before = dict(scope)
    await ask(TokenAuthMiddleware(app, sources=sources()), scope)
    assert scope == before
    assert app.scope["actor"] is None
    assert app.scope["auth"].scopes == ()
    assert not await app.scope["auth"].recheck()
    assert not app.scope["user"].is_authenticated
    assert {key: app.scope[key] for key in before} == before


async def test_what_an_outer_middleware_says_of_a_request_without_a_token_stays() -> None:
    app = App()
    await ask(TokenAuthMiddleware(app, sources=sources()), http(actor={"id": "ann"}, auth="its auth", user="its user"))
    assert (app.scope["actor"], app.scope["auth"], app.scope["user"]) == ({"id": "ann"}, "its auth", "its user")


async def test_an_outer_actor_is_kept_without_a_credential_and_replaced_by_a_valid_one() -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources())
    await ask(wrapped, http(actor={"id": "outer"}))
    await ask(wrapped, http([bearer(GOOD)], actor={"id": "outer"}))
    assert [scope["actor"]["id"] for scope in app.scopes] == ["outer", "bot"]


# What the app sees


async def test_the_secret_is_hidden_from_the_app_and_other_headers_stay() -> None:
    app = App()
    headers = [(b"accept", b"*/*"), (b"Authorization", b"Bearer " + GOOD.encode()), (b"cookie", b"a=1")]
    await ask(TokenAuthMiddleware(app, sources=sources()), http(headers))
    assert app.scope["headers"] == [(b"accept", b"*/*"), (b"Authorization", b"Bearer"), (b"cookie", b"a=1")]
    assert headers[1][1] == b"Bearer " + GOOD.encode()


async def test_the_header_stays_where_hiding_is_switched_off() -> None:
    app = App()
    await ask(TokenAuthMiddleware(app, sources=sources(), hide_credentials=False), http([bearer(GOOD)]))
    assert app.scope["headers"] == [bearer(GOOD)]


async def test_cookies_are_dropped_beside_a_valid_token_where_that_is_asked_for() -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), drop_cookies=True)
    await ask(wrapped, http([(b"COOKIE", b"a=1"), bearer(GOOD), (b"cookie", b"b=2")]))
    assert app.scope["headers"] == [(b"authorization", b"Bearer")]


@pytest.mark.parametrize("shape", ["tuple", "generator", "list of lists"])
async def test_headers_may_come_in_any_shape_and_case(shape: str) -> None:
    def one_by_one() -> Iterator[tuple[bytes, bytes]]:
        yield from pairs

    pairs: Headers = [(b"AUTHORIZATION", b"bEaReR " + GOOD.encode()), (b"X-Other", b"1")]
    shapes: dict[str, Any] = {
        "tuple": tuple(pairs),
        "generator": one_by_one(),
        "list of lists": [list(pair) for pair in pairs],
    }
    app = App()
    scope = {**http(), "headers": shapes[shape]}
    assert (await ask(TokenAuthMiddleware(app, sources=sources()), scope)).status == 200
    assert app.scope["actor"]["id"] == "bot"
    assert [tuple(pair) for pair in app.scope["headers"]] == [(b"AUTHORIZATION", b"Bearer"), (b"X-Other", b"1")]
    assert list(app.scope["headers"]) == list(app.scope["headers"])


async def test_the_scope_of_the_server_is_left_alone() -> None:
    for make in (http, websocket):
        scope = make([bearer(GOOD)], query=b"a=1", state={"x": 1})
        before = {**scope, "headers": list(scope["headers"])}
        await ask(TokenAuthMiddleware(App(), sources=sources(), parameter="_auth_token"), scope)
        assert scope == before


QUERIES = [
    (b"_auth_token=own_good", b""),
    (b"a=1&_auth_token=own_good&b=2", b"a=1&b=2"),
    (b"_auth_token=own_good&b=%32&&c", b"b=%32&&c"),
    (b"a=%41+b;c&_auth_token=own_good&", b"a=%41+b;c&"),
    (b"%5Fauth%5ftoken=own%5fgood&x=_auth_token", b"x=_auth_token"),
    (b"%5f%61%75%74%68%5f%74%6f%6b%65%6e=own_good&_auth_tokens=1&a_auth_token=2", b"_auth_tokens=1&a_auth_token=2"),
    (b"q=\xff\xfe&_auth_token=own_good", b"q=\xff\xfe"),
]


@pytest.mark.parametrize(("query", "cleaned"), QUERIES)
@pytest.mark.parametrize("make", [http, websocket])
async def test_the_parameter_is_gone_and_every_other_byte_stays(make: Any, query: bytes, cleaned: bytes) -> None:
    app = App()
    scope = make(query=query, raw_path=b"/caf%C3%A9?" + query)
    before = {**scope}
    await ask(TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token"), scope)
    expected_path = b"/caf%C3%A9?" + cleaned if cleaned else b"/caf%C3%A9"
    assert app.scope["actor"]["id"] == "ann"
    # The server writes its access log from its own scope, so that one must be clean as well.
    for seen in (app.scope, scope):
        assert seen["query_string"] == cleaned
        assert seen["raw_path"] == expected_path
    assert {**scope, "query_string": query, "raw_path": before["raw_path"]} == before


async def test_the_parameter_is_gone_before_a_refusal_is_sent_too() -> None:
    wrapped = TokenAuthMiddleware(App(), sources=sources(), parameter="_auth_token")
    for query in (b"x=1&_auth_token=nobody", b"x=1&_auth_token=a&_auth_token=b", b"x=1&_auth_token=" + b"x" * 9000):
        scope = {**http(query=query), "headers": ()}

        async def send(message: Message, scope: Message = scope) -> None:
            assert scope["query_string"] == b"x=1"

        async def receive() -> Message:
            raise AssertionError("nothing is read from the client")

        await wrapped(scope, receive, send)


async def test_without_the_option_the_query_is_not_looked_at() -> None:
    app = App()
    scope = http(query=b"_auth_token=own_good")
    await ask(TokenAuthMiddleware(app, sources=sources()), scope)
    assert app.scope["actor"] is None
    assert app.scope["query_string"] == scope["query_string"] == b"_auth_token=own_good"


@pytest.mark.parametrize("query", [None, "absent"])
async def test_a_websocket_without_a_query_string_is_served(query: str | None) -> None:
    app = App()
    scope = websocket([bearer(GOOD)])
    if query is None:
        scope["query_string"] = None
    else:
        del scope["query_string"]
    await ask(TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token"), scope)
    assert app.scope["actor"]["id"] == "bot"


async def test_answers_to_a_url_with_a_token_are_kept_by_no_cache_and_tell_no_referrer() -> None:
    app = App(headers=[(b"Cache-Control", b"public, max-age=60"), (b"etag", b"1"), (b"referrer-policy", b"origin")])
    wrapped = TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token")
    answer = await ask(wrapped, http(query=b"_auth_token=own_good"))
    assert answer.headers == {
        "etag": "1",
        "cache-control": "private, no-store",
        "referrer-policy": "no-referrer",
        "vary": "Authorization",
    }
    plain = await ask(wrapped, http([bearer(GOOD)]))
    assert plain.headers["Cache-Control"] == "public, max-age=60"


async def test_an_app_may_send_headers_that_are_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": None})
        await send({"type": "http.response.body", "body": b""})

    wrapped = TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token")
    answer = await ask(wrapped, http(query=b"_auth_token=own_good"))
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, no-store")
    assert (await ask(wrapped, http([bearer(GOOD)]))).headers == {"vary": "Authorization"}


async def test_the_actor_is_a_fresh_object_in_every_request() -> None:
    actor = {"id": "bot", "roles": ["a"], "_r": {"a": ["vt"]}}
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=[StaticTokens({GOOD: actor})])
    await ask(wrapped, http([bearer(GOOD)]))
    app.scopes[0]["actor"]["id"] = "root"
    app.scopes[0]["actor"]["roles"].append("admin")
    app.scopes[0]["actor"]["_r"]["a"].append("es")
    await ask(wrapped, http([bearer(GOOD)]))
    assert app.scopes[1]["actor"] == {"id": "bot", "roles": ["a"], "_r": {"a": ["vt"]}} == actor


async def test_an_inner_instance_does_not_check_a_second_time() -> None:
    inner_source = Scripted({})
    app = App()
    outer_source = Scripted({"one": authenticated("ann")})
    inner = TokenAuthMiddleware(app, sources=[inner_source], required=True)
    await ask(TokenAuthMiddleware(inner, sources=[outer_source]), http([bearer("one")]))
    assert outer_source.asked == ["one"]
    assert inner_source.asked == []
    assert app.scope["actor"]["id"] == "ann"


async def test_an_inner_instance_checks_what_the_outer_one_did_not_know() -> None:
    app = App()
    inner = TokenAuthMiddleware(app, sources=[Scripted({"two": authenticated("bob")})])
    outer = TokenAuthMiddleware(inner, sources=[Scripted({})], unknown="pass")
    await ask(outer, http([bearer("two")]))
    assert app.scope["actor"]["id"] == "bob"
    assert (await ask(outer, http([bearer("three")]))).status == 401


IDENTITY_HEADERS = [
    b"x-forwarded-user",
    b"x-remote-user",
    b"remote-user",
    b"x-forwarded-email",
    b"x-auth-request-user",
    b"x-authorization",
    b"authorization_",
    b"authorization-",
    b"authorizatio",
    b"authorization ",
    b"http_authorization",
    b"proxy-authorization",
    b"actor",
    b"asgi_token_auth",
]


@pytest.mark.parametrize("name", IDENTITY_HEADERS)
async def test_no_header_but_authorization_makes_an_actor(name: bytes) -> None:
    for value in (b"root", b"Bearer " + GOOD.encode()):
        for make in (http, websocket):
            app = App()
            source = Scripted({})
            scope = make([(name, value)])
            await ask(TokenAuthMiddleware(app, sources=[*sources(), source]), scope)
            assert app.scope["actor"] is None
            assert source.asked == []
