"""The pages wherever the app stands: what is in front of it, who strips it, and what is around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from asgi_token_auth import SecretStore, TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web import SecretPages, TokenPages
from asgi_token_auth.web.mount import path_inside, root_of
from tests.support.asgi import SECRET, App, Message
from tests.support.page_sites import DAY, PATH, PERMISSIONS, signed_in
from tests.support.secret_sites import KEY
from tests.support.secret_sites import PATH as SECRETS

pytestmark = pytest.mark.anyio

ANN = {"x-user": '{"id": "ann"}'}


def block() -> dict[str, Any]:
    return {
        "manage_tokens": True,
        "manage_tokens_database": "db",
        "secrets": {"encryption_key": KEY, "database": "db"},
        "permissions": {**PERMISSIONS, "manage-secrets": True},
    }


def wrapped(app: Any, folder: Path, name: str = "t.db") -> Any:
    return from_config(app, block(), databases={"db": folder / name}, secret=SECRET, signed_in=signed_in)


def proxied(app: Any, root: str, *, told: str | None = None) -> httpx.AsyncClient:
    """A client of a server that tells ``root_path`` and leaves the path as it came."""

    async def server(scope: Message, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root if told is None else told}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://localhost", headers=ANN)


#: root_path, path, what is left of it inside of the app.
PLACES: list[tuple[str, str, str]] = [
    ("", "/a", "/a"),
    ("/", "/a", "/a"),
    ("", "", ""),
    ("/api", "/api/a", "/a"),
    ("/api", "/a", "/a"),
    ("/api", "/api", ""),
    ("/api", "/api.json", ".json"),
    ("/api", "/apis/a", "/apis/a"),
    # As uvicorn makes it of --root-path /api/ and of --root-path api.
    ("/api/", "/api//a", "/a"),
    ("/api/", "/api/a", "/api/a"),
    ("api", "api/a", "/a"),
    ("api", "/api/a", "/api/a"),
    ("/api/v1", "/api/v1/a", "/a"),
    ("/api/v1", "/a", "/a"),
    # Nobody strips a part of it.
    ("/api/v1", "/v1/a", "/v1/a"),
    ("/api/v1", "/v1", "/v1"),
    ("/a/a", "/a/a", ""),
    ("/a/a", "/a/b", "/a/b"),
    ("/\u65e5", "/\u65e5/a", "/a"),
]
#: root_path, that of the server, path, what is left of it inside of an app that is mounted in another.
MOUNTS: list[tuple[str, str, str, str]] = [
    ("/sub", "", "/sub/a", "/a"),
    ("/api/sub", "/api", "/api/sub/a", "/a"),
    ("/api/sub", "/api", "/sub/a", "/a"),
    ("/api/sub", "/api", "/sub", ""),
    ("/api/v1/sub/app", "/api/v1", "/api/v1/sub/app/a", "/a"),
    ("/api/v1/sub/app", "/api/v1", "/sub/app/a", "/a"),
    ("/api/v1/sub/app", "/api/v1", "/app/a", "/app/a"),
    ("/api/v1/sub/app", "/api/v1", "/v1/sub/app/a", "/v1/sub/app/a"),
    ("/api/v1/sub/app", "/api", "/sub/app/a", "/sub/app/a"),
    ("/api", "/ap", "i/a", "i/a"),
]


@pytest.mark.parametrize(("root", "path", "inside"), PLACES)
def test_the_path_inside_of_the_app(root: str, path: str, inside: str) -> None:
    assert path_inside({"root_path": root, "path": path}) == inside
    # Whoever guards a path of a Starlette app looks at this; the pages may be found nowhere else.
    if not inside.startswith("."):
        assert get_route_path({"root_path": root, "path": path}) == inside


@pytest.mark.parametrize(("root", "of_server", "path", "inside"), MOUNTS)
def test_the_path_inside_of_a_mounted_app(root: str, of_server: str, path: str, inside: str) -> None:
    assert path_inside({"root_path": root, "app_root_path": of_server, "path": path}) == inside


@given(st.text("/a.", max_size=8), st.text("/a.", max_size=8))
def test_no_path_is_read_otherwise_than_by_starlette(root: str, path: str) -> None:
    scope = {"root_path": root, "path": path}
    assert path_inside(scope) == get_route_path(scope) or path_inside(scope).startswith(".")


@pytest.mark.parametrize(
    ("root", "shown"), [("", ""), ("/", ""), ("api/", "/api"), ("//attacker.net", "/attacker.net")]
)
def test_what_stands_in_front_of_links_leads_to_no_other_host(root: str, shown: str) -> None:
    assert root_of({"root_path": root}) == shown
    assert root_of({}) == root_of({"root_path": None}) == ""


async def assert_links_lead_home(client: httpx.AsyncClient, asked: str, shown: str, pages: Sequence[str]) -> None:
    """Every link, form, redirect and style sheet of the pages below ``shown``, asked for below ``asked``."""
    for path in pages:
        seen: set[str] = set()
        for page in ("", "/create") if path == PATH else ("", "/KEY"):
            answer = await client.get(asked + path + page)
            assert answer.status_code == 200, answer.text
            links = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
            assert links
            for link in links:
                assert link.startswith((shown + PATH, shown + SECRETS)), (link, page)
            seen |= {link for link in links if "/static/" in link}
        assert len(seen) == 2
        for link in seen:
            assert (await client.get(asked + link.removeprefix(shown))).status_code == 200
    if PATH in pages:
        made = await client.post(asked + PATH + "/create", data=DAY)
        found = re.search(rf'href="{re.escape(shown + PATH)}/([0-9]+)"', made.text)
        assert found, made.text
        listed = (await client.get(asked + PATH + ".json?size=1")).json()
        assert listed["next_url"] is None or listed["next_url"].startswith(shown + PATH)
        ended = await client.post(f"{asked}{PATH}/{found[1]}", data={"revoke": "1"})
        assert ended.headers["location"] == f"{shown}{PATH}/{found[1]}"
    if SECRETS in pages:
        changed = await client.post(asked + SECRETS + "/KEY", data={"secret": "x"})
        assert changed.headers["location"].startswith(shown + SECRETS)
        sought = await client.get(asked + SECRETS + "?name=A")
        assert sought.headers["location"] == f"{shown}{SECRETS}/A"


@pytest.mark.parametrize("kind", ["Starlette", "another app"])
@pytest.mark.parametrize("asked", ["/api", ""], ids=["kept", "stripped"])
async def test_links_keep_the_root_path_on_every_server(tmp_path: Path, kind: str, asked: str) -> None:
    app = wrapped(Starlette() if kind == "Starlette" else App(), tmp_path)
    async with proxied(app, "/api") as client:
        await assert_links_lead_home(client, asked, "/api", [PATH, SECRETS])


@pytest.mark.parametrize("kind", ["Starlette", "another app"])
@pytest.mark.parametrize("asked", ["/api/sub", "/sub"], ids=["kept", "stripped"])
async def test_links_keep_the_place_where_the_app_is_mounted(tmp_path: Path, kind: str, asked: str) -> None:
    inner = wrapped(Starlette() if kind == "Starlette" else App(), tmp_path)
    async with proxied(Starlette(routes=[Mount("/sub", inner)]), "/api") as client:
        await assert_links_lead_home(client, asked, "/api/sub", [PATH, SECRETS])


@pytest.mark.parametrize("asked", ["/api", ""], ids=["kept", "stripped"])
async def test_pages_mounted_by_hand_keep_the_root_path(tmp_path: Path, asked: str) -> None:
    permissions = {**PERMISSIONS, "manage-secrets": True}
    async with (
        TokenStore(SQLite(tmp_path / "t.db"), secret=SECRET) as tokens,
        SecretStore(SQLite(tmp_path / "t.db"), encryption_key=KEY) as secrets,
    ):
        app = Starlette(
            routes=[
                Mount(PATH, TokenPages(tokens, signed_in=signed_in, permissions=permissions)),
                Mount(SECRETS, SecretPages(secrets, signed_in=signed_in, permissions=permissions)),
            ]
        )
        async with proxied(app, "/api") as client:
            # Starlette leads to the mount with a slash at its end.
            client.follow_redirects = True
            for path, page in ((PATH, "/create"), (SECRETS, "/KEY")):
                answer = await client.get(f"{asked}{path}{page}")
                assert answer.status_code == 200
                assert f'action="/api{path}{page}"' in answer.text


# It says that the server should be told, and still works.
@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("asked", ["/api", ""], ids=["kept", "stripped"])
async def test_the_root_path_that_fastapi_was_given_is_kept(tmp_path: Path, asked: str) -> None:
    app = wrapped(FastAPI(root_path="/api"), tmp_path)
    async with proxied(app, "") as client:
        await assert_links_lead_home(client, asked, "/api", [PATH, SECRETS])


async def test_a_root_path_with_two_slashes_leads_to_no_other_host(tmp_path: Path) -> None:
    app = wrapped(App(), tmp_path)
    async with proxied(app, "", told="//attacker.net") as client:
        page = (await client.get(PATH)).text
        assert 'href="/attacker.net/-/api/tokens/create"' in page
        assert '"//' not in page


class Named:
    """A middleware that says that it was there."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-named", self.name.encode())]
            await send(message)

        await self.app(scope, receive, named)


async def test_the_middleware_of_the_app_runs_once_around_the_pages(tmp_path: Path) -> None:
    async def inside(request: Request) -> PlainTextResponse:
        return PlainTextResponse("inside")

    inner = Starlette(routes=[Route("/", inside)], middleware=[Middleware(Named, name="early")])
    app = wrapped(inner, tmp_path)
    # What is added later stands around them too.
    inner.add_middleware(Named, name="late")
    async with proxied(app, "") as client:
        for path in (PATH, SECRETS, "/"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers.get_list("x-named") == ["early", "late"], path


async def test_an_app_that_is_wrapped_twice_has_the_pages_of_each(tmp_path: Path) -> None:
    inner = Starlette()
    first, second = wrapped(inner, tmp_path, "1.db"), wrapped(inner, tmp_path, "2.db")
    assert len(inner.user_middleware) == 1
    async with proxied(first, "") as one, proxied(second, "") as two, proxied(inner, "") as bare:
        await one.post(PATH + "/create", data={**DAY, "description": "kept by one"})
        assert "kept by one" in (await one.get(PATH)).text
        assert "kept by one" not in (await two.get(PATH)).text
        assert (await bare.get(PATH)).status_code == 404


async def test_pages_are_not_served_by_an_app_inside_of_the_app(tmp_path: Path) -> None:
    child = Starlette()
    wrapped(child, tmp_path, "child.db")
    app = wrapped(Starlette(routes=[Mount("/sub", child)]), tmp_path)
    async with proxied(app, "") as client:
        assert (await client.get(PATH)).status_code == 200
        assert (await client.get("/sub" + PATH)).status_code == 404


async def test_an_app_that_has_started_already_has_its_pages_in_front(tmp_path: Path) -> None:
    inner = Starlette()
    async with proxied(inner, "") as client:
        await client.get("/")
    async with proxied(wrapped(inner, tmp_path), "") as client:
        assert (await client.get(PATH)).status_code == 200
