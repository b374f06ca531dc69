"""One request or websocket through the middleware: what is refused and how, and what is told of it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import (
    Actor,
    Authenticated,
    ConfigurationError,
    ManagedTokens,
    SQLTokens,
    StaticTokens,
    StorageError,
    TokenAuthMiddleware,
    TokenEvent,
    TokenStore,
)
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import SECRET, App, Headers, Message, Scripted, ask, authenticated, bearer, http, websocket
from tests.support.sources import GOOD, sources

pytestmark = pytest.mark.anyio


INVALID = 'Bearer realm="api", error="invalid_token", error_description="The access token is not valid."'
TWO = "Send exactly one access token: one Authorization header or one query parameter."
BROKEN = "The access token is malformed: send `Authorization: Bearer <token>`."
LONG = "The access token is too long."
METHOD = "An access token in the query string is accepted on GET and HEAD only."
DOWN = "The access token cannot be checked at the moment. Try again soon."
NEEDED = "An access token is required: send `Authorization: Bearer <token>`."


@dataclass
class Row:
    """One line of the table: what came, and the answer. ``status`` 200 means that the app answers."""

    name: str
    status: int
    message: str = ""
    challenge: str | None = None
    headers: Headers = field(default_factory=list)
    query: bytes = b""
    method: str = "GET"
    options: dict[str, Any] = field(default_factory=dict)
    #: Where a websocket, which has no method, is answered differently.
    websocket_status: int | None = None


def invalid_request(message: str) -> str:
    return f'Bearer realm="api", error="invalid_request", error_description="{message}"'


def refused(name: str, token: str, message: str = "The access token is not valid.") -> Row:
    said = f'Bearer realm="api", error="invalid_token", error_description="{message}"'
    return Row(name, 401, message, said, headers=[bearer(token)])


def unreadable(name: str, message: str, headers: Headers, **more: Any) -> Row:
    return Row(name, 400, message, invalid_request(message), headers=headers, **more)


BASIC = (b"authorization", b"Basic dXNlcjpwYXNz")


ROWS = [
    Row("no credential passes", 200),
    Row("another scheme passes", 200, headers=[BASIC]),
    Row("an identity header is no credential", 200, headers=[(b"x-remote-user", b"root")]),
    Row("a hard-coded token passes", 200, headers=[bearer(GOOD)]),
    Row("a token of a prefix passes", 200, headers=[bearer("own_good")]),
    Row("a token in the parameter passes", 200, query=b"_auth_token=own_good"),
    Row("the parameter is read beside another scheme", 200, headers=[BASIC], query=b"_auth_token=own_good"),
    unreadable("two headers", TWO, [bearer(GOOD), bearer(GOOD)]),
    unreadable("a bearer header beside another scheme", TWO, [bearer(GOOD), BASIC]),
    unreadable("the parameter twice", TWO, [], query=b"_auth_token=own_good&_auth_token=own_good"),
    unreadable("header and parameter", TWO, [bearer(GOOD)], query=b"_auth_token=own_good"),
    unreadable("header and an empty parameter", TWO, [bearer(GOOD)], query=b"_auth_token="),
    unreadable("two headers joined by a proxy", BROKEN, [(b"authorization", b"Bearer a, Bearer b")]),
    unreadable("the bare word", BROKEN, [(b"authorization", b"Bearer")]),
    unreadable("bytes that are no token", BROKEN, [(b"authorization", b"Bearer caf\xc3\xa9")]),
    unreadable("an empty parameter", BROKEN, [], query=b"_auth_token="),
    unreadable("a header that is too long", LONG, [bearer("x" * 9000)]),
    unreadable("a parameter that is too long", LONG, [], query=b"_auth_token=" + b"x" * 9000),
    unreadable("the parameter on POST", METHOD, [], query=b"_auth_token=own_good", method="POST", websocket_status=200),
    refused("a bad signature", "own_signature"),
    refused("a payload that cannot be read", "own_malformed"),
    refused("a revoked token", "own_revoked", "The access token has been revoked."),
    refused("an expired token", "own_expired", "The access token has expired."),
    refused("a row that is not there", "own_row"),
    refused("a damaged row", "own_damaged"),
    refused("a kind that is switched off", "own_off"),
    refused("a token of the future", "own_future"),
    refused("a token that the owner of its prefix does not know", "own_nobody"),
    refused("a token that nobody claims", "nobody"),
    refused("a reserved prefix that nobody owns", "dsatok_x.y"),
    refused("a wrong SQL secret", "4-wrong"),
    Row("unknown, and unknown passes", 200, headers=[bearer("nobody")], options={"unknown": "pass"}),
    Row("a wrong SQL secret, and unknown passes", 200, headers=[bearer("4-wrong")], options={"unknown": "pass"}),
    Row(
        "a bad signature is not unknown",
        401,
        "The access token is not valid.",
        INVALID,
        headers=[bearer("own_signature")],
        options={"unknown": "pass"},
    ),
    Row("a database that is locked", 503, DOWN, headers=[bearer("own_locked")]),
    Row("a source that raises anything", 503, DOWN, headers=[bearer("own_bug")]),
    Row("nobody, where somebody is required", 401, NEEDED, 'Bearer realm="api"', options={"required": True}),
    Row("a token, where somebody is required", 200, headers=[bearer(GOOD)], options={"required": True}),
    Row(
        "an unknown token passes nowhere where somebody is required",
        401,
        NEEDED,
        'Bearer realm="api"',
        headers=[bearer("nobody")],
        options={"required": True, "unknown": "pass"},
    ),
    Row(
        "a good token that this app cannot take",
        403,
        "Not here.",
        'Bearer realm="api", error="insufficient_scope", error_description="Not here."',
        headers=[bearer(GOOD)],
        options={"forbid": lambda outcome: "Not here."},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("kind", ["http", "websocket with denial", "websocket"])
async def test_every_row_of_the_table_of_the_design(row: Row, kind: str) -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token", **row.options)
    if kind == "http":
        scope = http(row.headers, method=row.method, query=row.query)
    else:
        scope = websocket(row.headers, query=row.query, denial=kind != "websocket")

    answer = await ask(wrapped, scope)

    expected = row.status if kind == "http" else row.websocket_status or row.status
    if expected == 200:
        assert len(app.scopes) == 1
        return
    assert app.scopes == []
    if kind == "websocket":
        code = 1013 if expected == 503 else 1008
        assert answer.messages == [{"type": "websocket.close", "code": code, "reason": ""}]
        return
    prefix = "http" if kind == "http" else "websocket.http"
    assert [message["type"] for message in answer.messages] == [f"{prefix}.response.start", f"{prefix}.response.body"]
    assert answer.status == expected
    assert json.loads(answer.body) == {"ok": False, "error": row.message, "errors": [row.message], "status": expected}
    assert answer.headers == {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(answer.body)),
        "cache-control": "private, no-store" if kind == "http" and row.query else "no-store",
        "referrer-policy": "no-referrer",
        **({"www-authenticate": row.challenge} if row.challenge else {}),
        **({"retry-after": "5"} if expected == 503 else {}),
        **({"vary": "Authorization"} if kind == "http" else {}),
    }


async def test_nothing_of_a_refused_token_is_echoed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[TokenEvent] = []
    wrapped = TokenAuthMiddleware(App(), sources=sources(), parameter="_auth_token", on_event=events.append)
    for token in ("own_signature", "own_bug", "own_locked", "nobody", "4-wrong", "own_good"):
        for scope in (http([bearer(token)]), http(query=b"_auth_token=" + token.encode())):
            answer = await ask(wrapped, scope)
            assert token not in repr(answer)
            assert token not in caplog.text
            assert token not in repr(events)


async def test_head_gets_the_same_headers_and_no_body() -> None:
    wrapped = TokenAuthMiddleware(App(), sources=sources())
    get = await ask(wrapped, http([bearer("nobody")]))
    head = await ask(wrapped, http([bearer("nobody")], method="HEAD"))
    assert head.status == get.status == 401
    assert head.headers == get.headers
    assert head.body == b""


PREFLIGHT: Headers = [(b"Origin", b"https://a.example"), (b"Access-Control-Request-Method", b"GET")]


async def test_a_preflight_passes_even_where_somebody_is_required() -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), required=True)
    assert (await ask(wrapped, http(PREFLIGHT, method="OPTIONS"))).status == 200
    assert app.scope["actor"] is None


async def test_options_without_the_preflight_headers_is_an_ordinary_request() -> None:
    wrapped = TokenAuthMiddleware(App(), sources=sources(), required=True)
    assert (await ask(wrapped, http(PREFLIGHT[:1], method="OPTIONS"))).status == 401
    assert (await ask(wrapped, http(PREFLIGHT, method="POST"))).status == 401


async def test_a_preflight_of_a_url_with_the_parameter_passes_and_the_parameter_is_gone() -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token", required=True)
    answer = await ask(wrapped, http(PREFLIGHT, method="OPTIONS", query=b"a=1&_auth_token=own_good"))
    assert answer.status == 200
    assert app.scope["query_string"] == b"a=1"
    assert app.scope["actor"] is None


async def test_a_preflight_with_two_credentials_is_refused_like_any_other_request() -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), parameter="_auth_token")
    asked = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"GET"), bearer(GOOD)]
    answer = await ask(wrapped, http(asked, method="OPTIONS", query=b"_auth_token=x"))
    assert answer.status == 400
    assert not app.scopes


async def test_unknown_scope_types_are_handed_on_untouched() -> None:
    app = App()
    scope: Message = {"type": "something.new"}
    await ask(TokenAuthMiddleware(app, sources=sources(), required=True), scope)
    assert app.scope is scope
    assert scope == {"type": "something.new"}


async def test_every_answer_says_that_it_depends_on_the_token_unless_the_app_does() -> None:
    for headers in ([], [bearer(GOOD)], [bearer("nobody")]):
        assert (await ask(TokenAuthMiddleware(App(), sources=sources()), http(headers))).headers[
            "vary"
        ] == "Authorization"
    quiet = TokenAuthMiddleware(App(), sources=sources(), vary=False)
    assert "vary" not in (await ask(quiet, http())).headers


async def test_an_inner_instance_that_cannot_take_a_token_does_not_take_it_from_an_outer_one() -> None:
    app = App()
    inner = TokenAuthMiddleware(app, sources=sources(), forbid=lambda outcome: "not here")
    answer = await ask(TokenAuthMiddleware(inner, sources=sources()), http([bearer(GOOD)]))
    assert answer.status == 403
    assert app.scopes == []


@pytest.mark.parametrize("name", ["required", "hide_credentials", "drop_cookies", "vary"])
def test_a_switch_that_is_no_bool_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        TokenAuthMiddleware(App(), sources=sources(), **{name: "no"})  # type: ignore[arg-type]


def test_an_app_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^app: "):
        TokenAuthMiddleware(None, sources=sources())  # type: ignore[arg-type]


# Required


async def test_required_is_content_with_an_outer_actor() -> None:
    app = App()
    scope = http(actor={"id": "outer"})
    assert (await ask(TokenAuthMiddleware(app, sources=sources(), required=True), scope)).status == 200
    assert app.scope["actor"] == {"id": "outer"}


async def test_required_asks_the_apps_own_way_to_be_signed_in() -> None:
    async def signed_in(scope: Message) -> Actor | None:
        return {"id": "ann"} if scope["path"] == "/ann" else None

    wrapped = TokenAuthMiddleware(App(), sources=sources(), required=True, signed_in=signed_in)
    assert (await ask(wrapped, http(path="/ann"))).status == 200
    assert (await ask(wrapped, http(path="/"))).status == 401


async def test_a_signed_in_that_raises_lets_nobody_in() -> None:
    async def signed_in(scope: Message) -> Actor | None:
        raise RuntimeError("session store is down")

    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), required=True, signed_in=signed_in)
    assert (await ask(wrapped, http())).status == 503
    assert app.scopes == []


# Unknown tokens


@pytest.mark.parametrize("token", ["nobody", "4-wrong"])
async def test_an_unknown_token_that_passes_brings_no_actor_and_no_cookie(token: str) -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=sources(), unknown="pass")
    scope = http(
        [(b"Cookie", b"ds_actor=x"), bearer(token), (b"accept", b"*/*")],
        actor={"id": "outer"},
        auth="outer",
        user="outer",
    )
    await ask(wrapped, scope)
    assert app.scope["headers"] == [bearer(token), (b"accept", b"*/*")]
    assert app.scope["actor"] is None
    assert app.scope["auth"].scopes == ()
    assert not app.scope["user"].is_authenticated
    assert scope["actor"] == {"id": "outer"}


async def test_a_wrong_sql_secret_is_told_apart_from_an_unknown_id_by_nothing() -> None:
    for options in ({}, {"unknown": "pass"}):
        answers = []
        for token in ("nobody", "4-wrong"):
            app = App()
            wrapped = TokenAuthMiddleware(app, sources=sources(), **options)  # type: ignore[arg-type]
            answer = await ask(wrapped, http([bearer(token)]))
            seen = [{k: v for k, v in scope.items() if k != "headers"} for scope in app.scopes]
            answers.append((answer, seen))
        assert answers[0] == answers[1]


# Events


async def test_events_tell_what_happened_and_never_the_token() -> None:
    events: list[TokenEvent] = []
    wrapped = TokenAuthMiddleware(App(), sources=sources(), on_event=events.append, required=True)
    for headers in ([bearer(GOOD)], [bearer("own_revoked")], [bearer("nobody")], [bearer("own_bug")], []):
        await ask(wrapped, http(headers, path="/x"))
    await ask(wrapped, http([bearer(GOOD), bearer(GOOD)]))
    assert [event.kind for event in events] == [
        "accepted",
        "rejected",
        "unknown",
        "unavailable",
        "required",
        "unreadable",
    ]
    assert events[0] == TokenEvent("accepted", None, "static", None, "bot", "/x", "192.0.2.7")
    assert events[1] == TokenEvent("rejected", "revoked", None, 7, None, "/x", "192.0.2.7")


async def test_an_on_event_that_raises_changes_nothing() -> None:
    def explode(event: TokenEvent) -> None:
        raise RuntimeError("the log is full")

    for headers in ([], [bearer(GOOD)], [bearer("nobody")], [bearer("own_revoked")], [bearer("own_bug")]):
        quiet = await ask(TokenAuthMiddleware(App(), sources=sources()), http(headers))
        loud = await ask(TokenAuthMiddleware(App(), sources=sources(), on_event=explode), http(headers))
        assert loud == quiet


# Faults


class Odd(Exception):
    pass


async def test_an_unexpected_fault_is_logged_with_its_place_and_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def find(token: str) -> None:
        raise KeyError(token)

    events: list[TokenEvent] = []
    wrapped = TokenAuthMiddleware(App(), sources=[find], on_event=events.append)
    assert (await ask(wrapped, http([bearer("a-token-of-somebody")]))).status == 503
    line = find.__code__.co_firstlineno + 1
    for said in (caplog.text, str(events[0].reason)):
        assert f"KeyError, raised at {__name__}:{line} < asgi_token_auth.chain:" in said
        assert "a-token-of-somebody" not in said


@pytest.mark.parametrize(
    "error",
    [StorageError("x"), ConfigurationError("x"), OSError(5, "io"), ValueError("x"), KeyError("x"), TimeoutError(),
     RecursionError(), MemoryError(), AssertionError(), StopAsyncIteration(), UnicodeError("x"), Odd()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_a_source_that_raises_anything_is_503_and_never_anonymous(error: Exception) -> None:
    for options in ({}, {"unknown": "pass"}):
        app = App()
        later = Scripted({"token": authenticated("root")})
        broken = Scripted({"token": error})
        wrapped = TokenAuthMiddleware(app, sources=[broken, later], **options)  # type: ignore[arg-type]
        answer = await ask(wrapped, http([bearer("token")]))
        assert answer.status == 503
        assert app.scopes == []
        assert later.asked == []


@pytest.mark.parametrize("answer", [True, {"id": "root"}, "root", 1, object()], ids=lambda a: type(a).__name__)
async def test_a_source_that_answers_with_something_else_is_503(answer: Any) -> None:
    app = App()
    wrapped = TokenAuthMiddleware(app, sources=[Scripted({"token": answer})], unknown="pass")
    assert (await ask(wrapped, http([bearer("token")]))).status == 503
    assert app.scopes == []


async def test_a_plain_function_is_a_source_and_its_faults_are_503() -> None:
    async def check(token: str) -> Any:
        return {"ann": {"id": "ann"}, "list": ["root"], "empty": {}}.get(token)

    wrapped = TokenAuthMiddleware(App(), sources=[check])
    statuses = [(await ask(wrapped, http([bearer(token)]))).status for token in ("ann", "nobody", "list", "empty")]
    assert statuses == [200, 401, 503, 503]


@pytest.mark.parametrize(
    "options",
    [
        {"sources": []},
        {"sources": [42]},
        {"unknown": "maybe"},
        {"realm": 'a"b'},
        {"realm": ""},
        {"realm": "a\nb"},
        {"max_token_bytes": 0},
        {"max_token_bytes": True},
        {"max_token_bytes": 10**9},
        {"parameter": ""},
        {"parameter": "a&b"},
    ],
    ids=repr,
)
def test_an_argument_that_cannot_work_is_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TokenAuthMiddleware(App(), **{"sources": sources(), **options})


async def test_recheck_turns_false_when_the_token_is_revoked(tmp_path: Path) -> None:
    async with TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as store:
        app = App()
        issued = await store.issue("ann")
        await ask(TokenAuthMiddleware(app, sources=[ManagedTokens(store)]), websocket([bearer(issued.token)]))
        auth = app.scope["auth"]
        assert await auth.recheck() is True
        await store.revoke(issued.record.id, owner="ann")
        assert await auth.recheck() is False


async def test_all_sources_work_together_and_a_known_prefix_never_reaches_the_sql(tmp_path: Path) -> None:
    managed = SQLite(tmp_path / "t.db")
    async with TokenStore(managed, secret=SECRET) as store:
        asked = Scripted({"4-secret": authenticated("sql")})
        app = App()
        wrapped = TokenAuthMiddleware(
            app, sources=[StaticTokens({GOOD: {"id": "bot"}}), ManagedTokens(store), asked], unknown="pass"
        )
        issued = await store.issue("ann")
        for token in (GOOD, issued.token, "4-secret", issued.token + "x", "dstok_a-b.c", "dsatok_1-2"):
            await ask(wrapped, http([bearer(token)]))
        assert [(scope["actor"] or {}).get("id") for scope in app.scopes] == ["bot", "ann", "sql"]
        assert asked.asked == ["4-secret"]


async def test_the_outcome_is_marked_so_that_the_inner_layers_can_find_it(tmp_path: Path) -> None:
    app = App()
    await ask(TokenAuthMiddleware(app, sources=sources()), http([bearer("own_good")]))
    assert isinstance(app.scope["asgi_token_auth"], Authenticated)


def test_two_stores_of_one_prefix_are_refused(tmp_path: Path) -> None:
    one, two = (ManagedTokens(TokenStore(SQLite(tmp_path / name), secret=SECRET)) for name in ("1.db", "2.db"))
    with pytest.raises(ConfigurationError, match="prefix"):
        TokenAuthMiddleware(App(), sources=[one, two])


def test_a_query_source_is_no_owner_of_a_prefix(tmp_path: Path) -> None:
    assert SQLTokens(SQLite(tmp_path / "a.db"), "select :token_id as token_secret").prefixes == ()
