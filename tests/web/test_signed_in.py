"""Who is asking, by the app's own word: sessions inside and outside, functions of every kind, ids of every type."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_token_auth import ConfigurationError, ManagedTokens, TokenAuthMiddleware, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import SecretPages, TokenPages
from asgi_token_auth.web.host import id_of
from tests.support.asgi import SECRET, App, Message, ask, http
from tests.support.page_sites import DAY, PATH
from tests.support.secret_sites import KEY
from tests.support.secret_sites import PATH as SECRETS
from tests.support.sites import serving

pytestmark = pytest.mark.anyio

ANYBODY = {"auth-tokens-create": {"id": "*"}, "manage-secrets": {"id": "*"}}
SIGNING = "x" * 32


def block(**more: Any) -> dict[str, Any]:
    return {
        "manage_tokens": True,
        "manage_tokens_database": "db",
        "secrets": {"encryption_key": KEY, "database": "db"},
        "permissions": ANYBODY,
        **more,
    }


def wrapped(app: Any, folder: Path, signed_in: Any, **more: Any) -> TokenAuthMiddleware:
    return from_config(app, block(**more), databases={"db": folder / "t.db"}, secret=SECRET, signed_in=signed_in)


def always(actor: Any) -> Callable[[Message], Any]:
    """The same person in every request."""

    def signed_in(scope: Message) -> Any:
        return actor

    return signed_in


async def from_session(scope: Message) -> Any:
    """The one in the README."""
    return scope.get("session", {}).get("user")


async def login(request: Request) -> PlainTextResponse:
    request.session["user"] = {"id": "alice"}
    return PlainTextResponse("in")


def app_with_sessions(kind: str) -> Starlette:
    """An app as most are, with the sessions inside of it."""
    if kind == "Starlette":
        sessions = Middleware(SessionMiddleware, secret_key=SIGNING)
        return Starlette(routes=[Route("/login", login)], middleware=[sessions])
    api = FastAPI()
    api.add_middleware(SessionMiddleware, secret_key=SIGNING)
    api.add_route("/login", login)
    return api


@pytest.mark.parametrize("kind", ["Starlette", "FastAPI"])
def test_a_session_inside_of_the_app_is_seen(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(wrapped(app_with_sessions(kind), tmp_path, from_session)) as client:
        assert client.get(PATH).status_code == 403
        client.get("/login")
        for path in (PATH, SECRETS):
            assert client.get(path).status_code == client.get(path + ".json").status_code == 200
        assert client.post(PATH + "/create", data=DAY).status_code == 200
        assert client.get("/nothing").status_code == 404
    assert caplog.records == []


def test_required_says_that_it_is_decided_before_the_session_of_the_app(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(wrapped(app_with_sessions("Starlette"), tmp_path, from_session, required=True)) as client:
        assert client.get(PATH, headers={"cookie": "session=x"}).status_code == 401
    assert "no session in the scope" in caplog.text
    assert "Put it around" in caplog.text


def test_a_session_around_everything_is_seen_with_required_too(tmp_path: Path) -> None:
    inner = Starlette(routes=[Route("/login", login)])
    app = SessionMiddleware(wrapped(inner, tmp_path, from_session, required=True), secret_key=SIGNING)
    cookies = SessionMiddleware(Starlette(routes=[Route("/login", login)]), secret_key=SIGNING)
    with TestClient(app) as client, TestClient(cookies) as other:
        assert client.get(PATH).status_code == 401
        other.get("/login")
        client.cookies.update(other.cookies)
        assert client.get(PATH).status_code == client.get(SECRETS).status_code == 200


class ByHeader(AuthenticationBackend):
    """The app's own authentication."""

    async def authenticate(self, conn: HTTPConnection) -> Any:
        name = conn.headers.get("x-name")
        return None if name is None else (AuthCredentials(), SimpleUser(name))


def test_the_user_of_the_apps_own_authentication_is_seen(tmp_path: Path) -> None:
    def by_user(scope: Message) -> Any:
        return {"id": scope["user"].display_name} if scope["user"].is_authenticated else None

    inner = Starlette(middleware=[Middleware(AuthenticationMiddleware, backend=ByHeader())])
    with TestClient(wrapped(inner, tmp_path, by_user)) as client:
        assert client.get(PATH, headers={"x-name": "alice"}).status_code == 200
        assert client.get(PATH).status_code == 403


def test_a_token_is_known_as_such_inside_of_the_app(tmp_path: Path) -> None:
    app = wrapped(app_with_sessions("Starlette"), tmp_path, from_session)
    with TestClient(app) as client:
        client.get("/login")
        token = client.post(PATH + "/create.json", json={}).json()["token"]
        answer = client.get(PATH, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, "A token cannot be used" in answer.text) == (403, True)
        assert client.get(SECRETS, headers={"authorization": f"Bearer {token}"}).status_code == 403
        assert client.get(PATH, headers={"authorization": f"Bearer {token}x"}).status_code == 401


@pytest.mark.parametrize("required", [True, False])
async def test_it_is_said_once_where_no_session_is_ever_found(
    tmp_path: Path, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = wrapped(App(), tmp_path, from_session, required=required)
    async with serving(app) as client:
        caplog.clear()
        await client.get(PATH)
        assert caplog.records == []
        for _ in range(3):
            answer = await client.get(PATH, headers={"cookie": "session=x"})
            assert answer.status_code == (401 if required else 403)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for words in ("signed_in found nobody", "no session in the scope", "SessionMiddleware", "Put it around"):
        assert words in caplog.text


async def test_nothing_is_said_where_people_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def by_header(scope: Message) -> Any:
        return next(({"id": value.decode()} for name, value in scope["headers"] if name == b"x-name"), None)

    app: Any = wrapped(App(), tmp_path, by_header)
    async with serving(app) as client:
        caplog.clear()
        await client.get(PATH, headers={"x-name": "alice"})
        await client.get(PATH, headers={"cookie": "a=b"})
    assert caplog.records == []


def by_key(scope: Message) -> Any:
    return scope["session"]


def by_starlette(scope: Message) -> Any:
    return Request(scope).session


@pytest.mark.parametrize("read", [by_key, by_starlette])
async def test_a_missing_session_that_is_an_error_is_named(
    tmp_path: Path, read: Callable[[Message], Any], caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = wrapped(App(), tmp_path, read)
    async with serving(app) as client:
        answer = await client.get(PATH)
    assert answer.status_code == 503
    assert "who you are" in answer.text
    assert "signed_in failed" in caplog.text
    assert "no session in the scope" in caplog.text


def test_a_plain_function_is_as_good(tmp_path: Path) -> None:
    class Awaited:
        async def __call__(self, scope: Message) -> Any:
            return {"id": "alice"}

    async def awaited(name: str, scope: Message) -> Any:
        return {"id": name}

    for number, signed_in in enumerate((always({"id": "alice"}), Awaited(), partial(awaited, "alice"))):
        (tmp_path / str(number)).mkdir()
        with TestClient(wrapped(Starlette(), tmp_path / str(number), signed_in, required=True)) as client:
            assert client.get(PATH).status_code == client.get(SECRETS).status_code == 200


@pytest.mark.parametrize("signed_in", ["alice", {"id": "alice"}, 5, True])
def test_what_cannot_be_called_is_refused_at_once(tmp_path: Path, signed_in: Any) -> None:
    store = TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET)
    makers: list[Callable[[], Any]] = [
        lambda: wrapped(App(), tmp_path, signed_in),
        lambda: TokenPages(store, signed_in=signed_in),
        lambda: SecretPages(None, signed_in=signed_in),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: TokenAuthMiddleware(App(), sources=[ManagedTokens(store)], signed_in=signed_in),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError, match="signed_in: give a function of the scope"):
            make()


async def test_an_answer_that_is_no_actor_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app: Any = wrapped(App(), tmp_path, always(SimpleUser("alice")))
    async with serving(app) as client:
        caplog.clear()
        for _ in range(2):
            assert (await client.get(PATH)).status_code == 403
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "signed_in answered with SimpleUser" in caplog.text


@pytest.mark.parametrize(("permissions", "level"), [(ANYBODY, logging.WARNING), (None, logging.INFO)])
async def test_pages_without_signed_in_say_at_the_start_that_they_let_nobody_in(
    tmp_path: Path, permissions: Any, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"manage_tokens": True, **({} if permissions is None else {"permissions": permissions})}
    with caplog.at_level(logging.INFO, logger="asgi_token_auth"):
        app: Any = from_config(App(), given, databases={"db": tmp_path / "t.db"}, secret=SECRET)
    assert [(record.levelno, "signed_in" in record.message) for record in caplog.records] == [(level, True)]
    async with serving(app) as client:
        page = await client.get(PATH)
        assert page.status_code == 403
        assert "signed_in" in page.text
    # Somebody else may say who is asking.
    known = await ask(app, {**http(path=PATH), "actor": {"id": "alice"}})
    # They manage what is theirs already; to create more is what they have no permission for.
    assert known.status == 200
    assert (b"/create" in known.body) is (permissions is not None)


ALICE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


@pytest.mark.parametrize(
    ("actor_id", "text"),
    [("alice", "alice"), (7, "7"), (0, "0"), (ALICE, str(ALICE)), (True, None), (7.0, None), ("", None), (None, None)],
)
def test_the_id_of_an_actor_as_text(actor_id: Any, text: str | None) -> None:
    assert id_of({"id": actor_id}) == text
    assert id_of({}) is id_of(None) is None


@pytest.mark.parametrize("actor_id", [7, ALICE], ids=["number", "UUID"])
@pytest.mark.parametrize("allow", ["*", "itself", "its text"])
async def test_ids_that_are_numbers_or_uuids_count_as_their_text(tmp_path: Path, actor_id: Any, allow: str) -> None:
    named = {"*": "*", "itself": actor_id, "its text": str(actor_id)}[allow]
    asking: list[Any] = [actor_id]

    def who(scope: Message) -> Any:
        return {"id": asking[0]}

    permissions = {"auth-tokens-create": {"id": named}, "manage-secrets": {"id": named}}
    app: Any = wrapped(App(), tmp_path, who, permissions=permissions)
    async with serving(app) as client:
        made = (await client.post(PATH + "/create.json", json={})).json()
        assert made["details"]["actor_id"] == str(actor_id)
        assert (await client.get(PATH + "/1")).status_code == 200
        assert (await client.post(SECRETS + "/KEY", data={"secret": "x"})).status_code == 302
        asking[0] = 8
        if allow != "*":
            assert (await client.post(PATH + "/create.json", json={})).status_code == 403
        assert (await client.get(PATH + "/1")).status_code == 404


@pytest.mark.parametrize(("actor", "words"), [({"id": 7.5}, "float"), ({"id": ["a"]}, "list"), ({"name": "a"}, "none")])
async def test_an_id_that_cannot_be_one_is_named(tmp_path: Path, actor: Any, words: str) -> None:
    app: Any = wrapped(App(), tmp_path, always(actor))
    async with serving(app) as client:
        answer = await client.get(PATH + ".json")
        assert answer.status_code == 403
        assert words in answer.json()["error"]
